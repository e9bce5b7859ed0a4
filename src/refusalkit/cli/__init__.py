"""The command line: parsing, progress and exit codes only.

Exit codes: 0 done or held; 1 a gate failed; 2 usage; 3 inconclusive or incomplete; 4 a provider or
configuration error. What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

import click

from refusalkit.cli import (
    auditing,
    batches,
    comparing,
    completing,
    configuring,
    estimating,
    exporting,
    judging,
    listing,
    merging,
    planning,
    presets,
    prompt_sets,
    reporting,
    running,
    scoring,
    viewing,
)
from refusalkit.cli.exit_codes import ERROR, INCOMPLETE, OK, USAGE, exit_code_of
from refusalkit.cli.options import ConfiguredCommand
from refusalkit.cli.streams import flush_streams, guard_streams
from refusalkit.cli.verbosity import say_notes, verbosity_options
from refusalkit.errors import RefusalkitError, StorageError
from refusalkit.redaction import redact
from refusalkit.untrusted import printable


def main() -> None:
    """The console script. Errors are one sentence on stderr; a traceback only with --debug."""
    debug = "--debug" in sys.argv[1:]
    # Fewer garbage collections: they slow the start, and imported modules stay anyway.
    gc.set_threshold(50_000, 20, 20)
    say_notes()
    try:
        sys.exit(cli.main(standalone_mode=False) or OK)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(USAGE)
    except click.ClickException as error:
        message = printable(error.format_message(), 600)
        _fail(f"{message} (see {_command_of(error)} --help)", USAGE, debug, error)
    except click.Abort:
        _fail("stopped", INCOMPLETE, False, None)
    except KeyboardInterrupt:
        _fail("stopped", INCOMPLETE, False, None)
    except RefusalkitError as error:
        _fail(str(error), exit_code_of(error), debug, error)
    except Exception as error:  # noqa: BLE001 - the last net: no traceback for a user
        what = redact(f"{type(error).__name__}: {error}", 300)
        _fail(f"a defect of refusalkit: {what} (--debug shows where)", ERROR, debug, error)


def script() -> NoReturn:
    """The console script: `main`, without Python's tear-down.

    Taking apart what polars loaded costs a quarter of a second and saves nothing: every
    file is closed by now.
    """
    guard_streams()
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        try:
            flush_streams()
        except StorageError as error:
            click.echo(f"refusalkit: {error}", err=True)
            code = ERROR
        os._exit(code)
    raise AssertionError("main always exits")


def _fail(message: str, code: int, debug: bool, error: BaseException | None) -> None:
    if debug and error is not None:
        raise error
    for note in getattr(error, "__notes__", ()):
        message += f"; {note}"
    click.echo(f"refusalkit: {message}", err=True)
    sys.exit(code)


def _command_of(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "refusalkit"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: refusalkit run demo/mixed",
)
@click.version_option(package_name="refusalkit", prog_name="refusalkit")
def cli() -> None:
    """Measure how often a language model refuses, and prove that its hard lines hold."""


def _with_verbosity(command: click.Command) -> click.Command:
    """The command, and those below it, with the options that every command has."""
    options = verbosity_options()
    if isinstance(command, ConfiguredCommand):
        command.add_options(options)
    else:
        command.params.extend(options)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _with_verbosity(inner)
    return command


for _command in (
    running.run,
    running.resume,
    batches.batches,
    running.grade,
    running.regrade,
    estimating.estimate,
    configuring.config,
    planning.plan,
    merging.merge,
    listing.runs,
    listing.show,
    scoring.score,
    auditing.audit,
    comparing.compare,
    comparing.leaderboard,
    reporting.report,
    viewing.view,
    exporting.verify,
    exporting.export,
    prompt_sets.prompts,
    judging.judges,
    presets.presets,
    completing.completion,
):
    cli.add_command(_command)

_with_verbosity(cli)
