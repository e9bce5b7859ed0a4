"""Building blocks of the views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from refusalkit.untrusted import printable


def rows_view(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> RenderableType:
    """A plain table with figures right-aligned and words left-aligned."""
    table = build_table(*heads)
    for row in rows:
        for column, cell in zip(table.columns, row, strict=True):
            column.justify = "right" if isinstance(cell, int) else "left"
        table.add_row(*(Text(printable(cell, 400)) for cell in row))
    return table


def build_table(*heads: str) -> Table:
    """An empty table: the first column left-aligned, the others right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index == 0 else "right", overflow="fold")
    return table


def percent(value: float | None) -> str:
    """A percentage as a cell; a dash for None."""
    return "-" if value is None else f"{value:.0f}"


_EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"


def block_bar(value: float | None, width: int) -> str:
    """A percentage as a bar of up to `width` blocks, to an eighth of a block; empty for None."""
    if value is None:
        return ""
    eighths = round(min(max(value, 0.0), 100.0) / 100 * width * 8)
    full, rest = divmod(eighths, 8)
    return "\u2588" * full + (_EIGHTHS[rest] if rest else "")


def counts(counts: dict[str, int]) -> str:
    """The counts above zero, by name."""
    said = (f"{printable(name, 80)} {count}" for name, count in counts.items() if count)
    return ", ".join(said) or "none"
