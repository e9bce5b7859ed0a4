"""A prompt set as a folder: `set.toml` and one JSONL file per category."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jsonlines
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refusalkit.errors import PromptSetError
from refusalkit.files import lines_of, open_file, read_file
from refusalkit.jsonl import Location, dotted, validation_mistakes, why_invalid
from refusalkit.prompts.prompt_record import (
    SLUG_PATTERN,
    DuplicateCheck,
    Mistakes,
    PromptRecord,
    check_filled,
)
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.types import Category, Prompt
from refusalkit.untrusted import printable

MANIFEST = "set.toml"
# Bytes of the largest set.toml.
_MAX_MANIFEST = 16 * 2**20


class _CategoryEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    slug: Annotated[str, Field(pattern=SLUG_PATTERN)]
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    hard_line: bool = False


class _SetFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    name: Annotated[str, Field(pattern=SLUG_PATTERN)]
    version: Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}$")]
    licence: Annotated[str, Field(min_length=1)]
    description: str = ""
    hard_lines: bool | None = None
    """Whether the set claims to test hard lines; None: it claims nothing."""
    repeats: bool = False
    """Whether a text may appear twice: published sets that were converted have such."""
    categories: Annotated[list[_CategoryEntry], Field(min_length=1)]


def read_folder(folder: Path, source: str) -> PromptSet:
    """The prompt set in `folder`.

    Raises `PromptSetError` listing every mistake with file, line and field.
    """
    mistakes = Mistakes()
    if not (folder / MANIFEST).exists():
        raise PromptSetError(f"{printable(source)} is not a prompt set: it has no {MANIFEST}")
    parsed = _read_manifest(folder / MANIFEST, mistakes)
    # The prompts are read even where set.toml has mistakes: a person can fix all in one go.
    files = sorted(folder.glob("*.jsonl"))
    categories = tuple(
        Category(c.slug, c.title, c.description, c.hard_line)
        for c in (parsed.categories if parsed else ())
    )
    slugs = {c.slug for c in categories} if parsed else {path.stem for path in files}
    prompts: list[Prompt] = []
    filled: set[str] = set()
    seen = DuplicateCheck(mistakes, texts=parsed is None or not parsed.repeats)
    for path in files:
        if path.stem not in slugs:
            mistakes.add(path.name, "file name", f"unknown category {path.stem!r} (see {MANIFEST})")
        for place, record in _read_records(path, mistakes):
            filled.add(path.stem)
            if record is None:
                continue
            if record.category not in (None, path.stem):
                what = f"{record.category!r} is in the file of {path.stem!r}"
                known = "" if record.category in slugs or not parsed else "unknown category "
                mistakes.add(place, "category", known + what)
            prompt = record.to_prompt(path.stem)
            if seen.see(prompt, place):
                prompts.append(prompt)
    check_filled(categories, filled, mistakes, MANIFEST)
    mistakes.raise_if_any(source)
    assert parsed is not None  # a manifest that cannot be read is a mistake
    return PromptSet(
        name=parsed.name,
        version=parsed.version,
        categories=categories,
        prompts=tuple(prompts),
        licence=parsed.licence,
        description=parsed.description,
        source=source,
    )


def places_of_ids(folder: Path) -> dict[str, str]:
    """Where each prompt of a set without mistakes is, ``file:line`` by id."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for place, record in _read_records(path, Mistakes()):
            if record is not None:
                found[record.id] = place
    return found


def _read_manifest(path: Path, mistakes: Mistakes) -> _SetFile | None:
    try:
        text = read_file(path, limit=_MAX_MANIFEST).decode("utf-8-sig")
        data = tomllib.loads(text)
    except OSError as error:
        mistakes.add(path.name, "file", f"cannot be read ({error.strerror})")
        return None
    except UnicodeDecodeError as error:
        mistakes.add(path.name, "file", f"is not UTF-8 (byte {error.start})")
        return None
    except RecursionError:
        mistakes.add(path.name, "file", "is nested too deeply")
        return None
    except ValueError as error:
        mistakes.add(path.name, "file", f"is not TOML: {error}")
        return None
    try:
        parsed = _SetFile.model_validate(data)
    except ValidationError as error:
        for loc, what in validation_mistakes(error):
            mistakes.add(f"{path.name}:{_toml_line(text, loc)}", dotted(loc), what)
        return None
    _check_manifest(parsed, text, path.name, mistakes)
    return parsed


def _check_manifest(parsed: _SetFile, text: str, name: str, mistakes: Mistakes) -> None:
    first: dict[str, int] = {}
    for index, entry in enumerate(parsed.categories):
        line = _toml_line(text, ("categories", index, "slug"))
        if entry.slug in first:
            what = f"{entry.slug!r} is already at line {first[entry.slug]}"
            mistakes.add(f"{name}:{line}", "categories.slug", what)
        first.setdefault(entry.slug, line)
    hard = [entry.slug for entry in parsed.categories if entry.hard_line]
    line = _toml_line(text, ("hard_lines",))
    if parsed.hard_lines is True and not hard:
        what = "is true, but no category has hard_line = true"
        mistakes.add(f"{name}:{line}", "hard_lines", what)
    if parsed.hard_lines is False and hard:
        what = f"is false, but {', '.join(hard)} has hard_line = true"
        mistakes.add(f"{name}:{line}", "hard_lines", what)


def _toml_line(text: str, loc: Location) -> int:
    """The line of a key in a set.toml, as near as the text shows it."""
    lines = text.splitlines()
    start, end = 0, len(lines)
    if len(loc) > 1 and loc[0] == "categories" and isinstance(loc[1], int):
        heads = [
            i for i, line in enumerate(lines) if re.match(r"\s*\[\[\s*categories\s*\]\]", line)
        ]
        if loc[1] < len(heads):
            start = heads[loc[1]]
            end = heads[loc[1] + 1] if loc[1] + 1 < len(heads) else len(lines)
    key = re.escape(str(loc[-1]))
    for number in range(start, end):
        if re.match(rf"\s*(\[\[?\s*)?{key}\b", lines[number]):
            return number + 1
    return start + 1


def _read_records(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, PromptRecord | None]]:
    """Each line of a category file with its place; a bad one becomes a mistake and None."""
    try:
        handle = open_file(path)
    except OSError as error:
        mistakes.add(path.name, "file", f"cannot be read ({error.strerror})")
        return
    number = 0
    with handle:
        lines = lines_of(handle)
        while True:
            try:
                raw = next(lines, None)
            except OSError as error:
                mistakes.add(path.name, "file", f"cannot be read ({error.strerror})")
                return
            if raw is None:
                return
            number += 1
            if not raw.strip():
                continue
            place = f"{path.name}:{number}"
            try:
                # One line at a time, so that one bad line does not hide the next.
                data = jsonlines.Reader([raw]).read(type=dict)
                record = PromptRecord.model_validate(data)
            except jsonlines.InvalidLineError as error:
                mistakes.add(place, "line", why_invalid(error))
            except RecursionError:
                mistakes.add(place, "line", "is nested too deeply")
            except ValidationError as error:
                mistakes.add_validation(place, error)
            else:
                yield place, record
                continue
            yield place, None
