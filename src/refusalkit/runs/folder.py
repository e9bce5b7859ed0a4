"""The run folder: a manifest, and append-only records written as work finishes.

A kill at any moment loses at most what was in flight: each record reaches the file in one write, a
torn last line is cut off when the run is opened for writing again. Folders and files are private to
the user. One process writes a run at a time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import jsonlines
from filelock import FileLock, Timeout
from pydantic import ValidationError

from refusalkit import files, jsonl
from refusalkit.display import notebook_table
from refusalkit.errors import RecordError, RunFolderError, RunLocked, StorageError
from refusalkit.jsonl import why_invalid
from refusalkit.runs.edits import CHECK, with_check
from refusalkit.runs.manifest import MANIFEST, Manifest
from refusalkit.runs.records import SCHEMA, completion_record, verdict_record
from refusalkit.runs.seal import is_sealed, sealed
from refusalkit.types import Completion, Verdict
from refusalkit.untrusted import printable

COMPLETIONS = "completions.jsonl"
VERDICTS = "verdicts.jsonl"
CANARIES = "canaries.jsonl"
PRESSURE = "pressure.jsonl"
BATCHES = "batches.jsonl"
CHECKPOINT = "checkpoint.jsonl"
_LOCK = ".lock"
# A repr reads the records of a run up to this size.
_MAX_BYTES_SHOWN = 20_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk: the path of its folder, and what its manifest says.

    `benchmark`, `resume` and `regrade` return one, `load_run` opens one.
    """

    path: Path
    """The run folder."""
    manifest: Manifest
    """What was asked for and what was sent; see docs/records.md."""

    written: bytes = field(default=b"", repr=False, compare=False)
    """The manifest's file as it was read or written."""

    read_figures: ClassVar[Callable[[Run], Mapping[str, str]] | None] = None
    """How far a run is and its score, as `repr` shows them. Set by `refusalkit.api.calls`, as runs
    know nothing of scores."""

    def __repr__(self) -> str:
        return f"Run({', '.join(f'{name}={value!r}' for name, value in self._facts())})"

    def _repr_html_(self) -> str:
        return notebook_table(f"Run {self.manifest.id}", ("", ""), self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        manifest = self.manifest
        facts = {
            "path": printable(self.path, 400),
            "model": printable(str(manifest.config.get("model", ""))),
            "units": str(manifest.n_units),
            "ended": str(manifest.sessions[-1].ended_because) if manifest.sessions else "not begun",
        }
        if Run.read_figures is not None and self._bytes < _MAX_BYTES_SHOWN:
            facts |= Run.read_figures(self)
        return list(facts.items())

    @property
    def _bytes(self) -> int:
        """The size of the record files."""
        found = (path for path in (self.completions, self.verdicts) if path.is_file())
        return sum(path.stat().st_size for path in found)

    @property
    def is_own(self) -> bool:
        """Whether this user wrote the manifest on this machine, and it has not changed since."""
        return is_sealed(self.written)

    @property
    def has_answers(self) -> bool:
        """Whether any completion was recorded. Raises `RunFolderError` where the file is gone."""
        with open_records(self.completions) as file:
            return os.fstat(file.fileno()).st_size > 0

    @property
    def completions(self) -> Path:
        """The completion records."""
        return self.path / COMPLETIONS

    @property
    def verdicts(self) -> Path:
        """The verdict records."""
        return self.path / VERDICTS

    @property
    def canaries(self) -> Path:
        """The verdicts on canaries; there is no such file before the first of them."""
        return self.path / CANARIES

    @property
    def pressure(self) -> Path:
        """Conversations after a refusal; there is no such file before the first of them."""
        return self.path / PRESSURE

    @property
    def batches(self) -> Path:
        """What was handed to providers in batches; there is no such file before the first."""
        return self.path / BATCHES

    @property
    def checkpoint(self) -> Path:
        """What the records came to as far as they were read; there need be no such file."""
        return self.path / CHECKPOINT

    def with_manifest(self, manifest: Manifest, *, own: bool = True) -> Run:
        """The same run with a new manifest, written to disk in one step.

        `own`: it is sealed as this user's, so that a later command follows all that it says.
        """
        return Run(self.path, manifest, _write_manifest(self.path, manifest, own=own))

    @contextlib.contextmanager
    def writing(self, *, withheld: Collection[str] | None = None) -> Iterator[RecordWriter]:
        """Hold the run for writing, its torn tails repaired.

        `withheld` are the categories whose answers never touch the disk, by default those that the
        manifest says.

        Raises `RunLocked` if another process holds it, `RunFolderError` if a record file is gone,
        `StorageError` if the disk refuses.
        """
        lock = FileLock(self.path / _LOCK, mode=0o600)
        try:
            files.check_lock_file(self.path / _LOCK)
            lock.acquire(blocking=False)
        except Timeout as error:
            raise RunLocked(
                f"another process is writing {printable(self.path)}: wait for it to end"
            ) from error
        except OSError as error:
            raise _storage_error(self.path, error) from error
        try:
            with contextlib.ExitStack() as opened:
                # Both were made with the run: a new one would have all that it held paid for again.
                completions = opened.enter_context(self._append_to(self.completions))
                verdicts = opened.enter_context(self._append_to(self.verdicts))

                def open_beside(path: Path) -> AppendFile:
                    return opened.enter_context(AppendFile(path, checks=True))

                if withheld is None:
                    manifest = self.manifest
                    kept = manifest.hard_line_text == "kept"
                    withheld = frozenset() if kept else manifest.hard_lines
                beside = {path.name: path for path in (self.canaries, self.pressure, self.batches)}
                yield RecordWriter(withheld, completions, verdicts, beside, open_beside)
        finally:
            lock.release()

    def _append_to(self, file: Path) -> AppendFile:
        try:
            return AppendFile(file, create=False, checks=True)
        except FileNotFoundError as error:
            raise RunFolderError(
                f"{printable(self.path)} has lost its {file.name}: put the file back to go on, or "
                "start a new run with another --out"
            ) from error


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
        """Completions and verdicts that were appended."""

    @property
    def ends(self) -> tuple[int, int]:
        """Where the completion records end, and the verdict records, in bytes."""
        return self._completions.end, self._verdicts.end

    def withholds(self, category: str) -> bool:
        """Whether answers of this category never touch the disk."""
        return category in self._withheld

    def completion(self, completion: Completion) -> None:
        """Append a completion, without its text where the category's is withheld."""
        withhold = self.withholds(completion.category)
        self._completions.append(completion_record(completion, withhold_text=withhold))
        self.n_records += 1

    def verdict(self, verdict: Verdict) -> None:
        """Append a verdict."""
        withhold = self.withholds(verdict.category)
        self._verdicts.append(verdict_record(verdict, withhold_text=withhold))
        self.n_records += 1

    def copy(self, name: str, record: Mapping[str, Any]) -> None:
        """Append a record of another run's file of this name; what is withheld here is left out."""
        record = self._without_withheld(record)
        if name in self._paths:
            self._append_beside(name, record)
            return
        file = self._completions if name == COMPLETIONS else self._verdicts
        file.append(record)
        self.n_records += 1

    def _without_withheld(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """A record, and the records in it, without texts of a category that is withheld."""
        made = {
            name: self._without_withheld(value) if isinstance(value, dict) else value
            for name, value in record.items()
        }
        if self.withholds(str(record.get("category"))):
            made |= {field: None for field in ("text", "reason") if field in made}
        return made

    def canary(self, record: Mapping[str, Any]) -> None:
        """Append the record of a verdict on a canary."""
        self._append_beside(CANARIES, record)

    def pressure(self, record: Mapping[str, Any]) -> None:
        """Append the record of a turn after a refusal."""
        self._append_beside(PRESSURE, record)

    def batch(self, record: Mapping[str, Any]) -> None:
        """Append to the journal of batches; it is on disk for certain when this returns."""
        self._append_beside(BATCHES, record)
        self._beside[BATCHES].sync()

    def sync(self) -> None:
        """Return once the completions and verdicts are on disk for certain."""
        self._completions.sync()
        self._verdicts.sync()

    def _append_beside(self, name: str, record: Mapping[str, Any]) -> None:
        """To a file that is made with its first record."""
        if name not in self._beside:
            self._beside[name] = self._open_beside(self._paths[name])
        self._beside[name].append(record)


def holds_run(path: Path) -> bool:
    """Whether there is a run in the folder."""
    try:
        return (path / MANIFEST).exists()
    except OSError:  # a name that no file system takes
        return False


def refuse_link(path: Path) -> None:
    """Raise `RunFolderError` where an output folder is a link to another one."""
    try:
        if path.is_symlink():
            where = printable(os.path.realpath(path))
            raise RunFolderError(f"{printable(path)} is a link to {where}: give that as --out")
    except OSError:  # a name that no file system takes: the next step says so
        return


def create_run(path: Path, manifest: Manifest) -> Run:
    """Make a new run folder, private to the user.

    Raises `RunFolderError` if there is something already, `StorageError` if the disk refuses.
    """
    if holds_run(path):
        raise RunFolderError(
            f"{printable(path)} holds a run already: go on with it by "
            f"`refusalkit resume {printable(path)}`, or choose another --out"
        )
    refuse_link(path)
    try:
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{printable(path)} is a file: choose another --out")
        if path.exists() and any(path.iterdir()):
            raise RunFolderError(f"{printable(path)} exists and is not empty: choose another --out")
        files.make_folder(path)
        path.chmod(0o700)
        for name in (COMPLETIONS, VERDICTS):
            # Of two that make the same folder at the same moment, one gets it.
            os.close(os.open(path / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise RunFolderError(
            f"{printable(path)} is being made already: choose another --out"
        ) from (error)
    except OSError as error:
        raise _storage_error(path, error) from error
    return Run(path, manifest, _write_manifest(path, manifest, own=True))


def open_run(path: str | Path) -> Run:
    """Open an existing run for reading. Raises `RunFolderError`, which says what is wrong."""
    folder = Path(path)
    where = printable(path)
    file = folder / MANIFEST
    try:
        written = files.read_file(file, follow=False)
        data = json.loads(written)
    except FileNotFoundError as error:
        what = f"it has no {MANIFEST}" if folder.is_dir() else "there is no such folder"
        raise RunFolderError(f"{where} is not a run: {what}") from error
    except OSError as error:
        raise RunFolderError(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{where}/{MANIFEST} is not JSON: {printable(error)}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise RunFolderError(
            f"{where}/{MANIFEST} has schema version {printable(version)}, this refusalkit reads "
            f"{SCHEMA}: use the version that wrote it"
        )
    try:
        return Run(folder, Manifest.model_validate(data), written)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        what = first["msg"].removeprefix("Value error, ")
        text = f"{where}/{MANIFEST}: {printable(field)}: {printable(what)}"
        raise RunFolderError(text) from error


Place = tuple[int, int]
"""Where a record is in its file: the line, from 1, and the byte at which it begins."""


def read_records(
    path: Path, places: Iterable[Place] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each whole record of a file with its place (``name:line``); a torn last line is passed over.

    With `places` only the records there are read. Raises `RecordError` at a whole line that is no
    record of this schema.
    """
    with open_records(path) as file:
        lines = enumerate(_lines(path, file), 1) if places is None else _lines_at(file, places)
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


def open_records(path: Path) -> BinaryIO:
    """A record file, opened for reading. Raises `RunFolderError` where it is not a file."""
    try:
        return files.open_file(path, follow=False)
    except OSError as error:
        raise RunFolderError(f"{printable(path)} cannot be read: {error.strerror}") from error


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        yield from files.lines_of(file)
    except OSError as error:
        raise RunFolderError(f"{printable(path)} cannot be read: {error.strerror}") from error


def _lines_at(file: BinaryIO, places: Iterable[Place]) -> Iterator[tuple[int, bytes]]:
    for number, at in places:
        file.seek(at)
        yield number, file.readline()


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
            raise _storage_error(path, error) from error

    def __enter__(self) -> AppendFile:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; on failure the file ends where it ended before."""
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
            self._refused = _storage_error(self._path, error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.end)
            raise self._refused from error
        self.end += len(line)

    def sync(self) -> None:
        """Return once what was appended is on disk for certain. Raises `StorageError`."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise _storage_error(self._path, error) from error

    def _repair(self) -> int:
        """Cut off a torn last line; returns where the file ends now."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        tail_start = self._last_newline(size) + 1
        if tail_start == size:
            return size
        os.lseek(self._file, tail_start, os.SEEK_SET)
        tail = os.read(self._file, size - tail_start)
        if is_whole(tail):
            # Killed between a record and its newline: the record was paid for.
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
    """Whether a line without its newline is a record all the same: only the newline was lost."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _write_manifest(folder: Path, manifest: Manifest, *, own: bool) -> bytes:
    data = manifest.model_dump(mode="json")
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if own:
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, which is another character when it is read
            data = json.loads(text.encode("utf-8", "replace"))
        text = json.dumps(sealed(data), indent=2, ensure_ascii=False) + "\n"
    written = text.encode("utf-8", "replace")
    try:
        files.write_file(folder / MANIFEST, written)
    except OSError as error:
        raise _storage_error(folder, error) from error
    return written


def _storage_error(path: Path, error: OSError) -> StorageError:
    why = error.strerror or type(error).__name__
    return StorageError(
        f"cannot write {printable(path)}: {why}; what was written before stays readable"
    )
