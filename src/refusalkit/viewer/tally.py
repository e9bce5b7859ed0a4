"""The progress of a running run, counted from what was appended since the last count."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from refusalkit.files import open_file
from refusalkit.runs.columns import COMPLETION, VERDICT, read_columns
from refusalkit.runs.costs import paid, priced, spent_on_canaries
from refusalkit.runs.extents import Cursor
from refusalkit.runs.folder import Run
from refusalkit.runs.frames import stands
from refusalkit.runs.pressure import spent_on_pressure

# The pace is measured over the records in this many bytes at the end of the file.
_TAIL = 256 * 2**10
# A longer gap between records means that the run was stopped and resumed.
_MAX_PAUSE_S = 600.0


@dataclass(frozen=True)
class Pace:
    """Units with a verdict, verdicts per second, seconds left, USD spent; None: unknown."""

    n_done: int
    per_s: float | None
    eta_s: float | None
    cost_usd: float | None


class Tally:
    """Counts a run's records as they are appended, reading each once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._answers, self._verdicts = Cursor(), Cursor()
        self._n_done = 0
        self._costs: list[float] = []
        self._is_priced = True

    def pace(self, run: Run) -> Pace:
        """The run's present progress. Raises `RunFolderError`, `RecordError`."""
        with self._lock:
            self._run = run
            self._count()
            extra = (spent_on_canaries(run, None), spent_on_pressure(run, None))
            cost = None
            if self._is_priced and None not in extra:
                cost = math.fsum((*self._costs, *(one or 0.0 for one in extra)))
            n_done = min(self._n_done, run.manifest.n_units)
        per_s = _per_second(run.verdicts)
        left = run.manifest.n_units - n_done
        return Pace(n_done, per_s, left / per_s if per_s else None, cost)

    def _count(self) -> None:
        for path, cursor in (
            (self._run.completions, self._answers),
            (self._run.verdicts, self._verdicts),
        ):
            if size_of(path) < cursor.extent.size - 1:
                self._start()  # the file is shorter, so it was replaced
                break
        asked = read_columns(
            self._run.completions, COMPLETION, ["outcome", "cost_usd"], cursor=self._answers
        )
        columns = ["judge", "label", "unscored", "source", "cost_usd"]
        judged = read_columns(self._run.verdicts, VERDICT, columns, cursor=self._verdicts)
        for costs in (priced(asked), paid(judged)):
            self._is_priced &= not costs.null_count()
            self._costs.append(float(costs.sum()))
        self._costs = [math.fsum(self._costs)]
        own = judged.filter((pl.col("judge") == self._run.manifest.judge) & stands())
        self._n_done += len(own)


def size_of(path: Path) -> int:
    """The size of a file in bytes, 0 where there is none."""
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _per_second(path: Path) -> float | None:
    """Records per second, by the times in the last ones; None where these do not tell."""
    try:
        with open_file(path, follow=False) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read().split(b"\n")[1:-1]
    except OSError:
        return None
    times = [moment for line in lines if (moment := _moment(line)) is not None]
    # Only those since the last long gap.
    for n, (earlier, later) in reversed(list(enumerate(pairwise(times)))):
        if later - earlier > _MAX_PAUSE_S:
            times = times[n + 1 :]
            break
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


def _moment(line: bytes) -> float | None:
    """When a record was written, in seconds since 1970; None where it does not say."""
    try:
        record: Any = json.loads(line)
        return datetime.fromisoformat(str(record["at"])).timestamp()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
