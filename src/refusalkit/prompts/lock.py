"""The lock of published prompt sets: which prompts each version holds, by digest.

`prompts/lock.json` has an entry for each name and version that was published. An entry is written
once and never altered: a changed prompt gives the set a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refusalkit.errors import PromptSetError
from refusalkit.prompts.digests import prompt_digest
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.shipped import read_lock_entries, write_lock_entries

Entries = dict[str, dict[str, Any]]


def entry_key(prompts: PromptSet) -> str:
    """What a set's entry is called: ``<name> <version>``."""
    return f"{prompts.name} {prompts.version}"


def lock_entry(prompts: PromptSet) -> dict[str, Any]:
    """The entry of a set as it is now."""
    return {
        "digest": prompts.digest,
        "hard_lines": sorted(prompts.hard_lines),
        "prompts": {p.id: prompt_digest(p) for p in sorted(prompts.prompts, key=lambda p: p.id)},
    }


def read_lock(path: Path) -> Entries:
    """The entries of a lock, none where there is no file. Raises `PromptSetError`."""
    return read_lock_entries(path, "sets", PromptSetError)


def write_lock(path: Path, entries: Entries) -> None:
    """Write a lock, in order of name and version."""
    write_lock_entries(path, "sets", entries)


def changes(prompts: PromptSet, entry: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """How a set differs from its entry: (prompt id or None, what is wrong); empty where equal."""
    if prompts.digest == entry["digest"]:
        return []
    now = lock_entry(prompts)
    then: Mapping[str, str] = entry["prompts"]
    found: list[tuple[str | None, str]] = []
    for name in sorted(now["prompts"].keys() | then.keys()):
        if name not in then:
            found.append((name, "is new"))
        elif name not in now["prompts"]:
            found.append((None, f"{name} is gone"))
        elif now["prompts"][name] != then[name]:
            found.append((name, "is not what it was"))
    if now["hard_lines"] != entry["hard_lines"]:
        found.append((None, "the hard lines are not what they were"))
    version = f"in {prompts.version}, which was published: give the set a new version"
    return [(name, f"{what} {version}") for name, what in found]
