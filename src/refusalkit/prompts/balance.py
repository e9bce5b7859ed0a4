"""Whether form, pretext, register and spelling predict how dangerous a prompt is.

Where they do, a model that refuses by style alone looks as if it judged the content. The measure is
Cramér's V with Bergsma's bias correction (Journal of the Korean Statistical Society 42, 2013): 0
where a tag says nothing about danger, 1 where it determines it. Permuting the degrees of danger
shows whether chance alone would reach that value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refusalkit.types import Prompt

if TYPE_CHECKING:
    import numpy as np

    _Indices = np.ndarray[tuple[int], np.dtype[np.intp]]

MAX_ASSOCIATION = 0.2
"""A larger corrected V is reported ..."""
LEVEL = 0.01
"""... if fewer than this share of permutations reach it."""
MIN_PROMPTS = 30
_PERMUTATIONS = 999
_MAX_PERMUTED = 2_000
"""With more prompts than this there are no permutations: chance never reaches such a V."""


@dataclass(frozen=True, slots=True)
class Imbalance:
    """A kind of tag that is associated with danger."""

    kind: str
    """The tags' prefix, or ``letters``: lower case only, or not."""
    v: float
    """Bias-corrected Cramér's V, 0 to 1."""
    p: float
    """Share of permutations that reach it; 0 where none was needed."""
    value: str
    """The value that stands out most at one degree of danger."""
    danger: int
    """That degree, 1 to 3."""
    n_value: int
    """Prompts that have the value ..."""
    n_value_at: int
    """... and of them those with that degree."""
    n_other: int
    """Prompts that have another value ..."""
    n_other_at: int
    """... and of them those with that degree."""

    def __str__(self) -> str:
        return (
            f"{self.kind} predicts danger (Cramér's V {self.v:.2f}, at most {MAX_ASSOCIATION:g}): "
            f"{self.n_value_at} of {self.n_value} prompts with {self.value!r} have danger "
            f"{self.danger}, {self.n_other_at} of {self.n_other} others"
        )


def imbalances(
    prompts: Sequence[Prompt], hard_lines: frozenset[str], prefixes: Sequence[str]
) -> Iterator[Imbalance]:
    """Each of `prefixes`, and lower case, that predicts the danger of a set's ordinary prompts.

    Contrast prompts, framings, translations and hard lines are left out: what they are determines
    their danger.
    """
    chosen = [
        prompt
        for prompt in prompts
        if prompt.danger is not None
        and prompt.category not in hard_lines
        and not (prompt.twin or prompt.framing or prompt.translation_of)
    ]
    for prefix in prefixes:
        pairs = [
            (value, prompt.danger or 0)
            for prompt in chosen
            if (value := _value(prompt.tags, prefix)) is not None
        ]
        if (found := _imbalance(prefix, pairs)) is not None:
            yield found
    letters = [
        ("lower case" if prompt.text == prompt.text.lower() else "both", prompt.danger or 0)
        for prompt in chosen
        if prompt.text.upper() != prompt.text.lower()
    ]
    if (found := _imbalance("letters", letters)) is not None:
        yield found


def _value(tags: Sequence[str], prefix: str) -> str | None:
    return next((tag.partition(":")[2] for tag in tags if tag.startswith(f"{prefix}:")), None)


def _imbalance(kind: str, pairs: Sequence[tuple[str, int]]) -> Imbalance | None:
    if len(pairs) < MIN_PROMPTS:
        return None
    import numpy as np  # here, because a set that is too small does not need it

    names, rows = np.unique([value for value, _ in pairs], return_inverse=True)
    levels, columns = np.unique([danger for _, danger in pairs], return_inverse=True)
    if len(names) < 2 or len(levels) < 2:
        return None
    shape = (len(names), len(levels))
    chi2 = _chi2(rows, columns, shape)
    v = _corrected_v(chi2, len(pairs), shape)
    if v <= MAX_ASSOCIATION:
        return None
    p = 0.0
    if len(pairs) <= _MAX_PERMUTED:
        rng = np.random.default_rng(0)
        reached = (
            _chi2(rows, rng.permutation(columns), shape) >= chi2 for _ in range(_PERMUTATIONS)
        )
        p = (1 + sum(reached)) / (1 + _PERMUTATIONS)
        if p >= LEVEL:
            return None
    return _named(kind, v, p, Counter(pairs))


def _named(kind: str, v: float, p: float, counts: Mapping[tuple[str, int], int]) -> Imbalance:
    """The cell that lies farthest above what independence would give it."""
    total = sum(counts.values())
    by_value: Counter[str] = Counter()
    by_danger: Counter[int] = Counter()
    for (value, danger), count in counts.items():
        by_value[value] += count
        by_danger[danger] += count

    def excess(cell: tuple[str, int]) -> float:
        expected = by_value[cell[0]] * by_danger[cell[1]] / total
        return (counts[cell] - expected) / math.sqrt(expected)

    value, danger = max(counts, key=excess)
    at = counts[value, danger]
    return Imbalance(
        kind, v, p, value, danger, by_value[value], at, total - by_value[value],
        by_danger[danger] - at,
    )  # fmt: skip


def _chi2(rows: _Indices, columns: _Indices, shape: tuple[int, int]) -> float:
    import numpy as np

    table = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def _corrected_v(chi2: float, n: int, shape: tuple[int, int]) -> float:
    r, k = shape
    phi2 = max(0.0, chi2 / n - (r - 1) * (k - 1) / (n - 1))
    r_corrected, k_corrected = (size - (size - 1) ** 2 / (n - 1) for size in (r, k))
    return float(math.sqrt(phi2 / (min(r_corrected, k_corrected) - 1)))
