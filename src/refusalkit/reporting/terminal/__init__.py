"""Scores, audits and sets as text for a terminal or a pipe."""

from __future__ import annotations

from refusalkit.reporting.terminal.calibration import calibrated_view, correction_view
from refusalkit.reporting.terminal.judges import (
    grades_view,
    judge_pairs_view,
    rubric_view,
    texts_view,
)
from refusalkit.reporting.terminal.prompt_sets import checked_view, prompts_view, summary_lines
from refusalkit.reporting.terminal.scores import (
    audit_view,
    discrimination_view,
    frame_view,
    score_view,
)
from refusalkit.reporting.terminal.tables import rows_view

__all__ = [
    "audit_view",
    "calibrated_view",
    "checked_view",
    "correction_view",
    "discrimination_view",
    "frame_view",
    "grades_view",
    "judge_pairs_view",
    "prompts_view",
    "rows_view",
    "rubric_view",
    "score_view",
    "summary_lines",
    "texts_view",
]
