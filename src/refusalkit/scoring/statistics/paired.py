"""Two runs against each other: differences with intervals and p values. The prompt is the unit.

Both the tests and the intervals were chosen by simulation (``benchmarks/compare_power.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refusalkit.scoring.statistics.intervals import difference, korn_graubard

GAINS_AND_LOSSES = "square and add: Korn-Graubard on gains and on losses, paired by prompt"
UNPAIRED = "square and add: Korn-Graubard on each side, not paired"

Array = NDArray[np.float64]
_EXACT_UP_TO = 14  # prompts that differ: 16,384 sign flips
_DRAWS = 9999
_CHUNK = 2_000_000  # numbers drawn at once
_NORMAL_FROM = 5000  # prompts: the central limit theorem has long taken over
_SEED = 20250818


def paired_interval(
    differences: Sequence[float], trials: float, *, level: float = 0.95
) -> tuple[float, float]:
    """An interval for the mean of differences between paired prompts, as fractions.

    A difference is a gain less a loss, each between 0 and 1. Gains and losses each have a clustered
    Korn-Graubard interval, and the two are put together by square and add with their correlation,
    which is below 0, for a prompt that gains does not lose (Newcombe 1998, Statistics in Medicine
    17, 2635-2650, method 10; Zou & Donner 2008, ibid. 27, 1693-1702). Without differences it is as
    wide as no gain and no loss among so many prompts leave it: a t interval would be a point.

    Args:
        differences: one for each prompt, -1 to 1: the first run's rate less the second's.
        trials: scored responses to a prompt in a run, on average; at least 1.
        level: of the two-sided interval; each end alone is a one-sided bound at (1 + level) / 2.
    """
    values = np.asarray(differences, dtype=float)
    gains, losses = np.maximum(values, 0), np.maximum(-values, 0)
    up, down = float(gains.mean()), float(losses.mean())
    up_low, up_high = _rate_interval(gains, trials, level)
    down_low, down_high = _rate_interval(losses, trials, level)
    spread = float(gains.std() * losses.std())
    together = max(-1.0, -up * down / spread) if spread else 0.0

    def apart(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first**2 + second**2 - 2 * together * first * second))

    value = up - down
    low = value - apart(up - up_low, down_high - down)
    high = value + apart(up_high - up, down - down_low)
    return max(-1.0, low), min(1.0, high)


def _rate_interval(rates: Array, trials: float, level: float) -> tuple[float, float]:
    # Every prompt weighs the same, so each counts the same number of responses.
    counts = [trials] * len(rates)
    rate = min(1.0, float(rates.mean()))
    return korn_graubard(rate, (rates * trials).tolist(), counts, level=level)


def sign_flip_p(differences: Sequence[float]) -> float:
    """The two-sided p of a paired permutation test: no difference, by flipping signs of prompts.

    Where the two models are equal, which of a prompt's two rates belongs to which run is a toss-up,
    so the test is exact: every flip is tried with up to 14 prompts that differ; above that 9,999
    seeded ones are drawn and the data counted among them (Phipson & Smyth 2010, Statistical
    Applications in Genetics and Molecular Biology 9, 39), from 5,000 prompts on the normal limit
    stands in. As the sum of squares does not change, it is a test of the t statistic, valid in
    large samples for equal means too (Janssen 1999, Statistics & Probability Letters 44, 397-405).
    """
    values = np.asarray(differences, dtype=float)
    values = values[np.abs(values) > 1e-12]
    n = len(values)
    if not n:
        return 1.0
    observed = abs(float(values.sum())) - 1e-9
    if n >= _NORMAL_FROM:
        return _normal_p(abs(float(values.sum())) / math.sqrt(float((values**2).sum())))
    if n <= _EXACT_UP_TO:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((np.abs((2 * flips - 1) @ values) >= observed).mean())
    rng = np.random.default_rng([_SEED, n])
    extreme, done = 1, 0
    while done < _DRAWS:
        rows = min(_DRAWS - done, max(1, _CHUNK // n))
        flips = rng.integers(0, 2, (rows, n), dtype=np.int8)
        extreme += int((np.abs((2 * flips - 1) @ values) >= observed).sum())
        done += rows
    return extreme / (_DRAWS + 1)


def smallest_p(prompts: int) -> float:
    """The smallest p that `sign_flip_p` can give with so many prompts."""
    return float(2.0 ** (1 - min(prompts, _EXACT_UP_TO))) if prompts else 1.0


def unpaired_interval(
    first: Sequence[float], second: Sequence[float], trials: float, *, level: float = 0.95
) -> tuple[float, float]:
    """An interval for the difference of two runs' mean rates over prompts that differ."""
    ours, theirs = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    _, low, high = difference(
        (float(ours.mean()), *_rate_interval(ours, trials, level)),
        (float(theirs.mean()), *_rate_interval(theirs, trials, level)),
    )
    return low, high


def shuffle_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p of a permutation test between two runs on unlike prompts.

    Prompts are dealt to the two sides anew, 9,999 seeded times; the statistic is Welch's t, so that
    it also holds where the two vary unlike (Janssen 1997, Statistics & Probability Letters 36,
    9-21).
    """
    pool = np.concatenate([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    size = len(first)
    if min(size, len(second)) < 2:
        return 1.0
    if len(pool) >= _NORMAL_FROM:
        return _normal_p(float(_welch(pool[None, :], size)[0]))
    observed = float(_welch(pool[None, :], size)[0]) - 1e-9
    rng = np.random.default_rng([_SEED, len(pool), size])
    extreme, done = 1, 0
    while done < _DRAWS:
        rows = min(_DRAWS - done, max(1, _CHUNK // len(pool)))
        dealt = rng.permuted(np.broadcast_to(pool, (rows, len(pool))), axis=1)
        extreme += int((_welch(dealt, size) >= observed).sum())
        done += rows
    return extreme / (_DRAWS + 1)


def _normal_p(z: float) -> float:
    """The two-sided p of a standard normal deviate, at least 0."""
    return math.erfc(z / math.sqrt(2))


def _welch(pools: Array, size: int) -> Array:
    first, second = pools[:, :size], pools[:, size:]
    apart = np.abs(first.mean(axis=1) - second.mean(axis=1))
    variance = first.var(axis=1, ddof=1) / size + second.var(axis=1, ddof=1) / second.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = apart / np.sqrt(variance)
    return np.where(apart < 1e-12, 0.0, np.where(variance > 1e-300, t, np.inf))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values corrected for how many there are (Holm 1979, Scand. J. Statistics 6, 65-70).

    A claim for each value below 0.05 is wrong anywhere with at most 5 % probability. None stays
    None and is not counted.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    so_far = 0.0
    for rank, (p, index) in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * p))
        corrected[index] = so_far
    return corrected


def letters(values: Sequence[float], differ: Sequence[tuple[int, int]]) -> list[str]:
    """A compact letter display: items that share a letter were not shown to differ.

    Insert and absorb (Piepho 2004, Journal of Computational and Graphical Statistics 13, 456-466);
    the first letter goes to the highest value.
    """
    groups: list[frozenset[int]] = [frozenset(range(len(values)))]
    for a, b in differ:
        split = [g for g in groups if not {a, b} <= g]
        split += [part for g in groups if {a, b} <= g for part in (g - {a}, g - {b})]
        unique = list(dict.fromkeys(split))
        groups = [g for g in unique if not any(g < other for other in unique)]
    groups.sort(key=lambda g: sorted((-values[i], i) for i in g))
    marks = [_letter(number) for number in range(len(groups))]
    return [
        "".join(mark for mark, group in zip(marks, groups, strict=True) if item in group)
        for item in range(len(values))
    ]


def _letter(number: int) -> str:
    more, last = divmod(number, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)
