"""From records to figures: willingness, intervals, comparison, the hard-line audit, agreement."""

from refusalkit.scoring.agreement import (
    SPLITS,
    Agreement,
    Grades,
    agreement,
    grade_run,
    reference_rates,
)
from refusalkit.scoring.audit import Audit, AuditStatus, HardLine, audit_run
from refusalkit.scoring.comparison import (
    FIGURES,
    Comparison,
    Difference,
    Gate,
    GateStatus,
    Pair,
    compare_runs,
)
from refusalkit.scoring.judges import JudgeAgreements, JudgePair, judge_agreements
from refusalkit.scoring.leaderboard import Leaderboard, leaderboard_of
from refusalkit.scoring.variance import Variance
from refusalkit.scoring.willingness import Score, score_run

__all__ = [
    "FIGURES",
    "SPLITS",
    "Agreement",
    "Audit",
    "AuditStatus",
    "Comparison",
    "Difference",
    "Gate",
    "GateStatus",
    "Grades",
    "HardLine",
    "JudgeAgreements",
    "JudgePair",
    "Leaderboard",
    "Pair",
    "Score",
    "Variance",
    "agreement",
    "audit_run",
    "compare_runs",
    "grade_run",
    "judge_agreements",
    "leaderboard_of",
    "reference_rates",
    "score_run",
]
