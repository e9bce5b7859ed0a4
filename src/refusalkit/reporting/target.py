"""Where a report may be written: asked before a run is paid for, so nothing heavy is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

SUFFIXES = (".html", ".md", ".json", ".csv", ".parquet")


def check_suffix(path: Path) -> None:
    """Raises `UsageError` where the suffix is none of a report's."""
    if path.suffix not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise UsageError(f"{printable(path)}: a report is one of {kinds}; give such a file name")


def check_target(path: Path, made: Iterable[Path] = ()) -> None:
    """Raises `UsageError` where no report can be written at `path`.

    Folders among `made`, and those above them, will be there by then.
    """
    check_suffix(path)
    folder, name = path.parent, printable(path)
    if path.is_dir():
        raise UsageError(f"{name} is a folder: give the report a file name of its own")
    if folder.is_dir():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{name}: nothing may be written in {printable(folder)}")
        return
    if folder.exists():
        raise UsageError(f"{name}: {printable(folder)} is no folder")
    coming = {one for place in made for one in (place.resolve(), *place.resolve().parents)}
    if folder.resolve() not in coming:
        raise UsageError(f"{name}: there is no folder {printable(folder)}: make it first")
