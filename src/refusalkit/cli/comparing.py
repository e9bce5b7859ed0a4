"""Commands that read several runs: compare, leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from refusalkit.cli.exit_codes import GATE, INCOMPLETE, OK
from refusalkit.cli.options import RUN, arg, format_options, max_unscored_option, opt
from refusalkit.cli.showing import score_exit
from refusalkit.errors import UsageError

if TYPE_CHECKING:
    from refusalkit.scoring.compare.gate import Target
    from refusalkit.scoring.compare.result import Comparison

_ON = ("willingness", "answer-rate", "hold-rate", "refusal-rate", "over-refusal")


@click.command(epilog="Example: refusalkit compare runs/new runs/base --max-drop 3")
@arg("runs", metavar="RUN...", type=RUN, nargs=-1, required=True)
@opt(
    "--max-drop",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="Gate: the first run may lie this far below the second.",
)
@opt(
    "--max-rise",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="Gate: the first run may lie this far above the second.",
)
@opt(
    "--on",
    type=click.Choice(_ON),
    default=_ON[0],
    show_default=True,
    help="The gate's figure.",
)
@opt(
    "--target",
    type=click.Choice(["prompts-like-these", "these-prompts"]),
    default="prompts-like-these",
    show_default=True,
    help="What the gate is about: the models, or a regression on these prompts.",
)
@opt(
    "--calibration",
    multiple=True,
    metavar="FILE",
    help="Correct for the judge's errors (repeatable, one for each judge).",
)
@opt(
    "--sequential",
    is_flag=True,
    help="Valid however often you look; the runs need the same --order-seed.",
)
@opt("--judge", metavar="ID", help="One of several judges, the same in every run.")
@opt("--count-deflection", is_flag=True, default=None, help="Count a deflection as refused.")
@opt("--anyway", is_flag=True, help="Compare runs on other prompts or judges, with a warning.")
@opt("--by", type=click.Choice(["category"]), help="A row for each category (two runs).")
@format_options("json", "csv", "markdown")
@max_unscored_option
def compare(
    runs: tuple[str, ...],
    max_drop: float | None,
    max_rise: float | None,
    on: str,
    target: Target,
    calibration: tuple[str, ...],
    sequential: bool,
    judge: str | None,
    count_deflection: bool | None,
    anyway: bool,
    by: str | None,
    form: str,
    as_json: bool,
    max_unscored: float,
) -> int:
    """Compare runs, paired by prompt: the first RUN against the second, or every pair of several.

    With a gate (--max-drop, --max-rise): exit 1 if the data show a change beyond it, 0 if they rule
    it out, 3 if they cannot tell; unscored units count against passing. Without one, --max-unscored
    applies to each run. --sequential compares the figure of --on while the runs are still going:
    exit 0 once a difference is shown, 3 before.
    """
    import refusalkit
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    if by is not None and len(runs) != 2:
        raise UsageError("--by category compares two runs")
    found = refusalkit.compare(
        *runs,
        judge=judge,
        anyway=anyway,
        count_deflection=count_deflection,
        max_drop=max_drop,
        max_rise=max_rise,
        on=on.replace("-", "_"),
        target=target,
        calibration=calibration,
        sequential=sequential,
    )
    form = "json" if as_json else form
    if form == "json":
        click.echo(data.to_json(data.comparison_data(found)))
    elif form == "markdown":
        click.echo(data.comparison_markdown(found))
    elif form == "csv":
        frame = found.pair.by_category if by else found.differences
        click.echo(data.to_csv(*data.frame_rows(frame)))
    else:
        show(terminal.comparison_view(found, by_category=by is not None))
    if form == "csv":
        # CSV has only figures, so the warnings go to stderr.
        for warning in found.warnings:
            click.echo(f"refusalkit: warning: {warning}", err=True)
    return _exit_code(found, max_unscored)


def _exit_code(found: Comparison, max_unscored: float) -> int:
    from refusalkit.scoring.compare.gate import GateStatus

    if found.in_order is not None:
        return INCOMPLETE if found.in_order.decided_at is None else OK
    if found.gate is None:
        codes = [score_exit(score, max_unscored) for score in found.scores]
        return GATE if GATE in codes else max(codes)
    codes_of = {
        GateStatus.PASSED: OK,
        GateStatus.FAILED: GATE,
        GateStatus.INCONCLUSIVE: INCOMPLETE,
    }
    return codes_of[found.gate.status]


@click.command(epilog="Example: refusalkit leaderboard runs/example")
@arg("runs", metavar="[RUN]...", type=RUN, nargs=-1)
@opt("--judge", metavar="ID", help="One of several judges, the same in every run.")
@format_options("json", "csv", "markdown")
def leaderboard(runs: tuple[str, ...], judge: str | None, form: str, as_json: bool) -> int:
    """List RUNs and the published RefusalBench figures, in separate tables."""
    import refusalkit
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    found = refusalkit.leaderboard(*runs, judge=judge)
    form = "json" if as_json else form
    if form == "json":
        click.echo(data.to_json(data.leaderboard_data(found)))
    elif form == "markdown":
        click.echo(data.leaderboard_markdown(found))
    elif form == "csv":
        click.echo(data.to_csv(*data.leaderboard_rows(found)))
    else:
        show(terminal.leaderboard_view(found))
    return OK
