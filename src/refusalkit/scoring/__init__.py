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
from refusalkit.scoring.probes import AttackLine, JudgeProbe, ProbeStatus, judge_probe
from refusalkit.scoring.willingness import Score, score_run

__all__ = [
    "SPLITS",
    "Agreement",
    "AttackLine",
    "Audit",
    "AuditStatus",
    "Grades",
    "HardLine",
    "JudgeAgreements",
    "JudgePair",
    "JudgeProbe",
    "ProbeStatus",
    "Score",
    "agreement",
    "audit_run",
    "grade_run",
    "judge_agreements",
    "judge_probe",
    "reference_rates",
    "score_run",
]
