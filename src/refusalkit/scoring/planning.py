"""How many prompts, trials and labels a goal takes: an interval, a difference or a bound.

For a rate p, an intra-prompt correlation r (how much more alike two answers to one prompt are than
answers to two; Donner & Klar 2000, Design and Analysis of Cluster Randomization Trials, 1.2) and T
trials, n prompts are worth

    n / (r + (1 - r) / T)        independent answers for *prompts like these*
    n T / (1 - r)                for *these prompts, asked again*

The interval is the exact binomial one at that size, as in a score. A difference of two runs over
the same prompts has twice the variance of a run, less what the two models' prompt rates have in
common (their correlation between models, b): r becomes r (1 - b).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from refusalkit.display import shows
from refusalkit.errors import UsageError
from refusalkit.scoring.statistics.proportions import exact_upper
from refusalkit.scoring.statistics.quantiles import beta_quantile
from refusalkit.scoring.statistics.sequential import leaks_upper

if TYPE_CHECKING:
    from refusalkit.engine.lengths import Span
    from refusalkit.scoring.audit import Audit
    from refusalkit.scoring.score import Score

LEVEL = 0.95
BOUNDS_PERCENT = (20.0, 10.0, 5.0, 2.0, 1.0)
LOWEST_BOUND_PERCENT = 0.0001
TRIALS = (1, 2, 3, 5, 10)
MAX_PROMPTS = 10_000_000
MAX_WIDENING = 0.1
"""How much the labels' own uncertainty may widen an interval, as a fraction of its width."""

Goal = Literal["width", "difference", "bound"]
Target = Literal["prompts like these", "these prompts, asked again"]


@shows("goal", "amount", "trials", "n_prompts", "n_responses", "leaking_prompts", "more_prompts")
@dataclass(frozen=True)
class PlannedRun:
    """What one goal takes with so many trials."""

    goal: Goal
    """An interval's ``width`` in points, a ``difference`` in points to be found, or a ``bound`` in
    percent on the share of hard-line prompts that leak."""
    amount: float
    """The points or percent."""
    target: Target
    """What the figure is about."""
    trials: int
    """Answers asked of each prompt."""
    n_prompts: int
    """Prompts needed; for a bound, hard-line prompts."""
    n_responses: int
    """Answers of one run, each judged once."""
    n_runs: int = 1
    """2 for a difference, otherwise 1."""
    leaking_prompts: int | None = None
    """How many of the prompts leak, for a bound."""
    n_sequential: int | None = None
    """Prompts that the bound takes with `run --stop-when held` if none leaks."""
    more_prompts: int | None = None
    """How many prompts the run that the plan was made for lacks."""
    cost_usd: Span | None = None
    """USD, of all runs together; None if no model was named or a price is unknown."""

    @property
    def n_requests(self) -> int:
        """Requests to the model, of all runs."""
        return self.n_runs * self.n_responses


@shows("where", "n_labels")
@dataclass(frozen=True)
class PlannedLabels:
    """How many labelled answers keep a correction from widening an interval by more than a
    tenth.
    """

    where: Literal["calibration", "on the run"]
    """``calibration``: answers of any run, half of them refusals; ``on the run``: the run's own."""
    n_labels: int
    """How many."""


@shows("rows", "labels", "rate", "within", "model", "measured_on")
@dataclass(frozen=True)
class Plan:
    """What it takes to reach the goals. Rates are in percent, correlations from 0 to 1."""

    rows: tuple[PlannedRun, ...]
    """One for each goal, target and number of trials."""
    labels: tuple[PlannedLabels, ...]
    """For an interval's width; empty without that goal."""
    rate: float
    """Expected answer or refusal rate, in percent."""
    within: float
    """Expected correlation of the trials of a prompt."""
    between: float
    """Expected correlation of two models over the same prompts."""
    power: float
    """Chance of finding a difference that is there, in percent."""
    sensitivity: float
    """The judge's expected sensitivity, in percent."""
    specificity: float
    """The judge's expected specificity, in percent."""
    level: float = LEVEL
    """Confidence level, from 0 to 1."""
    measured_on: str | None = None
    """The run that `rate` and `within` come from."""
    model: str | None = None
    """What the cost is for."""
    notes: tuple[str, ...] = ()
    """What a reader must know, in sentences."""


@dataclass(frozen=True)
class Expected:
    """What is expected of the models and of the judge; all fractions."""

    rate: float = 0.5
    within: float = 0.6
    between: float = 0.5
    power: float = 0.8
    sensitivity: float = 0.9
    specificity: float = 0.9

    def __post_init__(self) -> None:
        for name in ("rate", "power"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UsageError(f"{name} is {100 * value:g} %: it must lie between 0 and 100 %")
        for name in ("within", "between"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value:g}: a correlation lies between 0 and 1 here")
        if not self.sensitivity + self.specificity > 1:
            raise UsageError(
                "a judge whose sensitivity and specificity add up to 100 % or less tells nothing"
            )


def plan_width(width: float, expected: Expected, trials: Sequence[int]) -> list[PlannedRun]:
    """Prompts for an interval of this width, in points, for either target."""
    if not 0 < width <= 100:
        raise UsageError(f"the width is {width:g}: it must be above 0 and at most 100 points")
    rows = []
    for target, size in _SIZES.items():
        for t in _askable(target, trials):

            def fits(n: int, size: _Size = size, t: int = t) -> bool:
                return 100 * _width(expected.rate, size(n, t, expected.within)) <= width

            n = _least(fits, f"an interval {width:g} points wide")
            rows.append(PlannedRun("width", width, target, t, n, n * t))
    return rows


def plan_difference(points: float, expected: Expected, trials: Sequence[int]) -> list[PlannedRun]:
    """Prompts for a difference to be found at 5 %, two-sided, with the power expected.

    The other model's rate is the expected one less the difference, or plus it where the expected
    rate is too low.
    """
    if not 0 < points < 100:
        raise UsageError(f"the difference is {points:g}: it must lie between 0 and 100 points")
    apart = points / 100
    other = expected.rate - apart if expected.rate > apart else expected.rate + apart
    if not 0 <= other <= 1:
        raise UsageError(
            f"no two rates lie {points:g} points apart where one is {100 * expected.rate:g} %"
        )
    each = expected.rate * (1 - expected.rate) + other * (1 - other)
    normal = NormalDist()
    z = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(expected.power)
    apart_within = expected.within * (1 - expected.between)
    rows = []
    for target in _SIZES:
        for t in _askable(target, trials):
            by_trials = (1 - expected.within) / t
            spread = by_trials + (apart_within if target == "prompts like these" else 0.0)
            n = max(2, math.ceil(z**2 * each * spread / apart**2))
            rows.append(PlannedRun("difference", points, target, t, n, n * t, n_runs=2))
    return rows


def plan_bound(
    bounds_percent: Sequence[float],
    leaks: int,
    trials: int,
    audit: Audit | None = None,
) -> list[PlannedRun]:
    """Hard-line prompts for each bound, with none to `leaks` leaking ones.

    With `audit` its leaking prompts are counted as found, and rows say how many prompts it lacks.
    """
    if leaks < 0:
        raise UsageError(f"{leaks} leaking prompts: it must be 0 or more")
    ways = len(audit.framings) if audit is not None and audit.framings else 1
    found = audit.overall.leaking_prompts if audit is not None else 0
    rows = []
    for bound in bounds_percent:
        for leaking in range(found, max(found, leaks) + 1):
            needed = prompts_needed(bound, leaking)
            rows.append(
                PlannedRun(
                    "bound",
                    bound,
                    "prompts like these",
                    trials,
                    needed,
                    needed * trials * ways,
                    leaking_prompts=leaking,
                    n_sequential=None if leaking else sequential_prompts_needed(bound),
                    more_prompts=None if audit is None else max(0, needed - audit.overall.n_tested),
                )
            )
    return rows


def plan_labels(width: float, expected: Expected) -> tuple[PlannedLabels, ...]:
    """Labels that widen an interval of this width, in points, by a tenth at most.

    The variances are those of the plug-in correction (Rogan & Gladen 1978) and of the stratified
    mean within the judge's verdicts; a correction's own interval is a little wider.
    """
    p, se, sp = expected.rate, expected.sensitivity, expected.specificity
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    allowed = ((1 + MAX_WIDENING) ** 2 - 1) * (width / 200 / z) ** 2
    each = 2 * (p**2 * se * (1 - se) + (1 - p) ** 2 * sp * (1 - sp)) / (se + sp - 1) ** 2
    found = p * se + (1 - p) * (1 - sp)
    strata = (
        (found, p * se / found if found else 0.0),
        (1 - found, p * (1 - se) / (1 - found) if found < 1 else 0.0),
    )
    # Drawn by the root of a stratum's size, as `judges label` draws them.
    roots = sum(math.sqrt(weight) for weight, _ in strata)
    residual = sum(
        weight**1.5 * share * (1 - share) * roots for weight, share in strata if weight > 0
    )
    return (
        PlannedLabels("calibration", max(40, math.ceil(each / allowed))),
        PlannedLabels("on the run", max(30, math.ceil(residual / allowed))),
    )


def prompts_needed(bound_percent: float, leaks: int = 0, *, level: float = LEVEL) -> int:
    """The least number of prompts, `leaks` of them leaking, that shows a rate below a bound.

    The inverse of the Clopper-Pearson bound: 299 clean prompts show one below 1 %. Raises
    `UsageError` for a bound that is not between 0.0001 and 100 %, or a negative number of leaks.
    """
    if not LOWEST_BOUND_PERCENT <= bound_percent < 100:
        raise UsageError(
            f"the bound is {bound_percent:g}: a plan is made for one from "
            f"{LOWEST_BOUND_PERCENT:g} to below 100 %"
        )
    if leaks < 0:
        raise UsageError(f"{leaks} leaking prompts: it must be 0 or more")
    return _least(
        lambda n: n > leaks and 100 * exact_upper(leaks, n, level=level) <= bound_percent,
        f"a leak rate below {bound_percent:g} %",
    )


def sequential_prompts_needed(bound_percent: float, *, level: float = LEVEL) -> int:
    """The clean prompts after which `run --stop-when held` stops at the earliest."""
    return _least(
        lambda n: 100 * leaks_upper(0, n, level=level) <= bound_percent,
        f"a leak rate below {bound_percent:g} %",
    )


def correlation_within(score: Score) -> float | None:
    """The intra-prompt correlation of a run's credit, categories apart; None: cannot be estimated.

    From the mean squares between and within prompts (Fleiss 1981, Statistical Methods for Rates and
    Proportions, chapter 13), at the mean number of trials. Categories of one prompt are collapsed
    into one, hard lines apart, as in the interval of a score.
    """
    import polars as pl

    # A slug has no space.
    alone = pl.format("alone {}", "hard_line")
    several = (
        score.counts.filter(pl.col("n_scored") > 1)
        .with_columns(rate=pl.col("credit") / pl.col("n_scored"))
        .with_columns(
            stratum=pl.when(pl.len().over("category") > 1).then("category").otherwise(alone)
        )
        .filter(pl.len().over("stratum") > 1)
    )
    if not len(several):
        return None
    within_prompts = (several["credit"] * (1 - several["rate"])).sum()
    off = pl.col("rate") - pl.col("rate").mean().over("stratum")
    between = several.select(pl.col("n_scored") * off**2).to_series().sum()
    df_between = len(several) - several["stratum"].n_unique()
    df_within = int(several["n_scored"].sum()) - len(several)
    usual = float(several["n_scored"].sum()) / len(several)
    if not df_between or not df_within:
        return None
    mean_between, mean_within = float(between) / df_between, float(within_prompts) / df_within
    whole = mean_between + (usual - 1) * mean_within
    if whole <= 0:
        return None
    return min(1.0, max(0.0, (mean_between - mean_within) / whole))


def more_trials_help(within: float) -> str:
    """How much five trials gain over one, in a sentence."""
    wider = math.sqrt(1 / (within + (1 - within) / 5)) - 1
    text = (
        f"at a correlation within prompts of {within:.2g} one trial gives an interval "
        f"{100 * wider:.0f} % wider than five do, at a fifth of the requests"
    )
    if wider < 0.25:
        text += ": more trials hardly help, more prompts do"
    return text + " (prompts like these)"


def _askable(target: Target, trials: Sequence[int]) -> Sequence[int]:
    """The numbers of trials that suit a target: one answer says nothing about asking again."""
    return trials if target == "prompts like these" else [t for t in trials if t > 1]


_Size = Callable[[int, int, float], float]


def _like_these(n: int, trials: int, within: float) -> float:
    return n / (within + (1 - within) / trials)


def _asked_again(n: int, trials: int, within: float) -> float:
    return n * trials / max(1 - within, 1e-9)


_SIZES: dict[Target, _Size] = {
    "prompts like these": _like_these,
    "these prompts, asked again": _asked_again,
}


def _width(rate: float, size: float) -> float:
    x, tail = rate * size, (1 - LEVEL) / 2
    low = beta_quantile(x, size - x + 1, tail)
    return beta_quantile(x + 1, size - x, 1 - tail) - low


def _least(fits: Callable[[int], bool], what: str) -> int:
    """The least number of prompts that fits; `UsageError` where it exceeds `MAX_PROMPTS`."""
    high = 1
    while not fits(high):
        high *= 2
        if high > MAX_PROMPTS:
            raise UsageError(f"{what} takes more than {MAX_PROMPTS:,} prompts")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
