"""How often `compare` is wrong, and how often it finds a difference: a simulation.

Each prompt has a rate of its own in each model, from a beta distribution, and 5 trials are drawn
from it (beta-binomial). `within` is the correlation of a prompt's trials. `between` is the share of
prompts that the two models see alike (the same quantile of each model's rates; the other prompts
are unrelated), about the correlation of the two models' rates. All draws are seeded.

    python benchmarks/compare_power.py [--runs 2000] [--plot docs/plots/compare-power.svg]
    python benchmarks/compare_power.py --prompts 166 --only false-claims
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from refusalkit.scoring.statistics.paired import PromptPair, paired_interval

Array = NDArray[np.float64]
TRIALS = 5
PROMPTS = (5, 10, 21, 35, 64, 166)
SEED = 20250818
FLIPS = 1999
ALLOWED = 0.03  # --max-drop 3
WITHIN = (0.3, 0.6, 0.9)
BETWEEN = (0.0, 0.5, 0.9)
DROPS = (0.0, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="simulated comparisons a point")
    parser.add_argument("--plot", type=Path, help="write the power curves to this SVG file")
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS, help="false claims at")
    parser.add_argument("--only", choices=("false-claims", "power"), help="one of the two tables")
    options = parser.parse_args()
    check_against_library()
    if options.only != "power":
        false_claims(options.runs, options.prompts)
    if options.only != "false-claims":
        power(options.runs, options.plot)


def false_claims(runs: int, sizes: Sequence[int]) -> None:
    """How often each claim is made where it is false: nowhere may it be above 5 %."""
    rates, betweens = (0.03, 0.1, 0.3, 0.5, 0.9), (0.0, 0.5, 1.0)
    spreads = tuple(itertools.combinations_with_replacement((0.0, 0.1, 0.3, 0.7, 1.0), 2))
    error = 100 * 2 * np.sqrt(0.05 * 0.95 / runs)
    n = len(rates) * len(betweens) * len(spreads)
    print(f"False claims, percent; the highest of {n} cases of equal means (mean over cases).")
    print(f"{runs} comparisons a case; two standard errors of 5 % are {error:.1f}.")
    print("| prompts | p <= 0.05 | the same by flipping signs | by a paired t test |", end=" ")
    print("`--max-drop 0` fails | drop of 3: `--max-drop 3` fails | drop of 3: passes |")
    print("|---|---|---|---|---|---|---|")
    for prompts in sizes:
        found: list[list[float]] = [[] for _ in range(6)]
        for rate, (ours, theirs), between in itertools.product(rates, spreads, betweens):
            new, base = draw(prompts, rate, rate, (ours, theirs), between, runs)
            found[0].append(_left_out(bounds(new - base, 0.025)))
            found[1].append(float((flip_p(new - base) <= 0.05).mean()))
            found[2].append(_left_out(t_bounds(new - base, 0.025)))
            found[3].append(float((bounds(new - base, 0.05)[1] < -1e-12).mean()))
            if rate > ALLOWED and ours == theirs:
                new, base = draw(prompts, rate - ALLOWED, rate, (ours, theirs), between, runs)
                low, high = bounds(new - base, 0.05)
                found[4].append(float((high < -ALLOWED - 1e-12).mean()))
                found[5].append(float((low > -ALLOWED + 1e-12).mean()))
        cells = (f"{100 * max(part):.1f} ({100 * np.mean(part):.1f})" for part in found)
        print(f"| {prompts} | {' | '.join(cells)} |", flush=True)


def _left_out(ends: tuple[Array, Array]) -> float:
    """How often 0 is not between the ends."""
    return float(((ends[0] > 1e-12) | (ends[1] < -1e-12)).mean())


def power(runs: int, plot: Path | None) -> None:
    """How often a difference on 166 prompts is found, base rate 50 %, where it is hardest."""
    print("\n166 prompts x 5 trials, base rate 50 %; percent of comparisons:")
    print("| between | within | drop of 10: p <= 0.05 | drop of 10: --max-drop 3 fails |", end=" ")
    print("equal: --max-drop 3 passes | equal: --max-drop 5 passes | equal: cannot tell (3) |")
    print("|---|---|---|---|---|---|---|")
    curves: dict[tuple[float, float], list[float]] = {}
    for between, within in itertools.product(BETWEEN, WITHIN):
        curve = []
        for drop in DROPS:
            new, base = draw(166, 0.5 - drop, 0.5, (within, within), between, runs)
            low, high = bounds(new - base, 0.05)
            found = _left_out(bounds(new - base, 0.025))
            curve.append(100 * found)
            if drop == 0:
                kept = [100 * float((low > -allowed).mean()) for allowed in (0.03, 0.05)]
                unsure = 100 * float(((low <= -ALLOWED) & (high >= -ALLOWED)).mean())
            if drop == 0.1:
                fails = 100 * float((high < -ALLOWED).mean())
                cells = (100 * found, fails, *kept, unsure)
        curves[between, within] = curve
        print(f"| {between} | {within} | {' | '.join(f'{cell:.0f}' for cell in cells)} |")
    if plot:
        draw_curves(curves, plot)


def draw(
    prompts: int,
    new: float,
    base: float,
    within: tuple[float, float],
    between: float,
    runs: int,
) -> tuple[Array, Array]:
    """Rates of both models by run and prompt, as they were seen in 5 trials."""
    key = [prompts, *(round(1e4 * value) for value in (new, base, *within, between))]
    rng = np.random.default_rng([SEED, *key])
    ours = rng.random((runs, prompts))
    alike = rng.random((runs, prompts)) < between
    theirs = np.where(alike, ours, rng.random((runs, prompts)))
    return (
        rng.binomial(TRIALS, quantiles(ours, new, within[0])) / TRIALS,
        rng.binomial(TRIALS, quantiles(theirs, base, within[1])) / TRIALS,
    )


def quantiles(at: Array, mean: float, within: float) -> Array:
    if within == 0 or mean <= 0:
        return np.full_like(at, mean)
    if within == 1:
        return (at > 1 - mean).astype(float)
    grid, values = _table(round(mean, 6), within)
    return np.interp(at, grid, values)


@cache
def _table(mean: float, within: float) -> tuple[Array, Array]:
    # Denser at the ends, where rates change fastest; the mean is put right afterwards.
    grid = (1 - np.cos(np.linspace(0, np.pi, 8001))) / 2
    spread = 1 / within - 1
    return grid, betaincinv(mean * spread, (1 - mean) * spread, grid)


def categories(n: int) -> Array:
    """Which prompt is in which category, prompts x categories: five prompts each from 21 on."""
    number = np.arange(n) // 5 if n > 10 else np.zeros(n, dtype=int)
    number = np.minimum(number, max(0, n // 5 - 1))
    return np.asarray(number[:, None] == np.arange(number[-1] + 1), dtype=float)


def bounds(apart: Array, tail: float) -> tuple[Array, Array]:
    """`paired_interval` of each row, with so much in each tail."""
    n = apart.shape[1]
    inside = categories(n)
    gains, losses = np.maximum(apart, 0), np.maximum(-apart, 0)
    up, down = gains.mean(axis=1), losses.mean(axis=1)
    (up_low, up_high), (down_low, down_high) = (_rate(part, n, tail) for part in (gains, losses))
    sizes = inside.sum(axis=0)
    of_gains, of_losses = gains @ inside, losses @ inside
    together = -(of_gains * of_losses / sizes).sum(axis=1)
    spread = np.sqrt(
        ((gains**2) @ inside - of_gains**2 / sizes).sum(axis=1).clip(0)
        * ((losses**2) @ inside - of_losses**2 / sizes).sum(axis=1).clip(0)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.where(spread > 1e-12, np.minimum(0, together / spread), 0.0)

    def joined(first: Array, second: Array, at_up: Array, at_down: Array) -> Array:
        rest = (1 - at_up) * (1 - at_down)
        with np.errstate(divide="ignore", invalid="ignore"):
            cells = np.where(rest > 0, np.sqrt(np.minimum(1, at_up * at_down / rest)), 1.0)
        together = np.maximum(-1, np.minimum(seen, -cells))
        return np.sqrt(np.maximum(0, first**2 + second**2 - 2 * together * first * second))

    low = up - down - joined(up - up_low, down_high - down, up_low, down_high)
    high = up - down + joined(up_high - up, down - down_low, up_high, down_low)
    return np.maximum(low, -1), np.minimum(high, 1)


def t_bounds(apart: Array, tail: float) -> tuple[Array, Array]:
    """The paired t interval, for comparison."""
    n = apart.shape[1]
    half = stdtrit(n - 1, 1 - tail) * apart.std(axis=1, ddof=1) / np.sqrt(n)
    return apart.mean(axis=1) - half, apart.mean(axis=1) + half


def _rate(rates: Array, n: int, tail: float) -> tuple[Array, Array]:
    """`prompts_like_these` of each row: prompts of one side, each with as many trials."""
    inside = categories(n)
    sizes = inside.sum(axis=0)
    rate, responses = rates.mean(axis=1), n * TRIALS
    squares = (rates**2) @ inside - (rates @ inside) ** 2 / sizes
    parts = np.maximum(0, squares * sizes / (sizes - 1))
    between, df_of = parts.sum(axis=1), sizes - 1
    noise = (parts**2 / (df_of + 2)).sum(axis=1)
    found = np.full(len(rates), np.inf)
    best = stdtrit(responses - 1, 1 - tail)
    for way in (0.0, 1.0):
        spread = between + (rate - way) ** 2
        mean = (n * rate + way) / (n + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(noise > 0, spread**2 / noise, np.inf).clip(1, df_of.sum() + 1)
            informative = mean * (1 - mean) * (n + 1) ** 2 / spread
        found = np.fmin(found, informative * (best / stdtrit(df, 1 - tail)) ** 2)
    size = np.minimum(responses, found)
    size = np.where((rate < 1e-9) | (rate > 1 - 1e-9), n, size)
    x = rate * size
    low = np.where(x > 0, betaincinv(np.maximum(x, 1e-12), size - x + 1, tail), 0.0)
    high = np.where(x < size, betaincinv(x + 1, np.maximum(size - x, 1e-12), 1 - tail), 1.0)
    return low, high


def flip_p(apart: Array) -> Array:
    """The p of a sign-flip permutation test of each row, for comparison."""
    n = apart.shape[1]
    if n <= 10:
        flips = 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) - 1
        added = 0
    else:
        rng = np.random.default_rng([SEED, n])
        flips = 2.0 * rng.integers(0, 2, (FLIPS, n)) - 1
        added = 1
    seen = np.abs(apart.sum(axis=1)) - 1e-9
    extreme = (np.abs(flips @ apart.T) >= seen).sum(axis=0)
    return (extreme + added) / (len(flips) + added)


def check_against_library() -> None:
    """What is simulated here is what the library computes."""
    for prompts in (5, 35):
        new, base = draw(prompts, 0.3, 0.4, (0.5, 0.5), 0.5, 30)
        strata = categories(prompts).argmax(axis=1)
        for row, low, high in zip(new - base, *bounds(new - base, 0.05), strict=True):
            pairs = [
                PromptPair(max(0.0, d), max(0.0, -d), TRIALS, TRIALS, stratum)
                for d, stratum in zip(row.tolist(), strata.tolist(), strict=True)
            ]
            assert np.allclose(paired_interval(pairs, level=0.9), (low, high), atol=1e-7)


def draw_curves(curves: dict[tuple[float, float], list[float]], to: Path) -> None:
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
    colours = ("#c2410c", "#0e7490", "#7c3aed")
    figure, panels = plt.subplots(1, 3, figsize=(8, 3), sharey=True)
    for axes, between in zip(panels, BETWEEN, strict=True):
        axes.axhline(5, color=grey, linewidth=0.8, linestyle=":")
        axes.axvline(10, color=grey, linewidth=0.8, linestyle=":")
        for within, colour in zip(WITHIN, colours, strict=True):
            axes.plot(
                [100 * drop for drop in DROPS],
                curves[between, within],
                color=colour,
                marker="o",
                markersize=2.5,
                label=f"within {within}",
            )
        axes.set_title(f"between {between}", color=grey, fontsize=9)
        axes.set_xlabel("true difference, points")
        axes.set_ylim(0, 101)
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("found (p <= 0.05), percent")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
