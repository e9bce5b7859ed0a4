"""What is known of the public prompt sets, read from public.toml: a row for each set.

No prompt of any of them comes with refusalkit; they are fetched from where their authors publish
them. The table's head says what each field means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from refusalkit.prompts.fetch import Place
from refusalkit.prompts.prompt_record import SLUG_PATTERN

FACTS = Path(__file__).with_name("public.toml")

_SHA256 = r"^[0-9a-f]{64}$"
# What a variant or another layout says in its own words; the rest it takes from its set.
_OF_A_LAYOUT = ("where", "columns", "titles")


class _Strict(BaseModel):
    # Built when a public set is asked for, not whenever prompts are loaded.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Columns(_Strict):
    """What the file calls our fields. `turns` holds a list of user turns in place of `prompt`.

    `danger` and `system` are read where the file has them; it must have the others.
    """

    prompt: str | None = None
    turns: str | None = None
    category: str | None = None
    id: str | None = None
    danger: str | None = None
    system: str | None = None
    context: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Our field = their column, for the columns that are known."""
        return {name: column for name, column in self if column is not None}


class Met(_Strict):
    """A published file that was read with every text exact: its digest, and the day."""

    file: str
    sha256: Annotated[str, Field(pattern=_SHA256)]
    date: str
    note: str = ""


class Inverted(_Strict):
    """One category of an inversion list, and other spellings of it."""

    name: str
    also: list[str] = Field(default_factory=list)


class Layout(_Strict):
    """One form in which a set was published: where it lies, and what its columns mean.

    `revisions` are the revisions that have this form; without any it is tried for all.
    """

    hub: str | None = None
    github: str | None = None
    revision: str
    revisions: list[str] = Field(default_factory=list)
    files: Annotated[list[str], Field(min_length=1)]
    sha256: list[Annotated[str, Field(pattern=_SHA256)]] = Field(default_factory=list)
    columns: Columns
    one_category: str | None = None
    where: dict[str, list[str]] = Field(default_factory=dict)
    lists: Literal["first"] | None = None
    categories: list[str] = Field(default_factory=list)
    cut_category_at: str | None = None
    titles: dict[str, str] = Field(default_factory=dict)
    lang: str = "en"
    prompts: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Layout:
        if (self.hub is None) == (self.github is None):
            raise ValueError("give `hub` or `github`")
        if (self.columns.prompt is None) == (self.columns.turns is None):
            raise ValueError("columns: give `prompt` or `turns`")
        if (self.columns.category is None) == (self.one_category is None):
            raise ValueError("give columns.category or `one_category`")
        if self.sha256 and len(self.sha256) != len(self.files):
            raise ValueError("give a `sha256` for each of the files, or none")
        if self.hub is None and any("*" in file for file in self.files):
            raise ValueError("files: only the Hub can list what matches a pattern")
        return self

    @property
    def repository(self) -> str:
        """``owner/name`` on the Hub or on GitHub."""
        return str(self.hub or self.github)

    @property
    def required(self) -> list[str]:
        """The columns that a file of this layout must have."""
        named = self.columns.named
        optional = [named[field] for field in ("danger", "system") if field in named]
        return [c for c in (*named.values(), *self.where) if c not in optional]

    def place(self, name: str, revision: str | None = None) -> Place:
        """Where it lies, at `revision` or the one it is read at."""
        return Place(name, self.repository, revision or self.revision, self.hub is not None)

    def belongs_to(self, revision: str) -> bool:
        """Whether `revisions` names this one; the first 7 characters of a commit will do."""
        return any(_is_short_for(revision, known) for known in self.revisions)

    def whole(self, revision: str | None) -> str | None:
        """A shortened commit in full, where it is known; else the revision as it is."""
        if revision is None:
            return None
        known = (self.revision, *self.revisions)
        return next((one for one in known if _is_short_for(revision, one)), revision)


def _is_short_for(revision: str, commit: str) -> bool:
    return revision == commit or (len(revision) >= 7 and commit.startswith(revision))


class PublicSet(Layout):
    """What is known of one public set; public.toml says what each field means.

    It is the layout at `revision` itself; `layouts` are the others that people have.
    """

    name: Annotated[str, Field(pattern=SLUG_PATTERN)]
    title: str
    description: str
    also_called: list[str] = Field(default_factory=list)
    variant_of: str | None = None
    layouts: list[Layout] = Field(default_factory=list)
    hard_lines: list[str] = Field(default_factory=list)
    refuse_all: bool = False
    inversions: dict[str, list[Inverted]] = Field(default_factory=dict)
    licence: Annotated[str, Field(min_length=1)]
    gated: bool = False
    citation: str
    met: list[Met] = Field(default_factory=list)

    @model_validator(mode="after")
    def _hard_lines_fit(self) -> PublicSet:
        if self.hard_lines and self.inversions:
            raise ValueError("give `hard_lines` or `inversions`")
        if self.categories and not set(self.hard_lines) <= set(self.categories):
            raise ValueError("a hard line is not one of `categories`")
        return self

    def layouts_for(self, revision: str | None) -> Iterator[Layout]:
        """The layouts that a copy may have, the likeliest first.

        A copy on disk (`revision` None) may have any; a revision the one that names it, else any of
        this repository.
        """
        every = [self, *self.layouts]
        named = [one for one in every if revision is not None and one.belongs_to(revision)]
        if named:
            yield from named
        elif revision is None:
            yield from every
        else:
            yield from (one for one in every if one.repository == self.repository)


@cache
def public_sets() -> Mapping[str, PublicSet]:
    """All public sets by name and by what else they are called, each followed by its variants."""
    raw = tomllib.loads(FACTS.read_text(encoding="utf-8"))
    if set(raw) != {"sets"}:
        raise ValueError(f"{FACTS.name}: has other tables than `sets`")
    found: dict[str, PublicSet] = {}
    for one in _with_variants(raw["sets"]):
        known = PublicSet.model_validate(one)
        for name in (known.name, *known.also_called):
            if name in found:
                raise ValueError(f"{FACTS.name}: two sets are called {name}")
            found[name] = known
    return found


def _with_variants(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        variants = row.pop("variants", [])
        layouts = row.pop("layouts", [])
        yield {**row, "layouts": [_layout(row, one, {}) for one in layouts]}
        for variant in variants:
            # What was read, counted and hashed is the whole set, not a part of it.
            base = {k: v for k, v in row.items() if k not in ("also_called", "prompts", "met")}
            if "files" in variant:
                base.pop("sha256", None)
            made = _merged(base, variant)
            made["variant_of"] = row["name"]
            # A part with files of its own has no other form.
            own = [] if "files" in variant else layouts
            made["layouts"] = [_layout(row, one, variant) for one in own]
            yield made


def _layout(
    row: Mapping[str, Any], layout: Mapping[str, Any], variant: Mapping[str, Any]
) -> dict[str, Any]:
    """A complete layout: what it does not say itself is as in its set."""
    base = {k: v for k, v in row.items() if k in Layout.model_fields}
    if "files" in layout:
        base.pop("sha256", None)
        base.pop("prompts", None)
    if "hub" in layout or "github" in layout:
        base.pop("hub", None)
        base.pop("github", None)
    if "columns" in layout:  # another form has other columns, all of them said
        base.pop("columns", None)
        base.pop("one_category", None)
    made = _merged(base, layout)
    own = {k: v for k, v in variant.items() if k in ("where", "columns")}
    return _merged(made, own)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = {**base, **over}
    for table in _OF_A_LAYOUT:
        if table in base and table in over:
            made[table] = {**base[table], **over[table]}
    return made
