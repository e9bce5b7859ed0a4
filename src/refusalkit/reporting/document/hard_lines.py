"""The section on hard lines: what the audit answers, framings, leaks by id, over-blocking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refusalkit.reporting.document.facts import RunFacts
from refusalkit.reporting.document.parts import (
    ALL,
    NOTHING,
    Cell,
    Section,
    Table,
    interval,
    number,
    percent,
    stacked,
)
from refusalkit.scoring.audit import Audit, HardLine

_MAX_LEAKS = 50
_BOUND = "The leak rate is an exact one-sided 95\u00a0% bound on the share of such prompts"

Audits = Sequence[tuple[str, Audit]]


def hard_lines(runs: Sequence[RunFacts]) -> Section | None:
    """The audit: each line's answer, each framing's, each leak by id, safe twins refused."""
    audits = [(facts.name, facts.audit) for facts in runs if facts.audit is not None]
    if not audits:
        return None
    several = len(runs) > 1
    caption = "The audit's answer, and leaks among the scored responses" if several else _BOUND
    tables = [
        _table(audits, several, caption, "hard line", lambda audit: (*audit.lines, audit.overall))
    ]
    if any(audit.framings for _, audit in audits):
        caption = "All hard lines, by how their requests were asked"
        tables.append(_table(audits, several, caption, "asked as", lambda audit: audit.framings))
    leaks = [
        {
            "name": name,
            "units": audit.leaks.head(_MAX_LEAKS).to_dicts(),
            "more": max(0, len(audit.leaks) - _MAX_LEAKS),
        }
        for name, audit in audits
        if len(audit.leaks)
    ]
    data = {
        "tables": tables,
        "framed": any(audit.framings for _, audit in audits),
        "leaks": leaks,
        "over_blocking": _over_blocking(audits, several),
        "several": several,
    }
    return Section("hard-lines", "Hard lines", "hard_lines.html.j2", data)


def _table(
    audits: Audits,
    several: bool,
    caption: str,
    head: str,
    lines_of: Callable[[Audit], Sequence[HardLine]],
) -> Table:
    """A row for each line; of several runs a column for each."""
    if not several:
        heads = [head, "answer", "prompts", "leaks", "unscored", "leak rate"]
        rows = [_row(line) for line in lines_of(audits[0][1])]
        return Table(caption, heads, rows, words=frozenset({1}))
    heads = [head, *(name for name, _ in audits)]
    by_run = [{line.slug: line for line in lines_of(audit)} for _, audit in audits]
    titles = {slug: line.title for lines in by_run for slug, line in lines.items()}
    rows = []
    # All of them together stand last.
    for slug in sorted(titles, key=lambda slug: slug == "all"):
        cells: list[str | Cell] = [titles[slug]]
        for lines in by_run:
            line = lines.get(slug)
            if line is None:
                cells.append(NOTHING)
            else:
                said = f"{line.status.value}, {line.leaks} of {line.n_scored}"
                cells.append(Cell(said, line.status.value))
        rows.append(cells)
    return Table(caption, heads, rows, words=ALL)


def _row(line: HardLine) -> list[str | Cell]:
    return [
        line.title,
        Cell(line.status.value, line.status.value),
        number(line.n_prompts),
        f"{line.leaks} on {line.leaking_prompts}" if line.leaks else "0",
        number(line.n_unscored),
        f"<\u00a0{line.upper_percent:.1f}\u00a0%",
    ]


def _over_blocking(audits: Audits, several: bool) -> Table | None:
    """How often safe twins of hard lines are refused."""
    found = [(name, {one.slug: one for one in audit.over_blocking}) for name, audit in audits]
    titles = {slug: one.title for _, lines in found for slug, one in lines.items()}
    if not titles:
        return None
    rows: list[list[str | Cell]] = []
    for slug in sorted(titles, key=lambda slug: slug == "all"):
        ones = [lines.get(slug) for _, lines in found]
        cells: list[str | Cell] = [titles[slug]]
        if several:
            cells += [NOTHING if one is None else stacked(one.refused) for one in ones]
        elif (one := ones[0]) is not None:
            refused = one.refused
            cells += [number(one.n_contrast), number(refused.n_responses)]
            cells += [percent(refused.value), interval(refused.low, refused.high)]
        rows.append(cells)
    alone = ["twins", "responses", "refused, percent", "95\u00a0% interval"]
    heads = ["safe twins of", *([name for name, _ in found] if several else alone)]
    return Table("Responses to safe twins refused, in percent", heads, rows)
