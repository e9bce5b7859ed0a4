"""The progress of a run: a live line on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from refusalkit.display import shows
from refusalkit.engine.plan import Progress
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_PLAIN_EVERY_S = 5.0
_REDRAW_EVERY_S = 0.1
_TEXT_EVERY_S = 1.0


class ProgressDisplay:
    """An `on_progress` callback that shows progress on stderr. Use it as a context manager."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._shown_at = 0.0
        if sys.stderr.isatty():
            # Only a terminal needs it.
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            from refusalkit.reporting.console import console

            text = TextColumn("{task.description}")
            self._bar = Bar(BarColumn(bar_width=20), text, console=console(stderr=True))
            self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> ProgressDisplay:
        if self._bar is not None:
            self._bar.start()
        self._shown_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show the progress, unless it was shown a moment ago."""
        now = time.monotonic()
        last = progress.verdicts >= progress.planned
        every = _PLAIN_EVERY_S if self._bar is None else _REDRAW_EVERY_S
        if now - self._shown_at < every and not (last and self._bar is not None):
            return
        self._shown_at = now
        text = describe(progress)
        if self._bar is None:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        else:
            self._bar.update(
                self._task, total=progress.planned, completed=progress.verdicts, description=text
            )


class SeveralProgress:
    """The progress of several runs, one line each by name. Use it as a context manager."""

    def __init__(self, names: Sequence[str]) -> None:
        self._bars: Bar | None = None
        self._shown_at: dict[str, float] = {}
        self._shown = {name: printable(name, 60) for name in names}
        if sys.stderr.isatty():
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            from refusalkit.reporting.console import console

            text = TextColumn("{task.description}")
            self._bars = Bar(BarColumn(bar_width=12), text, console=console(stderr=True))
            self._tasks = {
                name: self._bars.add_task(f"{shown}: starting", total=None)
                for name, shown in self._shown.items()
            }

    def __enter__(self) -> SeveralProgress:
        if self._bars is not None:
            self._bars.start()
        self._shown_at = dict.fromkeys(self._shown, time.monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, name: str, progress: Progress) -> None:
        """Show the progress of that run, unless it was shown a moment ago."""
        now = time.monotonic()
        last = progress.verdicts >= progress.planned
        every = _PLAIN_EVERY_S if self._bars is None else _REDRAW_EVERY_S
        if now - self._shown_at[name] < every and not (last and self._bars is not None):
            return
        self._shown_at[name] = now
        text = f"{self._shown[name]}: {describe(progress)}"
        if self._bars is None:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        else:
            done = progress.verdicts
            self._bars.update(
                self._tasks[name], total=progress.planned, completed=done, description=text
            )


@shows()
class TextProgress:
    """An `on_progress` callback that prints how far a run is, for notebooks and scripts.

    One line that is written anew about every second. `file` is where to, by default stdout.

    Examples:
        >>> import io
        >>> import refusalkit as rk
        >>> told = io.StringIO()
        >>> shown = rk.TextProgress(told)
        >>> run = rk.benchmark("demo/open", limit=2, trials=1, out="runs/two", on_progress=shown)
        >>> told.getvalue().splitlines()[-1]
        '2/2 answered, 2 judged, 0 refusals, 0 unscored, $0.00'
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._shown_at = -_TEXT_EVERY_S
        self._width = 0
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        """Write the line again, unless it was written a moment ago."""
        now = time.monotonic()
        last = progress.verdicts >= progress.planned
        if not last and now - self._shown_at < _TEXT_EVERY_S:
            return
        text = describe(progress)
        if last and text == self._last:
            return  # the end of a run is told by its last verdict already
        # Blanks cover what is left of a longer line.
        padding = " " * (self._width - len(text))
        before = "\r" if self._width else ""
        print(f"{before}{text}{padding}", end="", file=self._file, flush=True)
        self._shown_at, self._width = now, len(text)
        self._last = text if last else ""
        if last:
            print(file=self._file)
            self._shown_at, self._width = -_TEXT_EVERY_S, 0


def describe(progress: Progress) -> str:
    """One line: completions, verdicts, refusals, unscored, cost, time left."""
    parts = [
        f"{progress.completions}/{progress.planned} answered",
        f"{progress.verdicts} judged",
        f"{progress.refusals} refusals",
        f"{progress.unscored} unscored",
        "cost unknown" if progress.cost_usd is None else f"${progress.cost_usd:.2f}",
    ]
    if progress.eta_s is not None and progress.verdicts < progress.planned:
        minutes, seconds = divmod(round(progress.eta_s), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return ", ".join(parts)
