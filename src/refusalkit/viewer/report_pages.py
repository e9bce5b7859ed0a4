"""The report's sections for one run or several, rendered in the background."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from jinja2 import ChoiceLoader, PackageLoader

from refusalkit.prompts.fetch import from_cache_only
from refusalkit.reporting.document.facts import gather
from refusalkit.reporting.document.page import REPORT_TEMPLATES, make_environment, page_parts
from refusalkit.viewer.background import Kept, Lane
from refusalkit.viewer.shelf import OpenedRun

MAX_RUNS = 12
"""Maximum number of runs compared on one page."""

_KEPT = 8
ENVIRONMENT = make_environment(
    ChoiceLoader([PackageLoader("refusalkit.viewer", "templates"), REPORT_TEMPLATES])
)


class ReportPages:
    """Rendered sections of the report, for the last few runs or comparisons."""

    def __init__(self) -> None:
        self._lane = Lane("reports")
        self._pages: OrderedDict[tuple[str, ...], Kept[str]] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the thread that renders."""
        self._lane.close()

    def of(self, runs: Sequence[OpenedRun]) -> Kept[str]:
        """The sections of these runs as HTML."""
        key = tuple(one.id for one in runs)
        with self._lock:
            if key not in self._pages:
                self._pages[key] = Kept(
                    self._lane,
                    lambda: tuple(one.stamp() for one in runs),
                    lambda: render(runs),
                )
            self._pages.move_to_end(key)
            while len(self._pages) > _KEPT:
                self._pages.popitem(last=False)
            return self._pages[key]


def render(runs: Sequence[OpenedRun]) -> str:
    """The headline and sections of a report, without its table of units. Raises `RecordError`."""
    with from_cache_only():
        facts = gather([one.run for one in runs])
        parts = page_parts(facts, without=("units",))
    return ENVIRONMENT.get_template("report_parts.html.j2").render(**parts)
