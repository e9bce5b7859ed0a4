"""Scores and audits as plain data: what JSON, CSV and Markdown are made of."""

from __future__ import annotations

from refusalkit.reporting.data.forms import to_csv, to_json, to_markdown
from refusalkit.reporting.data.judges import (
    calibrated_data,
    correction_data,
    correction_rows,
    grades_data,
    judge_pairs_data,
    rubric_data,
)
from refusalkit.reporting.data.prompt_sets import prompts_data
from refusalkit.reporting.data.scores import (
    BY,
    audit_data,
    discrimination_figures,
    figure_rows,
    figures,
    frame_by,
    frame_rows,
    inversion_line,
    score_data,
)

__all__ = [
    "BY",
    "audit_data",
    "calibrated_data",
    "correction_data",
    "correction_rows",
    "discrimination_figures",
    "figure_rows",
    "figures",
    "frame_by",
    "frame_rows",
    "grades_data",
    "inversion_line",
    "judge_pairs_data",
    "prompts_data",
    "rubric_data",
    "score_data",
    "to_csv",
    "to_json",
    "to_markdown",
]
