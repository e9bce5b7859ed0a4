"""The parts of a section: tables, figures and legends, as plain data for templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from refusalkit.types import Estimate
from refusalkit.untrusted import printable

ALL = frozenset(range(1, 100))
"""For a table in which every column holds words."""

NOTHING = "\u2013"
"""Shown where there is no figure."""


@dataclass(frozen=True)
class Cell:
    """A cell. `kind` is ``held``, ``crossed``, ``inconclusive`` or empty; `below` is set small."""

    text: str
    kind: str = ""
    below: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The first cell of a row is its heading; columns in `words` are left-aligned.

    The cells of a `prose` table wrap.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: frozenset[int] = frozenset()
    prose: bool = False

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, each cell a `Cell`."""
        return [
            [cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows
        ]


@dataclass(frozen=True)
class Figure:
    """A plot, with a second version for phones if the first would be too small there."""

    wide: Markup
    narrow: Markup | None = None
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One section of the page. `template`, a file in templates/report, receives `data`."""

    id: str
    title: str
    template: str
    data: dict[str, Any] = field(default_factory=dict)


def breakable(name: str) -> Markup:
    """A name that may be broken across lines after a slash."""
    return Markup("/<wbr>").join(escape(part) for part in name.split("/"))


def percent(value: float | None) -> str:
    """A percentage to one decimal."""
    return NOTHING if value is None else f"{value:.1f}"


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval."""
    return NOTHING if low is None or high is None else f"{low:.1f} to {high:.1f}"


def in_words(estimate: Estimate) -> str:
    """An estimate followed by its interval."""
    if estimate.value is None:
        return NOTHING
    return f"{percent(estimate.value)} ({interval(estimate.low, estimate.high)})"


def stacked(estimate: Estimate) -> Cell:
    """An estimate with its interval below it."""
    return stacked_point(estimate.value, estimate.low, estimate.high)


def stacked_point(value: float | None, low: float | None, high: float | None) -> Cell:
    """A value with its interval below it."""
    return Cell(percent(value), below="" if value is None else interval(low, high))


def number(value: float | None, unit: str = "") -> str:
    """A count or a quantity, with thin spaces between thousands."""
    if value is None:
        return "unknown"
    if not float(value).is_integer():
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
        shown = f"{value:,.{digits}f}"
    else:
        shown = f"{int(value):,}"
    return shown.replace(",", "\u2009") + (f"\u00a0{unit}" if unit else "")


def dollars(value: float | None) -> str:
    """An amount of USD, to two significant digits if small."""
    if value is None:
        return "unknown"
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 1 else f"${value:.2g}" if value < 0.01 else f"${value:.3f}"


def time(seconds: float | None) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return number(round(seconds, 1), "s")
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}\u00a0h {minutes}\u00a0min" if hours else f"{minutes}\u00a0min"


def printable_lines(text: str, limit: int = 20_000) -> str:
    """`printable`, with line ends kept."""
    return "\n".join(printable(line, limit) for line in text[:_MAX_CHARS].split("\n"))


_MAX_CHARS = 200_000


def share(part: float, whole: float) -> float:
    """`part` of `whole` in percent; 0 if `whole` is 0."""
    return 100 * part / whole if whole else 0.0


def one_or(names: list[str], alone: str) -> list[str]:
    """Column heads for several runs (their names), or `alone` for a single one."""
    return names if len(names) > 1 else [alone]
