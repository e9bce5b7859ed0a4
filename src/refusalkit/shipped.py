"""Where the shipped `prompts/` and `judges/` are, and their lock files.

In an installed wheel they are inside the package (``refusalkit/_data``); in a checkout and an
editable install they are the top-level folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refusalkit.errors import RefusalkitError
from refusalkit.untrusted import printable

_PACKAGE = Path(__file__).resolve().parent
_PACKAGED = _PACKAGE / "_data"
_CHECKOUT = _PACKAGE.parents[1]


def _root() -> Path:
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def prompts_dir() -> Path:
    """The folder of shipped prompt sets, one folder each."""
    return _root() / "prompts"


def judges_dir() -> Path:
    """The folder of shipped judge files, one TOML file each."""
    return _root() / "judges"


LOCK_FILE = "lock.json"


LOCK_SCHEMA = 1


def read_lock_entries(path: Path, of: str, error: type[RefusalkitError]) -> dict[str, Any]:
    """The entries of a lock file's table `of`; empty where there is no file. Raises `error`."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as why:
        raise error(f"{printable(path)} cannot be read: {printable(why)}") from why
    if not isinstance(data, dict) or data.get("schema") != LOCK_SCHEMA:
        raise error(f"{printable(path)} is not a lock of schema {LOCK_SCHEMA}")
    entries = data.get(of)
    if not isinstance(entries, dict):
        raise error(f"{printable(path)} has no table {of!r}: take the file as it was published")
    return entries


def write_lock_entries(path: Path, of: str, entries: Mapping[str, Any]) -> None:
    """Write a lock, in order of name and version."""
    data = {"schema": LOCK_SCHEMA, of: dict(sorted(entries.items()))}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8", newline="\n")
