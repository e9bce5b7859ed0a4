"""Several runs compared with the first: differences, categories, prompts that flipped."""

from __future__ import annotations

from typing import Any

from refusalkit.reporting.data import interval_text, p_text
from refusalkit.reporting.document.facts import Facts
from refusalkit.reporting.document.parts import NOTHING, Cell, Section, Table, number, percent
from refusalkit.scoring.compare.result import SIGNIFICANT, Comparison, Difference, Pair
from refusalkit.scoring.figures import figure_title

_MAX_FLIPPED = 50
_MAX_CATEGORIES = 40


def differences(report: Facts) -> Section | None:
    """The first run minus each other run, or a note that they cannot be compared."""
    if len(report.runs) < 2:
        return None
    if report.comparison is None:
        return Section("differences", "Differences", "differences.html.j2", {"refused": True})
    names = [run.name for run in report.runs]
    pairs = against_first(report.comparison)
    data: dict[str, Any] = {
        "refused": False,
        "first": names[0],
        "several": len(pairs) > 1,
        "paired": all(pair.paired for pair in pairs),
        "common": sorted({pair.n_common for pair in pairs}),
        "table": _two(names, pairs[0]) if len(pairs) == 1 else _willingness(names, pairs),
        "others": None if len(pairs) == 1 else _others(names, pairs),
        "categories": _categories(names, pairs),
        "flipped": [_flipped(names, pair) for pair in pairs if len(pair.flipped)],
        "notes": report.comparison.notes,
    }
    return Section("differences", "Differences", "differences.html.j2", data)


def against_first(found: Comparison) -> list[Pair]:
    """The pairs that include the first run."""
    return [pair for pair in found.pairs if pair.first == 0]


def in_a_sentence(facts: Facts) -> str | None:
    """The difference between two runs, for the first screen; None unless there are two."""
    if facts.comparison is None or len(facts.runs) != 2:
        return None
    item = facts.comparison.willingness
    if item.estimate.value is None:
        return "No prompt was scored in both runs"
    first, second = (run.name for run in facts.runs)
    span = interval_text(item.estimate.low, item.estimate.high)
    paired = ", paired by prompt" if facts.comparison.pair.paired else ""
    return (
        f"{first} minus {second}: {item.estimate.value:+.1f} points (95\u00a0% interval {span}, "
        f"p {p_text(item.p)}){paired}"
    )


def _two(names: list[str], pair: Pair) -> Table:
    rows: list[list[str | Cell]] = [
        [
            figure_title(name),
            _change(item)[0],
            _with_asked_again(item),
            p_text(item.p),
            percent(item.first),
            percent(item.second),
            number(item.estimate.n_prompts),
        ]
        for name, item in pair.figures.items()
        if item.estimate.value is not None
    ]
    heads = ["rate", "difference", "95\u00a0% interval", "p"]
    heads += [names[0], names[pair.second], "prompts"]
    caption = f"{names[0]} minus {names[pair.second]} in points; the two rates in percent"
    return Table(caption, heads, rows)


def _willingness(names: list[str], pairs: list[Pair]) -> Table:
    rows: list[list[str | Cell]] = [
        [
            names[pair.second],
            *_change(pair.willingness),
            p_text(pair.willingness.p),
            p_text(pair.p_holm),
            number(pair.willingness.estimate.n_prompts),
        ]
        for pair in pairs
    ]
    heads = ["minus", "willingness, points", "95\u00a0% interval", "p", "p (Holm)", "prompts"]
    return Table(f"{names[0]} minus each other run", heads, rows)


def _others(names: list[str], pairs: list[Pair]) -> Table:
    figures = [name for name in pairs[0].figures if name != "willingness"]
    rows: list[list[str | Cell]] = []
    for pair in pairs:
        cells: list[str | Cell] = [names[pair.second]]
        for name in figures:
            item = pair.figures.get(name)
            if item is None or item.estimate.value is None:
                cells.append(NOTHING)
            else:
                value, span = _change(item)
                cells.append(Cell(value, below=f"{span}, p {p_text(item.p)}"))
        rows.append(cells)
    heads = ["minus", *map(figure_title, figures)]
    return Table("Other rates in points; p values not corrected", heads, rows)


def _categories(names: list[str], pairs: list[Pair]) -> Table | None:
    """The categories that differ significantly after Holm's correction."""
    several = len(pairs) > 1
    rows: list[list[str | Cell]] = []
    for pair in pairs:
        for row in pair.by_category.to_dicts():
            if row["p_holm"] is not None and row["p_holm"] <= SIGNIFICANT:
                title = f"{row['title']} (hard line)" if row["hard_line"] else str(row["title"])
                rows.append(
                    [
                        title,
                        *([names[pair.second]] if several else []),
                        percent(row["first"]),
                        percent(row["second"]),
                        f"{row['difference']:+.1f}",
                        interval_text(row["low"], row["high"]),
                        p_text(row["p_holm"]),
                    ]
                )
    if not rows:
        return None
    heads = ["category", *(["minus"] if several else []), names[0]]
    heads += [
        "the other" if several else names[pairs[0].second],
        "difference",
        "95\u00a0% interval",
    ]
    heads.append("p (Holm)")
    caption = "Categories whose willingness differs significantly (Holm over the categories)"
    words = frozenset({1}) if several else frozenset[int]()
    return Table(caption, heads, rows[:_MAX_CATEGORIES], words=words)


def _flipped(names: list[str], pair: Pair) -> dict[str, Any]:
    return {
        "name": names[pair.second],
        "n": len(pair.flipped),
        "prompts": [
            {**row, "first": percent(row["first"]), "second": percent(row["second"])}
            for row in pair.flipped.head(_MAX_FLIPPED).to_dicts()
        ],
        "more": max(0, len(pair.flipped) - _MAX_FLIPPED),
    }


def _with_asked_again(item: Difference) -> Cell:
    """The interval for prompts like these, and below it the one for these prompts, asked again."""
    again = item.estimate.asked_again
    below = ""
    if again is not None:
        below = f"asked again {interval_text(*again)}, p {p_text(item.p_asked_again)}"
    return Cell(_change(item)[1], below=below)


def _change(item: Difference) -> tuple[str, str]:
    estimate = item.estimate
    if estimate.value is None:
        return NOTHING, NOTHING
    return f"{estimate.value:+.1f}", interval_text(estimate.low, estimate.high)
