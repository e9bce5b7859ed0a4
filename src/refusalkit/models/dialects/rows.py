"""Reads the tables."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@cache
def table(name: str) -> Mapping[str, Any]:
    """A table by the name of its file.

    The files keep their strings in single quotes, which Python reads in one step. Double quotes
    are read character by character, and a run would wait a third longer for its tables.
    """
    path = Path(__file__).with_name(f"{name}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def folded(word: str) -> str:
    """A word as tables compare them: its letters and digits, without case."""
    return "".join(filter(str.isalnum, word.casefold()))


def any_of(rows: Sequence[Row], key: str = "words") -> re.Pattern[str]:
    """One pattern for the expressions of all rows."""
    return re.compile("|".join(f"(?:{row[key]})" for row in rows), re.IGNORECASE | re.DOTALL)


def values_at(data: object, path: Sequence[str]) -> list[Any]:
    """All values at a path into JSON, in order; ``*`` stands for every item of a list or object."""
    found = [data]
    for step in path:
        deeper: list[Any] = []
        for value in found:
            if isinstance(value, dict):
                if step == "*":
                    deeper.extend(value.values())
                elif step in value:
                    deeper.append(value[step])
            elif isinstance(value, list) and step == "*":
                deeper.extend(value)
        found = deeper
        if not found:
            break
    return found
