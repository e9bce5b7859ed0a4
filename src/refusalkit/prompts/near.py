"""Prompts that are nearly the same: they share most of their words, in the same order.

The measure is difflib's ratio over words (twice the words of the longest matching blocks, over the
words of both): 1.0 for a duplicate. Pairs that share too few words for the threshold are never
compared, which leaves a small part of all pairs (prefix filtering: Chaudhuri, Ganti & Kaushik,
2006).
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refusalkit.prompts.summary import words_of
from refusalkit.types import Prompt

THRESHOLD = 0.6
MAX_EXACT = 3_000
"""Among more prompts than this only those with the same words, in any order, are found."""
MAX_COMPARED = 200_000
"""The search stops after this many comparisons: twenty seconds at the worst."""
_MAX_WORK = 500_000_000
"""It also stops after this much work: a comparison costs the product of both word counts."""
_MAX_WORDS = 2_000
"""Of a longer prompt only its beginning is compared."""

Pair = tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class Found:
    """Pairs of near-duplicates (indexes of earlier and later, ratio), and how they were found."""

    pairs: tuple[Pair, ...]
    how: str


class _StoppedError(Exception):
    pass


def near_duplicates(prompts: Sequence[Prompt]) -> Found:
    """Pairs of `THRESHOLD` or more, without a prompt's own twin, framings and translations."""
    how = f"none shares {THRESHOLD:g} of its words, in order, with another"
    search = _exact(prompts)
    if len(prompts) > MAX_EXACT:
        how = f"none has the words of another (only this is checked among over {MAX_EXACT:,})"
        search = _same_words(prompts)
    pairs: list[Pair] = []
    try:
        for first, second, ratio in search:
            a, b = prompts[first], prompts[second]
            same_request = _request(a) == _request(b)
            if not same_request and a.id != b.twin and b.id != a.twin:
                pairs.append((first, second, ratio))
    except _StoppedError as stopped:
        (compared,) = stopped.args
        how = f"{len(pairs)} in the first {compared:,} comparisons; the rest were not compared"
    else:
        how = str(len(pairs)) if pairs else how
    return Found(tuple(pairs), how)


def _request(prompt: Prompt) -> str:
    return prompt.frame_of or prompt.translation_of or prompt.id


def _exact(prompts: Sequence[Prompt]) -> Iterator[Pair]:
    texts = [words_of(prompt)[:_MAX_WORDS] for prompt in prompts]
    spread = Counter(word for words in texts for word in set(words))
    bags = [Counter(words) for words in texts]
    holding: dict[str, list[int]] = {}
    compared = work = 0
    for later, words in enumerate(texts):
        if not words:
            continue
        # Two texts at the threshold share at least `needed` words, so they share one of the
        # `len(words) - needed + 1` rarest.
        needed = math.ceil(len(words) * THRESHOLD / (2 - THRESHOLD) - 1e-9)
        rarest = sorted(words, key=lambda word: (spread[word], word))[: len(words) - needed + 1]
        candidates = {first for word in set(rarest) for first in holding.get(word, ())}
        for first in sorted(candidates):
            both = len(words) + len(texts[first])
            shared = (bags[later] & bags[first]).total()
            if 2 * shared < THRESHOLD * both:
                continue
            compared += 1
            work += len(words) * len(texts[first])
            if compared > MAX_COMPARED or work > _MAX_WORK:
                raise _StoppedError(compared - 1)
            ratio = difflib.SequenceMatcher(None, texts[first], words, autojunk=False).ratio()
            if ratio >= THRESHOLD:
                yield first, later, ratio
        for word in set(rarest):
            holding.setdefault(word, []).append(later)


def _same_words(prompts: Sequence[Prompt]) -> Iterator[Pair]:
    seen: dict[int, int] = {}
    for later, prompt in enumerate(prompts):
        first = seen.setdefault(hash(tuple(sorted(words_of(prompt)))), later)
        if first != later:
            yield first, later, 1.0
