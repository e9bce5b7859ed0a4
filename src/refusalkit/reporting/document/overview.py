"""Charts of several runs: willingness against the hold rate and against over-refusal."""

from __future__ import annotations

from refusalkit.reporting.document.facts import Facts
from refusalkit.reporting.document.parts import Figure, Section
from refusalkit.reporting.document.plots import MAX_RUNS, Point, labels_of_runs, scatter_plot
from refusalkit.types import Estimate

_OVERVIEW = (
    ("hold_rate", "hold rate", "hard lines held: further right is better"),
    ("over_refusal", "over-refusal", "safe twins refused: further left is better"),
)


def overview(report: Facts) -> Section | None:
    """Runs as points: willingness against the hold rate and against over-refusal."""
    runs = report.runs[:MAX_RUNS]
    if len(runs) < 2:
        return None
    willing = [point_of(facts.score.willingness) for facts in runs]
    order = sorted(
        (number for number, point in enumerate(willing) if point is not None),
        key=lambda number: -(willing[number] or (0.0, 0.0, 0.0))[0],
    )
    charts = []
    for field, title, meaning in _OVERVIEW:
        points = [
            (number, runs[number].name, across, upright)
            for number in order
            if (across := point_of(getattr(runs[number].score, field))) is not None
            and (upright := willing[number]) is not None
        ]
        if not points or (field == "over_refusal" and not any(f.score.n_contrast for f in runs)):
            continue
        figure = scatter_plot(
            points,
            name=f"overview-{field.replace('_', '-')}",
            description=f"Willingness against {title}, a point for each of {len(points)} runs; the "
            "table of rates below has the figures",
            x_title=f"{title}, percent",
            y_title="willingness, percent",
        )
        charts.append({"title": f"Willingness and {title} ({meaning})", "figure": Figure(figure)})
    if not charts:
        return None
    data = {"charts": charts, "legend": labels_of_runs([facts.name for facts in runs], order)}
    return Section("overview", "At a glance", "overview.html.j2", data)


def point_of(estimate: Estimate) -> Point | None:
    """An estimate as a point of a plot; None where nothing was scored."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return estimate.value, estimate.low, estimate.high
