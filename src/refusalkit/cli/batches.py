"""The command batches, and the end of a command whose run waits for batches."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refusalkit.cli.exit_codes import INCOMPLETE, OK
from refusalkit.cli.given import given
from refusalkit.cli.options import (
    ConfiguredCommand,
    arg,
    config_options,
    opt,
    trust_folder_option,
)
from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.api.batches import BatchReport
    from refusalkit.runs.folder import Run


@click.command(cls=ConfiguredCommand, epilog="Example: refusalkit batches runs/luna --cancel")
@arg("run", metavar="RUN")
@opt("--cancel", is_flag=True, help="Ask the providers to stop; what was answered is kept.")
@opt(
    "--forget",
    is_flag=True,
    help="Give up open batches: resume requests and pays for their units again.",
)
@config_options(only=["api_base", "api_key_env", "judge_api_base", "judge_api_key_env"])
@trust_folder_option
@opt("--json", "as_json", is_flag=True, help="Print as JSON.")
def batches(
    run: str,
    cancel: bool,
    forget: bool,
    trust_folder: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """List the batches of RUN, with the state of open ones. Exit 3 while one is open.

    `refusalkit resume RUN` collects their results; those of a `grade` or `regrade` are collected by
    repeating that command.
    """
    from refusalkit.api.batches import forget_batches, list_batches

    if cancel and forget:
        raise UsageError("give --cancel or --forget, not both")
    if forget:
        given_up = forget_batches(run, trust_folder=trust_folder)
        click.echo(f"{given_up} open batches given up; `refusalkit resume` asks their units again")
        return OK
    found = list_batches(run, cancel=cancel, trust_folder=trust_folder, **given(options).all.values)
    print_batches(found, as_json)
    return INCOMPLETE if any(one.is_open for one in found) else OK


def is_in_batches(run: Run) -> bool:
    """Whether a run's last session ended while batches were at a provider."""
    sessions = run.manifest.sessions
    return bool(sessions) and sessions[-1].ended_because == "batches"


def show_batches(
    runs: Sequence[Run], as_json: bool, *, come_back: str, folder: str | None = None
) -> int:
    """Print the runs' open batches and when to come back; returns the exit code.

    `come_back` is the command that collects the results. For batches that are files in a `folder`,
    the command that answers them is printed.
    """
    found = open_batches(runs)
    print_batches(found, as_json, runs)
    return say_when(found, as_json, come_back=come_back, folder=folder)


def open_batches(runs: Sequence[Run]) -> list[BatchReport]:
    """The batches of runs at their providers; after a regrade, those of its judge."""
    from refusalkit.api.batches import recorded_batches

    found = []
    for run in runs:
        judge = run.manifest.sessions[-1].judge
        reports = [one for one in recorded_batches(run) if one.is_open]
        found += [one for one in reports if judge is None or one.asked == judge]
    return found


def say_when(
    found: Sequence[BatchReport], as_json: bool, *, come_back: str, folder: str | None
) -> int:
    """Say when to come back, and how batches in files are answered; returns the exit code."""
    if folder is not None:
        said = f" --batch-to {shlex.quote(printable(folder, 400))}"
        come_back = come_back.removesuffix(" --batch-to DIR") + said
        if _print_how(found, Path(folder), as_json):
            click.echo(
                f"refusalkit: in files; once they are answered come back with {come_back}\n"
                "refusalkit: the results hold all answers in full, those to hard lines too: delete "
                "them when the run is complete",
                err=True,
            )
            return INCOMPLETE
    when = [one.expires_at for one in found if one.expires_at is not None]
    latest = f", at the latest at {_minute(max(when))}" if when else ""
    click.echo(
        f"refusalkit: in batches; most end within an hour{latest}: come back with {come_back}",
        err=True,
    )
    return INCOMPLETE


def _print_how(found: Sequence[BatchReport], folder: Path, as_json: bool) -> bool:
    """Print the command that answers each batch in a file; whether there are such batches."""
    from refusalkit.models.batch_files import asked_model, is_in_files, requests_file, results_file

    ids = [one.id for one in found if one.id is not None and is_in_files(one.id)]
    for name in () if as_json else ids:
        asked = requests_file(folder, name)
        files = (printable(path, 400) for path in (asked, results_file(folder, name)))
        words = zip(("-i", "-o", "--model"), (*files, asked_model(asked)), strict=True)
        said = " ".join(f"{option} {shlex.quote(value)}" for option, value in words)
        click.echo(f"  vllm run-batch {said}")
    return bool(ids)


def print_batches(
    found: Sequence[BatchReport],
    as_json: bool = False,
    runs: Sequence[Run] = (),
    *,
    name: str | None = None,
) -> None:
    """Print batches, a line each, or as JSON with the folders of their runs.

    `name` says which of several runs they belong to.
    """
    if as_json:
        from refusalkit.reporting import data

        paths = [str(run.path) for run in runs]
        where = {"path": paths[0]} if len(paths) == 1 else {"paths": paths} if paths else {}
        click.echo(data.to_json({**where, "batches": [one.as_data() for one in found]}))
        return
    for one in found:
        batch = "not known yet" if one.id is None else printable(one.id)
        counts = ", ".join(f"{n} {printable(what)}" for what, n in sorted(one.counts.items()) if n)
        click.echo(
            ("" if name is None else f"{printable(name)}: ")
            + f"{batch}: {one.n_units} requests to {printable(one.asked)}, {printable(one.status)}"
            + (f" ({counts})" if counts else "")
        )
    if not found:
        click.echo("no batches")


def _minute(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return printable(text, 40)
