"""The command that asks nothing: estimate."""

from __future__ import annotations

from typing import Any

import click

from refusalkit.cli.options import given_options, measured, operational, opt


@click.command(epilog="Example: refusalkit estimate openai/gpt-6-luna --trials 5")
@click.argument("model")
@measured
@operational
@opt(
    "--from",
    "earlier",
    multiple=True,
    metavar="RUN",
    help="Take answers' lengths from this run (repeatable).  [default: all in runs/]",
)
@opt("--json", "as_json", is_flag=True, help="Print as JSON.")
def estimate(model: str, earlier: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Requests, tokens and USD that a run of MODEL would take. Nothing is asked.

    Takes the options of run, so that the one word can be changed for the other.
    """
    import refusalkit
    from refusalkit.config import resolve_config
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    config = resolve_config({"model": model, **given_options(options)}, file=options["config_file"])
    given = config.model_dump(exclude_unset=True)
    asked, prompts = given.pop("model"), given.pop("prompts", config.prompts)
    found = refusalkit.estimate(asked, prompts, earlier=earlier or None, **given)
    if as_json:
        click.echo(data.to_json(data.estimate_data(found)))
    else:
        show(terminal.estimate_view(found))
