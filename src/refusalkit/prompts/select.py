"""Takes a part of a prompt set, or marks its hard lines."""

from __future__ import annotations

import difflib
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from refusalkit.errors import UsageError
from refusalkit.prompts.tables import slug_of
from refusalkit.types import Prompt, PromptSet
from refusalkit.untrusted import printable


def select(
    prompts: PromptSet,
    *,
    categories: Collection[str] = (),
    tags: Collection[str] = (),
    danger: Collection[int] = (),
    limit: int | None = None,
    seed: int = 0,
) -> PromptSet:
    """The part of a set that passes every filter given.

    `tags` keeps a prompt that has any of them. `limit` draws at random with `seed`, taking from
    each category in turn, so that the counts of two categories differ by one at most (unless one
    runs out); framed prompts go with the prompt they frame and do not count. Order is kept.

    Where a filter drops prompts, `selection` says which, and under ``hard_lines`` how many prompts
    of its own each hard line had before. Raises `UsageError` where nothing is left.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}: it must be 1 or more")
    wanted = {_find_category(prompts, name) for name in categories}
    chosen = [
        prompt
        for prompt in prompts.prompts
        if (not wanted or prompt.category in wanted)
        and (not tags or not set(tags).isdisjoint(prompt.tags))
        and (not danger or prompt.danger in danger)
    ]
    if not chosen:
        raise UsageError(
            f"no prompt of {printable(prompts.name)} passes the filters (category, tag, danger)"
        )
    if limit is not None:
        drawn = _balanced([p for p in chosen if p.framing is None], limit, seed)
        kept_ids = {prompt.id for prompt in drawn}
        chosen = [p for p in chosen if p.id in kept_ids or p.frame_of in kept_ids]
    if len(chosen) == len(prompts.prompts):
        return prompts
    selection = {
        **prompts.selection,
        "categories": sorted(wanted),
        "tags": sorted(tags),
        "danger": sorted(danger),
        "limit": limit,
        "seed": seed,
    }
    if prompts.hard_lines:
        selection.setdefault("hard_lines", _hard_line_counts(prompts))
    kept = {prompt.category for prompt in chosen}
    return replace(
        prompts,
        categories=tuple(c for c in prompts.categories if c.slug in kept),
        prompts=tuple(chosen),
        selection=selection,
    )


def _hard_line_counts(prompts: PromptSet) -> dict[str, int]:
    counts = dict.fromkeys(sorted(prompts.hard_lines), 0)
    for prompt in prompts.prompts:
        if prompt.category in counts and prompt.twin is None and prompt.framing is None:
            counts[prompt.category] += 1
    return counts


def _balanced(prompts: Iterable[Prompt], limit: int, seed: int) -> list[Prompt]:
    rng = random.Random(seed)
    piles: dict[str, list[Prompt]] = {}
    ordered = list(prompts)
    for prompt in ordered:
        piles.setdefault(prompt.category, []).append(prompt)
    for pile in piles.values():
        rng.shuffle(pile)
    order = list(piles)
    rng.shuffle(order)
    taken: set[str] = set()
    while len(taken) < limit and any(piles.values()):
        for slug in order:
            if piles[slug] and len(taken) < limit:
                taken.add(piles[slug].pop().id)
    return [prompt for prompt in ordered if prompt.id in taken]


def with_hard_lines(prompts: PromptSet, names: Sequence[str]) -> PromptSet:
    """The set with these categories (slugs or titles) as its hard lines, and no others."""
    slugs = {_find_category(prompts, name) for name in names}
    categories = tuple(replace(c, hard_line=c.slug in slugs) for c in prompts.categories)
    selection = {name: value for name, value in prompts.selection.items() if name != "inversion"}
    return replace(prompts, categories=categories, selection=selection)


def _find_category(prompts: PromptSet, name: str) -> str:
    """The slug of a category given by slug or title."""
    slugs = [category.slug for category in prompts.categories]
    slug = slug_of(name)
    if name in slugs:
        return name
    if slug in slugs:
        return slug
    for category in prompts.categories:
        if category.title.casefold() == name.casefold():
            return category.slug
    near = difflib.get_close_matches(slug, slugs, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(slugs[:40])}"
    raise UsageError(f"{printable(prompts.name)} has no category {printable(name)}; {hint}")
