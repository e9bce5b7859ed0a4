"""The `view` command."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from pathlib import Path

import click

from refusalkit.cli.exit_codes import OK
from refusalkit.cli.options import arg, json_option, opt
from refusalkit.errors import ConfigurationError, UsageError
from refusalkit.untrusted import printable


@click.command(epilog="Example: refusalkit view runs")
@arg("runs", metavar="[RUNS]", default="runs")
@opt("--port", type=click.IntRange(1, 65535), help="Port.  [default: 7660, or any free one]")
@opt("--no-open", is_flag=True, help="Print the address and open no browser.")
@json_option("Print the address as JSON, on one line.")
def view(runs: str, port: int | None, no_open: bool, as_json: bool) -> int:
    """Read and label the runs in RUNS (default: runs) in a browser on this machine.

    RUNS is a folder of runs, or one run. Only this machine can reach the page, and only with the
    address that is printed. Nothing is written but labels. Ctrl-C ends it.
    """
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise ConfigurationError(
            'the viewer is an extra: install it with `pip install ".[view]"`, from a clone'
        )
    from refusalkit.runs.naming import find_run

    folder = Path(runs)
    if not folder.is_dir():
        folder = Path(find_run(runs))
    if not folder.is_dir():
        raise UsageError(f"{printable(runs)} is not a folder")
    from refusalkit.viewer.serve import listen, open_browser

    served = listen(folder, port=port)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "url": served.url}))
    else:
        click.echo(f"Runs in {printable(folder, 400)}: {served.url}")
    click.echo("Ctrl-C ends it.", err=True)
    sys.stdout.flush()
    if not no_open:
        open_browser(served.url)
    with contextlib.suppress(KeyboardInterrupt):
        served.run()
    return OK
