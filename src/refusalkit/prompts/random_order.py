"""The order in which a run asks its prompts where a seed draws it."""

from __future__ import annotations

import hashlib

from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.types import Prompt


def place(seed: int, prompt_id: str) -> bytes:
    """Where a prompt comes: a lower one is asked earlier.

    A digest, so that the order of any prompts can be computed without the rest of the set.
    """
    return hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()


def in_random_order(prompts: PromptSet, seed: int) -> list[list[Prompt]]:
    """Each request with its translations and framings, in the order that a seed draws."""
    sources = {p.id: p.translation_of for p in prompts.prompts if p.translation_of is not None}
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts.prompts:
        asked = prompt.frame_of or prompt.id
        groups.setdefault(sources.get(asked, asked), []).append(prompt)
    return [groups[root] for root in sorted(groups, key=lambda root: place(seed, root))]
