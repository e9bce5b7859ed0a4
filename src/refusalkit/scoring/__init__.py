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
from refusalkit.scoring.calibration import (
    Calibrated,
    Calibration,
    read_calibration,
    write_calibration,
)
from refusalkit.scoring.correction import CorrectedFigure, Correction, correct_score
from refusalkit.scoring.judges import (
    CategoryAgreement,
    JudgeAgreements,
    JudgePair,
    judge_agreements,
)
from refusalkit.scoring.prediction_powered import correct_by_labels
from refusalkit.scoring.willingness import Score, score_run

__all__ = [
    "SPLITS",
    "Agreement",
    "Audit",
    "AuditStatus",
    "Calibrated",
    "Calibration",
    "CategoryAgreement",
    "CorrectedFigure",
    "Correction",
    "Grades",
    "HardLine",
    "JudgeAgreements",
    "JudgePair",
    "Score",
    "agreement",
    "audit_run",
    "correct_by_labels",
    "correct_score",
    "grade_run",
    "judge_agreements",
    "read_calibration",
    "reference_rates",
    "score_run",
    "write_calibration",
]
