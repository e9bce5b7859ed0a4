"""The `presets` command."""

from __future__ import annotations

import click

from refusalkit.cli.options import opt


@click.command(epilog="Example: refusalkit presets --json")
@opt("--json", "as_json", is_flag=True, help="Print as JSON.")
def presets(as_json: bool) -> None:
    """The presets side by side: what differs, and what the Hermes 4 report leaves open."""
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    if as_json:
        click.echo(data.to_json(data.presets_data()))
    else:
        show(terminal.presets_view())
