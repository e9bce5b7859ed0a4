"""What a run's records came to as far as they were read, so that a resume reads only on from there.

It is a cache and never a second truth: it counts only while each record file begins with the very
bytes that were read, and only if this user wrote it. It may be deleted at any time.
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

# Raised where a checkpoint, or what it calls settled and owed, gets another meaning.
SCHEMA = 2
# A checkpoint takes at most this part of the room that is left: that is for records.
_SHARE = 1 / 8
# Bytes of records that are held against a checkpoint by a program that only reads a run.
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
        """The higher of both, of each kind."""
        return Highest(
            highest(self.completion, other.completion),
            highest(self.verdict, other.verdict),
            highest(self.votes, other.votes),
        )


def highest(*costs: float | None) -> float | None:
    """The highest of the costs that are known."""
    return max((cost for cost in costs if cost is not None), default=None)


@dataclass(frozen=True, slots=True)
class Tables:
    """What is known of single units.

    `settled` has a bit for each trial of a prompt (columns block, prompt, bits). Of other units
    `asked` and `judged` are the records that still count: the completions that owe a verdict, and
    the last verdict of each judge.
    """

    settled: pl.DataFrame
    asked: pl.DataFrame
    judged: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the records came to, up to a place in each of two files.

    `refusals`, `unscored` and `highest` are those of settled units. `spent_usd` are addends of the
    exact sum of all that was paid, None where a price is unknown. Before anything was read there
    are no `tables`. `basis` stands for what it was made from besides the records.
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
        """Whether both files reach as far still, which began so when this was loaded."""
        files = ((self.completions, run.completions), (self.verdicts, run.verdicts))
        return all(read.size <= path.stat().st_size for read, path in files)


class _Model(BaseModel):
    # Built where there is a checkpoint, not at the start of every run.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class _Rows(_Model):
    """A table as it is in the file, a line for each row: so many bytes, and its columns."""

    size: int
    columns: tuple[str, ...]


class _Head(_Model):
    """All of a checkpoint but its rows: those follow, in the order of `tables`."""

    basis: str
    completions: Extent
    verdicts: Extent
    refusals: int
    unscored: int
    highest: Highest
    spent_usd: tuple[float, ...] | None
    tables: tuple[_Rows, _Rows, _Rows]


def save_checkpoint(run: Run, found: Checkpoint) -> None:
    """Write a checkpoint into a run that is held for writing; a disk that refuses has none."""
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
    """The checkpoint of a run, if it has one and the record files begin as they did for it.

    A writer leaves the beginnings of the files as they are, so no lock is needed for this.
    """
    try:
        first, _, data = read_file(run.checkpoint, follow=False).partition(b"\n")
        said = json.loads(first)
        # Somebody else's could call a unit settled that is owed.
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
    """Whether a run's checkpoint speaks of the records that there are, if it has one.

    `units` reads those with a completion, of the first `MAX_CHECKED` bytes at least; they are not
    always needed. One of another release is not looked into, nor one of more than the first
    `n_bytes` of completions: it was written since they were read.
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
    """Whether both record files begin as they did."""
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
