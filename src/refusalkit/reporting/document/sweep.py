"""A sweep: runs of one model in several states, such as the checkpoints of a training run.

They are recognised by their names, which differ only in one number (``step-1000``, ``step-2000``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from refusalkit.reporting.document.facts import Facts
from refusalkit.reporting.document.overview import point_of
from refusalkit.reporting.document.parts import NOTHING, Cell, Figure, Section, Table, stacked
from refusalkit.reporting.document.plots import labels_of_runs, lines_plot
from refusalkit.types import Estimate
from refusalkit.untrusted import printable

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)")
# Fewer runs are a comparison.
_MIN_RUNS = 3


def sweep(report: Facts) -> Section | None:
    """Willingness and hold rate as lines over the number in which the runs' names differ.

    None where the runs are not a sweep, or are not comparable: a line between them would suggest
    that they are.
    """
    if report.obstacles:
        return None
    found = places([facts.name for facts in report.runs])
    if found is None:
        return None
    title, numbers = found
    ordered = sorted(zip(numbers, report.runs, strict=True), key=lambda pair: pair[0])
    rates = {"willingness": [facts.score.willingness for _, facts in ordered]}
    held = [facts.score.hold_rate for _, facts in ordered]
    if any(rate.value is not None for rate in held):
        rates["hold rate"] = held
    at = [number for number, _ in ordered]
    lines = [[point_of(rate) for rate in each] for each in rates.values()]
    what = (
        f"{' and '.join(rates)} in percent over {len(at)} runs, with 95 % intervals; the table "
        "below has the figures"
    )

    def drawn(*, narrow: bool) -> Markup:
        name = f"sweep-{'narrow' if narrow else 'wide'}"
        return lines_plot(at, lines, name=name, description=what, x_title=title, narrow=narrow)

    rows: list[list[str | Cell]] = [
        [
            facts.name,
            *(_cell(rate[index]) for rate in rates.values()),
        ]
        for index, (_, facts) in enumerate(ordered)
    ]
    caption = "Rates in percent, each with its 95\u00a0% interval"
    data = {
        "figure": Figure(drawn(narrow=False), drawn(narrow=True)),
        "table": Table(caption, ["run", *rates], rows),
        "legend": labels_of_runs(list(rates)),
        "biggest": _biggest(rates, [facts.name for _, facts in ordered]),
    }
    return Section("sweep", "Over the sweep", "sweep.html.j2", data)


def places(names: Sequence[str]) -> tuple[str, list[float]] | None:
    """What the names have in common, and the number in which each differs from all others."""
    if len(names) < _MIN_RUNS:
        return None
    split = [_NUMBER.split(name) for name in names]
    first = split[0]
    if any(len(parts) != len(first) for parts in split):
        return None
    differ = [at for at, part in enumerate(first) if any(one[at] != part for one in split)]
    if len(differ) != 1 or differ[0] % 2 == 0:
        return None
    at = differ[0]
    numbers = [float(parts[at]) for parts in split]
    if len(set(numbers)) < len(numbers):
        return None
    common = "".join([*first[:at], "\u2026", *first[at + 1 :]])
    return printable(common, 80), numbers


def _biggest(rates: dict[str, list[Estimate]], names: Sequence[str]) -> list[str]:
    """A sentence for each rate: between which two neighbours it changes most."""
    found = []
    for title, estimates in rates.items():
        steps = [
            (abs(b.value - a.value), names[at], names[at + 1], b.value - a.value)
            for at, (a, b) in enumerate(pairwise(estimates))
            if a.value is not None and b.value is not None
        ]
        if steps and max(steps)[0] > 0:
            _, before, after, change = max(steps, key=lambda step: step[0])
            found.append(
                f"The largest step of {title}: {change:+.1f} points from {before} to {after}."
            )
    return found


def _cell(estimate: Estimate) -> Cell:
    return Cell(NOTHING) if estimate.value is None else stacked(estimate)
