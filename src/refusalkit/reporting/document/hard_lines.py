"""The section on hard lines: the audit's answer, framings, leaks, over-blocking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from refusalkit.reporting.document.facts import Facts, RunFacts
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
    stacked_point,
)
from refusalkit.scoring.audit import Audit
from refusalkit.scoring.hard_line import HardLine

_MAX_LEAKING = 100
_MAX_TRIALS = 12
_BOUND = "The leak rate is an exact one-sided 95\u00a0% bound on the share of such prompts"
_MARKS = {"compliance": "C", "partial": "P"}

Audits = Sequence[tuple[str, Audit]]


def hard_lines(report: Facts) -> Section | None:
    """The audit: the answer for each line and framing, the leaks, and safe twins refused."""
    runs = report.runs
    audits = [(facts.name, facts.audit) for facts in runs if facts.audit is not None]
    if not audits:
        return None
    several = len(runs) > 1
    caption = "Answer, and leaks among the scored responses" if several else _BOUND
    tables = [
        _table(audits, several, caption, "hard line", lambda audit: (*audit.lines, audit.overall))
    ]
    if any(audit.framings for _, audit in audits):
        caption = "All hard lines by framing"
        tables.append(_table(audits, several, caption, "framing", lambda audit: audit.framings))
    leaks = [
        {"name": facts.name, **_leaks(facts, facts.audit)}
        for facts in runs
        if facts.audit is not None and len(facts.audit.leaks)
    ]
    data = {
        "tables": tables,
        "framed": any(audit.framings for _, audit in audits),
        "leaks": leaks,
        "over_blocking": _over_blocking(audits, several),
        "pressure": _pressure(report),
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
    """A row for each line; several runs have a column each."""
    if not several:
        heads = [head, "answer", "prompts", "leaks", "unscored", "leak rate"]
        rows = [_row(line) for line in lines_of(audits[0][1])]
        return Table(caption, heads, rows, words=frozenset({1}))
    heads = [head, *(name for name, _ in audits)]
    by_run = [{line.slug: line for line in lines_of(audit)} for _, audit in audits]
    titles = {slug: line.title for lines in by_run for slug, line in lines.items()}
    rows = []
    # The overall line comes last.
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


def _leaks(facts: RunFacts, audit: Audit) -> dict[str, Any]:
    """The leaking prompts as a grid over trials, and how many there was no room for."""
    leaking: dict[str, list[dict[str, Any]]] = {}
    for row in audit.leaks.to_dicts():
        leaking.setdefault(row["prompt_id"], []).append(row)
    shown = dict(list(leaking.items())[:_MAX_LEAKING])
    units = facts.units.filter(pl.col("prompt_id").is_in(list(shown)))
    labels = {
        (name, trial): label
        for name, trial, label in units.select("prompt_id", "trial", "label").iter_rows()
    }
    framed = any(row["framing"] for rows in shown.values() for row in rows)
    n_trials = facts.score.trials
    columns = range(1, n_trials + 1) if n_trials <= _MAX_TRIALS else ()
    words = any(_told(row) for rows in shown.values() for row in rows)
    rows_of = []
    for name, rows in shown.items():
        first = rows[0]
        cells: list[str | Cell] = [str(first["frame_of"] or name)]
        cells += [str(first["framing"] or "bare")] if framed else []
        cells.append(f"{len(rows)} of {n_trials}")
        cells += [_mark(labels.get((name, trial))) for trial in columns]
        cells += ["; ".join(dict.fromkeys(filter(None, map(_told, rows))))] if words else []
        rows_of.append(cells)
    heads = ["leaking prompt", *(["framing"] if framed else []), "leaks", *map(str, columns)]
    heads += ["judge's word, basis"] if words else []
    left = {1} if framed else set()
    left |= {len(heads) - 1} if words else set()
    caption = "Leaks by trial: C compliance, P partial; \u00b7 held, ? unscored"
    return {
        "table": Table(caption, heads, rows_of, words=frozenset(left)),
        "more": len(leaking) - len(shown),
    }


def _mark(label: str | None) -> Cell:
    if label is None:
        return Cell("?", "inconclusive")
    return Cell(_MARKS[label], "crossed") if label in _MARKS else Cell("\u00b7")


def _told(leak: dict[str, Any]) -> str:
    """The judge's own word for a leak and the part of the answer it is based on, if stated."""
    word = str(leak["word"]) if leak["word"] not in (None, leak["label"]) else ""
    return ", ".join(filter(None, (word, leak["rests_on"])))


def _row(line: HardLine) -> list[str | Cell]:
    return [
        line.title,
        Cell(line.status.value, line.status.value),
        number(line.n_prompts),
        f"{line.leaks} on {line.leaking_prompts}" if line.leaks else "0",
        number(line.n_unscored),
        line.rate.replace(" %", "\u00a0%").replace("< ", "<\u00a0").replace("> ", ">\u00a0"),
    ]


def _over_blocking(audits: Audits, several: bool) -> Table | None:
    """Refusals of safe twins, by hard line."""
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


def _pressure(report: Facts) -> Table | None:
    """Refusals still held after each turn of insistence, of hard lines and of all prompts."""
    rows: list[list[str | Cell]] = []
    for facts in report.runs:
        pressure = facts.score.pressure
        if pressure is None:
            continue
        for title, turns in (("hard lines", pressure.hard_lines), ("all", pressure.turns)):
            for one in turns:
                held = one.held
                shown = stacked_point(held.value, held.low, held.high)
                cells: list[str | Cell] = [title, str(one.turn), shown, str(one.gave_way)]
                cells.append(number(held.n_responses))
                rows.append(cells if len(report.runs) == 1 else [facts.name, *cells])
    heads = ["refusals of", "turns of insistence", "still held, percent", "gave way", "known"]
    heads = heads if len(report.runs) == 1 else ["run", *heads]
    return (
        Table(
            "Refusals still held after so many turns of insistence",
            heads,
            rows,
            words=frozenset({heads.index("refusals of")}),
        )
        if rows
        else None
    )
