"""The runs below a folder, by id, and what the viewer has read and computed of each."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from refusalkit.errors import RefusalkitError, RunFolderError
from refusalkit.runs.folder import Run, open_run
from refusalkit.runs.manifest import MANIFEST, Manifest
from refusalkit.runs.naming import run_folders_below, worked_on
from refusalkit.viewer.background import Kept, Lane
from refusalkit.viewer.figures import RunFigures, run_figures
from refusalkit.viewer.prompts import KnownPrompts, read_prompts
from refusalkit.viewer.tally import Pace, Tally, size_of
from refusalkit.viewer.text_search import TextSearch
from refusalkit.viewer.unit_index import UnitIndex, build_index
from refusalkit.viewer.unit_query import Listing

_LOOK_EVERY_S = 1.0
# Bytes of each record file that are read for the first page of a large run.
_FIRST_BYTES = 3 * 2**20
# Units of all runs whose columns may be in memory at once; a million take some 300 MB.
_MAX_UNITS = 4_000_000
_DONE = ("done", "held", "crossed")


class OpenedRun:
    """A run on the shelf: its current manifest, and what is computed from its records."""

    def __init__(self, run: Run, name: str, lanes: Lanes) -> None:
        self.run = run
        self.name = name
        self.id = id_of(name)
        tally = Tally(run)
        self.tally: Kept[Pace] = Kept(lanes.figures, self.stamp, lambda: tally.pace(self.run))
        self.figures: Kept[RunFigures] = Kept(
            lanes.figures, self.stamp, lambda: run_figures(self.run)
        )
        self._prompts: Kept[KnownPrompts] = Kept(
            lanes.reading, lambda: self.manifest.prompt_set.digest, lambda: read_prompts(self.run)
        )
        self.index: Kept[UnitIndex] = Kept(lanes.reading, self.stamp, lambda: build_index(self.run))
        self.listing = Listing()
        self.used = 0.0
        self._search: TextSearch | None = None
        self._first: UnitIndex | None = None
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """The run's manifest."""
        return self.run.manifest

    @property
    def model(self) -> str:
        """The model's id."""
        return str(self.manifest.config.get("model", ""))

    def stamp(self) -> Hashable:
        """Changes whenever one of the files changes that the run's values are computed from."""
        return tuple(
            stamp_of(path)
            for path in (
                self.run.path / MANIFEST,
                self.run.completions,
                self.run.verdicts,
                self.run.pressure,
            )
        )

    @property
    def state(self) -> str:
        """``running``, ``done``, ``stopped`` or ``not begun``."""
        if self.run.is_held:
            return "running"
        if not self.manifest.sessions:
            return "done" if self.manifest.kind == "grade" else "not begun"
        return "done" if self.manifest.sessions[-1].ended_because in _DONE else "stopped"

    def units(self, wait_s: float = 0.25) -> UnitIndex | None:
        """The run's units: all of them, or the first ones while the rest is read.

        None where they are not read yet, or cannot be read: then `index.error` says why.
        """
        with self._lock:
            if self.index.value is None and self._first is None and self._is_large:
                # First, because reading the rest keeps all cores busy.
                with contextlib.suppress(RefusalkitError):
                    self._first = build_index(self.run, until=_FIRST_BYTES)
        whole = self.index.get(0.0 if self._first else wait_s)
        if whole is not None:
            self._first = None
        return whole or self._first

    @property
    def _is_large(self) -> bool:
        return max(size_of(self.run.completions), size_of(self.run.verdicts)) > 4 * _FIRST_BYTES

    def search(self, index: UnitIndex, words: str) -> TextSearch:
        """The search for `words` in all answers; an earlier search in this run is stopped."""
        with self._lock:
            known = self._search
            if known is None or known.words != words or known.index is not index:
                if known is not None:
                    known.stop()
                self._search = TextSearch(self.run, index, words)
            assert self._search is not None
            return self._search

    @property
    def n_held(self) -> int:
        """Number of units whose columns are in memory."""
        return 0 if self.index.value is None else len(self.index.value.units)

    def forget(self) -> None:
        """Drop what takes much memory; it is read again when the run is opened again."""
        with self._lock:
            self.index.forget()
            self._prompts.forget()
            self.listing.forget()
            self._search = self._first = None

    def prompts(self, wait_s: float = 0.0) -> KnownPrompts | None:
        """The prompts of the run; None while they are being read."""
        found = self._prompts.get(wait_s)
        if found is None and self._prompts.error is not None:
            return KnownPrompts({}, frozenset(), missing=self._prompts.error)
        return found


@dataclass(frozen=True)
class Lanes:
    """The two threads: `reading` for what a page waits for, `figures` for the list of runs."""

    reading: Lane
    figures: Lane


class Shelf:
    """All runs below a folder; new, changed and removed ones are noticed within a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        reading = Lane("reading")
        self._lanes = Lanes(reading, Lane("figures", after=reading))
        self._runs: dict[str, OpenedRun] = {}
        self._stamps: dict[str, Hashable] = {}
        self._unreadable: dict[str, str] = {}
        self._looked = 0.0
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the threads on which runs are read."""
        self._lanes.reading.close()
        self._lanes.figures.close()

    def all(self) -> list[OpenedRun]:
        """The runs, the most recently worked on first."""
        self._look()
        runs = list(self._runs.values())
        return sorted(runs, key=lambda one: (worked_on(one.run), one.name), reverse=True)

    def unreadable(self) -> dict[str, str]:
        """Why a manifest cannot be read, by the name of the run's folder."""
        self._look()
        return dict(sorted(self._unreadable.items()))

    def get(self, run_id: str) -> OpenedRun | None:
        """The run with this id, None if there is none. An id is never made part of a path.

        Raises `RunFolderError` where the run cannot be read.
        """
        if run_id not in self._runs:
            self._look()
        else:
            self._reopen(self._runs[run_id].run.path)
        found = self._runs.get(run_id)
        if found is not None:
            found.used = time.monotonic()
            self._make_room()
            return found
        for name, why in self._unreadable.copy().items():
            if id_of(name) == run_id:
                raise RunFolderError(why)
        return None

    def _make_room(self) -> None:
        """Drop the data of the least recently used runs, if too much is in memory."""
        held = [one for one in list(self._runs.values()) if one.n_held]
        held.sort(key=lambda one: one.used, reverse=True)
        total = 0
        for n, one in enumerate(held):
            total += one.n_held
            if n > 1 and total > _MAX_UNITS:  # two are read side by side
                one.forget()

    @cached_property
    def is_one_run(self) -> bool:
        """Whether the folder is itself a run."""
        return (self.folder / MANIFEST).exists()

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() < self._looked + _LOOK_EVERY_S:
                return
            found = {self._name(path): path for path in run_folders_below(self.folder)}
            for name in {*self._unreadable, *(one.name for one in self._runs.values())}:
                if name not in found:
                    self._runs.pop(id_of(name), None)
                    self._unreadable.pop(name, None)
                    self._stamps.pop(name, None)
            self._looked = time.monotonic()
        for path in found.values():
            self._reopen(path)

    def _reopen(self, path: Path) -> None:
        """Read a manifest that is new or has changed."""
        name = self._name(path)
        stamp = stamp_of(path / MANIFEST)
        if stamp is not None and self._stamps.get(name) == stamp:
            return
        try:
            run = open_run(path)
        except RefusalkitError as error:
            with self._lock:
                self._stamps[name] = stamp
                self._unreadable[name] = str(error)
                self._runs.pop(id_of(name), None)
            return
        with self._lock:
            self._stamps[name] = stamp
            self._unreadable.pop(name, None)
            known = self._runs.get(id_of(name))
            if known is None:
                self._runs[id_of(name)] = OpenedRun(run, name, self._lanes)
            else:
                known.run = run

    def _name(self, path: Path) -> str:
        return path.name if path == self.folder else str(path.relative_to(self.folder))


def id_of(name: str) -> str:
    """The id of a run in addresses: a digest of its path below the folder."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def stamp_of(path: Path) -> Hashable:
    """Inode, size and times of a file, which differ once it has changed; None if it is missing."""
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
