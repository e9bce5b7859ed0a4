"""Lock files: what was published, by name and version. An entry is never altered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refusalkit.errors import RefusalkitError
from refusalkit.untrusted import printable

NAME = "lock.json"
SCHEMA = 1


def read_entries(path: Path, of: str, error: type[RefusalkitError]) -> dict[str, Any]:
    """The entries that a lock has `of` something; none where there is no file. Raises `error`."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as why:
        raise error(f"{printable(path)} cannot be read: {printable(why)}") from why
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise error(f"{printable(path)} is no lock of schema {SCHEMA}")
    entries = data.get(of)
    if not isinstance(entries, dict):
        raise error(f"{printable(path)} has no table {of!r}: take the file as it was published")
    return entries


def write_entries(path: Path, of: str, entries: Mapping[str, Any]) -> None:
    """Write a lock, in order of name and version."""
    data = {"schema": SCHEMA, of: dict(sorted(entries.items()))}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8", newline="\n")
