"""Results as plain data, the source of JSON, CSV and Markdown output."""

from __future__ import annotations

from refusalkit.reporting.data.audits import audit_data
from refusalkit.reporting.data.comparisons import (
    comparison_data,
    comparison_markdown,
    interval_text,
    leaderboard_data,
    leaderboard_markdown,
    leaderboard_rows,
    p_text,
)
from refusalkit.reporting.data.estimates import estimate_data, estimates_data
from refusalkit.reporting.data.formats import (
    dollars,
    harmless_cell,
    spent_words,
    to_csv,
    to_json,
    to_json_bytes,
    to_markdown,
)
from refusalkit.reporting.data.judges import (
    bridge_data,
    calibrated_data,
    correction_data,
    correction_rows,
    council_data,
    grades_data,
    judge_pairs_data,
    probe_data,
    rubric_data,
)
from refusalkit.reporting.data.plans import plan_data
from refusalkit.reporting.data.presets import DESCRIPTIONS, PresetRow, preset_rows, presets_data
from refusalkit.reporting.data.prompt_sets import prompts_data, validation_data
from refusalkit.reporting.data.scores import (
    BY,
    PARTS,
    discrimination_figures,
    figure_rows,
    figures,
    frame_by,
    frame_rows,
    inversion_line,
    score_data,
    set_lines,
)

__all__ = [
    "BY",
    "DESCRIPTIONS",
    "PARTS",
    "PresetRow",
    "audit_data",
    "bridge_data",
    "calibrated_data",
    "comparison_data",
    "comparison_markdown",
    "correction_data",
    "correction_rows",
    "council_data",
    "discrimination_figures",
    "dollars",
    "estimate_data",
    "estimates_data",
    "figure_rows",
    "figures",
    "frame_by",
    "frame_rows",
    "grades_data",
    "harmless_cell",
    "interval_text",
    "inversion_line",
    "judge_pairs_data",
    "leaderboard_data",
    "leaderboard_markdown",
    "leaderboard_rows",
    "p_text",
    "plan_data",
    "preset_rows",
    "presets_data",
    "probe_data",
    "prompts_data",
    "rubric_data",
    "score_data",
    "set_lines",
    "spent_words",
    "to_csv",
    "to_json",
    "to_json_bytes",
    "to_markdown",
    "validation_data",
]
