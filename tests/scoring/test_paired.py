"""Two runs prompt by prompt: tests that are exact where they say so, intervals that hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control, norm

from refusalkit.scoring.statistics.intervals import PromptRate
from refusalkit.scoring.statistics.paired import (
    MIN_P,
    PromptPair,
    again_interval,
    holm,
    interval_p,
    letters,
    paired_interval,
    smallest_p,
    unpaired_interval,
)

# Machines that run tests are busy.
UNHURRIED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
FIFTHS = st.integers(-5, 5).map(lambda n: n / 5)
DIFFERENCES = st.lists(FIFTHS, min_size=1, max_size=60)


def pairs_of(apart: Sequence[float], trials: float = 5) -> list[PromptPair]:
    """Prompts of one category that differ so much between two runs."""
    return [PromptPair(max(0.0, d), max(0.0, -d), trials, trials) for d in apart]


def paired(
    apart: Sequence[float], trials: float = 5, *, level: float = 0.95
) -> tuple[float, float]:
    """The interval of such differences."""
    return paired_interval(pairs_of(apart, trials), level=level)


def unpaired(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95
) -> tuple[float, float]:
    """The interval of two runs on other prompts."""
    sides = [[PromptRate(rate, 5) for rate in side] for side in (first, second)]
    return unpaired_interval(*sides, level=level)


def p_of(apart: Sequence[float], trials: float = 5) -> float:
    """The p of paired differences."""
    return interval_p(lambda level: paired(apart, trials, level=level))


def unpaired_p(first: list[float], second: list[float]) -> float:
    """The p of two runs on other prompts."""
    return interval_p(lambda level: unpaired(first, second, level=level))


def normal_quantile(level: float) -> float:
    """The reach of a two-sided normal interval, in standard errors."""
    return float(norm.ppf((1 + level) / 2))


def within_chance(found: float, of: int, at: float = 0.05) -> bool:
    """Not above `at` by more than four standard errors of a share of so many."""
    return found <= at + 4 * math.sqrt(at * (1 - at) / of)


class TestIntervalP:
    @UNHURRIED
    @given(DIFFERENCES, st.integers(1, 10))
    def test_is_at_most_5_percent_exactly_where_the_interval_leaves_out_0(
        self, apart: list[float], trials: int
    ) -> None:
        p = interval_p(lambda level: paired(apart, trials, level=level))
        low, high = paired(apart, trials)
        if abs(p - 0.05) > 1e-6:
            assert (p < 0.05) == (low > 0 or high < 0)

    @UNHURRIED
    @given(DIFFERENCES)
    def test_does_not_care_who_is_first(self, apart: list[float]) -> None:
        assert p_of(apart) == pytest.approx(p_of([-d for d in apart]), abs=1e-6)

    def test_the_normal_interval_gives_the_normal_p(self) -> None:
        for z in (0.5, 1.96, 4.0):
            p = interval_p(lambda level, z=z: (z - normal_quantile(level), 99.0))
            assert p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-4)

    @pytest.mark.parametrize("prompts", [1, 5, 14])
    def test_p_cannot_be_smaller_than_that_many_prompts_allow(self, prompts: int) -> None:
        assert p_of([1.0] * prompts) == pytest.approx(smallest_p(prompts))
        assert smallest_p(prompts) == pytest.approx(2.0 ** (1 - prompts))  # the sign test's

    def test_without_a_difference_there_is_none(self) -> None:
        assert p_of([0.0] * 166) == 1.0
        assert p_of([1.0, -1.0] * 40) > 0.9
        assert p_of([1.0] * 3000) == MIN_P

    def test_equal_means_of_unlike_spread_differ_in_no_more_than_5_percent(self) -> None:
        """One model refuses 3 % of trials of every prompt, the other 3 % of prompts throughout.

        A test by flipping signs called 14 % of these comparisons different.
        """
        rng = np.random.default_rng(17)
        runs, prompts = 300, 35
        wavering = rng.binomial(5, 0.03, (runs, prompts)) / 5
        settled = (rng.random((runs, prompts)) < 0.03).astype(float)
        found = [p_of(row) <= 0.05 for row in wavering - settled]
        assert within_chance(float(np.mean(found)), runs)


class TestPairedInterval:
    @UNHURRIED
    @given(DIFFERENCES, st.integers(1, 10))
    def test_is_round_the_mean_and_mirrors(self, apart: list[float], trials: int) -> None:
        low, high = paired(apart, trials)
        mean = sum(apart) / len(apart)
        assert -1 <= low <= mean + 1e-9
        assert mean - 1e-9 <= high <= 1
        mirrored = paired([-d for d in apart], trials)
        assert mirrored == pytest.approx((-high, -low), abs=1e-9)

    @pytest.mark.parametrize("prompts", [5, 35, 166])
    def test_no_difference_anywhere_leaves_what_that_many_prompts_leave(self, prompts: int) -> None:
        low, high = paired([0.0] * prompts, 5)
        exact = binomtest(0, prompts).proportion_ci(0.95, "exact").high
        assert (low, high) == pytest.approx((-exact, exact), abs=1e-6)

    def test_a_higher_level_is_wider(self) -> None:
        apart = [0.2, -0.4, 0.0, 0.6, 1.0]
        inner, outer = paired(apart, 5, level=0.8), paired(apart, 5, level=0.99)
        assert outer[0] < inner[0] < inner[1] < outer[1]

    @pytest.mark.parametrize(
        ("base", "drop", "alike"), [(0.5, 0.0, 0.3), (0.5, 0.1, 0.9), (1.0, 0.03, 1.0)]
    )
    def test_each_end_is_wrong_in_no_more_than_5_percent(
        self, base: float, drop: float, alike: float
    ) -> None:
        rng = np.random.default_rng(5)
        runs, prompts = 300, 35

        def leaning(rate: float) -> np.ndarray:
            if alike == 1 or rate == 1:
                return (rng.random((runs, prompts)) < rate).astype(float)
            spread = 1 / alike - 1
            return rng.beta(rate * spread, (1 - rate) * spread, (runs, prompts))

        new, old = rng.binomial(5, leaning(base - drop)), rng.binomial(5, leaning(base))
        ends = np.array([paired(row, 5, level=0.9) for row in (new - old) / 5])
        assert within_chance(float((ends[:, 0] > -drop + 1e-9).mean()), runs)
        assert within_chance(float((ends[:, 1] < -drop - 1e-9).mean()), runs)


class TestTargets:
    def test_differences_between_categories_do_not_widen_the_interval(self) -> None:
        """Every prompt of one category gains, none of the other does: nothing else can happen."""
        apart = [0.6, 0.6, 0.6, 0.8] * 8 + [0.0] * 32
        pairs = pairs_of(apart)
        strata = [pair._replace(stratum=n < 32) for n, pair in enumerate(pairs)]
        wide, narrow = (paired_interval(part) for part in (pairs, strata))
        assert narrow[1] - narrow[0] < 0.7 * (wide[1] - wide[0])

    def test_the_same_prompts_asked_again_leave_less_open(self) -> None:
        rng = np.random.default_rng(4)
        first, second = (rng.choice([0.0, 1.0], 60) for _ in range(2))
        pairs = [PromptPair(a, b, 5, 5) for a, b in zip(first, second, strict=True)]
        like, again = paired_interval(pairs), again_interval(pairs)
        assert again[1] - again[0] < 0.5 * (like[1] - like[0])

    def test_a_regression_on_these_prompts_is_found_where_the_models_may_be_equal(self) -> None:
        """Ten of forty prompts turned from always to never: these did, others might not."""
        pairs = [PromptPair(0.0 if n < 10 else 1.0, 1.0, 5, 5) for n in range(40)]
        low, high = again_interval(pairs)
        assert high < -0.15
        assert low > -0.36

    @pytest.mark.parametrize("within", [0.0, 0.5])
    def test_the_interval_for_these_prompts_holds(self, within: float) -> None:
        rng = np.random.default_rng(6)
        runs, prompts, held = 200, 40, 0
        ours, theirs = (
            rng.beta(0.5, 0.5, prompts) if within else np.full(prompts, rate) for rate in (0.4, 0.5)
        )
        truth = float((ours - theirs).mean())
        for _ in range(runs):
            first, second = (rng.binomial(5, rates) / 5 for rates in (ours, theirs))
            low, high = again_interval(
                [PromptPair(a, b, 5, 5) for a, b in zip(first, second, strict=True)]
            )
            held += low <= truth <= high
        assert held / runs >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / runs)

    def test_hard_lines_are_a_side_of_their_own(self) -> None:
        plain = [PromptPair(0.4, 0.2, 5, 5, "a", side=False) for _ in range(30)]
        hard = [PromptPair(1.0, 1.0, 5, 5, "h", side=True) for _ in range(10)]
        low, high = paired_interval(plain + hard)
        assert low <= 0.15 <= high


class TestUnpaired:
    def test_equal_runs_differ_in_no_more_than_5_percent(self) -> None:
        rng = np.random.default_rng(2)
        runs = 60
        sides = rng.binomial(5, 0.3, (runs, 24)) / 5
        found = [unpaired_p(r[:9].tolist(), r[9:].tolist()) <= 0.05 for r in sides]
        assert within_chance(np.mean(found), runs)

    def test_what_lies_apart_is_found_and_what_does_not_is_not(self) -> None:
        assert unpaired_p([0.0] * 10, [1.0] * 10) < 0.001
        assert unpaired_p([0.2, 0.8] * 5, [0.8, 0.2] * 5) == 1.0
        assert unpaired_p([0.5], [0.1, 0.2]) == 1.0

    def test_interval_is_wider_than_that_of_the_same_rates_paired(self) -> None:
        first, second = [0.0, 0.4, 0.8, 1.0] * 5, [0.2, 0.4, 1.0, 1.0] * 5
        apart = [a - b for a, b in zip(first, second, strict=True)]
        one, two = paired(apart, 5), unpaired(first, second)
        assert two[1] - two[0] > one[1] - one[0]
        assert two[0] < -0.1 < two[1]


class TestManyAtOnce:
    def test_holms_correction(self) -> None:
        assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
        assert holm([]) == []

    @UNHURRIED
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    def test_holm_lies_between_no_correction_and_bonferronis(self, values: list[float]) -> None:
        for raw, corrected in zip(values, holm(values), strict=True):
            assert corrected is not None
            assert raw <= corrected <= min(1.0, raw * len(values)) + 1e-12
        # A test of the family at once, no stricter than false discovery control.
        assert min(holm(values)) >= min(false_discovery_control(values)) - 1e-12

    @UNHURRIED
    @given(st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.sets(
        st.sampled_from(list(itertools.combinations(range(n), 2)))))))  # fmt: skip
    def test_letters_are_shared_exactly_by_what_was_not_shown_to_differ(
        self, case: tuple[int, set[tuple[int, int]]]
    ) -> None:
        n, differ = case
        marks = letters([float(n - i) for i in range(n)], sorted(differ))
        for a, b in itertools.combinations(range(n), 2):
            assert bool(set(marks[a]) & set(marks[b])) == ((a, b) not in differ)
        assert "a" in marks[0]
