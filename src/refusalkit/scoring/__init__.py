"""From records to figures: willingness, intervals, the hard-line audit, agreement with people."""

from refusalkit.scoring.agreement import (
    SPLITS,
    Agreement,
    Grades,
    agreement,
    grade_run,
    reference_rates,
)
from refusalkit.scoring.audit import Audit, AuditStatus, HardLine, audit_run
from refusalkit.scoring.bridge import Bridge, Comparability, Shift, bridge_runs
from refusalkit.scoring.council import CouncilVotes, council_votes
from refusalkit.scoring.judges import JudgeAgreements, JudgePair, judge_agreements
from refusalkit.scoring.willingness import Score, score_run

__all__ = [
    "SPLITS",
    "Agreement",
    "Audit",
    "AuditStatus",
    "Bridge",
    "Comparability",
    "CouncilVotes",
    "Grades",
    "HardLine",
    "JudgeAgreements",
    "JudgePair",
    "Score",
    "Shift",
    "agreement",
    "audit_run",
    "bridge_runs",
    "council_votes",
    "grade_run",
    "judge_agreements",
    "reference_rates",
    "score_run",
]
