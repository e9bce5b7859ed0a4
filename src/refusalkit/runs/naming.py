"""Finds runs by name: ``@last``, or the beginning of a folder's name or of an id."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from refusalkit.errors import RefusalkitError, RunFolderError
from refusalkit.runs.folder import Run, holds_run, open_run
from refusalkit.runs.manifest import MANIFEST
from refusalkit.untrusted import printable

RUNS = Path("runs")
LAST = "@last"
_MAX_CANDIDATES = 8


def runs_below(folder: Path) -> Iterator[Run]:
    """The runs in a folder and in its folders, the most recent session first.

    Whatever is not a readable run is skipped, and so are links.
    """
    yield from runs_and_unreadable(folder)[0]


def runs_and_unreadable(folder: Path) -> tuple[list[Run], dict[Path, str]]:
    """The runs as `runs_below` has them, and of each run folder that cannot be read, why."""
    found: list[Run] = []
    unreadable: dict[Path, str] = {}
    for place in run_folders_below(folder):
        try:
            found.append(open_run(place))
        except RefusalkitError as error:
            unreadable[place] = str(error)
    found.sort(key=lambda run: (worked_on(run), run.manifest.id), reverse=True)
    return found, unreadable


def run_folders_below(folder: Path) -> Iterator[Path]:
    """All folders with a run, from `folder` itself down to two levels below it.

    A folder that may not be looked into is one of them: those of other users are private.
    """
    places = [folder, *_folders_in(folder)]
    # A command with several models puts their runs into one folder.
    groups = [place for place in places[1:] if not holds_run(place)]
    places += [inner for group in groups for inner in _folders_in(group)]
    yield from filter(_may_hold_run, places)


def worked_on(run: Run) -> str:
    """When the last session on a run began, in UTC; empty before the first."""
    sessions = run.manifest.sessions
    return str(sessions[-1].started_at) if sessions else ""


def find_run(name: str, folder: Path = RUNS) -> str:
    """The path of the run that `name` stands for; `name` itself if it stands for none.

    An existing path stands for itself, ``@last`` for the run in `folder` with the most recent
    session. Anything else is taken for the beginning of a folder's name or of a run's id.

    Raises:
        RunFolderError: several runs match, or ``@last`` finds none.
    """
    if name == LAST:
        last = next(runs_below(folder), None)
        if last is None:
            raise RunFolderError(f"there is no run in {printable(folder)} yet, so none is {LAST}")
        return str(last.path)
    path = Path(name)
    if not path.name or _exists(path):
        return name
    if path.parent != Path():
        folder, name = path.parent, path.name
    runs = [
        run
        for run in runs_below(folder)
        if run.path.name.startswith(name) or run.manifest.id.startswith(name)
    ]
    exact = [run for run in runs if name in (run.path.name, run.manifest.id)]
    named = exact or runs
    if len(named) > 1:
        shown = ", ".join(printable(run.path, 200) for run in named[:_MAX_CANDIDATES])
        more = f" and {len(named) - _MAX_CANDIDATES} more" if len(named) > _MAX_CANDIDATES else ""
        raise RunFolderError(f"{printable(name)!r} begins the names of several runs: {shown}{more}")
    return str(named[0].path if named else path)


def _may_hold_run(folder: Path) -> bool:
    try:
        os.lstat(folder / MANIFEST)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file system takes
        return True


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return []
