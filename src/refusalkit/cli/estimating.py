"""The command that asks nothing: estimate."""

from __future__ import annotations

from typing import Any

import click

from refusalkit.cli.given import given
from refusalkit.cli.many import asked_models, name_models
from refusalkit.cli.options import (
    RUN,
    ConfiguredCommand,
    arg,
    json_option,
    opt,
    run_options,
)


@click.command(
    cls=ConfiguredCommand, epilog="Example: refusalkit estimate openai/gpt-6-luna --trials 5"
)
@arg("models", metavar="MODEL...", nargs=-1)
@run_options
@opt(
    "--from",
    "earlier",
    section="What is asked",
    multiple=True,
    metavar="RUN",
    type=RUN,
    help="Take answers' lengths from this run (repeatable).  [default: all in runs/]",
)
@json_option()
def estimate(
    models: tuple[str, ...],
    plan: str | None,
    out: str | None,
    report: str | None,
    max_unscored: float,
    earlier: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Requests, tokens and USD that a run of MODEL would take. Nothing is asked.

    Takes the options of run, so that the one word can be changed for the other. Of several models
    each has its own section, and a table at the end adds them up.
    """
    import refusalkit
    from refusalkit.config.layers import Layer
    from refusalkit.config.resolve import resolve_config
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    del out, report, max_unscored  # a run's, and harmless here
    name_models(models, plan)
    chosen = given(options)
    if plan is not None or len(models) > 1:
        asked, _ = asked_models(models, chosen, plan=plan)
        several = refusalkit.estimate_many(asked, earlier=earlier or None)
        if as_json:
            click.echo(data.to_json(data.estimates_data(several)))
        else:
            show(terminal.estimates_view(several))
        return
    (model,) = models
    config = resolve_config(Layer({"model": model}).under(chosen.all))
    asked_for = config.model_dump(exclude_unset=True)
    found = refusalkit.estimate(asked_for.pop("model"), earlier=earlier or None, **asked_for)
    if as_json:
        click.echo(data.to_json(data.estimate_data(found)))
    else:
        show(terminal.estimate_view(found))
