"""Two runs against each other: differences with intervals and p values. The prompt is the unit.

The intervals were chosen by simulation (``benchmarks/compare_power.py``), and each p is its
interval's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from refusalkit.scoring.statistics.intervals import difference, korn_graubard

GAINS_AND_LOSSES = "square and add: Korn-Graubard on gains and on losses, paired by prompt"
UNPAIRED = "square and add: Korn-Graubard on each side, not paired"

Array = NDArray[np.float64]
_MIN_Z, _MAX_Z = 1e-3, 6.0
MIN_P = math.erfc(_MAX_Z / math.sqrt(2))
"""The smallest p that is told apart from 0."""


def paired_interval(
    differences: Sequence[float], trials: float, *, level: float = 0.95
) -> tuple[float, float]:
    """An interval for the mean of differences between paired prompts, as fractions.

    A difference is a gain less a loss, each between 0 and 1. Gains and losses each have a clustered
    Korn-Graubard interval, and the two are put together by square and add with their correlation,
    which is below 0, as a prompt that gains does not lose (Newcombe 1998, Statistics in Medicine
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
    seen = -up * down / spread if spread else 0.0

    def apart(first: float, second: float, at_up: float, at_down: float) -> float:
        together = max(-1.0, min(seen, _two_cells(at_up, at_down)))
        return math.sqrt(max(0.0, first**2 + second**2 - 2 * together * first * second))

    value = up - down
    low = value - apart(up - up_low, down_high - down, up_low, down_high)
    high = value + apart(up_high - up, down - down_low, up_high, down_low)
    return max(-1.0, low), min(1.0, high)


def _two_cells(first: float, second: float) -> float:
    """The correlation of two cells of one multinomial.

    Taken at the limits and not at the estimates: where no prompt lost, the estimate would be 0, and
    14 gains in 14 prompts more surprising than the sign test has them.
    """
    rest = (1 - first) * (1 - second)
    return -math.sqrt(min(1.0, first * second / rest)) if rest > 0 else -1.0


def _rate_interval(rates: Array, trials: float, level: float) -> tuple[float, float]:
    # Every prompt weighs the same, so each counts the same number of responses.
    alike, times = np.unique(rates, return_counts=True)
    rate = min(1.0, float(rates.mean()))
    counts = [trials] * len(alike)
    return korn_graubard(rate, (alike * trials).tolist(), counts, times=times.tolist(), level=level)


def interval_p(interval: Callable[[float], tuple[float, float]]) -> float:
    """The two-sided p of no difference, by an interval's own test.

    It is 1 less the highest level at which the interval leaves out 0, so that the p is at most 0.05
    exactly where the 95 % interval leaves out 0. It holds wherever the interval does. A sign-flip
    test of the same differences does not: it is exact only where each prompt's difference is
    symmetric about 0, and two models of equal mean and unlike spread differ askew (13 % false
    claims at 35 prompts, ``benchmarks/compare_power.py``). Studentising does not help, as a flip
    leaves the sum of squares alone and so orders the flips as the sum does.

    Args:
        interval: the interval's ends at a level between 0 and 1; wider where the level is higher.

    Returns:
        The p, between `MIN_P` and 1.
    """

    def beyond(z: float) -> float:
        low, high = interval(math.erf(z / math.sqrt(2)))
        return max(low, -high)

    near, far = _MIN_Z, _MAX_Z
    at_near, at_far = beyond(near), beyond(far)
    if at_near <= 0:
        return 1.0
    if at_far > 0:
        return MIN_P
    # Regula falsi (Illinois): the ends move almost linearly with the normal deviate.
    z, side = near, 0
    for _ in range(60):
        z = (near * at_far - far * at_near) / (at_far - at_near)
        at = beyond(z)
        if far - near < 1e-7 or abs(at) < 1e-12:
            break
        if at > 0:
            near, at_near = z, at
            at_far /= 2 if side > 0 else 1
            side = 1
        else:
            far, at_far = z, at
            at_near /= 2 if side < 0 else 1
            side = -1
    return math.erfc(z / math.sqrt(2))


def smallest_p(prompts: int) -> float:
    """The smallest p that so many paired prompts can give: each differs, and by all it can."""
    return interval_p(lambda level: paired_interval([1.0] * prompts, 1, level=level))


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
