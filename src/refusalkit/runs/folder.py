"""The run folder: a manifest, and append-only records written as work finishes.

A kill at any moment loses at most what was in flight: each record reaches the file in one write, a
torn last line is cut off when the run is opened for writing again. Folders and files are private to
the user. One process writes a run at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from refusalkit import files
from refusalkit.display import notebook_table
from refusalkit.errors import RunFolderError, RunLocked
from refusalkit.runs.manifest import MANIFEST, Manifest
from refusalkit.runs.record_json import SCHEMA
from refusalkit.runs.records import (
    BATCHES,
    CANARIES,
    COMPLETIONS,
    PRESSURE,
    VERDICTS,
    AppendFile,
    RecordWriter,
    open_records,
    storage_error,
)
from refusalkit.runs.seal import is_sealed, sealed
from refusalkit.runs.withheld import withheld_by
from refusalkit.untrusted import printable

CHECKPOINT = "checkpoint.jsonl"
_LOCK = ".lock"
# The temporary file of a manifest that is being written.
_SCRATCH = re.compile(rf"\.{re.escape(MANIFEST)}\.[0-9a-f]{{16}}")
# A repr reads the records of a run only up to this size, in bytes.
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
    """Progress and score of a run, for `repr`. Set by `refusalkit.api.calls`, because this package
    cannot import the scores."""

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
    def is_held(self) -> bool:
        """Whether a process is writing the run right now."""
        return files.is_lock_held(self.path / _LOCK)

    @property
    def has_answers(self) -> bool:
        """Whether any completion was recorded. Raises `RunFolderError` if the file is missing."""
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
        """The verdicts on canaries; the file is created with the first one."""
        return self.path / CANARIES

    @property
    def pressure(self) -> Path:
        """Conversations after a refusal; the file is created with the first turn."""
        return self.path / PRESSURE

    @property
    def batches(self) -> Path:
        """The journal of batches; the file is created with the first one."""
        return self.path / BATCHES

    @property
    def checkpoint(self) -> Path:
        """A summary of the records up to some place; the file may be missing."""
        return self.path / CHECKPOINT

    def with_manifest(self, manifest: Manifest, *, own: bool = True) -> Run:
        """The same run with a new manifest, which is written to disk atomically.

        `own`: it is sealed as this user's, so that later commands trust all that it says.
        """
        return Run(self.path, manifest, _write_manifest(self.path, manifest, own=own))

    @contextlib.contextmanager
    def writing(self, *, withheld: Collection[str] | None = None) -> Iterator[RecordWriter]:
        """Lock the run for writing, and cut off torn last lines.

        `withheld` are the categories whose answers never touch the disk, by default those that the
        manifest names.

        Raises `RunLocked` if another process holds the lock, `RunFolderError` if a record file is
        missing, `StorageError` if a write fails.
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
            raise storage_error(self.path, error) from error
        try:
            with contextlib.ExitStack() as opened:
                # Both were created with the run. Never create one here: if it was lost, all that it
                # held would be paid for again.
                completions = opened.enter_context(self._append_to(self.completions))
                verdicts = opened.enter_context(self._append_to(self.verdicts))

                def open_beside(path: Path) -> AppendFile:
                    return opened.enter_context(AppendFile(path, checks=True))

                if withheld is None:
                    withheld = withheld_by(self.manifest)
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


def holds_run(path: Path) -> bool:
    """Whether there is a run in the folder."""
    try:
        return (path / MANIFEST).exists()
    except OSError:  # a name that no file system takes
        return False


def refuse_link(path: Path) -> None:
    """Raise `RunFolderError` if an output folder is a symbolic link."""
    try:
        if path.is_symlink():
            where = printable(os.path.realpath(path))
            raise RunFolderError(f"{printable(path)} is a link to {where}: give that as --out")
    except OSError:  # a name that no file system takes: the next step says so
        return


def create_run(path: Path, manifest: Manifest) -> Run:
    """Create a new run folder, private to the user.

    Raises `RunFolderError` if something is there already, `StorageError` if a write fails.
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
        _check_empty(path)
        files.make_folder(path)
        path.chmod(0o700)
        # Of two processes that create the same folder at the same moment, only one gets the lock.
        files.check_lock_file(path / _LOCK)
        with FileLock(path / _LOCK, mode=0o600, blocking=False):
            if holds_run(path):
                raise Timeout(str(path))
            _check_empty(path)
            for left in path.iterdir():
                if _SCRATCH.fullmatch(left.name):
                    left.unlink()
            for name in (COMPLETIONS, VERDICTS):
                os.close(files.open_for_appending(path / name, create=True))
            return Run(path, manifest, _write_manifest(path, manifest, own=True))
    except Timeout as error:
        raise RunFolderError(
            f"{printable(path)} is being made already: choose another --out"
        ) from error
    except OSError as error:
        raise storage_error(path, error) from error


def _check_empty(path: Path) -> None:
    """Raise `RunFolderError` if a folder holds more than a killed start leaves behind."""
    if not path.exists():
        return
    for entry in path.iterdir():
        begun = entry.name == _LOCK or bool(_SCRATCH.fullmatch(entry.name))
        if entry.name in (COMPLETIONS, VERDICTS):
            begun = not entry.lstat().st_size
        if not begun or entry.is_symlink() or not entry.is_file():
            raise RunFolderError(f"{printable(path)} exists and is not empty: choose another --out")


def open_run(path: str | Path) -> Run:
    """Open an existing run for reading. Raises `RunFolderError`, which says what is wrong."""
    folder = Path(path)
    where = printable(path)
    file = folder / MANIFEST
    try:
        written = files.read_json_file(file, follow=False)
        data = json.loads(written)
        if b"\\u" in written:
            # An escape may be a lone surrogate, which cannot be written back as UTF-8.
            data = json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    except FileNotFoundError as error:
        what = f"it has no {MANIFEST}" if folder.is_dir() else "there is no such folder"
        if inner := next(iter(sorted(folder.glob(f"*/{MANIFEST}"))), None):
            what += f"; it holds runs, such as {printable(inner.parent)}"
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


def _write_manifest(folder: Path, manifest: Manifest, *, own: bool) -> bytes:
    # Lone surrogates are replaced before sealing: read back they differ, and the seal would fail.
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False)
    data = json.loads(text.encode("utf-8", "replace"))
    text = json.dumps(sealed(data) if own else data, indent=2, ensure_ascii=False) + "\n"
    written = text.encode()
    try:
        files.write_file(folder / MANIFEST, written)
    except OSError as error:
        raise storage_error(folder, error) from error
    return written
