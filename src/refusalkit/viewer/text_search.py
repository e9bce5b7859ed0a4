"""Searches the answers of a run, reading its completions once in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import polars as pl

from refusalkit.errors import RefusalkitError
from refusalkit.runs.columns import COMPLETION, read_columns
from refusalkit.runs.extents import Cursor
from refusalkit.runs.folder import Run
from refusalkit.viewer.unit_index import UnitIndex

_STEP = 32 * 2**20


class TextSearch:
    """A search for the units whose answer contains `words`, ignoring case.

    `done` is the share of the file that was searched, from 0 to 1.
    """

    def __init__(self, run: Run, index: UnitIndex, words: str) -> None:
        self.index, self.words = index, words
        self.done = 0.0
        self._found: list[pl.Series] = []
        self._run = run
        self._stopped = False
        self._changed = threading.Condition()
        threading.Thread(target=self._search, name="search", daemon=True).start()

    def stop(self) -> None:
        """Stop searching: another search takes its place."""
        self._stopped = True

    def rows(self, wait_s: float) -> pl.Series:
        """Row numbers found so far; waits at most `wait_s` seconds for the search to end."""
        until = time.monotonic() + wait_s
        with self._changed:
            while self.done < 1 and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return pl.concat(self._found) if self._found else pl.Series("row", [], pl.UInt32)

    def _search(self) -> None:
        cursor = Cursor()
        places = self.index.units.with_row_index("row").select("row", "at")
        hit = pl.col("text").str.to_lowercase().str.contains(self.words.lower(), literal=True)
        done = 0.0
        while done < 1 and not self._stopped:
            try:
                size = self._run.completions.stat().st_size
                cursor.until = min(size, cursor.extent.size + _STEP)
                read = read_columns(
                    self._run.completions, COMPLETION, ["text"], _keeping(hit), cursor=cursor
                )
            except (RefusalkitError, OSError):
                break
            rows = read.join(places, on="at", how="inner")["row"]
            done = 1.0 if cursor.until >= size else cursor.extent.size / size
            with self._changed:
                self._found.append(rows)
                self.done = done
                self._changed.notify_all()
        with self._changed:
            self.done = 1.0
            self._changed.notify_all()


def _keeping(hit: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda piece: piece.filter(hit).select("at")
