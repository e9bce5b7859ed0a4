"""The interval for *these prompts, asked again*: chance in the answers, not in the prompts.

A regression test asks whether the same prompts, asked again, would give another figure. The prompts
are fixed, each with a rate p of its own, and the interval is for the mean of these rates. The
trials of a prompt are independent, so a prompt's part of the variance is p (1 - p) / T, of which
y (1 - y) / (T - 1) is an unbiased estimate, with y the mean of T trials.

Prompts are put into three groups, those that mostly went one way, mostly the other, and evenly:
a group's own rate, not the overall one, says how rare its exceptions are. In a group the sum of
successes varies no more than a binomial count of the same mean (Hoeffding 1956, Annals of
Mathematical Statistics 27, 713-721), so that the exact interval of Clopper & Pearson (1934) covers;
its sample size follows from the unbiased variance and is at most the group's responses. The groups
are combined by square and add (Zou & Donner 2008). Where all trials agree, the interval allows for
exceptions too rare to have been seen.

A prompt of one trial says nothing about how it would be answered again. Such prompts form a group
with the interval of `intervals.prompts_like_these`, which is wider than necessary.

Its coverage was simulated: ``benchmarks/coverage.py``, docs/intervals.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from refusalkit.scoring.statistics.intervals import (
    Interval,
    PromptRate,
    by_side,
    checked,
    prompts_like_these,
)
from refusalkit.scoring.statistics.proportions import clopper_pearson

_EVEN = 1e-9


def asked_again(prompts: Iterable[PromptRate], *, level: float = 0.95) -> Interval:
    """The mean over prompts, with its interval over asking these very prompts again.

    Weights are allowed; strata and sides matter only for prompts of one trial. Raises `ValueError`
    as `prompts_like_these`.
    """
    return by_side(checked(prompts, level), lambda group: _of_group(group, level), _group)


def _group(prompt: PromptRate) -> str:
    if prompt.trials <= 1:
        return "once"
    if abs(prompt.mean - 0.5) < _EVEN:
        return "evenly"
    return "mostly" if prompt.mean > 0.5 else "rarely"


def _of_group(prompts: Sequence[PromptRate], level: float) -> Interval:
    if prompts[0].trials <= 1:
        return prompts_like_these(prompts, level=level)
    total = math.fsum(p.weight * p.times for p in prompts)
    rate = min(1.0, math.fsum(p.weight * p.times * p.mean for p in prompts) / total)
    size = total**2 / math.fsum(p.weight**2 / p.trials * p.times for p in prompts)
    variance = math.fsum(
        p.times * p.weight**2 * p.mean * (1 - p.mean) / (p.trials - 1) for p in prompts
    )
    if variance > 0:
        size = min(size, rate * (1 - rate) * total**2 / variance)
    low, high = clopper_pearson(rate, size, level=level)
    return Interval(rate, min(low, rate), max(high, rate))
