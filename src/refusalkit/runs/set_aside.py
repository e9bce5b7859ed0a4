"""Puts rows of a very large run on disk, so that only a part of them is in memory at a time.

Parts are by prompt: all units of one prompt are in the same part, in their original order.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from io import BytesIO

import polars as pl

from refusalkit.errors import RunFolderError
from refusalkit.untrusted import printable

# How many rows are collected in memory before they are written to disk.
_ROWS = 400_000


class SetAside:
    """Rows with a column `unit`, in `n_parts` parts of an unnamed temporary file."""

    def __init__(self, n_parts: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lasts as long as this does
        weakref.finalize(self, self._file.close)
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(n_parts)]
        self._waiting: list[pl.DataFrame] = []
        self._n_waiting = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows. Raises `RunFolderError` if a write fails."""
        self._waiting.append(rows)
        self._n_waiting += len(rows)
        if self._n_waiting >= _ROWS:
            self._put_down()

    def part(self, number: int) -> Iterator[pl.DataFrame]:
        """The rows of one part, from 0, in the order in which they were added."""
        if self._waiting:
            self._put_down()
        for at, size in self._places[number]:
            self._file.seek(at)
            yield pl.read_ipc(self._file.read(size))

    def _put_down(self) -> None:
        rows = pl.concat(self._waiting)
        self._waiting, self._n_waiting = [], 0
        # A unit is its prompt's id, `#` and the number of the trial.
        prompt = pl.col("unit").str.strip_chars_end("0123456789")
        part = prompt.hash() % len(self._places)
        parts = rows.with_columns(part=part).partition_by("part", as_dict=True, include_key=False)
        for number, places in enumerate(self._places):
            # A part without rows still has columns.
            data = BytesIO()
            parts.get((number,), rows.clear()).write_ipc(data, compression="lz4")
            try:
                at = self._file.seek(0, 2)
                self._file.write(data.getbuffer())
            except OSError as error:
                raise RunFolderError(
                    f"a run of this size needs room in {printable(tempfile.gettempdir())}, which "
                    f"refused: {error.strerror or error}; name a folder with more in TMPDIR"
                ) from error
            places.append((at, self._file.tell() - at))
