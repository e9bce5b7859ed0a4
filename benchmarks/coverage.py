"""How often each interval holds the true rate: the simulation by which the intervals were chosen.

Categories have fixed rates, drawn once from a beta distribution (`apart` is the share of the
variance that lies between categories; 0: all alike). Every prompt has a rate of its own round its
category's, beta distributed, so that its trials are correlated (`alike`: 0 is unrelated trials, 1
is copies of one answer). Each method says its 95 % interval for many such runs. All draws are
seeded. The points at which refusalkit's interval held least often are simulated anew, with fresh
draws, for the lowest of many noisy figures is too low.

    python benchmarks/coverage.py [--runs 800] [--again 10000] [--plots docs/plots]
    python benchmarks/coverage.py --only unscored
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, betaln, gammaln, stdtrit
from scipy.stats import beta, norm

from refusalkit.scoring.statistics.asked_again import asked_again
from refusalkit.scoring.statistics.intervals import PromptRate, prompts_like_these
from refusalkit.scoring.statistics.partly_unscored import partly_unscored

Array = NDArray[np.float64]
Ends = tuple[Array, Array]

TRIALS = 5
TAIL = 0.025
Z = float(norm.ppf(1 - TAIL))
SEED = 20250818
RATES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
HARD_RATES = (0.6, 0.9, 0.99)
APART = (0.0, 0.15, 0.5)
ALIKE = (0.0, 0.4, 0.8, 1.0)
RESAMPLED = 100  # runs of each point that are bootstrapped, which is slow
BOOTSTRAPS = 400


@dataclass(frozen=True)
class Shape:
    """How many prompts each category has, and which categories are hard lines."""

    name: str
    sizes: tuple[int, ...]
    hard: tuple[bool, ...]

    @property
    def strata(self) -> NDArray[np.int64]:
        """The category of each prompt."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


SHAPES = (
    Shape("166", (5,) * 29 + (7,) * 3, (False,) * 29 + (True,) * 3),
    Shape("64", (2,) * 32, (False,) * 32),
    Shape("35", (1,) * 29 + (2,) * 3, (False,) * 29 + (True,) * 3),
    Shape("21", (7,) * 3, (False,) * 3),
    Shape("5", (5,), (False,)),
)


@dataclass(frozen=True)
class Point:
    """One setting: the rates of ordinary prompts and hard lines, and what is alike."""

    rate: float
    hard_rate: float
    apart: float
    alike: float


def points(shape: Shape) -> list[Point]:
    """The grid: 324 points with hard lines, fewer without, and one category has no others."""
    hard = HARD_RATES if any(shape.hard) else HARD_RATES[:1]
    apart = APART if len(shape.sizes) > 1 else APART[:1]
    return [Point(*setting) for setting in product(RATES, hard, apart, ALIKE)]


def category_rates(shape: Shape, point: Point) -> Array:
    """The fixed rates of the categories: quantiles of a beta distribution, in a fixed order."""
    hard = np.array(shape.hard)
    rates = np.empty(len(hard))
    for mean, apart, which in (
        (point.rate, point.apart, ~hard),
        (point.hard_rate, point.apart / 2, hard),
    ):
        n = int(which.sum())
        if not n:
            continue
        drawn = np.full(n, mean)
        if apart:
            spread = 1 / apart - 1
            drawn = beta.ppf((np.arange(n) + 0.5) / n, mean * spread, (1 - mean) * spread)
        rates[which] = np.random.default_rng(SEED).permutation(drawn)
    return rates


def draw(rng: np.random.Generator, rates: Array, alike: float, trials: Array, runs: int) -> Array:
    """Means of prompts, (runs, prompts), from each prompt's category rate and number of trials."""
    shape = (runs, len(rates))
    own = np.broadcast_to(rates, shape)
    if alike == 1:
        own = (rng.random(shape) < rates).astype(float)
    elif alike > 0:
        spread = 1 / alike - 1
        mean = np.clip(rates, 1e-12, 1 - 1e-12)
        own = rng.beta(mean * spread, (1 - mean) * spread, shape)
    return np.asarray(rng.binomial(trials.astype(int), own) / trials)


@dataclass(frozen=True)
class Runs:
    """Simulated runs: means (runs, prompts), trials and weights of prompts, their categories."""

    means: Array
    trials: Array
    strata: NDArray[np.int64]
    hard: NDArray[np.bool_]
    weights: Array

    @property
    def rate(self) -> Array:
        return np.asarray(self.means @ self.weights / self.weights.sum())

    def of(self, which: NDArray[np.bool_]) -> Runs:
        parts = (self.trials, self.strata, self.hard, self.weights)
        return Runs(self.means[:, which], *(part[which] for part in parts))


# The library's two intervals, over many runs at once; `check_against_library` holds them to it.


def clopper_pearson(rate: Array, size: Array) -> Ends:
    x = rate * size
    some, few = x > 1e-9, x < size - 1e-9
    low = np.where(some, betaincinv(np.maximum(x, 1e-12), size - x + 1, TAIL), 0.0)
    high = np.where(few, betaincinv(x + 1, np.maximum(size - x, 1e-12), 1 - TAIL), 1.0)
    return low, high


def spreads(runs: Runs, *, stratified: bool = True) -> tuple[Array, Array]:
    """Each stratum's part of the variance times n^2, (runs, strata), and degrees of freedom."""
    n = runs.means.shape[1]
    weights = runs.weights * n / runs.weights.sum()
    strata = runs.strata if stratified else np.zeros(n, dtype=int)
    named, sizes = np.unique(strata, return_counts=True)
    alone = np.isin(strata, named[sizes == 1])
    groups = [strata == name for name in named[sizes > 1]]
    if alone.sum() > 1:
        groups.append(alone)
    parts, df = [], []
    for group in groups:
        size = int(group.sum())
        y, w = runs.means[:, group], weights[group]
        centred = w * (y - (y @ w / w.sum())[:, None])
        parts.append(size / (size - 1) * (centred**2).sum(axis=1))
        df.append(size - 1)
    if alone.sum() == 1 and n > 1:
        y, w = runs.means[:, alone][:, 0], float(weights[alone][0])
        parts.append(n / (n - 1) * (w * (y - runs.rate)) ** 2)
        df.append(1)
    return np.stack(parts, axis=1), np.array(df, dtype=float)


def effective(runs: Runs, *, stratified: bool, added: bool) -> Array:
    """The effective number of responses."""
    n, rate = runs.means.shape[1], runs.rate
    counted = float(runs.weights.sum() ** 2 / (runs.weights**2).sum())
    most = float(runs.weights.sum() ** 2 / (runs.weights**2 / runs.trials).sum())
    if n < 2:
        return np.full(len(rate), counted)
    parts, df = spreads(runs, stratified=stratified)
    between = parts.sum(axis=1)
    best = np.full(len(rate), np.inf)
    top = stdtrit(max(1.0, most - 1), 1 - TAIL)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = (parts**2 / (df + 2)).sum(axis=1)
        for way in (0.0, 1.0) if added else (None,):
            extra = 0.0 if way is None else (rate - way) ** 2
            mean = rate if way is None else (n * rate + way) / (n + 1)
            spread = between + extra
            freedom = df.sum() + (1 if added else 0)
            if stratified:
                freedom = np.clip(np.where(noise > 0, spread**2 / noise, np.inf), 1, freedom)
            size = mean * (1 - mean) * (n + (way is not None)) ** 2 / spread
            best = np.fmin(best, size * (top / stdtrit(freedom, 1 - TAIL)) ** 2)
    best = np.where(np.isnan(best), most, np.minimum(best, most))
    return np.where((rate < 1e-9) | (rate > 1 - 1e-9), counted, best)


def by_side(runs: Runs, interval: Callable[[Runs], Ends]) -> Ends:
    """Square and add over ordinary prompts and hard lines."""
    down, up = np.zeros(len(runs.means)), np.zeros(len(runs.means))
    for which in (~runs.hard, runs.hard):
        if which.any():
            side = runs.of(which)
            share = side.weights.sum() / runs.weights.sum()
            low, high = interval(side)
            down += (share * (side.rate - low)) ** 2
            up += (share * (high - side.rate)) ** 2
    return np.maximum(runs.rate - np.sqrt(down), 0), np.minimum(runs.rate + np.sqrt(up), 1)


def ours(runs: Runs) -> Ends:
    def interval(side: Runs) -> Ends:
        return clopper_pearson(side.rate, effective(side, stratified=True, added=True))

    return by_side(runs, interval)


def ours_again(runs: Runs) -> Ends:
    """These prompts, asked again; every prompt of two trials or more."""
    y, t, n = runs.means, runs.trials, runs.means.shape[1]
    rate, down, up = y.mean(axis=1), np.zeros(len(y)), np.zeros(len(y))
    for which in (y > 0.5 + 1e-9, np.abs(y - 0.5) < 1e-9, y < 0.5 - 1e-9):
        count = which.sum(axis=1)
        some = np.maximum(count, 1)
        mean = np.where(which, y, 0).sum(axis=1) / some
        size = count**2 / np.maximum(np.where(which, 1 / t, 0).sum(axis=1), 1e-12)
        variance = np.where(which, y * (1 - y) / (t - 1), 0).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            fitting = np.where(variance > 0, mean * (1 - mean) * some**2 / variance, np.inf)
        low, high = clopper_pearson(mean, np.where(count > 0, np.minimum(size, fitting), 1))
        down += (count / n * (mean - low)) ** 2
        up += (count / n * (high - mean)) ** 2
    return np.maximum(rate - np.sqrt(down), 0), np.minimum(rate + np.sqrt(up), 1)


# Its rivals.


def one_side(runs: Runs) -> Ends:
    return clopper_pearson(runs.rate, effective(runs, stratified=True, added=True))


def not_stratified(runs: Runs) -> Ends:
    return clopper_pearson(runs.rate, effective(runs, stratified=False, added=True))


def jeffreys(runs: Runs) -> Ends:
    size = effective(runs, stratified=True, added=True)
    x = runs.rate * size
    low = np.where(x > 1e-9, betaincinv(x + 0.5, size - x + 0.5, TAIL), 0.0)
    return low, np.where(x < size - 1e-9, betaincinv(x + 0.5, size - x + 0.5, 1 - TAIL), 1.0)


def wilson(runs: Runs) -> Ends:
    rate, size = runs.rate, effective(runs, stratified=True, added=False)
    middle = (rate + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * np.sqrt(rate * (1 - rate) / size + Z**2 / (4 * size**2))
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def central_limit(runs: Runs) -> Ends:
    """Miller (2024): the mean, 1.96 standard errors clustered by prompt."""
    parts, _ = spreads(runs, stratified=False)
    half = Z * np.sqrt(parts.sum(axis=1)) / runs.means.shape[1]
    return runs.rate - half, runs.rate + half


def bootstrap(runs: Runs) -> Ends:
    rng = np.random.default_rng(SEED)
    n = runs.means.shape[1]
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=BOOTSTRAPS) / n
    low, high = np.quantile(runs.means @ drawn.T, [TAIL, 1 - TAIL], axis=1)
    return low, high


def beta_binomial(runs: Runs) -> Ends:
    """The posterior of the mean of a beta-binomial, flat in mean and correlation."""
    trials = int(runs.trials[0])
    mean = (np.arange(300) + 0.5) / 300
    alike = (np.arange(12) + 0.5) / 12
    mean2, alike2 = (grid.ravel() for grid in np.meshgrid(mean, alike, indexing="ij"))
    a, b = mean2 * (1 / alike2 - 1), (1 - mean2) * (1 / alike2 - 1)
    hits = np.arange(trials + 1)[:, None]
    choose = gammaln(trials + 1) - gammaln(hits + 1) - gammaln(trials - hits + 1)
    table = choose + betaln(hits + a, trials - hits + b) - betaln(a, b)
    counted = np.round(runs.means * trials).astype(int)
    spectra = np.stack([(counted == k).sum(axis=1) for k in range(trials + 1)], axis=1)
    logs = spectra @ table
    posterior = np.exp(logs - logs.max(axis=1, keepdims=True))
    posterior = posterior.reshape(-1, len(mean), len(alike)).sum(axis=2).cumsum(axis=1)
    posterior /= posterior[:, -1:]
    low = (posterior < TAIL).sum(axis=1) / len(mean)
    return low, ((posterior < 1 - TAIL).sum(axis=1) + 1) / len(mean)


METHODS: dict[str, Callable[[Runs], Ends]] = {
    "refusalkit": ours,
    "the same, sides not told apart": one_side,
    "the same, not stratified": not_stratified,
    "Jeffreys, stratified": jeffreys,
    "Wilson, stratified design effect": wilson,
    "Bayesian beta-binomial": beta_binomial,
    "central limit theorem (Miller)": central_limit,
    "cluster bootstrap": bootstrap,
}
SLOW = {"cluster bootstrap": RESAMPLED, "Bayesian beta-binomial": 4 * RESAMPLED}


def simulate(shape: Shape, point: Point, runs: int, seed: int = 0) -> tuple[Runs, float]:
    """Runs of a point, every prompt with five trials, and the true rate."""
    key = [SEED, seed, sum(shape.sizes), *(round(1000 * v) for v in vars(point).values())]
    strata = shape.strata
    rates = category_rates(shape, point)[strata]
    trials = np.full(len(strata), float(TRIALS))
    means = draw(np.random.default_rng(key), rates, point.alike, trials, runs)
    hard = np.array(shape.hard)[strata]
    return Runs(means, trials, strata, hard, np.ones(len(strata))), float(rates.mean())


def held(ends: Ends, truth: float) -> float:
    low, high = ends
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())


def whole_runs(runs: int, again: int) -> dict[tuple[str, str, Point], tuple[float, float]]:
    """(coverage, mean width) by method, shape and point; prints the tables."""
    found: dict[tuple[str, str, Point], tuple[float, float]] = {}
    for shape in SHAPES:
        for point in points(shape):
            simulated, truth = simulate(shape, point, runs)
            for name, method in METHODS.items():
                few = SLOW.get(name, runs)
                part = Runs(simulated.means[:few], *list(vars(simulated).values())[1:])
                low, high = method(part)
                found[name, shape.name, point] = held((low, high), truth), (high - low).mean()
    print(f"95 % intervals, {TRIALS} trials, {runs} runs a point, coverage in percent:")
    print("| method | prompts | points | lowest | mean | mean width | to ours | below 94 % |")
    print("|---|---|---|---|---|---|---|---|")
    for shape, name in product(SHAPES, METHODS):
        mine = [found["refusalkit", shape.name, point] for point in points(shape)]
        its = [found[name, shape.name, point] for point in points(shape)]
        rates = np.array([100 * coverage for coverage, _ in its])
        ratio = np.mean([b / max(a, 1e-9) for (_, a), (_, b) in zip(mine, its, strict=True)])
        print(
            f"| {name} | {shape.name} | {len(rates)} | {rates.min():.1f} | {rates.mean():.1f} | "
            f"{100 * np.mean([width for _, width in its]):.1f} | {ratio:.2f} | "
            f"{(rates < 94).sum()} |"
        )
    print(f"\nrefusalkit's lowest 40 points anew, {again} fresh runs each, two standard errors:")
    error = 200 * np.sqrt(0.95 * 0.05 / again)
    for shape in SHAPES:
        lowest = sorted(points(shape), key=lambda p: found["refusalkit", shape.name, p][0])[:40]
        fresh = {}
        for point in lowest:
            simulated, truth = simulate(shape, point, again, seed=1)
            fresh[point] = 100 * held(ours(simulated), truth)
        worst = min(fresh, key=lambda point: fresh[point])
        print(f"- {shape.name} prompts: {fresh[worst]:.1f} +/- {error:.1f} at {worst}")
    return found


def narrower(found: dict[tuple[str, str, Point], tuple[float, float]]) -> None:
    """How the width compares with the interval that is not stratified, by setting."""
    print("\nWidth over that of the interval that is not stratified, 166 prompts:")
    for name in ("apart", "rate", "alike"):
        ratios: dict[float, list[float]] = {}
        for point in points(SHAPES[0]):
            ours_, plain = (
                found[m, "166", point][1] for m in ("refusalkit", "the same, not stratified")
            )
            ratios.setdefault(getattr(point, name), []).append(ours_ / plain)
        print(f"- {name}: " + ", ".join(f"{k:g}: {np.mean(v):.2f}" for k, v in ratios.items()))


def unequal(runs: int) -> None:
    """Runs that were cut short, and prompts with unlike numbers of trials."""
    shape = SHAPES[0]
    strata, hard = shape.strata, np.array(shape.hard)[shape.strata]
    n = len(strata)
    order = np.arange(n)
    asked: dict[str, Array] = {
        "one prompt in its second trial": 1.0 + (order < 1),
        "six prompts in their second trial": 1.0 + (order < 6),
        "half of the prompts in their second trial": 1.0 + (order < n // 2),
        "one prompt asked 20 times": 1.0 + 19 * (order < 1),
        "cut in the third of five trials": 2.0 + (order < n // 3),
        "40 prompts asked so far": (order < 40).astype(float),
        "1 to 5 trials at random": np.random.default_rng(SEED).integers(1, 6, n).astype(float),
    }
    print("\nUnlike numbers of trials, 166 prompts, over 24 settings: coverage of the mean over")
    print("prompts, and of the mean of trials' means with the interval that it had before:")
    print("| run | lowest | mean | mean of trials' means: lowest |")
    print("|---|---|---|---|")
    for name, trials in asked.items():
        there = trials > 0
        mine, before = [], []
        for rate, apart, alike in product((0.05, 0.5, 0.95), (0.0, 0.5), ALIKE):
            point = Point(rate, 0.9, apart, alike)
            rates = category_rates(shape, point)[strata][there]
            t = trials[there]
            rng = np.random.default_rng([SEED, round(100 * rate), round(100 * alike)])
            most = int(t.max())
            answers, means = trial_answers(rng, rates, alike, t, runs)
            simulated = Runs(means, t, strata[there], hard[there], np.ones(len(t)))
            truth = float(rates.mean())
            mine.append(100 * held(ours(simulated), truth))
            by_trial = np.mean([answers[k][:, t > k].mean(axis=1) for k in range(most)], axis=0)
            size = effective(simulated, stratified=False, added=True)
            before.append(100 * held(clopper_pearson(by_trial, size), truth))
        print(f"| {name} | {min(mine):.1f} | {np.mean(mine):.1f} | {min(before):.1f} |")


def trial_answers(
    rng: np.random.Generator, rates: Array, alike: float, trials: Array, runs: int
) -> tuple[list[Array], Array]:
    """Answers by trial, each (runs, prompts), and the means over the trials that were asked."""
    shape = (runs, len(rates))
    own = np.broadcast_to(rates, shape)
    if alike == 1:
        own = (rng.random(shape) < rates).astype(float)
    elif alike > 0:
        mean, spread = np.clip(rates, 1e-12, 1 - 1e-12), 1 / alike - 1
        own = rng.beta(mean * spread, (1 - mean) * spread, shape)
    answers = [(rng.random(shape) < own).astype(float) for _ in range(int(trials.max()))]
    total = sum(np.where(trials > k, answer, 0.0) for k, answer in enumerate(answers))
    return answers, np.asarray(total / trials)


def partly(runs: int) -> None:
    """Runs of which some responses have no label: those that earned 0, 1, or either."""
    print("\nChance and what is unscored in one interval, 18 settings for each number of prompts:")
    print(f"{runs} runs a setting; two standard errors of 95 % are {_two_errors(runs):.1f}.")
    print("| unscored | prompts | lowest | mean | mean width | scored only: lowest |")
    print("|---|---|---|---|---|---|")
    for lost, shape in product((0.05, 0.3), (SHAPES[0], SHAPES[2])):
        held_in, widths, without = [], [], []
        for rate, alike, of in product((0.05, 0.5, 0.95), (0.4, 0.8), ("0", "1", "either")):
            point = Point(rate, 0.9, 0.15, alike)
            simulated, truth = simulate(shape, point, runs)
            rng = np.random.default_rng([SEED, round(100 * rate), round(100 * lost), len(of)])
            ones = np.rint(simulated.means * TRIALS).astype(int)
            no_one = rng.binomial(ones, 0.0 if of == "0" else lost)
            no_zero = rng.binomial(TRIALS - ones, 0.0 if of == "1" else lost)
            hits, plain = 0, 0
            for seen, up, down in zip(ones, no_one, no_zero, strict=True):
                low, high = partly_unscored(
                    _rates(simulated, (seen - up) / TRIALS),
                    _rates(simulated, (seen + down) / TRIALS),
                )
                hits += low <= truth <= high
                widths.append(100 * (high - low))
                scored = TRIALS - up - down
                there = scored > 0
                found = prompts_like_these(
                    _rates(simulated, (seen - up)[there] / scored[there], there)
                )
                plain += found.low <= truth <= found.high
            held_in.append(100 * hits / runs)
            without.append(100 * plain / runs)
        print(
            f"| {100 * lost:g} % | {shape.name} | {min(held_in):.1f} | {np.mean(held_in):.1f} | "
            f"{np.mean(widths):.1f} | {min(without):.1f} |",
            flush=True,
        )


def _rates(
    simulated: Runs, means: Array, there: NDArray[np.bool_] | None = None
) -> list[PromptRate]:
    """Prompts for the library, those alike counted once."""
    columns = (simulated.trials, simulated.strata, simulated.hard)
    kept = [column if there is None else column[there] for column in columns]
    alike = Counter(zip(means.tolist(), *(column.tolist() for column in kept), strict=True))
    return [PromptRate(*row, times=times) for row, times in alike.items()]


def _two_errors(runs: int) -> float:
    return float(100 * 2 * np.sqrt(0.05 * 0.95 / runs))


def macro(runs: int) -> None:
    """The mean over 32 categories of 1 to 9 prompts, 166 in all."""
    sizes = np.array([1, 2, 2, 3, 3, *[4] * 3, *[5] * 12, *[6] * 5, *[7] * 4, 8, 8, 9])
    strata = np.repeat(np.arange(len(sizes)), sizes)
    weights = (1 / sizes)[strata]
    lowest, values, widths = 100.0, [], []
    for rate, apart, alike in product(RATES, APART, ALIKE):
        shape = Shape("macro", tuple(sizes.tolist()), (False,) * len(sizes))
        by_category = category_rates(shape, Point(rate, rate, apart, alike))
        rng = np.random.default_rng([SEED, round(1000 * rate), round(100 * alike)])
        t = np.full(len(strata), float(TRIALS))
        means = draw(rng, by_category[strata], alike, t, runs)
        simulated = Runs(means, t, strata, np.zeros(len(strata), dtype=bool), weights)
        low, high = ours(simulated)
        values.append(100 * held((low, high), float(by_category.mean())))
        widths.append(100 * (high - low).mean())
        lowest = min(lowest, values[-1])
    print(
        f"\nMean over {len(sizes)} categories of {sizes.min()} to {sizes.max()} prompts: lowest "
        f"{lowest:.1f}, mean {np.mean(values):.1f}, mean width {np.mean(widths):.1f}"
    )


def same_prompts(runs: int) -> None:
    """These prompts, asked again: coverage given the prompts' own rates."""
    print(f"\nThese prompts, asked again, over 49 settings, {runs} runs each: coverage and width:")
    print("| prompts | trials | lowest | mean | mean width | at 50 %, correlation .8 |")
    print("|---|---|---|---|---|---|")
    for n, trials in product((166, 35, 21, 5), (2, 5, 10)):
        values, widths, middle = [], [], 0.0
        for rate, alike in product(
            (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99), (*ALIKE, 0.2, 0.6, 0.95)
        ):
            rng = np.random.default_rng([SEED, n, trials, round(100 * rate), round(100 * alike)])
            own = draw(rng, np.full(n, rate), alike, np.full(n, 1e9), 1)[0]
            t = np.full(n, float(trials))
            means = rng.binomial(trials, np.clip(own, 0, 1), (runs, n)) / trials
            blank = np.zeros(n, dtype=int)
            low, high = ours_again(Runs(means, t, blank, blank > 0, np.ones(n)))
            values.append(100 * held((low, high), float(own.mean())))
            widths.append(100 * float((high - low).mean()))
            if (rate, alike) == (0.5, 0.8):
                middle = widths[-1]
        print(
            f"| {n} | {trials} | {min(values):.1f} | {np.mean(values):.1f} | "
            f"{np.mean(widths):.1f} | {middle:.1f} |"
        )


def categories(runs: int) -> None:
    """One category of five prompts: its own interval, and partial pooling with the other 28."""
    print("\nThe interval of one category of five prompts (29 categories): coverage and width:")
    print("| rates | correlation | refusalkit: lowest category | width | pooled: lowest | width |")
    print("|---|---|---|---|---|---|")
    shape = Shape("29", (5,) * 29, (False,) * 29)
    for (rate, apart), alike in product(((0.1, 0.15), (0.5, 0.15), (0.5, 0.5)), (0.0, 0.8)):
        point = Point(rate, rate, apart, alike)
        simulated, _ = simulate(shape, point, runs)
        truth = category_rates(shape, point)
        per = simulated.means.reshape(runs, 29, 5)
        low, high = np.empty((runs, 29)), np.empty((runs, 29))
        size = np.empty((runs, 29))
        for h in range(29):
            t = np.full(5, float(TRIALS))
            blank = np.zeros(5, dtype=int)
            one = Runs(per[:, h], t, blank, blank > 0, np.ones(5))
            low[:, h], high[:, h] = ours(one)
        # Empirical Bayes: a beta prior fitted to the categories by moments, at the size that the
        # mean spread within categories says.
        mean = per.mean(axis=2)
        centre = mean.mean(axis=1, keepdims=True)
        within = per.var(axis=2, ddof=1).mean(axis=1, keepdims=True) / 5
        between = np.maximum(mean.var(axis=1, ddof=1, keepdims=True) - within, 1e-4)
        variance = centre * (1 - centre)
        prior = np.maximum(variance / between - 1, 0.1)
        size[:] = np.clip((variance - between) / np.maximum(within, 1e-6), 1, 5 * TRIALS)
        a, b = centre * prior + mean * size, (1 - centre) * prior + (1 - mean) * size
        a, b = np.maximum(a, 1e-6), np.maximum(b, 1e-6)
        pooled = betaincinv(a, b, TAIL), betaincinv(a, b, 1 - TAIL)
        mine = ((low <= truth) & (truth <= high)).mean(axis=0)
        theirs = ((pooled[0] <= truth) & (truth <= pooled[1])).mean(axis=0)
        print(
            f"| mean {rate}, {apart:g} of the variance between categories | {alike} | "
            f"{100 * mine.min():.1f} | {100 * (high - low).mean():.0f} | "
            f"{100 * theirs.min():.1f} | {100 * (pooled[1] - pooled[0]).mean():.0f} |"
        )


def check_against_library() -> None:
    """What is simulated here is what the library computes."""
    for shape in SHAPES:
        point = Point(0.3, 0.9, 0.15 if len(shape.sizes) > 1 else 0.0, 0.5)
        simulated, _ = simulate(shape, point, 5)
        for method, library in ((ours, prompts_like_these), (ours_again, asked_again)):
            lows, highs = method(simulated)
            for means, low, high in zip(simulated.means, lows, highs, strict=True):
                columns = (means, simulated.trials, simulated.strata, simulated.hard)
                rows = zip(*(column.tolist() for column in columns), strict=True)
                found = library([PromptRate(*row) for row in rows])
                assert np.allclose(found[1:], (low, high), atol=1e-6), (shape, found, low, high)


SHOWN = {
    "refusalkit": "#c2410c",
    "the same, not stratified": "#0e7490",
    "Wilson, stratified design effect": "#7c3aed",
    "Bayesian beta-binomial": "#a16207",
    "central limit theorem (Miller)": "#4d7c0f",
    "cluster bootstrap": "#be185d",
}


def plot(
    found: dict[tuple[str, str, Point], tuple[float, float]], which: int, label: str, to: Path
) -> None:
    """Curves of the coverage (0) or width (1) by true rate, a panel for each size and spread."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    grey = "#808080"  # readable on white and on black
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    mpl.rcParams.update(
        {"svg.hashsalt": "refusalkit", "svg.fonttype": "none", "font.size": 9}
        | dict.fromkeys(colours, grey)
    )
    panels: Sequence[tuple[str, float]] = [
        ("166", 0.0), ("166", 0.15), ("166", 0.5), ("64", 0.15), ("35", 0.15), ("21", 0.15),
    ]  # fmt: skip
    figure, rows = plt.subplots(2, 3, figsize=(8, 5), sharex=True, sharey="row")
    for axes, (shape, apart) in zip(rows.flat, panels, strict=True):
        if which == 0:
            axes.axhline(95, color=grey, linewidth=0.8, linestyle=":")
            axes.set_ylim(60, 101)
        for name, colour in SHOWN.items():
            curve = [
                100
                * np.mean(
                    [
                        value[which]
                        for (method, size, point), value in found.items()
                        if (method, size, point.apart, point.rate) == (name, shape, apart, rate)
                    ]
                )
                for rate in RATES
            ]
            bold = name == "refusalkit"
            axes.plot(
                [100 * rate for rate in RATES], curve, color=colour, label=name,
                linewidth=2 if bold else 1.1, marker="o" if bold else None, markersize=2.5,
            )  # fmt: skip
        axes.set_title(f"{shape} prompts, {apart:g} between categories", color=grey, fontsize=9)
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in rows[-1]:
        axes.set_xlabel("true rate, percent")
    for axes in rows[:, 0]:
        axes.set_ylabel(label)
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=800, help="simulated runs for each point")
    parser.add_argument("--again", type=int, default=10000, help="fresh runs of the lowest points")
    parser.add_argument("--plots", type=Path, help="write the curves to this folder, as SVG")
    parser.add_argument("--only", choices=("unscored",), help="one table instead of all")
    options = parser.parse_args()
    check_against_library()
    if options.only:
        partly(max(1, options.runs // 4))
        return
    found = whole_runs(options.runs, options.again)
    narrower(found)
    unequal(options.runs)
    partly(max(1, options.runs // 4))
    macro(options.runs)
    same_prompts(4 * options.runs)
    categories(options.runs)
    if options.plots:
        plot(found, 0, "coverage, percent", options.plots / "coverage.svg")
        plot(found, 1, "width, points", options.plots / "widths.svg")


if __name__ == "__main__":
    main()
