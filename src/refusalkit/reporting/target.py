"""Checks where a report may be written, before a run is paid for and without heavy imports."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from refusalkit.errors import UsageError
from refusalkit.files import open_file
from refusalkit.untrusted import printable

SUFFIXES = (".html", ".md", ".json", ".csv", ".parquet")

# Bytes near the beginning of a report of refusalkit; a .parquet file is recognised by its end.
_BEGINNINGS = {
    ".html": b'<meta name="generator" content="refusalkit ',
    ".md": b"# RefusalBench by refusalkit",
    ".json": b'"kind": "refusalkit-report"',
    ".csv": b"run,model,judge,unit,prompt_id,category,hard_line,",
}
_NEAR = 4096


def check_suffix(path: Path) -> None:
    """Raise `UsageError` unless the suffix is that of a report."""
    if path.suffix not in SUFFIXES:
        kinds = " or ".join([", ".join(SUFFIXES[:-1]), SUFFIXES[-1]])
        raise UsageError(f"{printable(path)}: a report ends in {kinds}")


def check_target(path: Path, made: Iterable[Path] = ()) -> None:
    """Raise `UsageError` if no report can be written at `path`.

    The folders `made`, and those above them, will exist by the time it is written.
    """
    check_suffix(path)
    check_replaced(path)
    folder, name = path.parent, printable(path)
    if path.is_dir():
        raise UsageError(f"{name} is a folder: give the report a file name of its own")
    if folder.is_dir():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{name}: nothing may be written in {printable(folder)}")
        return
    if folder.exists():
        raise UsageError(f"{name}: {printable(folder)} is not a folder")
    coming = {one for place in made for one in (place.resolve(), *place.resolve().parents)}
    if folder.resolve() not in coming:
        raise UsageError(f"{name}: there is no folder {printable(folder)}: make it first")


def check_replaced(path: Path) -> None:
    """Raise `UsageError` where a file that is not a report of refusalkit would be replaced."""
    if not path.exists() or path.is_dir() or _is_report(path):
        return
    raise UsageError(
        f"{printable(path)} is there and is not a report of refusalkit: choose another name, or "
        "replace it with `refusalkit report ... --force`"
    )


def _is_report(path: Path) -> bool:
    """Whether a file is empty or looks like an earlier report."""
    try:
        with open_file(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if path.suffix != ".parquet":
                return not size or _BEGINNINGS[path.suffix] in file.read(_NEAR)
            # The names of the columns are in the footer, whose length is just before the end.
            file.seek(max(0, size - 8))
            tail = file.read(8)
            footer = int.from_bytes(tail[:4], "little")
            file.seek(max(0, size - 8 - min(footer, 2**20)))
            found = file.read(footer + 8)
            return not size or (tail[4:] == b"PAR1" and b"hard_line" in found)
    except OSError:
        return False
