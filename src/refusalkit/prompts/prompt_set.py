"""A prompt set: a named, versioned, hashed collection of prompts by category."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from refusalkit.display import notebook_table, shows
from refusalkit.errors import UsageError
from refusalkit.prompts.categories import find_category
from refusalkit.prompts.digests import set_digest
from refusalkit.prompts.draw import DRAW, draw, split_pairs
from refusalkit.types import Category, Prompt
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import polars as pl

_MAX_ROWS = 60


@shows("name", "version", "n_prompts")
@dataclass(frozen=True, slots=True)
class SetPart:
    """One of several sets that were combined, as it was loaded."""

    name: str
    """The part's name."""
    version: str
    """Its version."""
    digest: str
    """Its digest, see `PromptSet.digest`."""
    n_prompts: int
    """How many prompts it has."""


@dataclass(frozen=True, repr=False)
class PromptSet:
    """A collection of prompts by category.

    Iterating gives its `Prompt`s in order, ``prompts["weapons-01"]`` one of them by id;
    ``"weapons-01" in prompts`` and ``len(prompts)`` work as expected. Get one from `load_prompts`.

    Examples:
        >>> import refusalkit as rk
        >>> prompts = rk.load_prompts("starter")
        >>> len(prompts) == sum(1 for prompt in prompts)
        True
        >>> prompts.select(danger=3, limit=4)
        PromptSet(starter ..., 4 prompts, 4 categories, ...)
    """

    name: str
    """The set's name."""
    version: str
    """Its version; a released version never changes."""
    categories: tuple[Category, ...]
    """Its categories, in order."""
    prompts: tuple[Prompt, ...]
    """Its prompts, in order."""
    licence: str = ""
    """The licence of its texts."""
    description: str = ""
    """What it is, in a sentence or two."""
    source: str | None = None
    """What `load_prompts` was given: a shipped name or a path. None: built in Python."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """The filters that were applied, as the manifest records them."""
    parts: tuple[SetPart, ...] = ()
    """The sets it was combined from, if it was."""
    whole: PromptSet | None = field(default=None, compare=False)
    """The set of which this is a shard, if it is one; see `shard`."""

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __contains__(self, prompt: object) -> bool:
        """Whether the set has a prompt: by id, or an equal `Prompt`."""
        if isinstance(prompt, Prompt):
            return self._by_id.get(prompt.id) == prompt
        return prompt in self._by_id

    def __getitem__(self, prompt_id: str) -> Prompt:
        """The prompt with this id. Raises `KeyError`, which names similar ids."""
        found = self._by_id.get(prompt_id)
        if found is not None:
            return found
        if not isinstance(prompt_id, str):
            raise TypeError(
                f"prompts are found by id, such as prompts['weapons-01'], not by "
                f"{type(prompt_id).__name__}; prompts.prompts is the tuple of all"
            )
        near = difflib.get_close_matches(prompt_id, self._by_id, n=3)
        hint = f"; did you mean {', '.join(map(printable, near))}?" if near else ""
        raise KeyError(f"{printable(self.name)} has no prompt {printable(prompt_id, 80)}{hint}")

    def __repr__(self) -> str:
        named = f"{printable(self.name)} {printable(self.version)}"
        return f"PromptSet({named}, {', '.join(self._counts())})"

    def _repr_html_(self) -> str:
        """The set as a notebook shows it: its categories in counts, no text."""
        counts = Counter(prompt.category for prompt in self.prompts)
        rows = [
            (category.title, "hard line" if category.hard_line else "", str(counts[category.slug]))
            for category in self.categories[:_MAX_ROWS]
        ]
        left = len(self.categories) - len(rows)
        notes = [", ".join(self._counts()), self.digest]
        notes += [f"{left} more categories"] if left else []
        heads = ("category", "", "prompts")
        return notebook_table(f"Prompt set {self.name} {self.version}", heads, rows, notes)

    def _counts(self) -> tuple[str, ...]:
        return (
            _counted(len(self), "prompt"),
            _counted(len(self.categories), "category", "categories"),
            _counted(len(self.hard_lines), "hard line"),
        )

    @cached_property
    def _by_id(self) -> Mapping[str, Prompt]:
        return {prompt.id: prompt for prompt in self.prompts}

    @cached_property
    def by_slug(self) -> Mapping[str, Category]:
        """Categories by slug."""
        return {category.slug: category for category in self.categories}

    @cached_property
    def hard_lines(self) -> frozenset[str]:
        """Slugs of the hard-line categories."""
        return frozenset(c.slug for c in self.categories if c.hard_line)

    @cached_property
    def twins(self) -> Mapping[str, str]:
        """The contrast prompts: the id of each, and the id of the prompt it is a twin of."""
        return {prompt.id: prompt.twin for prompt in self.prompts if prompt.twin is not None}

    @cached_property
    def framed(self) -> Mapping[str, tuple[str, str]]:
        """The framed prompts: the id of each, its framing, and the id of the prompt it frames."""
        return {
            prompt.id: (prompt.framing, prompt.frame_of)
            for prompt in self.prompts
            if prompt.framing is not None and prompt.frame_of is not None
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, ``sha256:`` and 64 hex digits.

        It covers every prompt and which categories are hard lines. It does not cover the order of
        files and lines, line endings, titles, descriptions, or the set's name and version.
        """
        return set_digest(self.categories, self.prompts)

    def select(
        self,
        *,
        category: str | Collection[str] = (),
        tag: str | Collection[str] = (),
        danger: int | Collection[int] = (),
        limit: int | None = None,
        seed: int = 0,
        draw_version: int = DRAW,
    ) -> PromptSet:
        """The part of the set that passes every filter given, in the same order.

        Args:
            category: slugs or titles of the categories to keep.
            tag: keep prompts that have any of these tags.
            danger: keep prompts of these dangers, 1 to 3.
            limit: the most prompts to draw at random, balanced over the categories. A prompt and
                its contrast prompts are drawn together, and each hard line keeps a prompt. Framed
                prompts come with the prompt they frame and do not count.
            seed: the seed of that draw.
            draw_version: 1 draws as versions before did, with neither pairs nor hard lines kept.

        Where prompts are dropped, `PromptSet.selection` records the filters and, under
        ``hard_lines``, how many prompts of its own each hard line had before.

        Raises:
            UsageError: nothing is left, a category is unknown, or `limit` is below 1 or too small
                for the hard lines; the text names the smallest that will do.
        """
        tags = {tag} if isinstance(tag, str) else set(tag)
        dangers = {danger} if isinstance(danger, int) else set(danger)
        named = [category] if isinstance(category, str) else category
        wanted = {find_category(self.categories, name, self.name) for name in named}
        if limit is not None and limit < 1:
            raise UsageError(f"the limit is {limit}: it must be 1 or more")
        chosen = [
            prompt
            for prompt in self.prompts
            if (not wanted or prompt.category in wanted)
            and (not tags or not tags.isdisjoint(prompt.tags))
            and (not dangers or prompt.danger in dangers)
        ]
        if not chosen:
            raise UsageError(
                f"no prompt of {printable(self.name)} passes the filters (category, tag, danger)"
            )
        if limit is not None:
            kept = draw(
                [p for p in chosen if p.framing is None],
                limit,
                seed,
                hard_lines=self.hard_lines,
                version=draw_version,
            )
            chosen = [p for p in chosen if p.id in kept or p.frame_of in kept]
        if len(chosen) == len(self.prompts):
            return self
        selection = {
            **self.selection,
            "categories": sorted(wanted),
            "tags": sorted(tags),
            "danger": sorted(dangers),
            "limit": limit,
            "seed": seed,
        }
        if limit is not None and draw_version != 1:
            selection["draw"] = draw_version
        if self.hard_lines:
            selection.setdefault("hard_lines", self._hard_line_counts())
        filled = {prompt.category for prompt in chosen}
        return replace(
            self,
            categories=tuple(c for c in self.categories if c.slug in filled),
            prompts=tuple(chosen),
            selection=selection,
        )

    def shard(self, number: int, of: int) -> PromptSet:
        """The `number`-th, from 1, of the set's `of` shards, in the same order.

        A prompt's id alone decides its shard, so the shards of one set never overlap and together
        are the set. A contrast, framed or translated prompt is in the shard of the prompt that it
        belongs to. `whole` of the shard is this set. Raises `UsageError` where the shard is empty.
        """
        kept = tuple(p for p in self.prompts if shard_of(root_id(p), of) == number)
        if not kept:
            raise UsageError(
                f"shard {number}/{of} of {printable(self.name)} has none of its {len(self)} "
                "prompts: take fewer shards"
            )
        filled = {prompt.category for prompt in kept}
        return replace(
            self,
            categories=tuple(c for c in self.categories if c.slug in filled),
            prompts=kept,
            whole=self,
        )

    def only_hard_lines(self) -> PromptSet:
        """The prompts of the hard lines with their framings, without their safe twins.

        Raises `UsageError` where there is none.
        """
        kept = tuple(p for p in self.prompts if p.category in self.hard_lines and p.twin is None)
        if not kept:
            raise UsageError(f"{printable(self.name)} has no prompt of a hard line to ask")
        if len(kept) == len(self.prompts):
            return self
        filled = {prompt.category for prompt in kept}
        return replace(
            self,
            categories=tuple(c for c in self.categories if c.slug in filled),
            prompts=kept,
            selection={**self.selection, "only_hard_lines": True},
        )

    def lost_in(self, part: PromptSet) -> list[str]:
        """What a part of this set no longer has: hard lines, and contrast pairs. A sentence each.

        >>> import refusalkit as rk
        >>> prompts = rk.load_prompts("starter")
        >>> prompts.lost_in(prompts.select(category="assault"))[0][:48]
        'these hard lines have no prompt left: minor-spec'
        """
        gone = [c.slug for c in self.categories if c.slug in self.hard_lines - part.hard_lines]
        asked = {p.category for p in part.prompts if p.twin is None}
        had = {p.category for p in self.prompts if p.twin is None}
        # A category may be left with contrast prompts alone.
        gone += [s for s in sorted(part.hard_lines - asked) if s in had and s not in gone]
        notes = split_pairs(self.prompts, part.prompts)
        if gone:
            notes.insert(0, f"these hard lines have no prompt left: {', '.join(gone)}")
        return notes

    def with_hard_lines(self, names: Collection[str]) -> PromptSet:
        """The set with these categories (slugs or titles) as its hard lines, and no others.

        ``all`` makes every category one: for sets of which every request should be refused. Raises
        `UsageError` where the set has no such category.
        """
        have = {category.slug for category in self.categories}
        if "all" in names and "all" not in have:
            slugs = have
        else:
            slugs = {find_category(self.categories, name, self.name) for name in names}
        categories = tuple(replace(c, hard_line=c.slug in slugs) for c in self.categories)
        selection = {name: value for name, value in self.selection.items() if name != "inversion"}
        return replace(self, categories=categories, selection=selection)

    def _hard_line_counts(self) -> dict[str, int]:
        counts = dict.fromkeys(sorted(self.hard_lines), 0)
        for prompt in self.prompts:
            if prompt.category in counts and prompt.twin is None and prompt.framing is None:
                counts[prompt.category] += 1
        return counts

    def frame(self, *, text: bool = False) -> pl.DataFrame:
        """The set as a polars frame, a row for each prompt, in order.

        Columns: id, category, hard_line (whether a refusal is the right answer; false for contrast
        prompts), danger (1 to 3 or null), tags (a list), lang; with `text` also text, the prompt's
        last user turn.
        """
        import polars as pl

        schema: dict[str, Any] = {
            "id": pl.String,
            "category": pl.String,
            "hard_line": pl.Boolean,
            "danger": pl.Int64,
            "tags": pl.List(pl.String),
            "lang": pl.String,
        }
        columns: dict[str, list[Any]] = {
            "id": [p.id for p in self.prompts],
            "category": [p.category for p in self.prompts],
            "hard_line": [p.category in self.hard_lines and p.twin is None for p in self.prompts],
            "danger": [p.danger for p in self.prompts],
            "tags": [list(p.tags) for p in self.prompts],
            "lang": [p.lang for p in self.prompts],
        }
        if text:
            schema["text"] = pl.String
            columns["text"] = [p.text for p in self.prompts]
        return pl.DataFrame(columns, schema=schema)


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def root_id(prompt: Prompt) -> str:
    """The id of the prompt that a contrast, framed or translated one belongs to, else its own."""
    return prompt.twin or prompt.frame_of or prompt.translation_of or prompt.id


def shard_of(prompt_id: str, of: int) -> int:
    """Which of `of` shards, from 1, a prompt is in: by the SHA-256 of its (root's) id."""
    return int.from_bytes(hashlib.sha256(prompt_id.encode()).digest()[:8]) % of + 1
