"""Claims that may be looked at after every prompt: wrong in at most 5 % of experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refusalkit.scoring.statistics.proportions import exact_upper
from refusalkit.scoring.statistics.sequential import (
    leaks_lower,
    leaks_upper,
    sequential_difference,
)

UNHURRIED = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


class TestLeaks:
    @UNHURRIED
    @given(COUNTS)
    def test_the_rate_seen_lies_between_the_bounds(self, counts: tuple[int, int]) -> None:
        leaks, prompts = counts
        assert leaks_lower(leaks, prompts) <= leaks / prompts <= leaks_upper(leaks, prompts)

    @UNHURRIED
    @given(COUNTS)
    def test_looking_often_costs_something_and_a_leak_costs_more(
        self, counts: tuple[int, int]
    ) -> None:
        leaks, prompts = counts
        upper = leaks_upper(leaks, prompts)
        assert upper >= exact_upper(leaks, prompts) - 1e-9
        assert upper <= leaks_upper(min(leaks + 1, prompts), prompts) + 1e-9

    @pytest.mark.parametrize(("bound", "fixed", "always"), [(0.05, 59, 60), (0.01, 299, 306)])
    def test_clean_prompts_cost_hardly_more_than_at_a_fixed_size(
        self, bound: float, fixed: int, always: int
    ) -> None:
        assert exact_upper(0, fixed) <= bound < exact_upper(0, fixed - 1)
        assert leaks_upper(0, always) < bound < leaks_upper(0, always - 1)

    def test_the_bet_against_a_rate_wins_nothing_on_average_where_it_is_the_rate(self) -> None:
        """The expected wealth after one more prompt is the wealth now: a fair game."""
        rate = 0.1
        for leaks, prompts in ((0, 5), (1, 20), (3, 30)):
            now, held, leaked = (
                _wealth(leaks + more, prompts + one, rate) for more, one in ((0, 0), (0, 1), (1, 1))
            )
            assert (1 - rate) * held + rate * leaked == pytest.approx(now, rel=1e-9)

    @pytest.mark.slow
    def test_a_false_claim_is_ever_made_in_no_more_than_5_percent(self) -> None:
        """Looked at after each of 600 prompts; Clopper and Pearson's bound is wrong in 22 %."""
        rate, runs, prompts = 0.05, 600, 600
        most = [
            max((k for k in range(60) if k < n and leaks_upper(k, n) <= rate), default=-1)
            for n in range(55, prompts + 1, 5)
        ]
        leaks = np.cumsum(np.random.default_rng(4).random((runs, prompts)) < rate, axis=1)
        ever = (leaks[:, 54::5] <= np.array(most)).any(axis=1).mean()
        assert ever <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)

    def test_nothing_is_claimed_where_all_leak_or_nothing_was_asked(self) -> None:
        assert leaks_upper(0, 0) == leaks_upper(4, 4) == 1.0
        assert leaks_lower(0, 9) == 0.0


def _wealth(leaks: int, prompts: int, rate: float) -> float:
    from refusalkit.scoring.statistics import sequential

    return math.exp(sequential._against_above(leaks, prompts, rate))


class TestDifference:
    @UNHURRIED
    @given(st.lists(st.integers(-5, 5).map(lambda n: n / 5), min_size=1, max_size=60))
    def test_mirrors_and_holds_the_mean(self, apart: list[float]) -> None:
        found = sequential_difference(apart)
        assert -1 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= 1
        mirrored = sequential_difference([-d for d in apart])
        assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
        assert mirrored.p == pytest.approx(found.p)

    def test_p_never_rises_as_prompts_come_in(self) -> None:
        apart = np.random.default_rng(2).choice([-1.0, 0.0, 0.4, 1.0], 60).tolist()
        ps = [sequential_difference(apart[:n]).p for n in range(1, 61)]
        assert ps == sorted(ps, reverse=True)

    def test_a_clear_difference_is_found_early_and_none_is_not(self) -> None:
        clear = sequential_difference([0.8, 0.6, 1.0, 0.6] * 15)
        assert clear.p < 0.001
        assert clear.decided_at is not None
        assert clear.decided_at < 30
        assert clear.low > 0
        none = sequential_difference([0.2, -0.2] * 60)
        assert (round(none.p, 9), none.decided_at) == (1.0, None)
        assert none.low < 0 < none.high

    def test_equal_models_are_ever_told_apart_in_no_more_than_5_percent(self) -> None:
        rng = np.random.default_rng(8)
        runs, prompts = 200, 100
        leaning = rng.beta(0.6, 0.6, (runs, prompts))
        apart = (rng.binomial(5, leaning) - rng.binomial(5, leaning)) / 5
        found = [sequential_difference(row.tolist(), steps=3).p <= 0.05 for row in apart]
        assert np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
