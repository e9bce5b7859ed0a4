"""Runs the async work of a command: progress, interruption, and imports while it waits."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from refusalkit.cli.exit_codes import INCOMPLETE
from refusalkit.cli.verbosity import is_quiet
from refusalkit.errors import Interrupted

if TYPE_CHECKING:
    import asyncio

_T = TypeVar("_T")
# Seconds after which a signal ends the process that is too busy to hear it, or that heard the
# second one and waits for a thread.
_UNHEARD_S = 5.0
# Seconds in which work must end after it was asked to stop; requests in flight get five.
_ENDED_S = 30.0
_FIGURES = (
    "polars",
    "refusalkit.scoring.score",
    "refusalkit.reporting.data",
)
_TABLES = "refusalkit.reporting.terminal"


def work(
    start: Callable[[Any, asyncio.Event], Coroutine[Any, Any, _T]],
    *,
    names: Sequence[str] = (),
    tables: bool = True,
) -> _T:
    """Run a piece of work with a progress display; the first Ctrl-C ends it cleanly.

    With `names` the display has a line for each, and `start` is given a callback for several runs.
    `tables`: the result will be printed as tables.
    """
    import asyncio

    from refusalkit.reporting.progress import ProgressDisplay, SeveralProgress

    found: list[_T] = []
    # Set once nothing is left to wait for, a thread that reads a file included.
    ended = threading.Event()

    async def drive() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        task = asyncio.current_task()

        heard = threading.Event()

        def interrupt() -> None:
            heard.set()
            if stop.is_set() and task is not None:
                _end_later(ended, _UNHEARD_S)
                task.cancel()
            else:
                _end_later(ended, _ENDED_S)
                click.echo("refusalkit: stopping; waiting briefly for what is in flight", err=True)
                stop.set()

        def on_signal(*_: object) -> None:
            heard.clear()
            loop.call_soon_threadsafe(interrupt)
            _end_later(heard, _UNHEARD_S)

        signals = (signal.SIGINT, signal.SIGTERM)
        before = {name: signal.signal(name, on_signal) for name in signals}
        preloading = loop.create_task(_preload((*_FIGURES, _TABLES) if tables else _FIGURES))
        shown: contextlib.AbstractContextManager[Any]
        if is_quiet():
            shown = contextlib.nullcontext(lambda *_: None)
        else:
            shown = SeveralProgress(names) if names else ProgressDisplay()
        with shown as display:
            try:
                # Not returned: asyncio.run formats the result for a message that nobody sees, and
                # the repr of a run reads its records.
                found.append(await start(display, stop))
            except asyncio.CancelledError as error:
                stopped = Interrupted("stopped")
                for note in getattr(error, "__notes__", ()):
                    stopped.add_note(note)
                raise stopped from error
            finally:
                preloading.cancel()
                for name, handler in before.items():
                    signal.signal(name, handler)

    try:
        # It waits for threads, too, and one may read from a disk that no longer answers.
        asyncio.run(drive())
    finally:
        ended.set()
    return found[0]


def _end_later(unless: threading.Event, seconds: float) -> None:
    """End the process after some seconds, even if a thread is still reading something.

    Nothing is lost by that: a record is on disk once it is written.
    """
    threading.Thread(target=_end_unless, args=(unless, seconds), daemon=True).start()


def _end_unless(heard: threading.Event, seconds: float) -> None:
    if not heard.wait(seconds):
        sys.stderr.write("refusalkit: stopped\n")
        sys.stderr.flush()
        os._exit(INCOMPLETE)


async def _preload(modules: Sequence[str]) -> None:
    """Import the modules for the result one by one, while requests are in flight.

    Not in a thread, because every answer that arrives would wait for the GIL.
    """
    import asyncio

    for module in modules:
        await asyncio.sleep(0.05)
        importlib.import_module(module)
