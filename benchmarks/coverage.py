"""How often each interval holds the true rate: the simulation by which the intervals were chosen.

5 or 166 prompts with 5 trials each; every prompt has a rate of its own, drawn from a beta
distribution, so that trials of one prompt are correlated (beta-binomial): 0 is five unrelated
trials, 1 is five copies of one answer. For each true rate and correlation many such runs are drawn,
and each method says its 95 % interval. All draws are seeded.

    python benchmarks/coverage.py [--runs 4000] [--plot docs/plots/coverage.svg]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from refusalkit.scoring.statistics.intervals import korn_graubard, weighted_korn_graubard

Array = NDArray[np.float64]
Curves = dict[tuple[str, int, float, float], float]  # by method, prompts, correlation and rate
TRIALS = 5
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
PROMPTS = (5, 166)
RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
ALIKE = (0.0, 0.25, 0.5, 0.75, 1.0)
BOOTSTRAPS = 400
SEED = 20250818


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4000, help="simulated runs for each point")
    parser.add_argument("--plot", type=Path, help="write the curves to this SVG file")
    options = parser.parse_args()
    rates = sorted({*RATES, *(1 - rate for rate in RATES)})
    coverage: Curves = {}
    width: Curves = {}
    for prompts in PROMPTS:
        for alike in ALIKE:
            for rate in rates:
                counts = spectra(prompts, rate, alike, options.runs)
                for name, method in METHODS.items():
                    low, high = method(counts)
                    held = (low <= rate + 1e-12) & (rate - 1e-12 <= high)
                    coverage[name, prompts, alike, rate] = float(held.mean())
                    width[name, prompts, alike, rate] = float((high - low).mean())
        check_against_library(prompts)
    print(f"95 % intervals, {TRIALS} trials, {options.runs} runs a point, coverage in percent:")
    print("| method | prompts | lowest | mean | highest | mean width | points below 93 % |")
    print("|---|---|---|---|---|---|---|")
    for name in METHODS:
        for prompts in PROMPTS:
            inner = [k for k in coverage if k[:2] == (name, prompts) and 0 < k[3] < 1]
            values = np.array([100 * coverage[key] for key in inner])
            wide = 100 * np.mean([width[key] for key in inner])
            below = int((values < 93).sum())
            print(
                f"| {name} | {prompts} | {values.min():.1f} | {values.mean():.1f} | "
                f"{values.max():.1f} | {wide:.1f} | {below} of {len(values)} |"
            )
    macro(options.runs)
    if options.plot:
        draw(coverage, rates, options.plot)


def spectra(prompts: int, rate: float, alike: float, runs: int) -> NDArray[np.int64]:
    """For each run how many prompts had 0, 1, ... 5 successes: all that any method looks at."""
    rng = np.random.default_rng([SEED, prompts, round(1e4 * rate), round(100 * alike)])
    successes = rng.binomial(TRIALS, leanings(rng, rate, alike, (runs, prompts)))
    return np.stack([(successes == s).sum(axis=1) for s in range(TRIALS + 1)], axis=1)


def leanings(
    rng: np.random.Generator, rate: float | Array, alike: float, shape: tuple[int, ...]
) -> Array:
    """Each prompt's own rate; `alike` is the correlation of its trials."""
    if alike == 0:
        return np.broadcast_to(np.asarray(rate, dtype=float), shape)
    if alike == 1:
        return (rng.random(shape) < rate).astype(float)
    spread = 1 / alike - 1
    mean = np.clip(rate, 1e-300, 1)
    drawn = rng.beta(mean * spread, np.clip(1 - mean, 1e-300, 1) * spread, shape)
    return np.where(np.asarray(rate) <= 0, 0.0, np.where(np.asarray(rate) >= 1, 1.0, drawn))


def moments(counts: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """(prompts, successes, sum of squared successes) of each run."""
    values = np.arange(TRIALS + 1)
    return (
        counts.sum(axis=1).astype(float),
        (counts * values).sum(axis=1).astype(float),
        (counts * values**2).sum(axis=1).astype(float),
    )


def plain_variance(counts: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """(prompts, rate, its variance by prompts), the variance of a mean of prompts' rates."""
    n, s, q = moments(counts)
    rate = s / (n * TRIALS)
    spread = (q - s**2 / n) / TRIALS**2
    return n, rate, np.maximum(spread, 0) / (n * (n - 1))


def effective(counts: NDArray[np.int64], *, added: bool) -> tuple[Array, Array]:
    """(rate, effective number of responses); `added`: with one prompt more, as the library does."""
    n, s, q = moments(counts)
    rate, responses = s / (n * TRIALS), n * TRIALS
    with np.errstate(divide="ignore", invalid="ignore"):
        if added:
            informative = np.full(len(n), np.inf)
            for way in (0.0, 1.0):
                mean = (s + way * TRIALS) / (responses + TRIALS)
                squares = q - 2 * mean * TRIALS * s + n * (mean * TRIALS) ** 2
                squares += (TRIALS * (way - mean)) ** 2
                variance = (n + 1) / n * squares / (responses + TRIALS) ** 2
                informative = np.minimum(informative, mean * (1 - mean) / variance)
            df = n
            adjustment = (stdtrit(responses + TRIALS - 1, 1 - TAIL) / stdtrit(df, 1 - TAIL)) ** 2
        else:
            _, _, variance = plain_variance(counts)
            informative = np.where(variance > 0, rate * (1 - rate) / variance, np.inf)
            adjustment = (stdtrit(responses - 1, 1 - TAIL) / stdtrit(n - 1, 1 - TAIL)) ** 2
    size = np.minimum(responses, informative * adjustment)
    return rate, np.where((rate <= 0) | (rate >= 1), n, size)


def clopper_pearson(rate: Array, size: Array) -> tuple[Array, Array]:
    x = rate * size
    low = np.where(x > 0, betaincinv(np.maximum(x, 1e-12), size - x + 1, TAIL), 0.0)
    high = np.where(x < size, betaincinv(x + 1, np.maximum(size - x, 1e-12), 1 - TAIL), 1.0)
    return low, high


def ours(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    return clopper_pearson(*effective(counts, added=True))


def korn_graubard_1998(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    return clopper_pearson(*effective(counts, added=False))


def jeffreys(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    return _jeffreys(*effective(counts, added=False))


def jeffreys_added(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    return _jeffreys(*effective(counts, added=True))


def _jeffreys(rate: Array, size: Array) -> tuple[Array, Array]:
    x = rate * size
    low = np.where(x > 0, betaincinv(x + 0.5, size - x + 0.5, TAIL), 0.0)
    high = np.where(x < size, betaincinv(x + 0.5, size - x + 0.5, 1 - TAIL), 1.0)
    return low, high


def wilson(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    return _wilson(*effective(counts, added=False))


def wilson_added(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    return _wilson(*effective(counts, added=True))


def _wilson(rate: Array, size: Array) -> tuple[Array, Array]:
    z = 1.959963984540054
    middle = (rate + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(rate * (1 - rate) / size + z**2 / (4 * size**2))
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def cluster_t(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    n, rate, variance = plain_variance(counts)
    half = stdtrit(n - 1, 1 - TAIL) * np.sqrt(variance)
    return np.maximum(rate - half, 0), np.minimum(rate + half, 1)


def cluster_bootstrap(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    rng = np.random.default_rng(SEED)
    n = int(counts[0].sum())
    distinct, where = np.unique(counts, axis=0, return_inverse=True)
    values = np.arange(TRIALS + 1)
    means = np.empty((len(distinct), BOOTSTRAPS))
    for row, spectrum in enumerate(distinct):
        drawn = rng.multinomial(n, spectrum / n, size=BOOTSTRAPS)
        means[row] = drawn @ values / (n * TRIALS)
    low, high = np.quantile(means, [TAIL, 1 - TAIL], axis=1)
    return low[where.ravel()], high[where.ravel()]


def unclustered(counts: NDArray[np.int64]) -> tuple[Array, Array]:
    n, s, _ = moments(counts)
    rate = s / (n * TRIALS)
    half = 1.959963984540054 * np.sqrt(rate * (1 - rate) / (n * TRIALS))
    return np.maximum(rate - half, 0), np.minimum(rate + half, 1)


METHODS: dict[str, Callable[[NDArray[np.int64]], tuple[Array, Array]]] = {
    "refusalkit": ours,
    "Korn-Graubard 1998": korn_graubard_1998,
    "Jeffreys, effective size": jeffreys,
    "Jeffreys, one prompt added": jeffreys_added,
    "Wilson, effective size": wilson,
    "Wilson, one prompt added": wilson_added,
    "cluster-robust t": cluster_t,
    "cluster bootstrap": cluster_bootstrap,
    "normal, not clustered": unclustered,
}


def check_against_library(prompts: int) -> None:
    """What is simulated here is what the library computes."""
    counts = spectra(prompts, 0.2, 0.5, 50)
    lows, highs = ours(counts)
    for spectrum, low, high in zip(counts.tolist(), lows, highs, strict=True):
        successes = [s for s, times in enumerate(spectrum) for _ in range(times)]
        sizes = [TRIALS] * len(successes)
        found = korn_graubard(sum(successes) / sum(sizes), successes, sizes)
        assert np.allclose(found, (low, high), atol=1e-9), (spectrum, found, low, high)


def macro(runs: int) -> None:
    """The interval of the mean over categories, whose sizes and rates differ."""
    rng = np.random.default_rng(SEED)
    print("\nMean over categories (32 fixed categories of 1 to 9 prompts, 166 in all):")
    print("| rates of the categories | correlation | coverage | mean width |")
    print("|---|---|---|---|")
    sizes = np.array([1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5])
    sizes = np.concatenate([sizes, [6, 6, 6, 6, 6, 7, 7, 8, 8, 8, 8, 9]])
    sizes[-1] += 166 - sizes.sum()
    category = np.repeat(np.arange(len(sizes)), sizes)
    weights = (1 / (TRIALS * sizes))[category]
    truths = {
        "all 2 %": np.full(32, 0.02),
        "all 50 %": np.full(32, 0.5),
        "0 to 100 %, larger ones higher": np.linspace(0, 1, 32),
        "half 5 %, half 95 %": np.tile([0.05, 0.95], 16),
    }
    few = min(runs, 1000)
    for name, by_category in truths.items():
        truth = float(by_category.mean())
        for alike in (0.0, 0.5, 1.0):
            rates = leanings(rng, by_category[category], alike, (few, 166))
            successes = rng.binomial(TRIALS, rates)
            held, width = 0, 0.0
            for row in successes:
                value = float((row * weights).sum() / len(sizes))
                low, high = weighted_korn_graubard(value, row, [TRIALS] * 166, weights)
                held += low <= truth <= high
                width += high - low
            print(f"| {name} | {alike} | {100 * held / few:.1f} | {100 * width / few:.1f} |")


SHOWN = {
    "refusalkit": "#c2410c",
    "Wilson, effective size": "#0e7490",
    "cluster-robust t": "#7c3aed",
    "cluster bootstrap": "#4d7c0f",
}


def draw(
    coverage: dict[tuple[str, int, float, float], float], rates: list[float], to: Path
) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    grey = "#808080"  # readable on white and on black
    mpl.rcParams.update(
        {"svg.hashsalt": "refusalkit", "svg.fonttype": "none", "font.size": 9}
        | dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), grey
        )
    )
    figure, rows = plt.subplots(2, 3, figsize=(8, 4.6), sharex=True, sharey=True)
    for row, prompts in zip(rows, PROMPTS, strict=True):
        for axes, alike in zip(row, (0.0, 0.5, 1.0), strict=True):
            axes.axhspan(93, 97, color=grey, alpha=0.15, linewidth=0)
            axes.axhline(95, color=grey, linewidth=0.8, linestyle=":")
            for name, colour in SHOWN.items():
                curve = [100 * coverage[name, prompts, alike, rate] for rate in rates]
                axes.plot(
                    [100 * rate for rate in rates],
                    curve,
                    color=colour,
                    linewidth=2 if name == "refusalkit" else 1.1,
                    marker="o" if name == "refusalkit" else None,
                    markersize=2.5,
                    label=name,
                )
            axes.set_ylim(60, 101)
            axes.set_title(f"{prompts} prompts, correlation {alike:g}", color=grey, fontsize=9)
            axes.patch.set_alpha(0)
            axes.spines[["top", "right"]].set_visible(False)
    for axes in rows[-1]:
        axes.set_xlabel("true rate, percent")
    for axes in rows[:, 0]:
        axes.set_ylabel("coverage, percent")
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
