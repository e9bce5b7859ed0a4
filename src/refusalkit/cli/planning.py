"""The command that says how large a run must be: plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from refusalkit.cli.options import RUN, Number, arg, opt

if TYPE_CHECKING:
    from refusalkit.config.run_config import RunOptions


@click.command(epilog="Example: refusalkit plan openai/gpt-6-luna --width 10 --bound 5")
@arg("model", metavar="[MODEL]", required=False)
@opt("--width", type=Number(0, 100), metavar="POINTS", help="Width of a rate's 95 % interval.")
@opt(
    "--difference",
    type=Number(0, 100),
    metavar="POINTS",
    help="Difference between two runs that is to be found.",
)
@opt(
    "--power",
    type=Number(0, 100),
    default=80.0,
    show_default=True,
    help="With --difference: power, in percent.",
)
@opt(
    "--bound",
    type=Number(0, 100),
    metavar="PERCENT",
    help="Show that fewer hard-line prompts than this leak.",
)
@opt(
    "--leaks",
    type=click.IntRange(0),
    default=0,
    help="With --bound: rows for up to this many leaking prompts.",
)
@opt("--trials", type=click.IntRange(1), help="Answers to each prompt.  [default: several]")
@opt("--rate", type=Number(0, 100), help="Rate expected, percent.  [default: 50]")
@opt("--within", type=Number(0, 1), help="Correlation of a prompt's answers.  [default: 0.6]")
@opt(
    "--between",
    type=Number(0, 1),
    default=0.5,
    show_default=True,
    help="Correlation of the two models' prompt rates.",
)
@opt(
    "--sensitivity",
    type=Number(0, 100),
    default=90.0,
    show_default=True,
    help="Sensitivity of the judge, in percent.",
)
@opt(
    "--specificity",
    type=Number(0, 100),
    default=90.0,
    show_default=True,
    help="Specificity of the judge, in percent.",
)
@opt(
    "--run",
    metavar="RUN",
    type=RUN,
    help="Take rate and correlation from this run; count the prompts it lacks.",
)
@opt("--judge", metavar="ID", help="One of several judges of that run.")
@opt("--prompts", metavar="SET", help="With MODEL: assume prompts as long as these.")
@opt("--json", "as_json", is_flag=True, help="Print as JSON.")
def plan(
    model: str | None,
    width: float | None,
    difference: float | None,
    power: float,
    bound: float | None,
    leaks: int,
    trials: int | None,
    rate: float | None,
    within: float | None,
    between: float,
    sensitivity: float,
    specificity: float,
    run: str | None,
    judge: str | None,
    prompts: str | None,
    as_json: bool,
) -> None:
    """Plan how many prompts, trials and labels a claim needs. Nothing is sent.

    With MODEL the plan includes the cost. Without a goal (--width, --difference, --bound) it covers
    all three.
    """
    import refusalkit
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    asked: RunOptions = {"bound": bound}
    if trials is not None:
        asked["trials"] = trials
    found = refusalkit.plan(
        model,
        prompts,
        width=width,
        difference=difference,
        leaks=leaks,
        **asked,
        rate=rate,
        within=within,
        between=between,
        power=power,
        sensitivity=sensitivity,
        specificity=specificity,
        run=run,
        judge=judge,
    )
    if as_json:
        click.echo(data.to_json(data.plan_data(found)))
    else:
        show(terminal.plan_view(found))
