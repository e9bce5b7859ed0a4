"""Draws a part of a prompt set at random: balanced over categories, pairs and hard lines kept.

`DRAW` is the version of the procedure. A run's manifest records it, so that an older run's prompts
are drawn again as they were.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence

from refusalkit.errors import UsageError
from refusalkit.types import Prompt

DRAW = 2


def draw(
    prompts: Sequence[Prompt], limit: int, seed: int, *, hard_lines: Collection[str], version: int
) -> set[str]:
    """Ids of at most `limit` prompts. Raises `UsageError` where `limit` is too small."""
    if version == 1:
        return balanced_draw(prompts, limit, seed)
    return paired_draw(prompts, limit, seed, hard_lines)


def paired_draw(
    prompts: Sequence[Prompt], limit: int, seed: int, hard_lines: Collection[str]
) -> set[str]:
    """Ids of at most `limit` prompts, taken from the category with the fewest taken so far.

    A prompt and its contrast prompts are drawn together or not at all; a contrast prompt without
    its twin among `prompts` comes after all others. Each of `hard_lines` that has a prompt of its
    own keeps one. Raises `UsageError` where `limit` is too small for that.
    """
    rng = random.Random(seed)
    shuffled = _piles(prompts)
    for pile in shuffled.values():
        rng.shuffle(pile)
        pile.sort(key=_is_orphan)
    order = list(shuffled)
    rng.shuffle(order)
    piles = {slug: deque(shuffled[slug]) for slug in order}
    taken: list[Prompt] = []
    owed = {
        slug: min(sizes)
        for slug in order
        if slug in hard_lines and (sizes := [len(g) for g in piles[slug] if not _is_orphan(g)])
    }
    smallest = sum(owed.values())
    if limit < smallest:
        pairs = " and its contrast prompts" if smallest > len(owed) else ""
        raise UsageError(
            f"a limit of {limit} is too small: each of the {len(owed)} hard lines keeps a prompt"
            f"{pairs}, which takes {smallest}; give {smallest} or more, or leave hard lines out "
            "with a category filter"
        )
    counts: Counter[str] = Counter()
    for slug in list(owed):
        smallest -= owed.pop(slug)
        group = _next_group(piles[slug], limit - len(taken) - smallest)
        assert group is not None
        taken += piles[slug].popleft()
        counts[slug] = len(group)
    # The room only shrinks, so an outdated entry comes too early, never too late: it goes back.
    heap = [(False, counts[slug], place, slug) for place, slug in enumerate(order)]
    heapq.heapify(heap)
    while heap:
        entry = heapq.heappop(heap)
        _, _, place, slug = entry
        group = _next_group(piles[slug], limit - len(taken))
        if group is None:
            continue
        now = (_is_orphan(group), counts[slug], place, slug)
        if now == entry:
            taken += piles[slug].popleft()
            counts[slug] += len(group)
        heapq.heappush(heap, (now[0], counts[slug], place, slug))
    return {prompt.id for prompt in taken}


def _next_group(pile: deque[list[Prompt]], room: int) -> list[Prompt] | None:
    """The first group of a pile that fits. Those before it are dropped: the room only shrinks."""
    while pile and len(pile[0]) > room:
        pile.popleft()
    return pile[0] if pile else None


def _piles(prompts: Sequence[Prompt]) -> dict[str, list[list[Prompt]]]:
    """By category, each prompt with its contrast prompts, in the prompts' order."""
    own = {prompt.id: [prompt] for prompt in prompts if prompt.twin is None}
    alone: list[list[Prompt]] = []
    for prompt in prompts:
        if prompt.twin is not None:
            if prompt.twin in own:
                own[prompt.twin].append(prompt)
            else:
                alone.append([prompt])
    piles: dict[str, list[list[Prompt]]] = {}
    for group in (*own.values(), *alone):
        piles.setdefault(group[0].category, []).append(group)
    return piles


def _is_orphan(group: Sequence[Prompt]) -> bool:
    """Whether a group is a contrast prompt without its twin."""
    return group[0].twin is not None


def balanced_draw(prompts: Iterable[Prompt], limit: int, seed: int) -> set[str]:
    """The draw of version 1: each category in turn, pairs and hard lines left to chance."""
    rng = random.Random(seed)
    piles: dict[str, list[Prompt]] = {}
    for prompt in prompts:
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
    return taken


def split_pairs(whole: Sequence[Prompt], kept: Sequence[Prompt]) -> list[str]:
    """The contrast pairs of which a part of a set has only one prompt, in up to two sentences."""
    asked = {prompt.id for prompt in kept}
    before = {prompt.id: prompt.twin for prompt in whole if prompt.twin is not None}
    ids = {prompt.id for prompt in whole}
    without = sum(twin in ids and twin not in asked for pid, twin in before.items() if pid in asked)
    beside = sum(twin in asked for pid, twin in before.items() if pid not in asked)
    notes = []
    if without:
        notes.append(f"{_contrast(without)} asked without the twin")
    if beside:
        notes.append(f"{_contrast(beside)} left out though the twin is asked")
    return notes


def _contrast(n: int) -> str:
    return "1 contrast prompt is" if n == 1 else f"{n} contrast prompts are"
