"""The command that shows what a run would be asked for: config."""

from __future__ import annotations

import json
from typing import Any

import click

from refusalkit.cli.given import given
from refusalkit.cli.options import ConfiguredCommand, arg, json_option, run_options
from refusalkit.untrusted import printable


@click.command(cls=ConfiguredCommand, epilog="Example: refusalkit config --preset paper")
@arg("model", metavar="[MODEL]", default="provider/name")
@run_options
@json_option()
def config(model: str, as_json: bool, **options: Any) -> None:
    """Show each option of a run, its value and where that comes from. Nothing is sent.

    Takes the options of run. The order is defaults, preset, your own configuration file,
    refusalkit.toml here or --config, the environment (REFUSALKIT_JUDGE_MODEL), the command line.
    """
    from refusalkit.config.layers import Layer, sources
    from refusalkit.config.placement import EVERY_OPTION, PLACES
    from refusalkit.config.resolve import resolve_config
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    asked = Layer({"model": model}).under(given(options).all)
    resolved = resolve_config(asked)
    rows = [
        {"option": EVERY_OPTION[name].removeprefix("--"), "value": value, "from": place}
        for name, (value, place) in sources(resolved, asked).items()
    ]
    if as_json:
        click.echo(data.to_json({"model": model, "options": rows}))
        return
    cells = [
        (row["option"], _shown(row["value"], place.default), printable(row["from"], 200))
        for row, place in zip(rows, PLACES.values(), strict=True)
    ]
    show(terminal.rows_view(("option", "value", "from"), cells))


def _shown(value: Any, default: str | None) -> str:
    if value is None or value in ((), {}):
        return default or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return printable(", ".join(map(str, value)), 200)
    return printable(json.dumps(value) if isinstance(value, dict) else value, 200)
