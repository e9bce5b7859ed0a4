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
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jsonlines
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from refusalkit.config import RunConfig
from refusalkit.datasets.records import why_invalid
from refusalkit.errors import RecordError, RunFolderError, RunLocked, StorageError
from refusalkit.records import SCHEMA, completion_record, verdict_record
from refusalkit.types import Completion, Verdict
from refusalkit.untrusted import printable, well_formed

MANIFEST = "manifest.json"
COMPLETIONS = "completions.jsonl"
VERDICTS = "verdicts.jsonl"
CANARIES = "canaries.jsonl"
_LOCK = ".lock"
_BINARY = getattr(os, "O_BINARY", 0)


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CategoryEntry(_Model):
    """One category as the run saw it.

    `n_prompts` and `n_units` count what willingness rests on; `n_contrast` prompts with a twin and
    `n_framed` prompts in a framing come on top, each with every trial.
    """

    slug: str
    title: str
    hard_line: bool
    n_prompts: int
    n_units: int
    n_contrast: int = 0
    n_framed: int = 0


class FramedEntry(_Model):
    """A framed prompt: its framing, the prompt whose request it is, and its planned units."""

    framing: str
    frame_of: str
    category: str
    n_units: int


class PartEntry(_Model):
    """One of the sets that were combined, before any filter."""

    name: str
    version: str
    digest: str
    n_prompts: int


class PromptSetEntry(_Model):
    """Which prompts were asked. `source` None: the set was built in Python.

    `twins` names the contrast prompts among them: each one's id, and the id of the prompt that it
    stands beside, which need not have been asked. `framed` has the framed prompts by id.
    `parts` are the sets that were combined, if any. `danger` holds the danger (1 to 3) of each
    prompt that has one, by id; runs from before it was recorded have none.
    """

    name: str
    version: str
    digest: str
    licence: str
    source: str | None
    selection: dict[str, Any]
    n_prompts: int
    categories: tuple[CategoryEntry, ...]
    twins: dict[str, str] = {}
    framed: dict[str, FramedEntry] = {}
    parts: tuple[PartEntry, ...] = ()
    danger: dict[str, int] = {}


class _JudgeFile(_Model):
    name: str
    source: str | None = None
    version: int | None = None
    digest: str | None = None
    kind: str
    model: str | None = None
    graded: bool = True


class JudgePart(_JudgeFile):
    """A judge that answers under another one's id: a fallback, the judge of the hard lines."""

    id: str


class JudgeEntry(_JudgeFile):
    """A judge that worked on the run. `graded`: whether it tells a deflection from a leak.

    `source` is the shipped name or the path of its file, None for a judge given as an object.
    `members` are the ids of a council's judges, which have entries of their own; `rule` says how
    they decide. `fallback` answers where the judge was blocked, `hard_line_judge` answers for the
    hard lines; where there is one of these, `digest` covers all of them.
    """

    members: tuple[str, ...] = ()
    rule: str | None = None
    fallback: JudgePart | None = None
    hard_line_judge: JudgePart | None = None


class ParameterEntry(_Model):
    """The parameters really sent, and what was left out and why."""

    sent: dict[str, Any] = {}
    dropped: dict[str, str] = {}


class Session(_Model):
    """One stretch of work on a run, from start or resume to its end.

    `judge` is the id of the judge that judged the run again, None where the run's own was at work.
    """

    started_at: str
    ended_at: str | None = None
    ended_because: str | None = None
    operational: dict[str, Any] = {}
    judge: str | None = None


class Manifest(_Model):
    """What a run is. `kind`: ``run`` asked a model, ``grade`` judged recorded answers."""

    schema_version: Literal[1]
    kind: Literal["run", "grade"]
    id: str
    refusalkit: str
    python: str
    packages: dict[str, str]
    config: dict[str, Any]
    config_digest: str
    prompt_set: PromptSetEntry
    trials: int
    n_units: int
    judge: str
    judges: dict[str, JudgeEntry]
    hard_line_text: Literal["withheld", "kept"]
    # Prompts by language (BCP 47). Empty in older runs.
    languages: dict[str, int] = {}
    parameters: dict[str, ParameterEntry] = {}
    sessions: tuple[Session, ...] = ()

    @model_validator(mode="after")
    def _judge_is_known(self) -> Manifest:
        if self.judge not in self.judges:
            raise ValueError("`judge` is not one of `judges`")
        for entry in self.judges.values():
            if not self.judges.keys() >= set(entry.members):
                raise ValueError("a council's member is not one of `judges`")
        return self

    def judge_id(self, name: str | None = None) -> str:
        """The id of one of the run's judges, by its id or a name that only one of them has.

        None is the judge of record. Raises `RunFolderError`, which lists the ids.
        """
        if name is None:
            return self.judge
        if name in self.judges:
            return name
        known = ", ".join(map(printable, self.judges))
        named = [judge for judge, entry in self.judges.items() if entry.name == name]
        if not named:
            raise RunFolderError(f"the judge {printable(name)} is not of this run; it has: {known}")
        if len(named) > 1:
            raise RunFolderError(
                f"{len(named)} judges of this run are named {printable(name)}: give the id, one of "
                f"{', '.join(map(printable, named))}"
            )
        return named[0]

    @property
    def hard_lines(self) -> frozenset[str]:
        """Slugs of the hard-line categories."""
        return frozenset(c.slug for c in self.prompt_set.categories if c.hard_line)

    @property
    def run_config(self) -> RunConfig:
        """The configuration, checked. Raises `RunFolderError` if it is no longer one."""
        try:
            return RunConfig.model_validate(self.config)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(
                f"{MANIFEST}: config.{printable(field)}: {printable(first['msg'])}"
            ) from error


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk. Make one with `create_run` or `open_run`."""

    path: Path
    manifest: Manifest

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

    def with_manifest(self, manifest: Manifest) -> Run:
        """The same run with a new manifest, written to disk in one step."""
        _write_manifest(self.path, manifest)
        return Run(self.path, manifest)

    @contextlib.contextmanager
    def writing(self) -> Iterator[RecordWriter]:
        """Hold the run for writing, its torn tails repaired.

        Raises `RunLocked` if another process holds it, `StorageError` if the disk refuses.
        """
        lock = FileLock(self.path / _LOCK, mode=0o600)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise RunLocked(
                f"another process is writing {printable(self.path)}: wait for it to end"
            ) from error
        except OSError as error:
            raise _storage_error(self.path, error) from error
        try:
            with contextlib.ExitStack() as files:
                completions = files.enter_context(AppendFile(self.completions))
                verdicts = files.enter_context(AppendFile(self.verdicts))

                def open_canaries() -> AppendFile:
                    return files.enter_context(AppendFile(self.canaries))

                yield RecordWriter(self.manifest, completions, verdicts, open_canaries)
        finally:
            lock.release()


class RecordWriter:
    """Appends records to a run that is held for writing."""

    def __init__(
        self,
        manifest: Manifest,
        completions: AppendFile,
        verdicts: AppendFile,
        open_canaries: Callable[[], AppendFile],
    ) -> None:
        self._withheld = (
            manifest.hard_lines if manifest.hard_line_text == "withheld" else frozenset()
        )
        self._completions = completions
        self._verdicts = verdicts
        self._open_canaries = open_canaries
        self._canaries: AppendFile | None = None

    def withholds(self, category: str) -> bool:
        """Whether answers of this category never touch the disk."""
        return category in self._withheld

    def completion(self, completion: Completion) -> None:
        """Append a completion, without its text where the category's is withheld."""
        withhold = self.withholds(completion.category)
        self._completions.append(completion_record(completion, withhold_text=withhold))

    def verdict(self, verdict: Verdict) -> None:
        """Append a verdict."""
        withhold = self.withholds(verdict.category)
        self._verdicts.append(verdict_record(verdict, withhold_text=withhold))

    def canary(self, record: Mapping[str, Any]) -> None:
        """Append the record of a verdict on a canary."""
        if self._canaries is None:
            self._canaries = self._open_canaries()
        self._canaries.append(record)


def holds_run(path: Path) -> bool:
    """Whether there is a run in the folder."""
    try:
        return (path / MANIFEST).exists()
    except OSError:  # a name that no file system takes
        return False


def create_run(path: Path, manifest: Manifest) -> Run:
    """Make a new run folder, private to the user.

    Raises `RunFolderError` if there is something already, `StorageError` if the disk refuses.
    """
    if holds_run(path):
        raise RunFolderError(
            f"{printable(path)} holds a run already: go on with it by "
            f"`refusalkit resume {printable(path)}`, or choose another --out"
        )
    try:
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{printable(path)} is a file: choose another --out")
        if path.exists() and any(path.iterdir()):
            raise RunFolderError(f"{printable(path)} exists and is not empty: choose another --out")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    _write_manifest(path, manifest)
    return Run(path, manifest)


def open_run(path: str | Path) -> Run:
    """Open an existing run for reading. Raises `RunFolderError`, which says what is wrong."""
    folder = Path(path)
    where = printable(path)
    file = folder / MANIFEST
    try:
        data = json.loads(file.read_bytes())
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
        return Run(folder, Manifest.model_validate(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        what = first["msg"].removeprefix("Value error, ")
        text = f"{where}/{MANIFEST}: {printable(field)}: {printable(what)}"
        raise RunFolderError(text) from error


def read_records(
    path: Path, lines: Collection[int] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each whole record of a file with its place (``name:line``); a torn last line is passed over.

    With `lines`, numbered from 1, only those are read. Raises `RecordError` at a whole line that is
    no record of this schema.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if lines is not None and number not in lines:
                continue
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
            if record.get("schema") != SCHEMA:
                found = printable(record.get("schema"))
                raise RecordError(f"{place}: has schema {found}, this refusalkit reads {SCHEMA}")
            yield place, record


class AppendFile:
    """A JSONL file to which whole records are appended, each in one write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = io.StringIO()
        self._writer = jsonlines.Writer(self._buffer, compact=True)
        self._refused: StorageError | None = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
            try:
                self._end = self._repair()
            except OSError:
                os.close(self._file)
                raise
        except OSError as error:
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
        line = well_formed(self._buffer.getvalue()).encode()
        try:
            os.lseek(self._file, self._end, os.SEEK_SET)
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            self._refused = _storage_error(self._path, error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise self._refused from error
        self._end += len(line)

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


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    data = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    temporary = folder / f".{MANIFEST}.new"
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
        with os.fdopen(file, "wb") as handle:
            handle.write(data.encode("utf-8", "replace"))
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(folder / MANIFEST)
    except OSError as error:
        raise _storage_error(folder, error) from error


def _storage_error(path: Path, error: OSError) -> StorageError:
    why = error.strerror or type(error).__name__
    return StorageError(
        f"cannot write {printable(path)}: {why}; what was written before stays readable"
    )
