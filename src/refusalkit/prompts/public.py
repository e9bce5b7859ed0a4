"""The public prompt sets that people have already: one reader, and a table of facts for each.

The facts are in public.toml. The prompts are fetched from where their authors publish them
(`fetch`), or read from a file that the user has.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from refusalkit.errors import PromptSetError, UsageError
from refusalkit.prompts.fetch import Fetched, Place, fetch, file_sha256
from refusalkit.prompts.prompt_record import ID_PATTERN, SLUG_PATTERN, Mistakes
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.tables import SUFFIXES, read_rows, row_place
from refusalkit.types import Category, Prompt
from refusalkit.untrusted import printable, well_formed

FACTS = Path(__file__).with_name("public.toml")

_DANGER = {"low": 1, "medium": 2, "high": 3, "1": 1, "2": 2, "3": 3}


class _Strict(BaseModel):
    # Built when a public set is asked for, not whenever prompts are loaded.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Columns(_Strict):
    """What the file calls our fields. `turns` holds a list of user turns in place of `prompt`."""

    prompt: str | None = None
    turns: str | None = None
    category: str | None = None
    id: str | None = None
    danger: str | None = None
    system: str | None = None
    context: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Our field = their column, those that there are."""
        return {name: column for name, column in self if column is not None}


class Inverted(_Strict):
    """One category of an inversion list, and other spellings of it."""

    name: str
    also: list[str] = Field(default_factory=list)


class PublicSet(_Strict):
    """What is known of one public set; public.toml says what each field means."""

    name: Annotated[str, Field(pattern=SLUG_PATTERN)]
    title: str
    description: str
    also_called: list[str] = Field(default_factory=list)
    hub: str | None = None
    github: str | None = None
    revision: str
    files: Annotated[list[str], Field(min_length=1)]
    sha256: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(default_factory=list)
    columns: Columns
    one_category: str | None = None
    where: dict[str, list[str]] = Field(default_factory=dict)
    categories: list[str] = Field(default_factory=list)
    titles: dict[str, str] = Field(default_factory=dict)
    hard_lines: list[str] = Field(default_factory=list)
    inversions: dict[str, list[Inverted]] = Field(default_factory=dict)
    prompts: Annotated[int, Field(ge=1)] | None = None
    licence: Annotated[str, Field(min_length=1)]
    gated: bool = False
    citation: str

    @model_validator(mode="after")
    def _fits_together(self) -> PublicSet:
        if (self.hub is None) == (self.github is None):
            raise ValueError("give `hub` or `github`")
        if (self.columns.prompt is None) == (self.columns.turns is None):
            raise ValueError("columns: give `prompt` or `turns`")
        if (self.columns.category is None) == (self.one_category is None):
            raise ValueError("give columns.category or `one_category`")
        if self.sha256 and len(self.sha256) != len(self.files):
            raise ValueError("give a `sha256` for each of the files, or none")
        if self.hard_lines and self.inversions:
            raise ValueError("give `hard_lines` or `inversions`")
        if self.categories and not set(self.hard_lines) <= set(self.categories):
            raise ValueError("a hard line is not one of `categories`")
        return self

    @property
    def repository(self) -> str:
        """``owner/name`` on the Hub or on GitHub."""
        return str(self.hub or self.github)

    def place(self, revision: str | None = None) -> Place:
        """Where it lies, at `revision` or the one it is read at."""
        return Place(self.name, self.repository, revision or self.revision, self.hub is not None)


class _Facts(_Strict):
    sets: list[PublicSet]


@dataclass(frozen=True, slots=True)
class Request:
    """A public set as a user named it: ``NAME``, ``NAME@REVISION`` or ``NAME:FILE``."""

    facts: PublicSet
    revision: str | None = None
    file: Path | None = None


@dataclass
class _Reading:
    """What comes out of the files of one set, row by row."""

    facts: PublicSet
    titles: dict[str, str] = field(default_factory=dict)
    slugs: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    prompts: list[Prompt] = field(default_factory=list)


@cache
def public_sets() -> Mapping[str, PublicSet]:
    """All public sets by name, and by what else they are called."""
    facts = _Facts.model_validate(tomllib.loads(FACTS.read_text(encoding="utf-8")))
    named = {known.name: known for known in facts.sets}
    for known in facts.sets:
        named.update(dict.fromkeys(known.also_called, known))
    return named


def requested(source: str) -> Request | None:
    """The public set that `source` names, None if it names none."""
    name, mark, rest = re.fullmatch(r"([a-z0-9-]*)([@:]?)(.*)", source, re.DOTALL).groups()  # type: ignore[union-attr]
    known = public_sets().get(name)
    if known is None or (rest and not mark):
        return None
    if mark and not rest:
        raise UsageError(f"{name}{mark} names no {'revision' if mark == '@' else 'file'}")
    if mark == "@" and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}", rest):
        raise UsageError(f"{printable(rest)} is no revision: give a branch, a tag or a commit")
    return Request(known, rest if mark == "@" else None, Path(rest) if mark == ":" else None)


def read_public(request: Request, inversion: str | None = None) -> PromptSet:
    """The prompts of a public set, with its hard lines by `inversion` (None: the set's default).

    `selection` says which files they are, at which revision, and what was left out. Raises
    `PromptSetError` in one sentence where the files are not what they were, `DownloadError`.
    """
    facts = request.facts
    files = _files(request)
    reading = _Reading(facts)
    for file in files:
        _read(file.path, reading, request)
    if not reading.prompts:
        raise PromptSetError(f"{_where(request, files[0].path)} holds no prompts")
    commit = files[0].commit
    dataset: dict[str, Any] = {
        "set": facts.name,
        "repository": f"{'hub' if facts.hub else 'github'}:{facts.repository}",
        "revision": "local" if request.file is not None else commit,
        "files": {
            path.name if request.file is not None else name: f"sha256:{file.sha256}"
            for name, file in zip(facts.files, files, strict=False)
            for path in (file.path,)
        },
    }
    if facts.prompts is not None and facts.prompts != len(reading.prompts):
        dataset["expected_prompts"] = facts.prompts
    if reading.left_out:
        dataset["left_out"] = dict(reading.left_out)
    at = f":{request.file.resolve()}" if request.file is not None else f"@{commit}"
    prompts = PromptSet(
        name=facts.name,
        version="local" if request.file is not None else commit[:12],
        categories=tuple(Category(slug, title) for slug, title in reading.titles.items()),
        prompts=tuple(reading.prompts),
        licence=facts.licence,
        description=f"{facts.title}: {facts.description} {facts.citation}.",
        source=facts.name + at,
        selection={"dataset": dataset},
    )
    return invert(prompts, facts, inversion)


def invert(prompts: PromptSet, facts: PublicSet, inversion: str | None) -> PromptSet:
    """The set with the hard lines of one of its inversion lists.

    None takes the first list, or the set's own hard lines; ``none`` takes no hard lines. Raises
    `UsageError` where the list is unknown or none of its categories is in the set.
    """
    lists = dict(facts.inversions)
    if facts.hard_lines:
        lists["default"] = [Inverted(name=name) for name in facts.hard_lines]
    if inversion is None:
        inversion = next(iter(lists), "none")
    if inversion == "none":
        wanted: list[Inverted] = []
    elif inversion in lists:
        wanted = lists[inversion]
    else:
        known = ", ".join(name for name in (*lists, "none") if name != "default")
        raise UsageError(
            f"{facts.name} has no inversion list {printable(inversion)}; it has: {known}; "
            "--hard-line CATEGORY names a hard line of any set"
        )
    by_key = {_key(category.title): category.slug for category in prompts.categories}
    found: set[str] = set()
    missing: list[str] = []
    for entry in wanted:
        slugs = {by_key[key] for name in (entry.name, *entry.also) if (key := _key(name)) in by_key}
        found |= slugs
        if not slugs:
            missing.append(entry.name)
    if wanted and not found:
        names = "; ".join(entry.name for entry in wanted)
        have = "; ".join(printable(c.title, 60) for c in prompts.categories[:60])
        raise UsageError(
            f"the inversion list {inversion} of {facts.name} ({names}) matches no category: name "
            f"the hard lines with --hard-line, or take --inversion none; the categories are: {have}"
        )
    entry_of: dict[str, Any] = {"list": inversion}
    if missing:
        entry_of["not_found"] = missing
    selection = dict(prompts.selection)
    if lists:
        selection["inversion"] = entry_of
    categories = tuple(replace(c, hard_line=c.slug in found) for c in prompts.categories)
    return replace(prompts, categories=categories, selection=selection)


def safe_slug(title: str, taken: Mapping[str, Any]) -> str:
    """A slug that is a file name anywhere: lower-case ASCII, and not one of `taken`."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().casefold()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:70].strip("-") or "category"
    slug, number = stem, 2
    while slug in taken:
        slug, number = f"{stem}-{number}", number + 1
    return slug


def _files(request: Request) -> list[Fetched]:
    facts = request.facts
    if request.file is None:
        place = facts.place(request.revision)
        # Another revision has other digests.
        known = facts.sha256 if place.revision == facts.revision else []
        digests: Sequence[str | None] = known or [None] * len(facts.files)
        return [fetch(place, path, sha) for path, sha in zip(facts.files, digests, strict=True)]
    path = request.file
    if path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise PromptSetError(f"{facts.name}: {printable(path)} is no {kinds} file")
    try:
        return [Fetched(path, "local", file_sha256(path))]
    except OSError as error:
        raise PromptSetError(
            f"{facts.name}: {printable(path)} cannot be read: {error.strerror or error}"
        ) from error


def _read(path: Path, reading: _Reading, request: Request) -> None:
    facts = reading.facts
    named = facts.columns.named
    needed = [*named.values(), *facts.where]
    where = _where(request, path)

    def pick(have: Sequence[str]) -> Sequence[str]:
        missing = [column for column in needed if column not in have]
        if missing:
            raise PromptSetError(_renamed(where, missing[0], have, facts))
        return list(dict.fromkeys(needed))

    mistakes = Mistakes()
    for number, row in read_rows(path, mistakes, pick):
        for column in needed:
            if column not in row:
                raise PromptSetError(_renamed(where, column, list(row), facts))
        if any(str(row[column]) not in wanted for column, wanted in facts.where.items()):
            reading.left_out["other rows"] += 1
            continue
        ours = {name: row[column] for name, column in named.items()}
        _take(ours, f"{facts.name}: {printable(row_place(path, number))}", reading)
    if mistakes.lines:
        raise PromptSetError(f"{facts.name}: {mistakes.lines[0]}")


def _take(row: Mapping[str, Any], place: str, reading: _Reading) -> None:
    """One row as a prompt. Published sets repeat a text here and there; they stay as they are."""
    facts = reading.facts
    text = _text(row, place)
    if text is None:
        reading.left_out["blank"] += 1
        return
    raw = facts.one_category if facts.one_category is not None else row["category"]
    slug = _slug(raw, place, reading)
    reading.counts[slug] += 1
    prompt_id = _id(row.get("id"), slug, reading)
    system = row.get("system")
    reading.prompts.append(
        Prompt(
            id=prompt_id,
            category=slug,
            text=text,
            danger=_DANGER.get(str(row.get("danger")).strip().casefold()),
            system=system if isinstance(system, str) and system.strip() else None,
        )
    )


def _text(row: Mapping[str, Any], place: str) -> str | None:
    text = row.get("prompt")
    if "turns" in row:
        turns = row["turns"]
        if not isinstance(turns, list) or len(turns) > 1:
            raise PromptSetError(f"{place}: its turns are not a list of one user turn")
        text = turns[0] if turns else None
    if text is None:
        return None
    if not isinstance(text, str):
        raise PromptSetError(f"{place}: the prompt is no text")
    context = row.get("context")
    if isinstance(context, str) and context.strip():
        text = f"{context}\n\n---\n\n{text}"
    return well_formed(text) if text.strip() else None


def _slug(raw: Any, place: str, reading: _Reading) -> str:
    facts = reading.facts
    name = "" if raw is None else str(raw).strip()
    if name in reading.slugs:
        return reading.slugs[name]
    if not name:
        raise PromptSetError(f"{place}: the category is empty")
    if facts.categories and name not in facts.categories:
        raise PromptSetError(
            f"{place}: {printable(name, 60)} is no category of {facts.title}, which has "
            f"{len(facts.categories)}: the set has changed; {_or_older(facts)}"
        )
    title = facts.titles.get(name, name)
    slug = safe_slug(title, reading.titles)
    reading.titles[slug] = well_formed(title)
    reading.slugs[name] = slug
    return slug


def _id(raw: Any, slug: str, reading: _Reading) -> str:
    text = "" if raw is None else str(raw).strip()
    wanted = re.sub(r"[^A-Za-z0-9._:/@+-]+", "-", text).strip("-")[:150]
    if wanted.isdecimal():
        wanted = f"{reading.facts.name}-{wanted}"
    if not re.fullmatch(ID_PATTERN, wanted) or wanted in reading.ids:
        stem = wanted if wanted in reading.ids else slug
        number = reading.counts[slug]
        while (wanted := f"{stem}-{number:03}") in reading.ids:
            number += 1
    reading.ids.add(wanted)
    return wanted


def _where(request: Request, path: Path) -> str:
    return f"{request.facts.name}: {printable(path.name)}"


def _renamed(where: str, column: str, have: Sequence[str], facts: PublicSet) -> str:
    listed = ", ".join(printable(name, 40) for name in have[:12]) or "none"
    return f"{where} has no column {column} (it has: {listed}): {_or_older(facts)}"


def _or_older(facts: PublicSet) -> str:
    return f"name another revision with {facts.name}@REVISION, or a file with {facts.name}:FILE"


def _key(name: str) -> str:
    """A category's name for comparing: without case, signs and the word `and`."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(word for word in words if word != "and")
