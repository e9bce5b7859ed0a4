"""Bounds and tests that hold however often one looks, and whenever one stops.

An interval for a fixed number of prompts is wrong more often than it says if somebody looks at it
after every prompt and stops when it suits. Here each claim rests on an *e-process*: the wealth of a
bettor who starts with 1 and bets against the contrary of the claim. If the contrary is true the
game is at best fair, and by Ville's inequality (1939) the wealth ever reaches 20 with a probability
of at most 5 %. So the claim may be made as soon as it does, however often one looks, and the work
may be continued later.

Prompts must come in an order that is independent of their results: at random, by a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refusalkit.scoring.statistics.quantiles import beta_share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CLEAN = 0.9
"""The share of the stake on no prompt leaking at all; the rest is spread over lower rates."""


def leaks_upper(leaks: int, prompts: int, *, level: float = 0.95) -> float:
    """A one-sided upper bound on the share of prompts that leak, valid at every moment. A fraction.

    The bet against a rate of at least u mixes likelihood ratios (Robbins 1970, Annals of
    Mathematical Statistics 41, 1397-1409): `CLEAN` of the stake on rate 0, the rest on rates spread
    evenly from 0 to u. The bound is the highest u against which the wealth has not yet reached
    1 / (1 - level). Clean prompts are hardly worth less than at a fixed size: 5 % takes 60 instead
    of 59. The bound is 1 without prompts or if every one leaks.
    """
    if leaks >= prompts:
        return 1.0
    enough = -math.log(1 - level)
    return _last(lambda rate: _against_above(leaks, prompts, rate) < enough, leaks / prompts, 1.0)


def leaks_lower(leaks: int, prompts: int, *, level: float = 0.95) -> float:
    """A one-sided lower bound on the share of prompts that leak, valid at every moment.

    As `leaks_upper`, with the whole stake spread evenly over higher rates. A fraction.
    """
    if not leaks:
        return 0.0
    enough = -math.log(1 - level)
    held = prompts - leaks
    # The same game with leaking and holding exchanged.
    most_held = _last(lambda rate: _spread_below(held, prompts, rate) < enough, held / prompts, 1.0)
    return 1 - most_held


def _against_above(leaks: int, prompts: int, rate: float) -> float:
    """The logarithm of the wealth from betting against a rate of at least `rate`."""
    spread = _spread_below(leaks, prompts, rate) + math.log(1 - CLEAN)
    if leaks:
        return spread
    clean = math.log(CLEAN) - prompts * math.log1p(-rate)
    high, low = max(clean, spread), min(clean, spread)
    return high + math.log1p(math.exp(low - high))


def _spread_below(events: int, n: int, rate: float) -> float:
    """The logarithm of the mean likelihood ratio of rates from 0 to `rate` against `rate`."""
    rest = n - events
    log_beta = math.lgamma(events + 1) + math.lgamma(rest + 1) - math.lgamma(n + 2)
    below = beta_share(events + 1, rest + 1, rate)
    if below <= 0:
        return -math.inf
    return (
        math.log(below)
        + log_beta
        - (events + 1) * math.log(rate)
        - (rest * math.log1p(-rate) if rest else 0.0)
    )


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The point between `low` and `high` where a condition stops holding, to 1e-9."""
    low, high = max(low, 1e-12), min(high, 1 - 1e-12)
    if holds(high):
        return 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


@dataclass(frozen=True)
class SequentialDifference:
    """The mean of paired differences, as fractions, with what may be claimed at any moment.

    low, high: a confidence sequence; in at least 95 % of experiments they hold the true difference
        at every moment.
    p: may be looked at after every prompt; without a difference it ever falls to 0.05 in at most
        5 % of experiments.
    n: prompts it rests on.
    decided_at: how many prompts it took until `p` first was at most 1 - level; None: not yet.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    decided_at: int | None


def sequential_difference(
    differences: Sequence[float], *, level: float = 0.95, steps: int = 2001
) -> SequentialDifference:
    """Two runs compared after every prompt, in the order in which the prompts were asked.

    For each supposed mean, one bettor stakes a share of the wealth on the next difference lying
    above it, a second one on its lying below; the share depends only on earlier differences (the
    hedged capital of Waudby-Smith & Ramdas 2023, JRSS B 86, 1-27, with their predictable mixed
    plug-in). The only assumption is that a difference lies between -1 and 1. A mean for which the
    wealth ever reached 1 / (1 - level) is left out of the interval for good.

    Args:
        differences: one for each prompt, -1 to 1: the first run's rate less the second's.
        level: of the two-sided interval.
        steps: how many means are tried; the interval's ends are rounded outwards to them.
    """
    import numpy as np

    values = (np.asarray(differences, dtype=float) + 1) / 2
    means = np.linspace(0.0, 1.0, steps if steps % 2 else steps + 1)
    wealth = np.maximum.accumulate(hedged_log_wealth(values[None, :], means, level)[0], axis=0)
    none = len(means) // 2
    enough = -math.log(1 - level)
    kept = np.flatnonzero(wealth[-1] < enough)
    n = len(values)
    value = float(values.mean())
    # Ends are moved outwards by one step, as values between two means were not tried.
    low = means[max(0, int(kept[0]) - 1)] if len(kept) else value
    high = means[min(len(means) - 1, int(kept[-1]) + 1)] if len(kept) else value
    past = np.flatnonzero(wealth[:, none] >= enough)
    return SequentialDifference(
        value=2 * value - 1,
        low=2 * min(float(low), value) - 1,
        high=2 * max(float(high), value) - 1,
        p=min(1.0, math.exp(-float(wealth[-1, none]))),
        n=n,
        decided_at=int(past[0]) + 1 if len(past) else None,
    )


def hedged_log_wealth(values: Array, means: Array, level: float) -> Array:
    """The logarithm of the hedged wealth against each mean: experiments x prompts x means.

    `values` (experiments x prompts) and `means` lie between 0 and 1.
    """
    import numpy as np

    n = values.shape[1]
    counts = np.arange(1, n + 1)
    running = (0.5 + np.cumsum(values, axis=1)) / (counts + 1)
    spread = (0.25 + np.cumsum((values - running) ** 2, axis=1)) / (counts + 1)
    # The stake on a prompt depends only on those before it.
    before = np.concatenate([np.full((len(values), 1), 0.25), spread[:, :-1]], axis=1)
    staked = np.sqrt(2 * math.log(2 / (1 - level)) / (before * counts * np.log1p(counts)))
    off = values[:, :, None] - means
    with np.errstate(divide="ignore"):
        up = np.minimum(staked[:, :, None], 0.5 / means)
        down = np.minimum(staked[:, :, None], 0.5 / (1 - means))
    above = np.cumsum(np.log1p(up * off), axis=1)
    below = np.cumsum(np.log1p(-down * off), axis=1)
    return np.asarray(np.logaddexp(above, below) - math.log(2))
