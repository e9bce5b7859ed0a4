"""A summary of a run's records up to some place, so that a resume reads only what comes after.

It is only a cache: it is used while each record file still begins with the bytes that it
summarises, and only if this user wrote it. It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from refusalkit.files import read_file, write_file
from refusalkit.runs.extents import START, Extent
from refusalkit.runs.folder import Run
from refusalkit.runs.seal import code_of, has_code
from refusalkit.runs.settled import has_more, settled_bits

if TYPE_CHECKING:
    import polars as pl

# Increased when the format changes, or what counts as settled or owed.
SCHEMA = 2
# A checkpoint takes at most this share of the free disk space, which is for records.
_SHARE = 1 / 8
# Programs that only read a run compare a checkpoint with at most this many bytes of records.
MAX_CHECKED = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Highest:
    """The most that the last records of one unit cost, in USD; None where none has a price.

    `votes` are those of a council's members together.
    """

    completion: float | None = None
    verdict: float | None = None
    votes: float | None = None

    def or_more(self, other: Highest) -> Highest:
        """The higher of the two figures of each kind."""
        return Highest(
            highest(self.completion, other.completion),
            highest(self.verdict, other.verdict),
            highest(self.votes, other.votes),
        )


def highest(*costs: float | None) -> float | None:
    """The highest known cost; None if none is known."""
    return max((cost for cost in costs if cost is not None), default=None)


@dataclass(frozen=True, slots=True)
class Tables:
    """The part of a checkpoint about single units.

    `settled` has a bit for each trial of a prompt (columns block, prompt, bits). For the other
    units, `asked` and `judged` have the records that still matter: completions without a verdict
    that counts, and the last verdict of each judge.
    """

    settled: pl.DataFrame
    asked: pl.DataFrame
    judged: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A summary of the records up to a place in each of the two files.

    `refusals`, `unscored` and `highest` are over settled units. `spent_usd` has addends of the
    exact sum of all costs in USD; it is None if a price is unknown. `tables` is None before
    anything was read. `basis` is a digest of everything else that the summary depends on.
    """

    basis: str = ""
    completions: Extent = START
    verdicts: Extent = START
    refusals: int = 0
    unscored: int = 0
    highest: Highest = Highest()
    spent_usd: tuple[float, ...] | None = ()
    tables: Tables | None = None

    @property
    def n_records(self) -> int:
        """How many records were read, blank lines among them."""
        return self.completions.lines + self.verdicts.lines

    def fits(self, run: Run) -> bool:
        """Whether both files are still as long as what was read; their content is not compared."""
        files = ((self.completions, run.completions), (self.verdicts, run.verdicts))
        return all(read.size <= path.stat().st_size for read, path in files)


class _Model(BaseModel):
    # Built where there is a checkpoint, not at the start of every run.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class _Rows(_Model):
    """A table's place in the file, which has a line for each row: bytes, and column names."""

    size: int
    columns: tuple[str, ...]


class _Head(_Model):
    """All of a checkpoint but the rows of its tables, which follow in the order of `tables`."""

    basis: str
    completions: Extent
    verdicts: Extent
    refusals: int
    unscored: int
    highest: Highest
    spent_usd: tuple[float, ...] | None
    tables: tuple[_Rows, _Rows, _Rows]


def save_checkpoint(run: Run, found: Checkpoint) -> None:
    """Write a checkpoint into a run that is held for writing; failures are ignored."""
    assert found.tables is not None, "nothing was read"
    tables = (found.tables.settled, found.tables.asked, found.tables.judged)
    rows = [table.write_ndjson().encode() for table in tables]
    settled, asked, judged = (
        _Rows(size=len(data), columns=tuple(table.columns))
        for table, data in zip(tables, rows, strict=True)
    )
    head = _Head(
        basis=found.basis,
        completions=found.completions,
        verdicts=found.verdicts,
        refusals=found.refusals,
        unscored=found.unscored,
        highest=found.highest,
        spent_usd=found.spent_usd,
        tables=(settled, asked, judged),
    )
    data = b"".join((head.model_dump_json().encode(), b"\n", *rows))
    code = code_of(data)
    if code is None:
        return
    first = json.dumps({"schema": SCHEMA, "crc32": zlib.crc32(data), "code": code}) + "\n"
    with contextlib.suppress(OSError):
        if len(data) < _SHARE * shutil.disk_usage(run.path).free:
            write_file(run.checkpoint, first.encode() + data, durable=False)


def load_checkpoint(run: Run) -> Checkpoint | None:
    """The checkpoint of a run; None unless the record files begin with what it summarises.

    Writers only append to these files, so this needs no lock.
    """
    try:
        first, _, data = read_file(run.checkpoint, follow=False).partition(b"\n")
        said = json.loads(first)
        # Somebody else's could declare units settled that are not.
        if said.get("schema") != SCHEMA or not has_code(data, said.get("code")):
            return None
        line, _, rows = data.partition(b"\n")
        head = _Head.model_validate_json(line)
        if not _begin(run, head):
            return None
        return Checkpoint(
            basis=head.basis,
            completions=head.completions,
            verdicts=head.verdicts,
            refusals=head.refusals,
            unscored=head.unscored,
            highest=head.highest,
            spent_usd=head.spent_usd,
            tables=Tables(*_read_tables(head.tables, rows)),
        )
    except (OSError, ValueError, RecursionError, AttributeError):
        return None


def checkpoint_fits(run: Run, units: Callable[[], pl.Series], n_bytes: int | None = None) -> bool:
    """Whether a run's checkpoint agrees with its records, or there is no checkpoint.

    `units` reads the units with a completion, at least those in the first `MAX_CHECKED` bytes; it
    is called only if needed. A checkpoint of another release is not checked, nor one that covers
    more than the first `n_bytes` of completions, as it was written after those were read.
    """
    try:
        text = read_file(run.checkpoint, follow=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    first, _, data = text.partition(b"\n")
    try:
        said = json.loads(first)
        if isinstance(said, dict) and said.get("schema") != SCHEMA:
            return True
        if said.get("crc32") != zlib.crc32(data):
            return False
        line, _, rows = data.partition(b"\n")
        head = _Head.model_validate_json(line)
        files = ((head.completions, run.completions), (head.verdicts, run.verdicts))
        if any(read.size > path.stat().st_size for read, path in files):
            return False
        if sum(read.size for read, _ in files) > MAX_CHECKED:
            return True
        if n_bytes is not None and head.completions.size > n_bytes:
            return True
        settled, *_ = _read_tables(head.tables, rows)
        return _begin(run, head) and not has_more(settled, settled_bits(units()))
    except (OSError, ValueError, RecursionError, AttributeError):
        return False


def _begin(run: Run, head: _Head) -> bool:
    """Whether both record files still begin with the bytes that the checkpoint summarises."""
    files = ((head.completions, run.completions), (head.verdicts, run.verdicts))
    with ThreadPoolExecutor(len(files)) as threads:
        return all(threads.map(lambda read: read[0].begins(read[1]), files))


def _read_tables(tables: Iterable[_Rows], rows: bytes) -> Iterator[pl.DataFrame]:
    import polars as pl

    kinds: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(
        ("block", "line", "at"), pl.Int64
    )
    kinds |= {"bits": pl.UInt64, "has_text": pl.Boolean, "cost_usd": pl.Float64}
    start = 0
    for table in tables:
        schema = {column: kinds.get(column, pl.String) for column in table.columns}
        data = rows[start : start + table.size]
        start += table.size
        try:
            yield pl.read_ndjson(data, schema=schema) if data else pl.DataFrame(schema=schema)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise ValueError("a table is damaged") from error
