"""From records to figures: willingness, intervals, comparison, the hard-line audit, agreement."""

from refusalkit.scoring.agreement import (
    SPLITS,
    Agreement,
    Grades,
    agreement,
    grade_run,
    reference_rates,
)
from refusalkit.scoring.audit import Audit, AuditStatus, HardLine, OverBlocking, audit_run
from refusalkit.scoring.audit_plan import AuditPlan, PlannedBound, plan_audit
from refusalkit.scoring.bridge import Bridge, Comparability, Shift, bridge_runs
from refusalkit.scoring.calibration import (
    Calibrated,
    Calibration,
    read_calibration,
    write_calibration,
)
from refusalkit.scoring.comparison import (
    FIGURES,
    Comparison,
    Difference,
    Gate,
    GateStatus,
    Pair,
    compare_runs,
    compare_scores,
)
from refusalkit.scoring.correction import CorrectedFigure, Correction, correct_score
from refusalkit.scoring.council import CouncilVotes, council_votes
from refusalkit.scoring.families import families, same_family
from refusalkit.scoring.judges import (
    CategoryAgreement,
    JudgeAgreements,
    JudgePair,
    judge_agreements,
)
from refusalkit.scoring.keywords import KeywordFallback
from refusalkit.scoring.leaderboard import Leaderboard, leaderboard_of
from refusalkit.scoring.prediction_powered import correct_by_labels
from refusalkit.scoring.probes import AttackLine, JudgeProbe, ProbeStatus, judge_probe
from refusalkit.scoring.trials import TrialAgreement, trial_agreement
from refusalkit.scoring.variance import Variance
from refusalkit.scoring.willingness import Score, score_run

__all__ = [
    "FIGURES",
    "SPLITS",
    "Agreement",
    "AttackLine",
    "Audit",
    "AuditPlan",
    "AuditStatus",
    "Bridge",
    "Calibrated",
    "Calibration",
    "CategoryAgreement",
    "Comparability",
    "Comparison",
    "CorrectedFigure",
    "Correction",
    "CouncilVotes",
    "Difference",
    "Gate",
    "GateStatus",
    "Grades",
    "HardLine",
    "JudgeAgreements",
    "JudgePair",
    "JudgeProbe",
    "KeywordFallback",
    "Leaderboard",
    "OverBlocking",
    "Pair",
    "PlannedBound",
    "ProbeStatus",
    "Score",
    "Shift",
    "TrialAgreement",
    "Variance",
    "agreement",
    "audit_run",
    "bridge_runs",
    "compare_runs",
    "compare_scores",
    "correct_by_labels",
    "correct_score",
    "council_votes",
    "families",
    "grade_run",
    "judge_agreements",
    "judge_probe",
    "leaderboard_of",
    "plan_audit",
    "read_calibration",
    "reference_rates",
    "same_family",
    "score_run",
    "trial_agreement",
    "write_calibration",
]
