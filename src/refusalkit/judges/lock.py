"""The lock of published judges: digests of what each one asks, which model, and how.

`judges/lock.json` has an entry for each published name and version. Entries are written once and
never altered: a changed judge file is shipped under a new name, beside the old one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from refusalkit.errors import JudgeFileError
from refusalkit.judges.rubrics import Rubric
from refusalkit.shipped import read_lock_entries, write_lock_entries

Entries = dict[str, dict[str, str]]

_PARTS = {
    "labels": ("labels",),
    "limits": ("limits",),
    "model": ("model", "max_tokens", "temperature", "asks"),
    "prompt": ("system", "template"),
    "rules": ("rules",),
    "schema": ("schema",),
}


def entry_key(rubric: Rubric) -> str:
    """What a judge's entry is called: ``<name> <version>``."""
    return f"{rubric.name} {rubric.version}"


def lock_entry(rubric: Rubric) -> dict[str, str]:
    """The entry of a judge as it is now: its digest, and one for each part of its file."""
    fields = asdict(rubric)
    parts = {part: _sha256([fields[name] for name in names]) for part, names in _PARTS.items()}
    return {"digest": rubric.digest, **parts}


def read_lock(path: Path) -> Entries:
    """The entries of a lock, none where there is no file. Raises `JudgeFileError`."""
    return read_lock_entries(path, "judges", JudgeFileError)


def write_lock(path: Path, entries: Entries) -> None:
    """Write a lock, in order of name and version."""
    write_lock_entries(path, "judges", entries)


def changes(rubrics: Iterable[Rubric], entries: Mapping[str, Mapping[str, str]]) -> list[str]:
    """How today's judges differ from the published ones; empty if they do not."""
    found = []
    now = {entry_key(rubric): lock_entry(rubric) for rubric in rubrics}
    for key, entry in entries.items():
        if key not in now:
            found.append(f"{key}: was published and is gone: bring its file back")
        elif now[key]["digest"] != entry["digest"]:
            parts = [part for part in _PARTS if now[key][part] != entry.get(part)]
            what = ", ".join(f"[{part}]" for part in parts) or "kind"
            found.append(
                f"{key}: {what} is not what was published: leave the file as it was, and ship the "
                "change under a new name"
            )
    return found


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
