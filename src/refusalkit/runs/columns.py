"""Reads columns of record files in pieces, checks each, and names the line of a broken record."""

from __future__ import annotations

import io
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl

from refusalkit.errors import RecordError, RunFolderError
from refusalkit.files import open_file
from refusalkit.runs.extents import START, Cursor, Extent
from refusalkit.runs.record_json import SCHEMA
from refusalkit.runs.records import is_whole, read_records
from refusalkit.types import Label, Outcome, Unscored
from refusalkit.untrusted import printable

_USAGE = pl.Struct(
    {
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "reasoning_tokens": pl.Int64,
        "cache_read_tokens": pl.Int64,
        "cache_write_tokens": pl.Int64,
    }
)
Schema = Mapping[str, pl.DataType | type[pl.DataType]]
COMPLETION: Schema = {
    "schema": pl.Int64,
    "unit": pl.String,
    "prompt_id": pl.String,
    "category": pl.String,
    "trial": pl.Int64,
    "outcome": pl.String,
    "text": pl.String,
    "text_sha256": pl.String,
    "text_chars": pl.Int64,
    "reasoning_chars": pl.Int64,
    "usage": _USAGE,
    "cost_usd": pl.Float64,
    "latency_s": pl.Float64,
    "filter_category": pl.String,
    "error": pl.String,
    "finish_reason": pl.String,
    "unknown_mark": pl.String,
}
VERDICT: Schema = {
    "schema": pl.Int64,
    "unit": pl.String,
    "judge": pl.String,
    "label": pl.String,
    "unscored": pl.String,
    "source": pl.String,
    "reason": pl.String,
    "word": pl.String,
    "rests_on": pl.String,
    "cut_chars": pl.Int64,
    "answered_by": pl.String,
    "error_detail": pl.String,
    "usage": _USAGE,
    "cost_usd": pl.Float64,
}
# Bytes of a record file that are in memory at once.
_PIECE = 8 * 2**20

_REQUIRED = frozenset({"unit", "prompt_id", "category", "trial", "outcome", "judge"})
WORDS: Mapping[str, list[str]] = {
    "outcome": [outcome.value for outcome in Outcome],
    "label": [label.value for label in Label],
    "unscored": [why.value for why in Unscored],
}
_PYTHON: Mapping[str, type | tuple[type, ...]] = {
    "Int64": int,
    "Float64": (int, float),
    "String": str,
}


def read_columns(
    path: Path,
    schema: Schema,
    columns: Sequence[str],
    then: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    *,
    cursor: Cursor | None = None,
) -> pl.DataFrame:
    """Some columns of a record file; with a cursor only the records after it, with their places.

    The file is read in pieces, and `then` reduces each one to what is kept, so that the texts of
    all answers are never in memory together.
    """
    return pl.concat(read_pieces(path, schema, columns, then, cursor=cursor), rechunk=True)


def read_pieces(
    path: Path,
    schema: Schema,
    columns: Sequence[str],
    then: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    *,
    cursor: Cursor | None = None,
    until: int | None = None,
) -> Iterator[pl.DataFrame]:
    """`read_columns` a piece at a time, at least one, in the file's order.

    Reads the whole file, or its first `until` bytes.
    """
    wanted = {name: schema[name] for name in ("schema", *columns)}

    def parse(data: bytes, above: Extent, starts: list[int]) -> pl.DataFrame:
        piece = pl.read_ndjson(data, schema=wanted)
        if not _is_sound(piece):
            _blame(path, schema)
        piece = piece.select(columns)
        if cursor is not None:
            piece = piece.with_columns(_places(data, above, starts, len(piece)))
        return piece if then is None else then(piece)

    waiting: deque[Future[pl.DataFrame]] = deque()
    above, until = (START, until) if cursor is None else (cursor.extent, cursor.until)
    starts: list[int] = []
    try:
        # polars parses a piece on one core, so as many pieces at once as it has threads.
        with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
            for data in _pieces(path, above.size, until):
                if cursor is not None:
                    starts = _starts(data)
                    above = cursor.extent
                    cursor.extent = above.followed_by(data, len(starts))
                waiting.append(threads.submit(parse, data, above, starts))
                if len(waiting) > pl.thread_pool_size():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except OSError as error:
        where = printable(path)
        raise RunFolderError(f"{where} cannot be read: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        _blame(path, schema)
        raise RecordError(
            f"{path.name} has a record of another shape: {printable(error)}"
        ) from error


def _pieces(path: Path, start: int = 0, until: int | None = None) -> Iterator[bytes]:
    """The file in pieces of whole lines, at least one; a torn last line is left out."""
    with open_file(path, follow=False) as file:
        size = file.seek(0, io.SEEK_END) if until is None else until
        end = -1
        while end < size:
            end = size
            if start + _PIECE < size:
                # The end of the line is found first, because joining two reads would copy both.
                file.seek(start + _PIECE)
                file.readline()
                end = file.tell()
            file.seek(start)
            data = file.read(end - start)
            start = end
            if not data.endswith(b"\n"):
                whole = data.rfind(b"\n") + 1
                # Killed between a record and its newline: the record counts.
                data = data + b"\n" if is_whole(data[whole:]) else data[:whole]
            yield data


def _starts(data: bytes) -> list[int]:
    """Where each line of a piece begins."""
    starts, end = [0], data.find(b"\n")
    while end >= 0:
        starts.append(end + 1)
        end = data.find(b"\n", end + 1)
    return starts[:-1]


def _places(data: bytes, above: Extent, starts: list[int], rows: int) -> pl.DataFrame:
    """Line and byte at which each record of a piece begins; polars skips blank lines."""
    places = pl.DataFrame({"at": starts}, schema={"at": pl.Int64}).select(
        line=pl.int_range(pl.len()) + above.lines + 1, at=pl.col("at") + above.size
    )
    if len(starts) == rows:
        return places
    lines = itertools.pairwise((*starts, len(data)))
    return places.filter(pl.Series([bool(data[a:b].strip()) for a, b in lines], dtype=pl.Boolean))


def _is_sound(frame: pl.DataFrame) -> bool:
    for column in frame:
        if column.name in _REQUIRED and column.null_count():
            return False
        words = WORDS.get(column.name)
        if words is not None and not column.drop_nulls().is_in(words).all():
            return False
    return bool(frame["schema"].eq_missing(SCHEMA).all())


def _blame(path: Path, schema: Schema) -> None:
    """Raise `RecordError` at the first broken record; polars does not say which line it is in."""
    for place, record in read_records(path):
        for name, kind in schema.items():
            value = record.get(name)
            if value is None:
                wrong = name in _REQUIRED
            elif name in WORDS:
                wrong = value not in WORDS[name]
            else:
                wrong = not isinstance(value, _PYTHON.get(str(kind), dict))
            if wrong:
                what = "is missing" if value is None else f"cannot be {printable(value, 60)}"
                raise RecordError(f"{place}: {name} {what}")
