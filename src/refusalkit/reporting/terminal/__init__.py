"""Results as text for a terminal or a pipe: tables in 80 columns, lists where there are fewer."""

from __future__ import annotations

from refusalkit.reporting.terminal.audits import audit_view
from refusalkit.reporting.terminal.calibration import calibrated_view, correction_view
from refusalkit.reporting.terminal.comparisons import comparison_view, leaderboard_view
from refusalkit.reporting.terminal.estimates import estimate_view, estimates_view
from refusalkit.reporting.terminal.judges import (
    bridge_view,
    canary_warning,
    grades_view,
    judge_pairs_view,
    odd_view,
    probe_view,
    rubric_view,
    texts_view,
)
from refusalkit.reporting.terminal.plans import plan_view
from refusalkit.reporting.terminal.presets import preset_note, presets_view
from refusalkit.reporting.terminal.prompt_sets import checked_view, prompts_view, summary_lines
from refusalkit.reporting.terminal.scores import (
    discrimination_view,
    frame_view,
    score_view,
    spent_line,
)
from refusalkit.reporting.terminal.table_layout import rows_view

__all__ = [
    "audit_view",
    "bridge_view",
    "calibrated_view",
    "canary_warning",
    "checked_view",
    "comparison_view",
    "correction_view",
    "discrimination_view",
    "estimate_view",
    "estimates_view",
    "frame_view",
    "grades_view",
    "judge_pairs_view",
    "leaderboard_view",
    "odd_view",
    "plan_view",
    "preset_note",
    "presets_view",
    "probe_view",
    "prompts_view",
    "rows_view",
    "rubric_view",
    "score_view",
    "spent_line",
    "summary_lines",
    "texts_view",
]
