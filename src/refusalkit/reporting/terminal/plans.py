"""A plan on a terminal, in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from refusalkit.reporting.terminal.table_layout import build_table
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.scoring.planning import Plan, PlannedRun

_SHORT = {"prompts like these": "like these", "these prompts, asked again": "these, again"}


def plan_view(plan: Plan) -> RenderableType:
    """What each goal takes, and what was expected."""
    parts: list[RenderableType] = []
    sizes = [row for row in plan.rows if row.goal != "bound"]
    bounds = [row for row in plan.rows if row.goal == "bound"]
    if sizes:
        parts += [_sizes(sizes), Text(_expectations(plan, sizes)), Text("")]
    if plan.labels:
        parts += [Text(line) for line in _labels(plan)] + [Text("")]
    if bounds:
        parts += [_bounds(bounds), *(Text(line) for line in _bound_lines(plan, bounds))]
    parts += [Text(f"Note: {printable(note, 300)}.") for note in plan.notes]
    return Group(*parts)


def _sizes(rows: list[PlannedRun]) -> RenderableType:
    priced = any(row.cost_usd is not None for row in rows)
    heads = ["goal", "about", "trials", "prompts", "requests"]
    table = build_table(*heads, *(["USD"] if priced else []))
    before = None
    for row in rows:
        if before is not None and row.goal != before:
            table.add_section()
        before = row.goal
        cells = [
            f"{row.goal} {row.amount:g}",
            _SHORT[row.target],
            str(row.trials),
            f"{row.n_prompts:,}",
            f"{row.n_requests:,}",
        ]
        table.add_row(*cells, *([_usd(row)] if priced else []))
    return table


def _bounds(rows: list[PlannedRun]) -> RenderableType:
    with_run = any(row.more_prompts is not None for row in rows)
    priced = any(row.cost_usd is not None for row in rows)
    heads = ["leak rate below", "leaking", "prompts", "any time", "requests"]
    more = ["more prompts"] if with_run else []
    table = build_table(*heads, *more, *(["USD"] if priced else []))
    for row in rows:
        cells = [
            f"{row.amount:g} %",
            str(row.leaking_prompts),
            f"{row.n_prompts:,}",
            "-" if row.n_sequential is None else f"{row.n_sequential:,}",
            f"{row.n_requests:,}",
        ]
        lacking = ["-" if row.more_prompts is None else f"{row.more_prompts:,}"] if with_run else []
        table.add_row(*cells, *lacking, *([_usd(row)] if priced else []))
    return table


def _usd(row: PlannedRun) -> str:
    return "-" if row.cost_usd is None else f"{row.cost_usd.expected:,.2f}"


def _expectations(plan: Plan, rows: list[PlannedRun]) -> str:
    source = "" if plan.measured_on is None else f", as in {printable(plan.measured_on)}"
    text = (
        f"Expected: a rate of {plan.rate:.0f} %, a correlation within prompts of "
        f"{plan.within:.2g}{source}. Width: of the 95 % interval, in points."
    )
    if any(row.goal == "difference" for row in rows):
        text += (
            f" Difference: found at 5 % with a power of {plan.power:.0f} %, the correlation "
            f"between models {plan.between:.2g}; requests are those of both runs."
        )
    return text


def _labels(plan: Plan) -> list[str]:
    judge = f"sensitivity {plan.sensitivity:g} %, specificity {plan.specificity:g} %"
    counts = ", ".join(
        f"{one.n_labels:,} {'in a calibration' if one.where == 'calibration' else one.where}"
        for one in plan.labels
    )
    return [f"Labels that widen a corrected interval by a tenth at most: {counts} ({judge})."]


def _bound_lines(plan: Plan, rows: list[PlannedRun]) -> list[str]:
    times = "once" if rows[0].trials == 1 else f"{rows[0].trials} times"
    text = f"Hard-line prompts that show this with 95 % confidence, each asked {times}."
    lines = [f"{text} Any time: with run --stop-when held, looked at after every prompt."]
    if plan.measured_on is not None and rows[0].more_prompts is not None:
        lines.append(
            f"What {printable(plan.measured_on)} lacks are new prompts: more trials or framings of "
            "the same ones do not add to them."
        )
    if any(row.leaking_prompts for row in rows):
        lines.append(
            "Rows with leaking prompts need --max-leaks: without it one leak crosses the line."
        )
    return lines
