"""What a prompt set holds, in counts: by category, danger, tag, language and length."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from refusalkit.display import shows
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.types import Prompt

# Chinese, Japanese, Thai, Lao, Burmese, Khmer. Compiled when it is used: that takes 2 ms.
_DENSE = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(slots=True)
class CategoryCount:
    """How many prompts a category has, contrast and framed prompts apart; `danger` counts all."""

    n_prompts: int = 0
    n_contrast: int = 0
    n_framed: int = 0
    danger: Counter[int] = field(default_factory=Counter)


@shows("n_contrast", "categories", "languages")
@dataclass(frozen=True, slots=True)
class Summary:
    """A set in counts.

    `tags` counts values by prefix, the tags without a prefix under "". `words` has quantiles of the
    number of words in a prompt's last turn.
    """

    n_contrast: int
    n_translated: int
    categories: dict[str, CategoryCount]
    danger: Counter[int]
    tags: dict[str, Counter[str]]
    languages: Counter[str]
    words: dict[str, int]

    @property
    def n_framed(self) -> int:
        """How many prompts are framed."""
        return sum(count.n_framed for count in self.categories.values())

    @property
    def n_derived(self) -> int:
        """How many prompts name another one: twins, framings, translations."""
        return self.n_contrast + self.n_framed + self.n_translated


def summarise(prompts: PromptSet) -> Summary:
    """Count a set, in one pass over its prompts."""
    categories = {category.slug: CategoryCount() for category in prompts.categories}
    # The tags of the shipped sets come first, in this order.
    tags: dict[str, Counter[str]] = {"form": Counter(), "pretext": Counter(), "register": Counter()}
    tags["spelling"] = Counter()
    languages: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    for prompt in prompts.prompts:
        count = categories.setdefault(prompt.category, CategoryCount())
        if prompt.twin is not None:
            count.n_contrast += 1
        elif prompt.framing is not None:
            count.n_framed += 1
        else:
            count.n_prompts += 1
        if prompt.danger is not None:
            count.danger[prompt.danger] += 1
        for tag in prompt.tags:
            prefix, colon, value = tag.partition(":")
            tags.setdefault(prefix if colon else "", Counter())[value if colon else tag] += 1
        languages[prompt.lang] += 1
        lengths[count_words(prompt.text)] += 1
    return Summary(
        n_contrast=sum(count.n_contrast for count in categories.values()),
        n_translated=sum(prompt.translation_of is not None for prompt in prompts.prompts),
        categories=categories,
        danger=sum((count.danger for count in categories.values()), Counter()),
        tags={prefix: values for prefix, values in tags.items() if values},
        languages=languages,
        words=_quantiles(lengths),
    )


def words_of(prompt: Prompt) -> list[str]:
    """The words of a prompt's last turn, without case."""
    return _WORD.findall(prompt.text.casefold())


def count_words(text: str) -> int:
    """How many words a text has. In scripts without spaces two letters count as a word."""
    dense = len(re.findall(_DENSE, text))
    return max(len(text.split()), dense // 2)


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    shares = {"shortest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "longest": 1.0}
    total = sum(lengths.values())
    found: dict[str, int] = {}
    for name, share in shares.items():
        seen = 0
        for length, count in sorted(lengths.items()):
            seen += count
            if seen >= share * total:
                found[name] = length
                break
    return found
