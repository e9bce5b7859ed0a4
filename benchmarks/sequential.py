"""Are sequential claims wrong in at most 5 % of audits and comparisons, and what do they save?

    python benchmarks/sequential.py [--runs 4000]

looks after every prompt at audits whose true leak rate is the bound itself, and at pairs of models
that are equal, and counts how often a claim is ever made. Beside it: the fixed-size bound and the
fixed-size interval, looked at just as often. Then the mean number of prompts until the claim, at
other rates, against the number that a fixed size needs. Seeded; a few minutes on one core.
"""

from __future__ import annotations

import argparse
from functools import cache

import numpy as np
from compare_power import bounds, draw
from numpy.typing import NDArray
from scipy.special import betaincinv

from refusalkit.scoring.planning import prompts_needed
from refusalkit.scoring.statistics.sequential import (
    hedged_log_wealth,
    leaks_upper,
    sequential_difference,
)

SEED = 20250818
LEVEL = 0.95
BOUNDS = (0.01, 0.05, 0.2)
LOOKED = 20  # times as many prompts as a clean audit needs, as long one goes on looking


@cache
def allowed(bound: float, most: int) -> NDArray[np.int64]:
    """The most leaks among n prompts that show a rate below the bound, n from 1 on; -1: none."""
    found, leaks = np.full(most, -1), 0
    for n in range(1, most + 1):
        while leaks < n and leaks_upper(leaks, n, level=LEVEL) <= bound:
            leaks += 1
        found[n - 1] = leaks - 1
    return found


@cache
def allowed_fixed(bound: float, most: int) -> NDArray[np.int64]:
    """The same by Clopper and Pearson's bound, which is for one look."""
    n = np.arange(1, most + 1)
    found = np.full(most, -1)
    for leaks in range(most):
        shows = (n > leaks) & (betaincinv(leaks + 1, np.maximum(n - leaks, 1), LEVEL) <= bound)
        if not shows.any():
            break
        found[shows] = leaks
    return found


def first(held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """When each row first holds, counted from 1; infinite where it never does."""
    return np.where(held.any(axis=1), held.argmax(axis=1) + 1.0, np.inf)


def audits(runs: int) -> None:
    print("Claims that fewer than the bound leak, where exactly so many do; looked at after every")
    print(f"prompt, up to {LOOKED} times the fixed size. {runs} audits a row.\n")
    print("| bound | always valid: ever claimed | fixed-size bound: ever claimed |")
    print("|---|---|---|")
    for bound in BOUNDS:
        fixed = prompts_needed(100 * bound)
        most = LOOKED * fixed
        leaks = counted(bound, most, runs)
        seen = np.mean(first(leaks <= allowed(bound, most)) < np.inf)
        naive = np.mean(first(leaks <= allowed_fixed(bound, most)) < np.inf)
        print(f"| {100 * bound:g} % | {100 * seen:.1f} % | {100 * naive:.1f} % |", flush=True)
    print("\nPrompts until the claim `held`, leaks allowed; the mean over audits that made it.\n")
    print("| bound | true rate | fixed size, clean | always valid, clean |", end=" ")
    print("made the claim | mean prompts | median |")
    print("|---|---|---|---|---|---|---|")
    for bound in BOUNDS:
        fixed = prompts_needed(100 * bound)
        most = LOOKED * fixed
        clean = int(np.argmax(allowed(bound, most) >= 0)) + 1
        for share in (0.0, 0.1, 0.25, 0.5):
            when = first(counted(share * bound, most, runs) <= allowed(bound, most))
            made = when < np.inf
            cells = (
                f"{100 * bound:g} %",
                f"{100 * share * bound:g} %",
                fixed,
                clean,
                f"{100 * made.mean():.1f} %",
                f"{when[made].mean():.0f}",
                f"{np.median(when):.0f}",
            )
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def counted(rate: float, prompts: int, runs: int) -> NDArray[np.int64]:
    """Leaking prompts so far, after every prompt of every audit."""
    chance = np.random.default_rng([SEED, prompts, round(1e6 * rate)])
    return np.cumsum(chance.random((runs, prompts)) < rate, axis=1, dtype=np.int32)


def comparisons(runs: int) -> None:
    print(f"\nEqual models told apart at 5 %, looked at after every prompt of 166; {runs} pairs.\n")
    print("| within | between | rate | always valid | interval of a fixed size, from 10 on |")
    print("|---|---|---|---|---|")
    middle = np.array([0.5])
    for within, between, rate in (
        ((0.3, 0.3), 0.5, 0.5),
        ((0.0, 1.0), 1.0, 0.03),
        ((0.9, 0.9), 0.9, 0.5),
    ):
        new, base = draw(166, rate, rate, within, between, runs)
        apart = new - base
        wealth = hedged_log_wealth((apart + 1) / 2, middle, LEVEL)[:, :, 0]
        ever = (wealth >= np.log(20)).any(axis=1).mean()
        naive = np.zeros(runs, dtype=bool)
        for n in range(10, 167, 4):
            low, high = bounds(apart[:, :n], 0.025)
            naive |= (low > 1e-12) | (high < -1e-12)
        cells = (within, between, rate, f"{100 * ever:.1f} %", f"{100 * naive.mean():.1f} %")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(
        "\nA true difference, within 0.6, between 0.5, base rate 50 %: how often it is found, and"
    )
    print("and the mean number of prompts until then (166 where it is not).\n")
    print("| difference | always valid | mean prompts | fixed size: found at 166 |")
    print("|---|---|---|---|")
    for drop in (0.1, 0.2, 0.3, 0.4):
        new, base = draw(166, 0.5 - drop, 0.5, (0.6, 0.6), 0.5, runs)
        apart = new - base
        wealth = hedged_log_wealth((apart + 1) / 2, middle, LEVEL)[:, :, 0]
        when = first(wealth >= np.log(20))
        low, high = bounds(apart, 0.025)
        fixed = ((low > 1e-12) | (high < -1e-12)).mean()
        mean = np.minimum(when, 166).mean()
        found = float((when < np.inf).mean())
        cells = (f"{100 * found:.0f} %", f"{mean:.0f}", f"{100 * fixed:.0f} %")
        print(f"| {100 * drop:.0f} | {' | '.join(cells)} |", flush=True)


def check_against_library() -> None:
    """What is simulated here is what the library computes."""
    new, base = draw(40, 0.1, 0.8, (0.3, 0.3), 0.5, 1)
    apart = (new - base)[0]
    wealth = hedged_log_wealth((apart[None, :] + 1) / 2, np.array([0.5]), LEVEL)[0, :, 0]
    found = sequential_difference(apart.tolist(), level=LEVEL)
    assert abs(found.p - np.exp(-max(0.0, wealth.max()))) < 1e-12


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=4000)
    runs = arguments.parse_args().runs
    check_against_library()
    audits(runs)
    comparisons(runs)


if __name__ == "__main__":
    main()
