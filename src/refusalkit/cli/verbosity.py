"""What a command prints on stderr in addition to errors: -v, -q and the library's log messages."""

from __future__ import annotations

import logging

import click

from refusalkit.untrusted import printable

_LOG = logging.getLogger("refusalkit")
_QUIET = logging.CRITICAL + 1
# Most characters of one message: some name a dozen folders.
_MAX_NOTE = 4000


class _Echo(logging.Handler):
    """Prints the library's log messages on stderr while a command runs."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"refusalkit: {printable(record.getMessage(), _MAX_NOTE)}", err=True)


def say_notes() -> None:
    """Print the library's log messages on stderr; the library itself prints nothing."""
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    _LOG.handlers = [_Echo()]


def note(text: str) -> None:
    """Print a piece of information, unless with --quiet."""
    _LOG.info(text)


def warn(text: str) -> None:
    """Print a warning about the result, unless with --quiet."""
    _LOG.warning(text)


def is_quiet() -> bool:
    """Whether --quiet was given: only results and errors are printed."""
    return not _LOG.isEnabledFor(logging.WARNING)


def verbosity_options() -> list[click.Option]:
    """The options -v, -q and --debug, which every command takes before and after its name."""
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_verbose,
            help="Say more on stderr: options and their places, each failed request and retry.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_quiet,
            help="Say nothing on stderr but errors and why the exit status is not 0.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,  # read by main(), which also sees errors in parsing
            help="Show the traceback of an error.",
        ),
    ]


def _verbose(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    _set(ctx, logging.DEBUG if given else None)


def _quiet(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    _set(ctx, _QUIET if given else None)


def _set(ctx: click.Context, level: int | None) -> None:
    if level is None or ctx.resilient_parsing:
        return
    if _LOG.level not in (logging.INFO, level):
        raise click.UsageError("give --verbose or --quiet, not both", ctx)
    _LOG.setLevel(level)
