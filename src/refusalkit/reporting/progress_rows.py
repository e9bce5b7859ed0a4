"""The progress lines of a terminal, each fitted to its width."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import ProgressColumn, Task, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from refusalkit.reporting.console import console
from refusalkit.reporting.progress_text import fitted, shortened

# Cells between two columns.
_GAP = 1


def progress_rows(names: Mapping[str, str]) -> tuple[Bar, dict[str, TaskID]]:
    """A display with a line for each name, shown as `names` say; an empty one has no column."""
    out = console(stderr=True)
    layout = _Layout(out, max(map(len, names.values()), default=0))
    columns = [_Bar(layout), _Figures(layout)]
    bars = Bar(*([_Name(layout)] if layout.longest else []), *columns, console=out)
    tasks = {name: bars.add_task(shown, total=None, progress=None) for name, shown in names.items()}
    return bars, tasks


class _Layout:
    """How wide each column is at the terminal's present width, which may change during a run."""

    def __init__(self, out: Console, longest: int) -> None:
        self._out = out
        self.longest = longest

    @property
    def name(self) -> int:
        return min(self.longest, max(9, self._out.width // 4))

    @property
    def bar(self) -> int:
        if self.longest and self._out.width < 60:
            return 0
        return 12 if self._out.width < 100 else 20

    @property
    def figures(self) -> int:
        """The cells that are left, less one: a terminal wraps a line that fills its last cell."""
        name = self.name + _GAP if self.longest else 0
        return max(10, self._out.width - name - self.bar - _GAP - 1)


class _Fitted(ProgressColumn):
    def __init__(self, layout: _Layout) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="crop"))
        self._layout = layout


class _Name(_Fitted):
    def render(self, task: Task) -> Text:
        return Text(shortened(task.description, self._layout.name))


class _Bar(_Fitted):
    def render(self, task: Task) -> ProgressBar | Text:
        if not self._layout.bar:
            return Text("")
        return ProgressBar(
            total=None if task.total is None else max(0, task.total),
            completed=max(0, task.completed),
            width=self._layout.bar,
            pulse=not task.started,
            animation_time=task.get_time(),
        )


class _Figures(_Fitted):
    def render(self, task: Task) -> Text:
        progress = task.fields["progress"]
        text = "starting" if progress is None else fitted(progress, self._layout.figures)
        return Text(text)
