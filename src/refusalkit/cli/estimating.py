"""The command that asks nothing: estimate."""

from __future__ import annotations

from typing import Any

import click

from refusalkit.cli.many import asked_models, name_models
from refusalkit.cli.options import (
    RUN,
    ConfiguredCommand,
    config_options,
    given_options,
    max_unscored_option,
    opt,
)


@click.command(
    cls=ConfiguredCommand, epilog="Example: refusalkit estimate openai/gpt-6-luna --trials 5"
)
@click.argument("models", metavar="MODEL...", nargs=-1)
@config_options("measured", "judge", file=True)
@config_options("operational", "batch")
@max_unscored_option
@opt("--plan", metavar="FILE", help="TOML file with a [[model]] table for each of several.")
@opt("--out", metavar="DIR", help="As for run; nothing is written.")
@opt("--report", metavar="FILE", help="As for run; nothing is written.")
@opt(
    "--from",
    "earlier",
    multiple=True,
    metavar="RUN",
    type=RUN,
    help="Take answers' lengths from this run (repeatable).  [default: all in runs/]",
)
@opt("--json", "as_json", is_flag=True, help="Print as JSON.")
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
    from refusalkit.config.resolve import resolve_config
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    del out, report, max_unscored  # a run's, and harmless here
    name_models(models, plan)
    file, given = options["config_file"], given_options(options)
    if plan is not None or len(models) > 1:
        asked, _ = asked_models(models, given, plan=plan, config_file=file)
        several = refusalkit.estimate_many(asked, earlier=earlier or None)
        if as_json:
            click.echo(data.to_json(data.estimates_data(several)))
        else:
            show(terminal.estimates_view(several))
        return
    (model,) = models
    config = resolve_config({"model": model, **given}, file=file)
    chosen = config.model_dump(exclude_unset=True)
    found = refusalkit.estimate(chosen.pop("model"), earlier=earlier or None, **chosen)
    if as_json:
        click.echo(data.to_json(data.estimate_data(found)))
    else:
        show(terminal.estimate_view(found))
