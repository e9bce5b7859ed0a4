"""Draws prompts at random, balanced over categories."""

from __future__ import annotations

import random
from collections.abc import Iterable

from refusalkit.types import Prompt


def balanced_draw(prompts: Iterable[Prompt], limit: int, seed: int) -> set[str]:
    """Ids of at most `limit` prompts, taken from each category in turn."""
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
