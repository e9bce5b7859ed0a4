"""Two runs prompt by prompt: tests that are exact where they say so, intervals that hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control

from refusalkit.scoring.statistics.intervals import korn_graubard, weighted_korn_graubard
from refusalkit.scoring.statistics.paired import (
    holm,
    letters,
    paired_interval,
    shuffle_p,
    sign_flip_p,
    smallest_p,
    unpaired_interval,
)

# Machines that run tests are busy.
UNHURRIED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
FIFTHS = st.integers(-5, 5).map(lambda n: n / 5)
DIFFERENCES = st.lists(FIFTHS, min_size=1, max_size=60)


def within_chance(found: float, of: int, at: float = 0.05) -> bool:
    """Not above `at` by more than four standard errors of a share of so many."""
    return found <= at + 4 * math.sqrt(at * (1 - at) / of)


class TestSignFlips:
    @UNHURRIED
    @given(st.lists(FIFTHS, min_size=1, max_size=9))
    def test_is_the_share_of_all_flips_that_are_as_extreme(self, apart: list[float]) -> None:
        sums = [
            abs(sum(s * d for s, d in zip(signs, apart, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(apart))
        ]
        extreme = sum(value >= abs(sum(apart)) - 1e-9 for value in sums) / len(sums)
        assert sign_flip_p(apart) == pytest.approx(extreme)

    @UNHURRIED
    @given(DIFFERENCES)
    def test_does_not_care_who_is_first(self, apart: list[float]) -> None:
        mirrored = sign_flip_p([-d for d in apart])
        assert sign_flip_p(apart) == pytest.approx(mirrored, abs=0.02)

    @pytest.mark.parametrize("prompts", [1, 5, 14])
    def test_cannot_be_smaller_than_so_many_prompts_allow(self, prompts: int) -> None:
        assert sign_flip_p([1.0] * prompts) == smallest_p(prompts) == 2.0 ** (1 - prompts)

    def test_without_a_difference_there_is_none(self) -> None:
        assert sign_flip_p([0.0] * 166) == 1.0
        assert sign_flip_p([1.0, -1.0] * 40) > 0.9

    @pytest.mark.parametrize(("up", "down"), [(12, 8), (30, 14), (60, 30)])
    def test_with_one_response_each_it_is_mcnemars_exact_test(self, up: int, down: int) -> None:
        exact = binomtest(up, up + down, 0.5).pvalue
        assert sign_flip_p([1.0] * up + [-1.0] * down) == pytest.approx(exact, abs=0.015)

    def test_many_prompts_have_the_same_p_by_the_normal_limit(self) -> None:
        rng = np.random.default_rng(3)
        apart = rng.normal(0.02, 0.5, 5001)
        assert sign_flip_p(apart) == pytest.approx(sign_flip_p(apart[:4999]), abs=0.02)

    def test_the_same_data_always_say_the_same(self) -> None:
        apart = np.random.default_rng(1).normal(0.1, 0.5, 80)
        assert sign_flip_p(apart) == sign_flip_p(apart)

    @pytest.mark.parametrize("alike", [0.0, 0.6])
    def test_two_equal_models_differ_in_no_more_than_5_percent(self, alike: float) -> None:
        rng = np.random.default_rng(11)
        runs, prompts = 400, 12
        leaning = rng.beta(1, 1, (runs, prompts)) if alike else np.full((runs, prompts), 0.4)
        apart = (rng.binomial(5, leaning) - rng.binomial(5, leaning)) / 5
        assert within_chance(np.mean([sign_flip_p(row) <= 0.05 for row in apart]), runs)


class TestPairedInterval:
    @UNHURRIED
    @given(DIFFERENCES, st.integers(1, 10))
    def test_is_round_the_mean_and_mirrors(self, apart: list[float], trials: int) -> None:
        low, high = paired_interval(apart, trials)
        mean = sum(apart) / len(apart)
        assert -1 <= low <= mean + 1e-9
        assert mean - 1e-9 <= high <= 1
        mirrored = paired_interval([-d for d in apart], trials)
        assert mirrored == pytest.approx((-high, -low), abs=1e-9)

    @pytest.mark.parametrize("prompts", [5, 35, 166])
    def test_no_difference_anywhere_leaves_what_that_many_prompts_leave(self, prompts: int) -> None:
        low, high = paired_interval([0.0] * prompts, 5)
        exact = binomtest(0, prompts).proportion_ci(0.95, "exact").high
        assert (low, high) == pytest.approx((-exact, exact), abs=1e-6)

    def test_a_higher_level_is_wider(self) -> None:
        apart = [0.2, -0.4, 0.0, 0.6, 1.0]
        inner, outer = paired_interval(apart, 5, level=0.8), paired_interval(apart, 5, level=0.99)
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
        ends = np.array([paired_interval(row, 5, level=0.9) for row in (new - old) / 5])
        assert within_chance(float((ends[:, 0] > -drop + 1e-9).mean()), runs)
        assert within_chance(float((ends[:, 1] < -drop - 1e-9).mean()), runs)


class TestUnpaired:
    def test_equal_runs_differ_in_no_more_than_5_percent(self) -> None:
        rng = np.random.default_rng(2)
        runs = 60
        sides = rng.binomial(5, 0.3, (runs, 24)) / 5
        assert within_chance(np.mean([shuffle_p(r[:9], r[9:]) <= 0.05 for r in sides]), runs)

    def test_what_lies_apart_is_found_and_what_does_not_is_not(self) -> None:
        assert shuffle_p([0.0] * 10, [1.0] * 10) < 0.001
        assert shuffle_p([0.2, 0.8] * 5, [0.8, 0.2] * 5) == 1.0
        assert shuffle_p([0.5], [0.1, 0.2]) == 1.0

    def test_interval_is_wider_than_that_of_the_same_rates_paired(self) -> None:
        first, second = [0.0, 0.4, 0.8, 1.0] * 5, [0.2, 0.4, 1.0, 1.0] * 5
        apart = [a - b for a, b in zip(first, second, strict=True)]
        paired, unpaired = paired_interval(apart, 5), unpaired_interval(first, second, 5)
        assert unpaired[1] - unpaired[0] > paired[1] - paired[0]
        assert unpaired[0] < -0.1 < unpaired[1]


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


class TestWeighted:
    @UNHURRIED
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
    def test_equal_weights_are_no_weights(self, successes: list[int]) -> None:
        counts = [5] * len(successes)
        rate = sum(successes) / sum(counts)
        weighted = weighted_korn_graubard(rate, successes, counts, [0.3] * len(counts))
        assert weighted == pytest.approx(korn_graubard(rate, successes, counts), abs=1e-9)

    def test_one_heavy_prompt_is_worth_little_more_than_itself(self) -> None:
        weights = [1.0] + [0.001] * 30
        low, high = weighted_korn_graubard(1.0, [5] * 31, [5] * 31, weights)
        assert (low < 0.05, high) == (True, 1.0)

    def test_needs_a_prompt(self) -> None:
        with pytest.raises(ValueError, match="at least one prompt"):
            weighted_korn_graubard(0.5, [], [], [])
