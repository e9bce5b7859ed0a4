"""The progress of a run: a live line on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from refusalkit.display import shows
from refusalkit.engine.plan import Progress
from refusalkit.reporting.progress_text import describe
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_PLAIN_EVERY_S = 5.0
_REDRAW_EVERY_S = 0.1
_TEXT_EVERY_S = 1.0


class ProgressDisplay:
    """An `on_progress` callback that shows progress on stderr. Use it as a context manager."""

    def __init__(self) -> None:
        self._rows = SeveralProgress([""])

    def __enter__(self) -> ProgressDisplay:
        self._rows.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.__exit__(kind, error, trace)

    def __call__(self, progress: Progress) -> None:
        """Show the progress, unless it was shown a moment ago."""
        self._rows("", progress)


class SeveralProgress:
    """The progress of several runs, one line each by name. Use it as a context manager.

    On a terminal a line has a name, a bar and as many figures as fit; how many units are judged and
    how long the rest will take are always among them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._bars: Bar | None = None
        self._shown_at: dict[str, float] = {}
        self._shown = {name: printable(name, 60) for name in names}
        if sys.stderr.isatty():
            # Imported here, as only a terminal needs it.
            from refusalkit.reporting.progress_rows import progress_rows

            self._bars, self._tasks = progress_rows(self._shown)

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
        if self._bars is None:
            shown = self._shown[name]
            sys.stderr.write(
                f"{shown}: {describe(progress)}\n" if shown else f"{describe(progress)}\n"
            )
            sys.stderr.flush()
        else:
            done = progress.verdicts
            self._bars.update(
                self._tasks[name], total=progress.planned, completed=done, progress=progress
            )


@shows()
class TextProgress:
    """An `on_progress` callback that prints how far a run is, for notebooks and scripts.

    It rewrites one line about every second. `file` is where it writes, by default stdout.

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
            return  # the last verdict has shown the end of the run already
        # Blanks overwrite the rest of a longer line.
        padding = " " * (self._width - len(text))
        before = "\r" if self._width else ""
        print(f"{before}{text}{padding}", end="", file=self._file, flush=True)
        self._shown_at, self._width = now, len(text)
        self._last = text if last else ""
        if last:
            print(file=self._file)
            self._shown_at, self._width = -_TEXT_EVERY_S, 0


@shows()
class NotebookProgress:
    """An `on_progress` callback that shows a bar in a notebook, where ipywidgets is installed.

    Elsewhere it prints as `TextProgress` does.

    Examples:
        >>> import refusalkit as rk
        >>> shown = rk.NotebookProgress()
        >>> run = rk.benchmark("demo/open", limit=2, trials=1, out="runs/bar", on_progress=shown)
        2/2 answered, 2 judged, 0 refusals, 0 unscored, $0.00
    """

    def __init__(self) -> None:
        self._widgets = _bar_and_words()
        self._text = TextProgress() if self._widgets is None else None
        self._shown_at = -_TEXT_EVERY_S

    def __call__(self, progress: Progress) -> None:
        """Show the progress, unless it was shown a moment ago."""
        if self._text is not None:
            self._text(progress)
            return
        now = time.monotonic()
        last = progress.verdicts >= progress.planned
        if not last and now - self._shown_at < _REDRAW_EVERY_S * 2:
            return
        self._shown_at = now
        bar, words = self._widgets
        bar.max, bar.value = max(1, progress.planned), progress.verdicts
        bar.bar_style = "success" if last and not progress.unscored else ""
        words.value = describe(progress)


def _bar_and_words() -> Any:
    """A bar and the words beside it, shown in the cell; None where there are no widgets."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    try:
        import ipywidgets
    except ImportError:
        return None
    bar, words = ipywidgets.IntProgress(value=0, max=1), ipywidgets.Label("starting")
    display(ipywidgets.HBox([bar, words]))  # type: ignore[no-untyped-call]
    return bar, words
