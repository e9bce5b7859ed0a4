"""Building blocks of the views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from refusalkit.untrusted import printable

# Narrower terminals get a list where a table does not fit: its cells would break within words.
_NARROW = 80
_ANY_WIDTH = 100_000


class _Table(Table):
    """A table, or a list of its rows in a terminal that is too narrow for it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        natural = self.__rich_measure__(console, options.update(max_width=_ANY_WIDTH)).maximum
        if options.max_width >= _NARROW or natural <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        heads = [_plain(column.header) for column in self.columns]
        for first, *rest in zip(*(column.cells for column in self.columns), strict=True):
            yield Text(_plain(first) or "-")
            named = zip(heads[1:], map(_plain, rest), strict=True)
            said = [f"{head} {cell}".strip() for head, cell in named if cell]
            lines = Text("\n".join(_packed(said, options.max_width - 2)))
            yield Padding(lines, (0, 0, 0, 2), expand=False)


def _packed(parts: Iterable[str], width: int) -> list[str]:
    """Parts with semicolons between them, in lines that end with one of them."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(f"{lines[-1]}; {part};") <= width:
            lines[-1] += f"; {part}"
        else:
            lines = [*lines[:-1], *(f"{line};" for line in lines[-1:]), part]
    return lines


def _plain(cell: Any) -> str:
    return (cell.plain if isinstance(cell, Text) else str(cell)).rstrip()


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
    table = _Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
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
