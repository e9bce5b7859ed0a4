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
from refusalkit.scoring.judges import JudgeAgreements, JudgePair, judge_agreements
from refusalkit.scoring.trials import TrialAgreement, trial_agreement
from refusalkit.scoring.willingness import Score, score_run

__all__ = [
    "SPLITS",
    "Agreement",
    "Audit",
    "AuditStatus",
    "Grades",
    "HardLine",
    "JudgeAgreements",
    "JudgePair",
    "Score",
    "TrialAgreement",
    "agreement",
    "audit_run",
    "grade_run",
    "judge_agreements",
    "reference_rates",
    "score_run",
    "trial_agreement",
]
