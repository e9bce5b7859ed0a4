"""Exact and clustered intervals of proportions, and what is built on them: differences, kappa.

The prompt is the unit of inference: five trials are not five prompts.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from refusalkit.scoring.statistics.quantiles import beta_quantile, student_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = Sequence[float] | NDArray[np.float64]

KORN_GRAUBARD = "Korn-Graubard, clustered by prompt, one prompt added"

_NEAR = 1e-9  # rounding error that a rate may have


def korn_graubard(
    rate: float,
    successes: Sequence[float],
    counts: Sequence[float],
    *,
    times: Sequence[int] | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """A clustered interval for a pooled rate, without a normal approximation.

    For a share of responses, such as a judge's labels that people agree with. The rates of a run
    are means over prompts and have the interval of `intervals.prompts_like_these`.

    The Clopper-Pearson interval at the effective sample size (Korn & Graubard 1998, Survey
    Methodology 24, 193-201): the number of independent responses that would be as informative as
    these, which resemble each other within a prompt. With one response to each prompt it is the
    Clopper-Pearson interval; at rates of 0 and 1 it counts prompts. It is conservative.

    The effective size is measured with one more prompt whose responses all went the rarer way.
    Without it a first refusal in 35 prompts would make the interval narrower instead of wider, and
    too narrow: where events are few, most variation between prompts has not been seen yet.

    Args:
        rate: the estimate, a fraction, around which the interval is.
        successes: per prompt, how many of its scored responses count (fractions allowed).
        counts: per prompt, how many responses were scored; each at least 1.
        times: how many prompts each of these pairs stands for; None: one each.

    Returns:
        The lower and the upper end, as fractions.

    Raises:
        ValueError: without a prompt, for a rate or a level outside 0 to 1, and for counts that are
            not finite, below 1 or below their successes.
    """
    _check_clusters(rate, successes, counts, times, level)
    if times is None:
        n, responses = len(counts), float(sum(counts))
        squares = _squares(successes, counts, successes, counts)
    else:
        hits, sizes = (list(map(operator.mul, times, of)) for of in (successes, counts))
        n, responses = sum(times), float(sum(sizes))
        squares = _squares(hits, sizes, successes, counts)
    size = float(n)
    # At rates of 0 and 1 the sample says nothing about how much prompts vary.
    if n > 1 and 0 < rate < 1:
        size = _effective(rate, squares, n, level, responses)
    return clopper_pearson(rate, size, level=level)


def clopper_pearson(rate: float, size: float, *, level: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval (Clopper & Pearson 1934) of a rate among `size` responses.

    Neither the size nor the number of successes need be whole, as in Korn & Graubard (1998).
    Raises `ValueError` for a rate or a level outside 0 to 1, and for a size that is not above 0.
    """
    _check_rate(rate)
    _check_level(level)
    required(0 < size < math.inf, f"the sample size is {size}: it must be above 0 and finite")
    x = rate * size
    tail = (1 - level) / 2
    low = beta_quantile(x, size - x + 1, tail) if x > 0 else 0.0
    high = beta_quantile(x + 1, size - x, 1 - tail) if x < size else 1.0
    return low, high


def _squares(
    hits: Sequence[float],
    sizes: Sequence[float],
    successes: Sequence[float],
    counts: Sequence[float],
) -> tuple[float, float, float]:
    """Sums over prompts of successes squared, of successes times counts and of counts squared.

    `hits` and `sizes` are successes and counts, times as many prompts as have them. There may be
    hundreds of thousands of prompts, and numpy would cost every run a tenth of its memory.
    """
    pairs = ((hits, successes), (hits, counts), (sizes, counts))
    ss, sc, cc = (float(sum(map(operator.mul, first, second))) for first, second in pairs)
    return ss, sc, cc


def _effective(
    rate: float,
    squares: tuple[float, float, float],
    prompts: int,
    level: float,
    responses: float,
) -> float:
    ss, sc, cc = squares
    # One prompt more, of the usual number of responses; the rarer way is the less informative.
    extra = responses / prompts
    informative = float("inf")
    for way in (0.0, 1.0):
        mean = (rate * responses + way * extra) / (responses + extra)
        off = max(0.0, ss - 2 * mean * sc + mean**2 * cc) + (extra * (way - mean)) ** 2
        variance = (prompts + 1) / prompts * off / (responses + extra) ** 2
        informative = min(informative, mean * (1 - mean) / variance)
    quantile = 1 - (1 - level) / 2
    # One response to each prompt: the two quantiles are the same.
    adjustment = (
        student_quantile(responses + extra - 1, quantile) / student_quantile(prompts, quantile)
    ) ** 2
    return float(min(responses, informative * adjustment))


def effective_size(rate: float, hits: Counts, sizes: Counts, responses: float) -> float:
    """How many independent responses would be as informative as these, clustered by prompt.

    `hits` of `sizes` are the prompts' counts, weighted or not; `responses` is an upper bound on the
    result. At rates of 0 and 1 it is the number of prompts: the sample then says nothing about how
    much they vary. The adjustment for few prompts is Korn & Graubard's (1998). Raises
    `ValueError` for a rate outside 0 to 1 and for counts that are not finite or below 0.
    """
    import numpy as np

    hit, size = np.asarray(hits, dtype=float), np.asarray(sizes, dtype=float)
    _check_rate(rate)
    required(
        bool(np.isfinite(hit).all() and (np.isfinite(size) & (size >= 0)).all() and size.any()),
        "an effective size needs finite counts, none of them below 0 and one above it",
    )
    required(
        0 < responses < math.inf, f"there are {responses} responses: it must be above 0 and finite"
    )
    prompts, total = int((size > 0).sum()), float(size.sum())
    squares = float(((hit - rate * size) ** 2).sum())
    if prompts < 2 or prompts >= responses or squares <= 0 or not 0 < rate < 1:
        return float(min(prompts, responses))
    variance = prompts / (prompts - 1) * squares / total**2
    adjustment = (
        student_quantile(responses - 1, 0.975) / student_quantile(prompts - 1, 0.975)
    ) ** 2
    return float(min(responses, adjustment * rate * (1 - rate) / variance))


def difference(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """The difference of two rates with its interval, from each one's (rate, low, high).

    Square and add (Newcombe 1998, Statistics in Medicine 17, 873-890, method 10; Zou & Donner 2008
    for any two intervals): each limit's distance is the root of the summed squares of the two
    rates' distances, without a normal approximation beyond theirs. The two are taken as
    independent; where they rise and fall together, as a prompt and its twin do, the interval is
    wider than necessary. Raises `ValueError` where a rate is not finite or lies outside its
    interval.
    """
    a, a_low, a_high = first
    b, b_low, b_high = second
    for value, lower, upper in (first, second):
        required(
            -math.inf < lower <= value + _NEAR and value - _NEAR <= upper < math.inf,
            f"{value} does not lie in its interval, {lower} to {upper}",
        )
    low = a - b - math.hypot(a - a_low, b_high - b)
    high = a - b + math.hypot(a_high - a, b - b_low)
    return a - b, max(-1.0, low), min(1.0, high)


def clustered_kappa(
    tables: Sequence[tuple[float, float, float, float]], *, level: float = 0.95
) -> tuple[float, float, float] | None:
    """Cohen's kappa of two binary labellings with its interval, clustered by prompt.

    The interval is that of the delete-one jackknife over prompts (Fleiss & Davies 1982, American
    Journal of Epidemiology 115, 841-845) with Student's t. Its width is measured with one more
    prompt on which the two always differ: two labellings that never differed have shown that only
    for so many prompts.

    Args:
        tables: per prompt, how many responses are (1, 1), (1, 0), (0, 1) and (0, 0).

    Returns:
        kappa, its lower and its upper end; None where both gave every response one label, or where
        there are not two prompts.

    Raises:
        ValueError: for counts that are not finite or below 0.
    """
    import numpy as np

    _check_level(level)
    cells = np.asarray(tables, dtype=float).reshape(len(tables), -1)
    required(
        bool((np.isfinite(cells) & (cells >= 0)).all()) and cells.shape[1] in (0, 4),
        "a table has four counts, each finite and none below 0",
    )
    if len(cells) < 2:
        return None
    value = float(_kappa(cells.sum(axis=0, keepdims=True))[0])
    if math.isnan(value):
        return None
    usual = cells.sum() / len(cells)
    padded = np.vstack([cells, [0.0, usual / 2, usual / 2, 0.0]])
    without = _kappa(padded.sum(axis=0) - padded)
    without = without[~np.isnan(without)]
    n = len(without)
    if n < 2:
        return value, -1.0, 1.0
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    reach = student_quantile(n - 1, 1 - (1 - level) / 2) * error
    return value, max(-1.0, value - reach), min(1.0, value + reach)


def _kappa(tables: Any) -> Any:
    """Kappa of each row (both, first only, second only, neither); NaN where undefined."""
    import numpy as np

    both, first, second, neither = (tables[:, i] for i in range(4))
    n = both + first + second + neither
    with np.errstate(divide="ignore", invalid="ignore"):
        agreed = (both + neither) / n
        chance = ((both + first) * (both + second) + (neither + first) * (neither + second)) / n**2
        return np.where(chance < 1 - 1e-12, (agreed - chance) / (1 - chance), np.nan)


def exact_upper(events: int, trials: int, *, level: float = 0.95) -> float:
    """The exact one-sided upper bound on a rate (Clopper & Pearson 1934), a fraction.

    No event in 21 gives 0.133, no event in 299 gives 0.00997. No trials give 1: nothing is known.
    Raises `ValueError` for counts that are not whole, negative or more than there are trials.
    """
    _check_events(events, trials, level)
    return 1.0 if events == trials else beta_quantile(events + 1, trials - events, level)


def exact_lower(events: int, trials: int, *, level: float = 0.95) -> float:
    """The exact one-sided lower bound on a rate (Clopper & Pearson 1934), a fraction.

    21 events in 21 trials give 0.867, 1 in 21 gives 0.0024. No event gives 0. Raises `ValueError`
    as `exact_upper`.
    """
    _check_events(events, trials, level)
    return 0.0 if events == 0 else beta_quantile(events, trials - events + 1, 1 - level)


def required(holds: bool, sentence: str) -> None:
    """Raise `ValueError` with `sentence` unless `holds`."""
    if not holds:
        raise ValueError(sentence)


# Comparisons with NaN are false, so each of these also refuses NaN.


def _check_rate(rate: float) -> None:
    required(0 <= rate <= 1, f"the rate is {rate}: it must lie between 0 and 1")


def _check_level(level: float) -> None:
    required(0 < level < 1, f"the level is {level}: it must lie between 0 and 1")


def _check_clusters(
    rate: float,
    successes: Sequence[float],
    counts: Sequence[float],
    times: Sequence[int] | None,
    level: float,
) -> None:
    _check_rate(rate)
    _check_level(level)
    required(len(counts) > 0, "an interval needs at least one prompt")
    alike = len(counts) if times is None else len(times)
    required(
        len(successes) == len(counts) == alike,
        f"there are {len(successes)} successes, {len(counts)} counts and {alike} times: "
        "as many are needed of each",
    )
    for success, count in zip(successes, counts, strict=True):
        required(
            1 <= count < math.inf, f"a prompt has {count} scored responses: it needs 1 or more"
        )
        required(
            0 <= success <= count + _NEAR,
            f"a prompt has {success} successes in {count} responses: it must be 0 to {count}",
        )
    for n in times or ():
        required(1 <= n < math.inf, f"a prompt is counted {n} times: it must be 1 or more")


def _check_events(events: int, trials: int, level: float) -> None:
    _check_level(level)
    required(
        0 <= events <= trials < math.inf and events == int(events) and trials == int(trials),
        f"{events} of {trials}: both must be whole numbers, none below 0, and the first at most "
        "the second",
    )
