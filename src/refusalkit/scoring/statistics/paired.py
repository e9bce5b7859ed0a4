"""Two runs compared: differences with intervals and p values. The prompt is the unit.

The intervals were chosen by simulation (``benchmarks/compare_power.py``), and each p is its
interval's own.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from refusalkit.scoring.statistics.asked_again import asked_again
from refusalkit.scoring.statistics.intervals import PromptRate, prompts_like_these
from refusalkit.scoring.statistics.proportions import difference

GAINS_AND_LOSSES = "square and add: Korn-Graubard on gains and on losses, paired, by category"
UNPAIRED = "square and add: Korn-Graubard by category on each side, not paired"

_MIN_Z, _MAX_Z = 1e-3, 6.0
MIN_P = math.erfc(_MAX_Z / math.sqrt(2))
"""The smallest p that is distinguished from 0."""


class PromptPair(NamedTuple):
    """What a prompt earned in two runs.

    first, second: the mean of its scored trials in either run, a fraction.
    n_first, n_second: how many were scored, at least 1.
    stratum: its category.
    side: whether it is a hard line; sides are combined by square and add.
    """

    first: float
    second: float
    n_first: float = 1.0
    n_second: float = 1.0
    stratum: Hashable = None
    side: Hashable = None


def paired_interval(pairs: Sequence[PromptPair], *, level: float = 0.95) -> tuple[float, float]:
    """An interval for the mean of differences over prompts like these, as fractions.

    A difference is a gain less a loss, each between 0 and 1. Gains and losses each have the
    interval of a rate, stratified by category (`intervals.prompts_like_these`), and the two are
    combined by square and add with their correlation, which is negative, as a prompt that gains
    does not lose (Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10; Zou & Donner
    2008, ibid. 27, 1693-1702). Where no prompt differs it still has the width that no gain and no
    loss among so many prompts allow; a t interval would be a single point.

    Args:
        pairs: the prompts of both runs.
        level: of the two-sided interval; each end alone is a one-sided bound at (1 + level) / 2.
    """
    gains, losses = (
        [
            PromptRate(
                mean=max(0.0, way * (p.first - p.second)),
                trials=(p.n_first + p.n_second) / 2,
                stratum=p.stratum,
                side=p.side,
                times=times,
            )
            for p, times in Counter(pairs).items()
        ]
        for way in (1, -1)
    )
    _, low, high = gains_less_losses(gains, losses, level=level)
    return low, high


def gains_less_losses(
    gains: Sequence[PromptRate], losses: Sequence[PromptRate], *, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean over prompts of each one's gain less its loss, with its interval, as fractions.

    The interval is that of `paired_interval`; a prompt may both gain and lose, by different trials.

    Args:
        gains, losses: by prompt, in the same order, with the same strata, sides and numbers.
        level: of the two-sided interval.

    Returns:
        The difference, its lower and its upper end.

    Raises:
        ValueError: as `intervals.prompts_like_these`.
    """
    sides: dict[Hashable, tuple[list[PromptRate], list[PromptRate]]] = defaultdict(lambda: ([], []))
    for gain, loss in zip(gains, losses, strict=True):
        of = sides[gain.side]
        of[0].append(gain)
        of[1].append(loss)
    parts = [
        (sum(gain.times for gain in of[0]), *_within_side(*of, level)) for of in sides.values()
    ]
    n = sum(size for size, _, _, _ in parts)
    value = math.fsum(size * change for size, change, _, _ in parts) / n
    low = value - math.hypot(*(size / n * (change - low) for size, change, low, _ in parts))
    high = value + math.hypot(*(size / n * (high - change) for size, change, _, high in parts))
    return value, max(-1.0, low), min(1.0, high)


def _within_side(
    gains: Sequence[PromptRate], losses: Sequence[PromptRate], level: float
) -> tuple[float, float, float]:
    """The change of one side, its lower and its upper end."""
    up, up_low, up_high = prompts_like_these(gains, level=level)
    down, down_low, down_high = prompts_like_these(losses, level=level)
    seen = _correlation(gains, losses)

    def apart(first: float, second: float, at_up: float, at_down: float) -> float:
        together = max(-1.0, min(seen, _two_cells(at_up, at_down)))
        return math.sqrt(max(0.0, first**2 + second**2 - 2 * together * first * second))

    low = up - down - apart(up - up_low, down_high - down, up_low, down_high)
    high = up - down + apart(up_high - up, down - down_low, up_high, down_low)
    return up - down, low, high


def _correlation(gains: Sequence[PromptRate], losses: Sequence[PromptRate]) -> float:
    """The correlation of gains and losses within categories, at most 0."""
    sums: dict[Hashable, list[float]] = defaultdict(lambda: [0.0] * 5)
    for gain, loss in zip(gains, losses, strict=True):
        n, g, x = gain.times, gain.mean, loss.mean
        of = sums[gain.stratum]
        for k, value in enumerate((1.0, g, x, g * g, x * x)):
            of[k] += n * value
    together = math.fsum(-g * x / n for n, g, x, _, _ in sums.values())
    of_gains = math.fsum(gg - g * g / n for n, g, _, gg, _ in sums.values())
    of_losses = math.fsum(xx - x * x / n for n, _, x, _, xx in sums.values())
    spread = math.sqrt(max(0.0, of_gains) * max(0.0, of_losses))
    return min(0.0, together / spread) if spread > 1e-12 else 0.0


def _two_cells(first: float, second: float) -> float:
    """The correlation of two cells of one multinomial.

    It is taken at the limits and not at the estimates: where no prompt lost, the estimate would be
    0, and 14 gains in 14 prompts would have a smaller p than in the sign test.
    """
    rest = (1 - first) * (1 - second)
    return -math.sqrt(min(1.0, first * second / rest)) if rest > 0 else -1.0


def again_interval(pairs: Sequence[PromptPair], *, level: float = 0.95) -> tuple[float, float]:
    """An interval for the difference on these very prompts, asked again.

    The prompts are fixed, so the two runs are independent given them: each has its own interval
    (`asked_again`), combined by square and add.
    """
    first = asked_again(_rates(pairs, "first"), level=level)
    second = asked_again(_rates(pairs, "second"), level=level)
    _, low, high = difference(first, second)
    return low, high


def _rates(pairs: Sequence[PromptPair], run: str) -> list[PromptRate]:
    """One run's rates, prompts that are alike counted once."""
    counted = Counter((getattr(p, run), getattr(p, f"n_{run}"), p.stratum, p.side) for p in pairs)
    return [PromptRate(*key, times=times) for key, times in counted.items()]


def interval_p(interval: Callable[[float], tuple[float, float]]) -> float:
    """The two-sided p of no difference, by an interval's own test.

    It is 1 less the highest level at which the interval leaves out 0, so that the p is at most 0.05
    exactly where the 95 % interval leaves out 0. It holds wherever the interval does. A sign-flip
    test of the same differences does not: it is exact only where each prompt's difference is
    symmetric about 0, and differences of two models of equal mean and unequal spread are skewed
    (13 % false claims at 35 prompts, ``benchmarks/compare_power.py``). Studentising does not help:
    a flip does not change the sum of squares, so the flips keep the order of the sums.

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
    """The smallest p that so many paired prompts can give: the sign test's, where all gain."""
    return min(1.0, 2.0 ** (1 - prompts))


def unpaired_interval(
    first: Sequence[PromptRate], second: Sequence[PromptRate], *, level: float = 0.95
) -> tuple[float, float]:
    """An interval for the difference of two runs' mean rates over prompts that differ."""
    _, low, high = difference(
        prompts_like_these(first, level=level), prompts_like_these(second, level=level)
    )
    return low, high


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values corrected for their number (Holm 1979, Scand. J. Statistics 6, 65-70).

    If each value below 0.05 is taken as a claim, any of them is wrong with a probability of at most
    5 %. None stays None and is not counted.
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
