"""Where a score's uncertainty comes from: the prompts, the trials or the judge.

Willingness is the mean over n prompts of y, the mean of a prompt's T scored trials. Its variance is
that of a sample stratified by category (`statistics.intervals`), split in two:

    total   = sum over strata of n_h / (n_h - 1) * sum of (y - stratum mean)^2 / n^2
    trials  = s^2 * (sum over prompts of 1 / T) / n^2
    prompts = total - trials, not below 0
    s^2     = sum over prompts of T y (1 - y) / sum of (T - 1), the variance within prompts

(one-way random effects with the ANOVA estimators: Searle, Casella & McCulloch 1992, Variance
Components, 3.5-3.6; for answers of language models Miller 2024, arXiv 2411.00640, section 3).
Twice the trials halve only the trials' part, twice the prompts halve both. The judge's part is the
variance of the score from judge to judge where several judged the run: two-way random effects of
prompts and judges over the prompts that all of them scored, (MS judges - MS rest) / n, not below 0
(Brennan 2001, Generalizability Theory, 3.1), with one degree of freedom less than there are judges.
Neither prompts nor trials reduce it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from refusalkit.display import shows
from refusalkit.scoring.rates import prompt_rates, scored_prompts
from refusalkit.scoring.statistics.intervals import (
    PromptRate,
    prompts_like_these,
    variance_of_mean,
)
from refusalkit.types import Estimate

Part = Literal["prompts", "trials", "judge"]


@shows("dominant", "standard_error", "half_width", "n_prompts", "trials_per_prompt", "n_judges")
@dataclass(frozen=True)
class Variance:
    """The variance of willingness by source, in squared percentage points; None: not measured."""

    prompts: float | None
    """Between prompts; None with one prompt, and with one trial, which cannot separate prompts from
    trials."""
    trials: float | None
    """Between the trials of a prompt; None likewise."""
    judge: float | None
    """Between judges; None unless several judged the run. No interval covers it."""
    n_prompts: int
    """Prompts with a scored trial."""
    trials_per_prompt: float
    """Mean number of scored trials."""
    n_judges: int
    """Judges that judged the run."""
    standard_error: float | None
    """Of prompts and trials together, in points; None with one prompt."""
    half_width: float | None
    """Half the interval of willingness, in points."""
    with_twice_the_trials: float | None
    """About what `half_width` would be with twice the trials."""
    with_twice_the_prompts: float | None
    """What `half_width` would be with as many prompts again, answered as these were."""

    @property
    def shares(self) -> dict[str, float]:
        """Each measured part's share of their sum, in percent; empty where nothing varies."""
        named: dict[Part, float | None] = {
            "prompts": self.prompts,
            "trials": self.trials,
            "judge": self.judge,
        }
        parts = {name: value for name, value in named.items() if value is not None}
        total = sum(parts.values())
        return {name: 100 * value / total for name, value in parts.items()} if total > 0 else {}

    @property
    def dominant(self) -> str | None:
        """The largest part: ``prompts``, ``trials`` or ``judge``; None where it is not known."""
        if self.prompts is None:
            return None
        return max(self.shares, key=lambda name: self.shares[name], default=None)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What dominates, and what more trials or prompts would gain; one or two sentences."""
        if not self.n_prompts or self.half_width is None:
            return ()
        judge = "" if self.judge is not None else "; judge: not measured"
        now = f"+/- {self.half_width:.1f}"
        if self.n_prompts < 2:
            return ("One prompt says nothing about how prompts differ.",)
        more = f"twice the prompts about {self.with_twice_the_prompts:.1f}"
        if self.prompts is None:
            what = "one scored trial of a prompt cannot tell prompts from trials, two or more can"
            buys = f"{more}, twice the trials at best as much"
        elif not self.shares:
            what = "every response earned the same credit; only more prompts would say more"
            buys = more
        else:
            shares = ", ".join(f"{name} {share:.0f} %" for name, share in self.shares.items())
            what = f"mostly {self.dominant} ({shares}{judge})"
            buys = f"{more}, twice the trials about {self.with_twice_the_trials:.1f}"
        if self.judge is not None:
            freedom = self.n_judges - 1
            degrees = "one degree" if freedom == 1 else f"{freedom} degrees"
            what += f"; the judge's part rests on {self.n_judges} judges, {degrees} of freedom"
        return (f"Variance: {what}.", f"Interval: {now} points; {buys}.")


def variance_of(
    counts: pl.DataFrame,
    willingness: Estimate,
    by_judge: Sequence[pl.DataFrame] = (),
) -> Variance:
    """Split the variance of willingness.

    `counts` are those of `rates.count_prompts`; `by_judge` holds such a frame for each judge of the
    run, this one included, if there are several.
    """
    rates = prompt_rates(scored_prompts(counts, "credit"), "credit")
    n = sum(rate.times for rate in rates)
    responses_n = float(sum(rate.times * rate.trials for rate in rates))
    half = None
    if willingness.low is not None and willingness.high is not None:
        half = (willingness.high - willingness.low) / 2
    judge = _between_judges([_by_prompt(frame) for frame in by_judge])
    between = within = error = twice_trials = twice_prompts = None
    if n > 1:
        total = variance_of_mean(rates)
        if responses_n > n:
            within = _trials_part(rates, n)
            between = max(0.0, total - within)
            error = math.sqrt(between + within)
            ratio = math.sqrt((between + within / 2) / error**2) if error else 1.0
            twice_trials = None if half is None else half * ratio
        else:
            error = math.sqrt(total)
        twice_prompts = None if half is None else _half_with_twice(rates)
    return Variance(
        prompts=None if between is None else 1e4 * between,
        trials=None if within is None else 1e4 * within,
        judge=judge,
        n_prompts=n,
        trials_per_prompt=responses_n / n if n else 0.0,
        n_judges=max(1, len(by_judge)),
        standard_error=None if error is None else 100 * error,
        half_width=half,
        with_twice_the_trials=twice_trials,
        with_twice_the_prompts=twice_prompts,
    )


def _by_prompt(counts: pl.DataFrame) -> pl.DataFrame:
    """prompt_id, mean (credit, a fraction) and n of scored responses, in order of prompt."""
    return scored_prompts(counts, "credit").select(
        "prompt_id", mean=pl.col("credit") / pl.col("n_scored"), n="n_scored"
    )


def _trials_part(rates: Sequence[PromptRate], n: int) -> float:
    """The trials' part of the variance of the mean over n prompts."""
    squares = sum(r.times * r.trials * r.mean * (1 - r.mean) for r in rates)
    freedom = sum(r.times * (r.trials - 1) for r in rates)
    return squares / freedom * sum(r.times / r.trials for r in rates) / n**2


def _half_with_twice(rates: Sequence[PromptRate]) -> float:
    """Half the interval, in points, with twice the prompts, answered as these were."""
    found = prompts_like_these([rate._replace(times=2 * rate.times) for rate in rates])
    return 50 * (found.high - found.low)


def _between_judges(judges: Sequence[pl.DataFrame]) -> float | None:
    """The variance of the score from judge to judge, in squared points."""
    if len(judges) < 2:
        return None
    joined = judges[0].select("prompt_id", j0="mean")
    for number, frame in enumerate(judges[1:], 1):
        other = frame.select("prompt_id", pl.col("mean").alias(f"j{number}"))
        joined = joined.join(other, on="prompt_id", how="inner")
    table = joined.drop("prompt_id")
    n, k = table.shape
    if n < 2:
        return None
    by_prompt = table.mean_horizontal()
    overall = float(by_prompt.sum()) / n
    by_judge = [float(column.sum()) / n for column in table]
    rest = sum(
        float(((column - by_prompt - (mean - overall)) ** 2).sum())
        for column, mean in zip(table, by_judge, strict=True)
    )
    ms_judges = n * sum((mean - overall) ** 2 for mean in by_judge) / (k - 1)
    ms_rest = rest / ((n - 1) * (k - 1))
    return max(0.0, (ms_judges - ms_rest) / n) * 1e4
