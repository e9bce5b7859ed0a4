"""Reads and appends to the record files of a run, and cuts off a torn last line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jsonlines

from refusalkit import files, jsonl
from refusalkit.errors import RecordError, RunFolderError, StorageError
from refusalkit.jsonl import why_invalid
from refusalkit.runs.edits import CHECK, with_check
from refusalkit.runs.record_json import FIELDS, SCHEMA, completion_record, verdict_record
from refusalkit.types import Completion, Verdict
from refusalkit.untrusted import printable

COMPLETIONS = "completions.jsonl"
VERDICTS = "verdicts.jsonl"
CANARIES = "canaries.jsonl"
PRESSURE = "pressure.jsonl"
BATCHES = "batches.jsonl"


class RecordWriter:
    """Appends records to a run that is held for writing."""

    def __init__(
        self,
        withheld: Collection[str],
        completions: AppendFile,
        verdicts: AppendFile,
        beside: Mapping[str, Path],
        open_beside: Callable[[Path], AppendFile],
    ) -> None:
        self._withheld = frozenset(withheld)
        self._completions = completions
        self._verdicts = verdicts
        self._paths, self._open_beside = beside, open_beside
        self._beside: dict[str, AppendFile] = {}
        self.n_records = 0
        """How many completions and verdicts were appended."""

    @property
    def ends(self) -> tuple[int, int]:
        """Sizes in bytes of the completion file and of the verdict file."""
        return self._completions.end, self._verdicts.end

    def withholds(self, category: str) -> bool:
        """Whether answers of this category never touch the disk."""
        return category in self._withheld

    def completion(self, completion: Completion) -> None:
        """Append a completion, without its text if the category is withheld."""
        withhold = self.withholds(completion.category)
        self._completions.append(completion_record(completion, withhold_text=withhold))
        self.n_records += 1

    def verdict(self, verdict: Verdict) -> None:
        """Append a verdict."""
        withhold = self.withholds(verdict.category)
        self._verdicts.append(verdict_record(verdict, withhold_text=withhold))
        self.n_records += 1

    def copy(self, name: str, record: Mapping[str, Any]) -> None:
        """Append a record from another run's file of this name, without what is withheld here."""
        record = self._without_withheld(record)
        if name in self._paths:
            self._append_beside(name, record)
            return
        file = self._completions if name == COMPLETIONS else self._verdicts
        file.append(record)
        self.n_records += 1

    def _without_withheld(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """A record, and those nested in it, without texts of withheld categories."""
        made = {
            name: self._without_withheld(value) if isinstance(value, dict) else value
            for name, value in record.items()
        }
        if self.withholds(str(record.get("category"))):
            made = {name: value for name, value in made.items() if name in FIELDS}
            made |= {name: None for name in ("text", "reason", "error_detail") if name in made}
        return made

    def canary(self, record: Mapping[str, Any]) -> None:
        """Append the record of a verdict on a canary."""
        self._append_beside(CANARIES, record)

    def pressure(self, record: Mapping[str, Any]) -> None:
        """Append the record of a turn after a refusal."""
        self._append_beside(PRESSURE, record)

    def batch(self, record: Mapping[str, Any]) -> None:
        """Append to the journal of batches, and sync it to disk."""
        self._append_beside(BATCHES, record)
        self._beside[BATCHES].sync()

    def sync(self) -> None:
        """Sync completions and verdicts to disk. Raises `StorageError`."""
        self._completions.sync()
        self._verdicts.sync()

    def _append_beside(self, name: str, record: Mapping[str, Any]) -> None:
        """Append to a file that is created with its first record."""
        if name not in self._beside:
            self._beside[name] = self._open_beside(self._paths[name])
        self._beside[name].append(record)


Place = tuple[int, int]
"""Where a record is in its file: the line, from 1, and the byte at which it begins."""


def read_records(
    path: Path, places: Iterable[Place] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each whole record of a file with its place (``name:line``); a torn last line is skipped.

    With `places` only the records there are read. Raises `RecordError` at a whole line that is not
    a record of this schema.
    """
    with open_records(path) as file:
        lines = (
            enumerate(record_lines(path, file), 1) if places is None else _lines_at(file, places)
        )
        for number, raw in lines:
            if not raw.endswith(b"\n") and not is_whole(raw):
                return
            if not raw.strip():
                continue
            place = f"{path.name}:{number}"
            try:
                record = jsonlines.Reader([raw]).read(type=dict)
            except jsonlines.InvalidLineError as error:
                raise RecordError(f"{place}: {printable(why_invalid(error))}") from error
            except RecursionError as error:
                raise RecordError(f"{place}: is nested too deeply") from error
            record.pop(CHECK, None)  # of the line, not of what it says
            if record.get("schema") != SCHEMA:
                found = printable(record.get("schema"))
                raise RecordError(f"{place}: has schema {found}, this refusalkit reads {SCHEMA}")
            yield place, record


_UNIT = re.compile(rb'(?<!\\)"unit"\s*:\s*("(?:[^"\\]|\\.)*")')


def first_units(path: Path, n_bytes: int) -> Iterator[str]:
    """The units in the first bytes of a file of completions, found without parsing its records.

    Each comes once. Raises `RunFolderError` where there is no such file.
    """
    with open_records(path) as file:
        lines = io.BytesIO(file.read(n_bytes))
    found: dict[bytes, None] = {}
    for line in lines:
        if (said := _UNIT.search(line)) is not None and said[1] not in found:
            found[said[1]] = None
            with contextlib.suppress(ValueError):
                yield str(json.loads(said[1]))


def open_records(path: Path) -> BinaryIO:
    """A record file, opened for reading. Raises `RunFolderError` where it is not a file."""
    try:
        return files.open_file(path, follow=False)
    except OSError as error:
        raise RunFolderError(f"{printable(path)} cannot be read: {error.strerror}") from error


def record_lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The lines of a record file. Raises `RunFolderError` at one that is too long."""
    try:
        yield from files.lines_of(file)
    except OSError as error:
        raise RunFolderError(f"{printable(path)} cannot be read: {error.strerror}") from error


def _lines_at(file: BinaryIO, places: Iterable[Place]) -> Iterator[tuple[int, bytes]]:
    for number, at in places:
        file.seek(at)
        yield number, file.readline(files.MAX_LINE)


class AppendFile:
    """A JSONL file to which whole records are appended, each in one write.

    Without `create` a file that is not there is a `FileNotFoundError`. With `checks` each record
    gets a digest of itself.
    """

    def __init__(self, path: Path, *, create: bool = True, checks: bool = False) -> None:
        self._path = path
        self._checks = checks
        self._buffer = io.BytesIO()
        self._writer = jsonlines.Writer(self._buffer, dumps=jsonl.to_well_formed)
        self._refused: StorageError | None = None
        self.end: int
        """Where its last record ends, in bytes."""
        try:
            self._file = files.open_for_appending(path, create=create)
            try:
                self.end = self._repair()
                os.lseek(self._file, self.end, os.SEEK_SET)
            except OSError:
                os.close(self._file)
                raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not create:
                raise
            raise storage_error(path, error) from error

    def __enter__(self) -> AppendFile:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; if that fails, the file is cut back to its earlier end."""
        if self._refused is not None:
            raise StorageError(str(self._refused))
        self._buffer.seek(0)
        self._buffer.truncate()
        self._writer.write(record)
        line = self._buffer.getvalue()
        if self._checks:
            line = with_check(line)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            self._refused = storage_error(self._path, error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.end)
            raise self._refused from error
        self.end += len(line)

    def sync(self) -> None:
        """Sync the file to disk. Raises `StorageError`."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise storage_error(self._path, error) from error

    def _repair(self) -> int:
        """Cut off a torn last line; returns the file's new size."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        tail_start = self._last_newline(size) + 1
        if tail_start == size:
            return size
        os.lseek(self._file, tail_start, os.SEEK_SET)
        tail = os.read(self._file, size - tail_start)
        if is_whole(tail):
            # The process was killed between a record and its newline: the record counts.
            os.lseek(self._file, size, os.SEEK_SET)
            os.write(self._file, b"\n")
            return size + 1
        os.ftruncate(self._file, tail_start)
        return tail_start

    def _last_newline(self, size: int) -> int:
        end = size
        while end > 0:
            start = max(0, end - 65536)
            os.lseek(self._file, start, os.SEEK_SET)
            at = os.read(self._file, end - start).rfind(b"\n")
            if at >= 0:
                return start + at
            end = start
        return -1


def is_whole(line: bytes) -> bool:
    """Whether a line without its newline is a whole record: only the newline was lost."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def storage_error(path: Path, error: OSError) -> StorageError:
    """The error of a failed write, in one sentence."""
    why = error.strerror or type(error).__name__
    return StorageError(
        f"cannot write {printable(path)}: {why}; what was written before stays readable"
    )
