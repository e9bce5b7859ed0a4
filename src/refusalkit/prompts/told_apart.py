"""Tells the prompts of several sets apart, where they share ids or categories.

Our own sets share categories on purpose: a contrast set is used with the set that it contrasts
with. Public sets do not: ``deception`` of a benign set and of a toxic one are two categories, of
which only one should be refused.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.types import Category, Prompt

_MAX_SLUG = 80


def told_apart(sets: Sequence[PromptSet]) -> list[PromptSet]:
    """The sets, with the set's name before ids and categories where another one has them too.

    An id that stands for two requests is prefixed (``or-bench-toxic/deception-001``) in every set
    of a clash, and with it all ids of that set, so that they look alike; `twin`, `frame_of` and
    `translation_of` follow. Categories are prefixed (``or-bench-toxic-deception``, titled
    ``or-bench-toxic: deception``) in public sets only, all of a set that shares one. Where nothing
    clashes the sets are returned as they are. Two sets of one name are numbered.
    """
    names = _names(sets)
    slugs = Counter(category.slug for one in sets for category in one.categories)
    clashing: set[int] = set()
    for (first, one), (second, other) in itertools.combinations(enumerate(sets), 2):
        both = [prompt for prompt in other if prompt.id in one]
        # Of our own sets one request in two would count twice: a mistake, which `combine` names.
        # Public sets are asked as published, with what they have in common.
        same = any(one[prompt.id].turns == prompt.turns for prompt in both)
        if both and (not same or _is_public(one) or _is_public(other)):
            clashing |= {first, second}
    renamed = {
        number: {prompt.id: f"{names[number]}/{prompt.id}" for prompt in sets[number].prompts}
        for number in clashing
    }
    made = []
    for number, one in enumerate(sets):
        shared = {c.slug for c in one.categories if slugs[c.slug] > 1} if _is_public(one) else set()
        category_of = {
            slug: _slug(names[number], slug) if shared else slug
            for slug in (category.slug for category in one.categories)
        }
        made.append(_renamed(one, names[number], number, renamed, category_of))
    return made


def _renamed(
    one: PromptSet,
    name: str,
    number: int,
    renamed: Mapping[int, Mapping[str, str]],
    category_of: Mapping[str, str],
) -> PromptSet:
    ours = renamed.get(number, {})
    if not ours and all(slug == new for slug, new in category_of.items()):
        return one
    own = {prompt.id for prompt in one.prompts}

    def follow(target: str | None) -> str | None:
        if target is None:
            return None
        if target in own:
            return ours.get(target, target)
        # A twin may be in another set, which was perhaps renamed.
        elsewhere = [ids[target] for ids in renamed.values() if target in ids]
        return elsewhere[0] if len(elsewhere) == 1 else target

    def prompt(old: Prompt) -> Prompt:
        return replace(
            old,
            id=ours.get(old.id, old.id),
            category=category_of.get(old.category, old.category),
            twin=follow(old.twin),
            frame_of=follow(old.frame_of),
            translation_of=follow(old.translation_of),
        )

    def category(old: Category) -> Category:
        new = category_of[old.slug]
        return old if new == old.slug else replace(old, slug=new, title=f"{name}: {old.title}")

    return replace(
        one,
        categories=tuple(map(category, one.categories)),
        prompts=tuple(map(prompt, one.prompts)),
    )


def _names(sets: Sequence[PromptSet]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for one in sets:
        seen[one.name] += 1
        names.append(one.name if seen[one.name] == 1 else f"{one.name}-{seen[one.name]}")
    return names


def _is_public(one: PromptSet) -> bool:
    return "dataset" in one.selection


def _slug(name: str, slug: str) -> str:
    return f"{name}-{slug}"[:_MAX_SLUG].rstrip("-")
