"""Reads the files of a public set: rows in the set's own columns become prompts."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refusalkit.errors import PromptSetError
from refusalkit.prompts.prompt_record import ID_PATTERN, Mistakes
from refusalkit.prompts.public_facts import Layout
from refusalkit.prompts.tables import read_rows, row_place
from refusalkit.types import Prompt
from refusalkit.untrusted import printable, well_formed

_DANGER = {"low": 1, "medium": 2, "high": 3, "1": 1, "2": 2, "3": 3}
_UNSET = frozenset({"", "none", "null", "nan", "n/a"})


@dataclass
class Reading:
    """What comes out of the files of one set, row by row.

    `counts` and `left_out` count rows; `titles` has each category's title by slug, `slugs` its slug
    by the name that the file gives it.
    """

    name: str
    title: str
    layout: Layout
    titles: dict[str, str] = field(default_factory=dict)
    slugs: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    prompts: list[Prompt] = field(default_factory=list)


def read_file(path: Path, reading: Reading, layouts: Sequence[Layout], otherwise: Layout) -> None:
    """Add the prompts of one file, by the first of `layouts` whose columns it has.

    Where none fits, the file is read by `otherwise`. Raises `PromptSetError`, naming file and row.
    """
    where = f"{reading.name}: {printable(path.name)}"
    is_chosen = False

    def choose(have: Collection[str]) -> None:
        nonlocal is_chosen
        fitting = (one for one in layouts if set(one.required) <= set(have))
        reading.layout, is_chosen = next(fitting, otherwise), True

    def pick(have: Sequence[str]) -> Sequence[str]:
        choose(have)
        layout = reading.layout
        missing = [column for column in layout.required if column not in have]
        if missing:
            raise PromptSetError(_renamed(where, missing[0], have, reading.name))
        named = layout.columns.named.values()
        return list(dict.fromkeys([*layout.required, *(c for c in named if c in have)]))

    mistakes = Mistakes()
    for number, row in read_rows(path, mistakes, pick):
        if not is_chosen:  # lines of JSON have no header
            choose(row)
        layout = reading.layout
        for column in layout.required:
            if column not in row:
                raise PromptSetError(_renamed(where, column, list(row), reading.name))
        if any(str(row[column]) not in wanted for column, wanted in layout.where.items()):
            reading.left_out["other rows"] += 1
            continue
        ours = {name: row[column] for name, column in layout.columns.named.items() if column in row}
        _add(ours, f"{reading.name}: {printable(row_place(path, number))}", reading)
    if mistakes.lines:
        raise PromptSetError(f"{reading.name}: {mistakes.lines[0]}")


def safe_slug(title: str, taken: Mapping[str, Any]) -> str:
    """A slug that is a file name anywhere: lower-case ASCII, and not one of `taken`."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().casefold()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:70].strip("-") or "category"
    slug, number = stem, 2
    while slug in taken:
        slug, number = f"{stem}-{number}", number + 1
    return slug


def same_name(name: str) -> str:
    """A category's name for comparing: without case, punctuation and the word `and`."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(word for word in words if word != "and")


def _add(row: Mapping[str, Any], place: str, reading: Reading) -> None:
    """One row as a prompt. Published sets repeat a text here and there; they stay as they are."""
    text = _text(row, place)
    if text is None:
        reading.left_out["blank"] += 1
        return
    layout = reading.layout
    raw = layout.one_category if layout.one_category is not None else row["category"]
    slug = _slug(raw, place, reading)
    reading.counts[slug] += 1
    system = row.get("system")
    reading.prompts.append(
        Prompt(
            id=_id(row.get("id"), slug, reading),
            category=slug,
            text=text,
            danger=_danger(row.get("danger"), place),
            lang=layout.lang,
            system=system if isinstance(system, str) and system.strip() else None,
        )
    )


def _text(row: Mapping[str, Any], place: str) -> str | None:
    """The request, None where the row has none."""
    text = row.get("prompt")
    if "turns" in row:
        turns = row["turns"]
        if turns is None:
            return None
        if not isinstance(turns, list) or len(turns) > 1:
            raise PromptSetError(f"{place}: its turns are not a list of one user turn")
        text = turns[0] if turns else None
    if text is None:
        return None
    if not isinstance(text, str):
        raise PromptSetError(f"{place}: the prompt is not text")
    context = row.get("context")
    if isinstance(context, str) and context.strip():
        text = f"{context}\n\n---\n\n{text}"
    return well_formed(text) if text.strip() else None


def _danger(raw: Any, place: str) -> int | None:
    text = str("" if raw is None else raw).strip().casefold()
    if text in _UNSET:
        return None
    if text.endswith(".0"):  # a column of numbers with a gap comes as fractions
        text = text.removesuffix(".0")
    if text not in _DANGER:
        raise PromptSetError(
            f"{place}: danger: {printable(raw, 40)!r} is not 1, 2, 3, low, medium or high"
        )
    return _DANGER[text]


def _slug(raw: Any, place: str, reading: Reading) -> str:
    layout = reading.layout
    name = "" if raw is None else _first(raw, layout).strip()
    if layout.cut_category_at is not None:
        name = name.partition(layout.cut_category_at)[0].strip()
    if name in reading.slugs:
        return reading.slugs[name]
    if not name:
        raise PromptSetError(f"{place}: the category is empty")
    if layout.categories and name not in layout.categories:
        raise PromptSetError(
            f"{place}: {printable(name, 60)} is not a category of {reading.title}, which has "
            f"{len(layout.categories)}: the set has changed; {_or_older(reading.name)}"
        )
    title = layout.titles.get(name, name)
    slug = safe_slug(title, reading.titles)
    reading.titles[slug] = well_formed(title)
    reading.slugs[name] = slug
    return slug


def _first(raw: Any, layout: Layout) -> str:
    """A category's name; of several in a list, or in a list written as text, the first."""
    if layout.lists != "first":
        return str(raw)
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        try:
            raw = ast.literal_eval(raw.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return str(raw)
    if isinstance(raw, list | tuple):
        return str(raw[0]) if raw else ""
    return str(raw)


def _id(raw: Any, slug: str, reading: Reading) -> str:
    text = "" if raw is None else str(raw).strip()
    wanted = re.sub(r"[^A-Za-z0-9._:/@+-]+", "-", text).strip("-")[:150]
    if wanted.isdecimal():
        wanted = f"{reading.name}-{wanted}"
    if not re.fullmatch(ID_PATTERN, wanted) or wanted in reading.ids:
        stem = wanted if wanted in reading.ids else slug
        number = reading.counts[slug]
        while (wanted := f"{stem}-{number:03}") in reading.ids:
            number += 1
    reading.ids.add(wanted)
    return wanted


def _renamed(where: str, column: str, have: Sequence[str], name: str) -> str:
    listed = ", ".join(printable(one, 40) for one in have[:12]) or "none"
    return f"{where} has no column {column} (it has: {listed}): {_or_older(name)}"


def _or_older(name: str) -> str:
    return f"name another revision with {name}@REVISION, or a file with {name}:FILE"
