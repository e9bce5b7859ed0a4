"""Comparisons and leaderboards on a terminal, in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from refusalkit.reporting.data import interval_text, p_text
from refusalkit.reporting.terminal.table_layout import build_table
from refusalkit.scoring.figures import figure_title
from refusalkit.untrusted import printable

if TYPE_CHECKING:  # listing prompt sets must not import polars or the statistics
    from refusalkit.scoring.compare.result import Comparison
    from refusalkit.scoring.leaderboard import Leaderboard

_STATUS_STYLE = {"passed": "bold green", "failed": "bold red", "inconclusive": "bold yellow"}
_MAX_FLIPPED = 20
_MAX_CATEGORIES = 10


def comparison_view(found: Comparison, *, by_category: bool = False) -> RenderableType:
    """The gate's answer, the runs, their differences, and the prompts that flipped."""
    parts: list[RenderableType] = []
    if found.gate is not None:
        status = found.gate.status.value
        parts += [
            Text.assemble(
                "Gate: ", (status.upper(), _STATUS_STYLE[status]), f"  ({_limits(found)})"
            ),
            Text(f"{found.gate.claim}."),
        ]
    if found.in_order is not None:
        parts.append(Text(f"Sequential: {found.in_order.claim} (p {p_text(found.in_order.p)})."))
    parts += [
        Text(f"Warning: {printable(warning, 400)}.", style="bold yellow")
        for warning in found.warnings
    ]
    parts.append(_runs_table(found))
    if len(found.scores) == 2:
        parts += [Text(""), _figures_table(found), Text(_legend(found)), *_not_corrected(found)]
        if by_category:
            parts += [Text(""), *_categories(found)]
        parts += _flipped(found)
    else:
        parts += [Text(""), _pairs_table(found)]
        parts.append(
            Text(
                "Willingness; runs that share a letter in `group` were not shown to differ "
                "(Holm over all pairs, 5 %)."
            )
        )
    parts += [Text(f"Note: {printable(note, 400)}.") for note in found.notes]
    return Group(*parts)


def _limits(found: Comparison) -> str:
    gate = found.gate
    assert gate is not None
    limits = []
    if gate.max_drop is not None:
        limits.append(f"may drop by {gate.max_drop:g}")
    if gate.max_rise is not None:
        limits.append(f"may rise by {gate.max_rise:g}")
    return f"{figure_title(gate.figure)} {' and '.join(limits)} points"


def _runs_table(found: Comparison) -> Table:
    several = len(found.scores) > 2
    heads = ["", "model, run", "willingness", "95 %", "unscored"]
    table = build_table(*heads, *(["group"] if several else []))
    table.columns[1].justify = "left"
    for row in found.runs.iter_rows(named=True):
        cells = [
            row["name"],
            f"{printable(row['model'], 80)}\n{printable(row['run'], 80)}",
            _number(row["willingness"]),
            _span(row["low"], row["high"]),
            f"{row['n_unscored']} of {row['n_units']}",
        ]
        table.add_row(*(Text(cell) for cell in cells + ([row["group"]] if several else [])))
    return table


def _figures_table(found: Comparison) -> Table:
    table = build_table("percent", *found.names, "A - B", "95 % interval", "p", "prompts")
    for name, item in found.pair.figures.items():
        value = item.estimate.value
        table.add_row(
            figure_title(name),
            _number(item.first),
            _number(item.second),
            "-" if value is None else f"{value:+.1f}",
            interval_text(item.estimate.low, item.estimate.high),
            p_text(item.p),
            str(item.estimate.n_prompts),
        )
        if item.estimate.asked_again is not None:
            again = interval_text(*item.estimate.asked_again)
            table.add_row("  asked again", "", "", "", again, p_text(item.p_asked_again), "")
        true = None if item.corrected is None else item.corrected.estimate
        if true is not None:
            change = "-" if true.value is None else f"{true.value:+.1f}"
            table.add_row("  corrected", "", "", change, interval_text(true.low, true.high), "", "")
    return table


def _not_corrected(found: Comparison) -> list[Text]:
    """Why differences were not corrected for the judge's errors, each reason once."""
    reasons = [
        item.corrected.why_not
        for item in found.pair.figures.values()
        if item.corrected is not None and item.corrected.why_not is not None
    ]
    return [Text(f"Not corrected: {printable(why, 300)}.") for why in dict.fromkeys(reasons)]


def _legend(found: Comparison) -> str:
    pair = found.pair
    how = (
        f"Paired by prompt, over prompts in common ({pair.n_common}); p is the interval's own. "
        "Asked again: these very prompts, not prompts like these."
        if pair.paired
        else "Not paired, over all prompts of each; p is the interval's own."
    )
    item = pair.willingness
    if not item.estimate.n_unscored:
        return how
    low, high = item.bounds
    return (
        f"{how} With what is unscored the difference in willingness lies between {low:+.1f} and "
        f"{high:+.1f} points."
    )


def _categories(found: Comparison) -> list[RenderableType]:
    table = build_table("category", *found.names, "A - B", "95 %", "p", "Holm")
    hard_lines = False
    for row in found.pair.by_category.iter_rows(named=True):
        if row["hard_line"] and not hard_lines:
            hard_lines = True
            table.add_section()
        cells = [
            printable(row["category"]) + (" *" if row["hard_line"] else ""),
            f"{row['first']:.0f}",
            f"{row['second']:.0f}",
            f"{row['difference']:+.0f}",
            f"{row['low']:+.0f} to {row['high']:+.0f}",
            p_text(row["p"]),
            p_text(row["p_holm"]),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    legend = "Willingness; Holm: p corrected for the number of categories."
    if hard_lines:
        legend += "\n* hard line: scored inversely, a refusal is right"
    return [table, Text(legend)]


def _flipped(found: Comparison) -> list[RenderableType]:
    flipped = found.pair.flipped
    if not len(flipped):
        return [Text("Flipped prompts: none")] if found.pair.paired else []
    table = build_table(f"flipped prompts: {len(flipped)}", *found.names, "scored A, B")
    for row in flipped.head(_MAX_FLIPPED).iter_rows(named=True):
        cells = [
            printable(row["prompt_id"]) + (" *" if row["hard_line"] else ""),
            f"{row['first']:.0f}",
            f"{row['second']:.0f}",
            f"{row['n_first']}, {row['n_second']}",
        ]
        table.add_row(*(Text(cell) for cell in cells))
    parts: list[RenderableType] = [Text(""), table]
    if len(flipped) > _MAX_FLIPPED:
        parts.append(Text(f"... and {len(flipped) - _MAX_FLIPPED} more (--json)"))
    return parts


def _pairs_table(found: Comparison) -> Table:
    table = build_table("pair", "difference", "95 % interval", "p", "p (Holm)", "prompts", "")
    for pair in found.pairs:
        item = pair.willingness
        value = item.estimate.value
        table.add_row(
            f"{found.names[pair.first]} - {found.names[pair.second]}",
            "-" if value is None else f"{value:+.1f}",
            interval_text(item.estimate.low, item.estimate.high),
            p_text(item.p),
            p_text(pair.p_holm),
            str(item.estimate.n_prompts),
            _stars(pair.p_holm),
        )
    return table


def _stars(p: float | None) -> str:
    if p is None or p > 0.05:
        return ""
    return "***" if p <= 0.001 else "**" if p <= 0.01 else "*"


def leaderboard_view(found: Leaderboard) -> RenderableType:
    """Own runs, then the published figures under a heading of their own."""
    parts: list[RenderableType] = [Text("Measured here", style="bold")]
    if len(found.own):
        table = build_table("model", "reasoning", "willingness", "95 %", "prompts", "unscored")
        for row in found.own.iter_rows(named=True):
            cells = [
                printable(row["model"], 60),
                printable(row["reasoning"]),
                _number(row["willingness"]),
                _span(row["low"], row["high"]),
                f"{row['n_prompts']} x {row['trials']}",
                f"{row['n_unscored']} of {row['n_units']}",
            ]
            table.add_row(*(Text(cell) for cell in cells))
        parts.append(table)
        parts += [Text(line) for line in _own_notes(found)]
    else:
        parts.append(Text("No run was given."))
    parts += [
        Text(""),
        Text("Published by Nous Research, self-reported", style="bold"),
        _published_table(found),
        Text("The two tables are not comparable:"),
    ]
    parts += [Text(f"- {caveat}") for caveat in found.caveats]
    parts += [
        Text(f"[{number}] {title}, {date}") for (title, date), number in _sources(found).items()
    ]
    return Group(*parts)


def _published_table(found: Leaderboard) -> Table:
    table = build_table("model (published)", "mode", "willingness", "runs", "where")
    table.columns[1].justify = table.columns[4].justify = "left"
    numbers = _sources(found)
    for row in found.published.iter_rows(named=True):
        where = row["where"].partition(",")[0].replace("table of RefusalBench", "table")
        table.add_row(
            row["model"],
            row["mode"],
            f"{row['willingness']:.2f}".rstrip("0").rstrip("."),
            str(row["n_runs"]),
            Text(f"[{numbers[row['source'], row['date']]}] {where}"),
        )
    return table


def _sources(found: Leaderboard) -> dict[tuple[str, str], int]:
    keys: Any = found.published.select("source", "date").unique().sort("date").rows()
    return {key: number for number, key in enumerate(keys, 1)}


def _own_notes(found: Leaderboard) -> list[str]:
    notes = []
    for row in found.own.iter_rows(named=True):
        said = [f"{row['prompt_set']} {row['version']}", f"judge {row['judge']}"]
        name = printable(row["run"], 60)
        notes.append(printable(f"{name}: {'; '.join([*said, *row['caveats']])}", 400))
    return notes


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _span(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.0f} to {high:.0f}"
