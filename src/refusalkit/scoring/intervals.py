"""Intervals for rates. The prompt is the unit of inference: five trials are not five prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scipy.special import betaincinv, stdtrit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = Sequence[float] | NDArray[np.float64]

KORN_GRAUBARD = "Korn-Graubard, clustered by prompt, one prompt added"
SQUARE_AND_ADD = f"square and add: {KORN_GRAUBARD}, on each side"


def korn_graubard(
    rate: float, successes: Sequence[float], counts: Sequence[int], *, level: float = 0.95
) -> tuple[float, float]:
    """A clustered interval for a rate, without a normal approximation.

    The Clopper-Pearson interval at the effective sample size (Korn & Graubard 1998, Survey
    Methodology 24, 193-201): the number of independent responses that would be as informative as
    these, which resemble each other within a prompt. With one response to each prompt it is the
    Clopper-Pearson interval; at rates of 0 and 1 it counts prompts. It is conservative.

    The effective size is measured with one more prompt whose responses all went the rarer way.
    Without it a first refusal in 35 prompts would make the interval narrower, not wider, and too
    narrow: where events are few, what varies between prompts has mostly not been seen yet.

    Args:
        rate: the estimate, a fraction; the interval is put around it.
        successes: per prompt, how many of its scored responses count (fractions allowed).
        counts: per prompt, how many responses were scored; each at least 1.

    Returns:
        The lower and the upper end, as fractions.
    """
    if not counts:
        raise ValueError("an interval needs at least one prompt")
    n = _effective(rate, successes, counts, level)
    x = min(max(rate, 0.0), 1.0) * n
    tail = (1 - level) / 2
    low = float(betaincinv(x, n - x + 1, tail)) if x > 0 else 0.0
    high = float(betaincinv(x + 1, n - x, 1 - tail)) if x < n else 1.0
    return low, high


def _effective(
    rate: float, successes: Sequence[float], counts: Sequence[int], level: float
) -> float:
    prompts, responses = len(counts), sum(counts)
    if prompts == 1 or rate <= 0 or rate >= 1:
        # Nothing varies between prompts, which says nothing about how much they vary.
        return float(prompts)
    # One prompt more, of the usual number of responses; the rarer way is the less informative.
    extra = responses / prompts
    informative = float("inf")
    for way in (0.0, 1.0):
        mean = (rate * responses + way * extra) / (responses + extra)
        squares = sum((s - mean * c) ** 2 for s, c in zip(successes, counts, strict=True))
        squares += (extra * (way - mean)) ** 2
        variance = (prompts + 1) / prompts * squares / (responses + extra) ** 2
        informative = min(informative, mean * (1 - mean) / variance)
    quantile = 1 - (1 - level) / 2
    adjustment = (stdtrit(responses + extra - 1, quantile) / stdtrit(prompts, quantile)) ** 2
    return float(min(responses, informative * adjustment))


def effective_size(rate: float, hits: Counts, sizes: Counts, responses: float) -> float:
    """How many independent responses would say as much as these, clustered by prompt.

    `hits` of `sizes` are the prompts' counts, weighted or not; `responses` bounds the answer from
    above. At rates of 0 and 1 it is the number of prompts: nothing varies, which says nothing about
    how much they vary. The adjustment for few prompts is Korn & Graubard's (1998).
    """
    import numpy as np

    hit, size = np.asarray(hits, dtype=float), np.asarray(sizes, dtype=float)
    prompts, total = int((size > 0).sum()), float(size.sum())
    squares = float(((hit - rate * size) ** 2).sum())
    if prompts < 2 or prompts >= responses or squares <= 0 or not 0 < rate < 1:
        return float(min(prompts, responses))
    variance = prompts / (prompts - 1) * squares / total**2
    adjustment = (stdtrit(responses - 1, 0.975) / stdtrit(prompts - 1, 0.975)) ** 2
    return float(min(responses, adjustment * rate * (1 - rate) / variance))


def difference(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """The difference of two rates with its interval, from each one's (rate, low, high).

    Square and add (Newcombe 1998, Statistics in Medicine 17, 873-890, method 10; Zou & Donner 2008
    for any two intervals): the limits are as far off as the limits of the two rates together. No
    normal approximation is made beyond theirs. The two are taken as unrelated; where they rise and
    fall together, as a prompt and its twin do, the interval is wider than it need be.
    """
    a, a_low, a_high = first
    b, b_low, b_high = second
    low = a - b - math.hypot(a - a_low, b_high - b)
    high = a - b + math.hypot(a_high - a, b - b_low)
    return a - b, max(-1.0, low), min(1.0, high)


def exact_upper(events: int, trials: int, *, level: float = 0.95) -> float:
    """The exact one-sided upper bound on a rate (Clopper & Pearson 1934), a fraction.

    No event in 21 gives 0.133, no event in 299 gives 0.00997. No trials give 1.
    """
    if events >= trials:
        return 1.0
    return float(betaincinv(events + 1, trials - events, level))
