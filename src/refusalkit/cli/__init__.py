"""The command line: parsing, progress and exit codes only.

Exit codes: 0 done or held; 1 a gate failed; 2 usage; 3 inconclusive or incomplete; 4 a provider or
configuration error. A command's module is imported when the command is asked for, and what it needs
when it runs, so that a run begins soon.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import MutableMapping
from typing import NoReturn

import click

from refusalkit.cli.exit_codes import ERROR, INCOMPLETE, OK, USAGE, exit_code_of
from refusalkit.cli.options import ConfiguredCommand
from refusalkit.cli.streams import flush_streams, guard_streams
from refusalkit.cli.verbosity import say_notes, verbosity_options
from refusalkit.errors import RefusalkitError, StorageError
from refusalkit.redaction import redact
from refusalkit.untrusted import printable, visible


def main() -> None:
    """The console script. Errors are one sentence on stderr; a traceback only with --debug."""
    debug = "--debug" in sys.argv[1:]
    # Fewer garbage collections: they slow the start, and imported modules stay anyway. A run of
    # the usual size ends before the first; its memory is the same.
    gc.set_threshold(200_000, 20, 20)
    say_notes()
    if "_REFUSALKIT_COMPLETE" in os.environ:
        importlib.import_module("refusalkit.cli.completing")  # how a shell's words are read
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
    click.echo(f"refusalkit: {visible(message)}", err=True)
    sys.exit(code)


def _command_of(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "refusalkit"


# The module of each command, which has the command's name in it.
_MODULES = {
    "audit": "auditing",
    "batches": "batches",
    "compare": "comparing",
    "completion": "completing",
    "config": "configuring",
    "estimate": "estimating",
    "export": "exporting",
    "grade": "running",
    "judges": "judging",
    "leaderboard": "comparing",
    "merge": "merging",
    "plan": "planning",
    "presets": "presets",
    "prompts": "prompt_sets",
    "regrade": "running",
    "report": "reporting",
    "resume": "running",
    "run": "running",
    "runs": "listing",
    "score": "scoring",
    "show": "listing",
    "verify": "exporting",
    "view": "viewing",
}


class _Commands(click.Group):
    """The commands, each imported when it is first asked for."""

    _found: MutableMapping[str, click.Command]

    @property
    def commands(self) -> MutableMapping[str, click.Command]:
        """All commands by name, imported."""
        for name in _MODULES:
            self._load(name)
        return self._found

    @commands.setter
    def commands(self, commands: MutableMapping[str, click.Command]) -> None:
        self._found = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as help lists them."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        return self._load(cmd_name) if cmd_name in _MODULES else None

    def _load(self, name: str) -> click.Command:
        if name not in self._found:
            module = importlib.import_module(f"refusalkit.cli.{_MODULES[name]}")
            self._found[name] = _with_verbosity(getattr(module, name))
        return self._found[name]


@click.group(
    cls=_Commands,
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


cli.params.extend(verbosity_options())
