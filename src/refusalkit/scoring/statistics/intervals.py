"""The default interval of a rate: *prompts like these*, stratified by category.

A rate is a mean over prompts of each prompt's mean over its scored trials. Categories are fixed
strata, not a sample: differences between categories are not uncertainty. Ordinary prompts and hard
lines are two *sides* with an interval each, combined by square and add.

The interval of a side is Korn & Graubard's (1998, Survey Methodology 24, 193-201): the exact
binomial interval of Clopper & Pearson (1934) at the effective sample size, here that of a
stratified sample (Cochran 1977, Sampling Techniques, 5.4):

    V     = (sum over strata of n_h / (n_h - 1) * sum of (y - stratum mean)^2
             + (way - rate)^2) / (n + 1)^2
    n_eff = rate' (1 - rate') / V * (t(m - 1) / t(df))^2, at most m

where y is a prompt's mean, n counts prompts and m is the largest number of independent responses
that they could be worth. The second term is *one prompt added*, which went the rarer way (0 or 1,
whichever is less informative; rate' is the rate with it): where events are few, most of the
variation between prompts has not been seen yet. df is Satterthwaite's (1946, Biometrics Bulletin 2,
110-114), so that a single stratum that varies has only its own degrees of freedom. Strata of one
prompt are collapsed into one (Cochran 1977, 5A.12), which is conservative. At rates of 0 and 1 the
effective size is the number of prompts. With one trial and one stratum this is the Clopper-Pearson
interval or wider.

It was chosen among its rivals by simulation: ``benchmarks/coverage.py``, docs/intervals.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from refusalkit.scoring.statistics.proportions import clopper_pearson, required
from refusalkit.scoring.statistics.quantiles import student_quantile

STRATIFIED = "Korn-Graubard, stratified by category, one prompt added"
BY_SIDE = f"{STRATIFIED}; ordinary prompts and hard lines combined by square and add"

_EVEN = 1e-9  # values closer than this are equal: means of trials are not exact in binary


class PromptRate(NamedTuple):
    """What a prompt earned, or several prompts that earned the same.

    mean: of its scored trials, a fraction.
    trials: how many of its trials were scored, at least 1.
    stratum: its category.
    side: whether it is a hard line; sides are combined by square and add.
    weight: of the prompt in the mean; only ratios matter.
    times: how many prompts this stands for.
    noise: the variance that estimating the mean added to it; 0 where it was counted.
    """

    mean: float
    trials: float = 1
    stratum: Hashable = None
    side: Hashable = None
    weight: float = 1.0
    times: int = 1
    noise: float = 0.0


class Interval(NamedTuple):
    """A rate and its interval, as fractions."""

    rate: float
    low: float
    high: float


def prompts_like_these(prompts: Iterable[PromptRate], *, level: float = 0.95) -> Interval:
    """The mean over prompts, with its interval over prompts like these in the same categories.

    Holds for the rate that the model would have over other prompts of the same categories, asked
    as often. Raises `ValueError` without prompts, and for figures that are not what they should be.
    """
    return by_side(checked(prompts, level), lambda side: _stratified(side, level))


def estimated_rates(prompts: Sequence[PromptRate], *, level: float = 0.95) -> Interval:
    """`prompts_like_these` of means that are estimates, which may lie outside 0 to 1.

    What estimating added to their variance (`PromptRate.noise`) is subtracted: the interval is
    about variation between prompts, and callers add the noise themselves. Where nothing is
    estimated it is the same interval. Raises `ValueError` without prompts and for a level outside 0
    to 1.
    """
    required(bool(prompts), "an interval needs at least one prompt")
    required(0 < level < 1, f"the level is {level}: it must lie between 0 and 1")
    return by_side(prompts, lambda side: _stratified(side, level))


def by_side(
    prompts: Sequence[PromptRate],
    interval: Callable[[Sequence[PromptRate]], Interval],
    side_of: Callable[[PromptRate], Hashable] = lambda prompt: prompt.side,
) -> Interval:
    """Each side's interval, combined by square and add.

    Each limit of a weighted sum of independent rates is as far from it as the root of the summed
    squares of its parts' distances (Zou & Donner 2008, Statistics in Medicine 27, 1693-1702).
    """
    sides: dict[Hashable, list[PromptRate]] = defaultdict(list)
    for prompt in prompts:
        sides[side_of(prompt)].append(prompt)
    parts = [(sum(p.weight * p.times for p in side), interval(side)) for side in sides.values()]
    if len(parts) == 1:
        return parts[0][1]
    whole = sum(weight for weight, _ in parts)
    rate = math.fsum(weight * part.rate for weight, part in parts) / whole
    down = math.hypot(*(weight / whole * (part.rate - part.low) for weight, part in parts))
    up = math.hypot(*(weight / whole * (part.high - part.rate) for weight, part in parts))
    return Interval(rate, max(0.0, rate - down), min(1.0, rate + up))


def _stratified(prompts: Sequence[PromptRate], level: float) -> Interval:
    rate = _mean(prompts)
    x = rate
    if abs(x) < _EVEN or abs(1 - x) < _EVEN:
        x = round(x)
    low, high = clopper_pearson(x, effective_prompts(prompts, level=level), level=level)
    return Interval(rate, min(low, rate), max(high, rate))


def effective_prompts(prompts: Sequence[PromptRate], *, level: float = 0.95) -> float:
    """How many independent responses would be as informative (n_eff of the module's docstring).

    The prompts are of one side.
    """
    n = sum(p.times for p in prompts)
    rate = _mean(prompts)
    total = math.fsum(p.weight * p.times for p in prompts)
    squares = math.fsum(p.weight**2 * p.times for p in prompts)
    # Kish's size (1965, Survey Sampling, 11.7): unequal weights cost prompts.
    counted = total**2 / squares
    if n < 2 or rate < _EVEN or rate > 1 - _EVEN:
        return counted
    responses = total**2 / math.fsum(p.weight**2 / p.trials * p.times for p in prompts)
    parts = _spread(prompts, n / total, n, rate)
    estimating = math.fsum(p.times * (n / total * p.weight) ** 2 * p.noise for p in prompts)
    between = max(0.0, math.fsum(spread for spread, _ in parts) - estimating)
    most = max(1.0, sum(df for _, df in parts) + 1)
    quantile = 1 - (1 - level) / 2
    best = student_quantile(max(1.0, responses - 1), quantile)
    found = math.inf
    for way in (0.0, 1.0):
        added = (rate - way) ** 2
        mean = (n * rate + way) / (n + 1)
        spread = between + added
        noise = math.fsum(part**2 / (df + 2) for part, df in parts)
        df = min(most, max(1.0, spread**2 / noise)) if noise > 0 else most
        informative = mean * (1 - mean) * (n + 1) ** 2 / spread
        found = min(found, informative * (best / student_quantile(df, quantile)) ** 2)
    return min(responses, found)


def variance_of_mean(prompts: Iterable[PromptRate]) -> float:
    """The stratified variance of the mean over prompts, without a prompt added.

    Raises `ValueError` as `prompts_like_these`.
    """
    found = checked(prompts, 0.95)
    sides: dict[Hashable, list[PromptRate]] = defaultdict(list)
    for prompt in found:
        sides[prompt.side].append(prompt)
    whole = sum(p.weight * p.times for p in found)
    variance = 0.0
    for side in sides.values():
        n = sum(p.times for p in side)
        if n > 1:
            parts = _spread(side, 1 / whole, n, _mean(side))
            variance += math.fsum(spread for spread, _ in parts)
    return variance


def _spread(
    prompts: Sequence[PromptRate], scale: float, n: int, rate: float
) -> list[tuple[float, float]]:
    """Each stratum's part of the variance times (n + 1)^2, and its degrees of freedom."""
    strata: dict[Hashable, list[PromptRate]] = defaultdict(list)
    for prompt in prompts:
        strata[prompt.stratum].append(prompt)
    alone: list[PromptRate] = []
    parts = []
    for stratum in strata.values():
        if sum(p.times for p in stratum) > 1:
            parts.append(_within(stratum, scale, _mean(stratum)))
        else:
            alone += stratum
    if len(alone) > 1:
        parts.append(_within(alone, scale, _mean(alone)))
    elif alone:
        # A lone stratum has no other to be collapsed with: it is compared with the overall rate.
        (p,) = alone
        parts.append((n / (n - 1) * (scale * p.weight * (p.mean - rate)) ** 2, 1.0))
    return parts


def _within(prompts: Sequence[PromptRate], scale: float, mean: float) -> tuple[float, float]:
    n = sum(p.times for p in prompts)
    squares = math.fsum(p.times * (scale * p.weight * (p.mean - mean)) ** 2 for p in prompts)
    return n / (n - 1) * squares, n - 1.0


def _mean(prompts: Sequence[PromptRate]) -> float:
    total = math.fsum(p.weight * p.times for p in prompts)
    return max(0.0, min(1.0, math.fsum(p.weight * p.times * p.mean for p in prompts) / total))


def checked(prompts: Iterable[PromptRate], level: float) -> list[PromptRate]:
    """The prompts as a list, weights at most 1; `ValueError` for figures that are impossible."""
    found = list(prompts)
    required(bool(found), "an interval needs at least one prompt")
    required(0 < level < 1, f"the level is {level}: it must lie between 0 and 1")
    for p in found:
        # Comparisons with NaN are false, so this refuses NaN too.
        fits = 0 <= p.mean <= 1 and 1 <= p.trials < math.inf and 0 < p.weight < math.inf
        if not (fits and 1 <= p.times < math.inf and 0 <= p.noise < math.inf):
            raise ValueError(_why_not(p))
    heaviest = max(p.weight for p in found)
    if heaviest == 1:
        return found
    return [p._replace(weight=p.weight / heaviest) for p in found]


def _why_not(p: PromptRate) -> str:
    """Which of a prompt's figures is impossible."""
    if not 0 <= p.mean <= 1:
        return f"a prompt's mean is {p.mean}: it must lie between 0 and 1"
    if not 1 <= p.trials < math.inf:
        return f"a prompt has {p.trials} scored trials: it needs 1 or more"
    if not 0 < p.weight < math.inf:
        return f"a prompt's weight is {p.weight}: it must be above 0"
    if not 1 <= p.times < math.inf:
        return f"a prompt is counted {p.times} times: 1 or more"
    return f"a prompt's noise is {p.noise}: it must be 0 or more"
