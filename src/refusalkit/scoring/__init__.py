"""From records to figures: willingness, intervals, the hard-line audit, agreement with people."""

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
from refusalkit.scoring.families import families, same_family
from refusalkit.scoring.judges import JudgeAgreements, JudgePair, judge_agreements
from refusalkit.scoring.keywords import KeywordFallback
from refusalkit.scoring.willingness import Score, score_run

__all__ = [
    "SPLITS",
    "Agreement",
    "Audit",
    "AuditPlan",
    "AuditStatus",
    "Grades",
    "HardLine",
    "JudgeAgreements",
    "JudgePair",
    "KeywordFallback",
    "OverBlocking",
    "PlannedBound",
    "Score",
    "agreement",
    "audit_run",
    "families",
    "grade_run",
    "judge_agreements",
    "plan_audit",
    "reference_rates",
    "same_family",
    "score_run",
]
