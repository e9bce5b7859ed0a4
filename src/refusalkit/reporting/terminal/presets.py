"""The presets side by side on a terminal."""

from __future__ import annotations

import textwrap

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from refusalkit.reporting.data.presets import DESCRIPTIONS, NAMES, PresetRow, preset_rows
from refusalkit.reporting.terminal.table_layout import build_table

_NOT_STATED = "not stated"


def presets_view() -> RenderableType:
    """All rows: first the presets, then the report and the environment."""
    rows = preset_rows()
    sources = _left(build_table("", "the Hermes 4 report", "the reference environment"))
    for row in rows:
        sources.add_row(row.aspect, row.report or _NOT_STATED, row.environment)
    return Group(
        *(Text(f"{name}: {DESCRIPTIONS[name]}") for name in NAMES),
        Text(),
        _side_by_side(rows),
        Text(),
        sources,
    )


def preset_note(preset: str, columns: int = 80) -> RenderableType:
    """The note before a run with a preset: where presets differ, what the report leaves open."""
    rows = preset_rows()
    unknown = ", ".join(row.aspect for row in rows if row.report is None)
    line = f"The report does not state: {unknown}. All of it: refusalkit presets"
    return Group(
        Text(textwrap.fill(f"Preset {preset}: {DESCRIPTIONS[preset]}.", columns)),
        Text("Where the presets differ (an option given beside one comes first):"),
        _side_by_side([row for row in rows if row.differs]),
        Text(textwrap.fill(line, columns)),
    )


def _side_by_side(rows: list[PresetRow]) -> Table:
    table = _left(build_table("", *NAMES))
    for row in rows:
        table.add_row(row.aspect, *(row.presets[name] for name in NAMES))
    return table


def _left(table: Table) -> Table:
    for column in table.columns:
        column.justify = "left"
        column.overflow = "fold"
    return table
