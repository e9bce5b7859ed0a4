"""Intervals: exact where exactness is claimed, and wide enough where trials resemble each other."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from refusalkit.scoring.statistics.proportions import (
    clopper_pearson,
    clustered_kappa,
    difference,
    effective_size,
    exact_lower,
    exact_upper,
    korn_graubard,
)
from refusalkit.scoring.statistics.quantiles import beta_quantile, student_quantile

# Machines that run tests are busy.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Clusters = list[tuple[int, int]]

# Prompts as (successes, responses).
CLUSTERS: st.SearchStrategy[Clusters] = st.lists(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    min_size=1,
    max_size=40,
)


def pooled(clusters: Clusters) -> float:
    return sum(s for s, _ in clusters) / sum(n for _, n in clusters)


def interval(clusters: Clusters, rate: float | None = None) -> tuple[float, float]:
    successes, counts = zip(*clusters, strict=True)
    return korn_graubard(pooled(clusters) if rate is None else rate, successes, counts)


class TestExactUpper:
    @pytest.mark.parametrize(
        ("events", "trials", "percent"),
        [(0, 21, 13.3), (0, 299, 0.9969), (0, 6, 39.3), (1, 21, 20.7), (0, 1, 95.0)],
    )
    def test_published_bounds(self, events: int, trials: int, percent: float) -> None:
        assert 100 * exact_upper(events, trials) == pytest.approx(percent, rel=0.005)

    def test_299_clean_prompts_are_needed_to_claim_below_1_percent(self) -> None:
        assert exact_upper(0, 299) < 0.01 < exact_upper(0, 298)

    @UNHURRIED
    @given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_is_clopper_and_pearsons(self, counts: tuple[int, int]) -> None:
        events, trials = counts
        expected = beta.ppf(0.95, events + 1, trials - events) if events < trials else 1.0
        test = binomtest(events, trials, alternative="less")
        assert exact_upper(events, trials) == pytest.approx(expected, rel=1e-9)
        assert exact_upper(events, trials) == pytest.approx(
            test.proportion_ci(0.95, "exact").high, rel=1e-6
        )

    def test_nothing_tried_shows_nothing(self) -> None:
        assert exact_upper(0, 0) == 1.0

    def test_more_clean_prompts_lower_it_and_more_events_raise_it(self) -> None:
        assert all(a > b for a, b in pairwise(exact_upper(0, n) for n in range(1, 400)))
        assert all(a < b for a, b in pairwise(exact_upper(k, 40) for k in range(41)))


class TestKornGraubard:
    @UNHURRIED
    @given(st.lists(st.booleans(), min_size=1, max_size=200))
    def test_is_clopper_and_pearsons_where_each_prompt_has_one_response(
        self, answers: list[bool]
    ) -> None:
        exact = binomtest(sum(answers), len(answers)).proportion_ci(0.95, "exact")
        assert interval([(int(a), 1) for a in answers]) == pytest.approx(
            (exact.low, exact.high), abs=1e-6
        )

    @UNHURRIED
    @given(CLUSTERS)
    def test_contains_the_estimate_and_stays_between_0_and_1(self, clusters: Clusters) -> None:
        low, high = interval(clusters)
        assert 0 <= low <= pooled(clusters) <= high <= 1
        assert high - low > 0

    @UNHURRIED
    @given(CLUSTERS, st.floats(1e-9, 1 - 1e-9))
    def test_is_finite_round_any_estimate(self, clusters: Clusters, rate: float) -> None:
        # An estimate need not be the pooled rate: willingness is a mean over trials.
        low, high = interval(clusters, rate)
        assert math.isfinite(low)
        assert math.isfinite(high)
        assert 0 <= low <= rate + 1e-9
        assert rate - 1e-9 <= high <= 1

    @UNHURRIED
    @given(st.integers(1, 300), st.integers(1, 20))
    def test_at_0_and_1_it_counts_prompts(self, prompts: int, trials: int) -> None:
        exact = binomtest(0, prompts).proportion_ci(0.95, "exact")
        none = interval([(0, trials)] * prompts)
        every = interval([(trials, trials)] * prompts)
        assert none == pytest.approx((0, exact.high), abs=1e-6)
        assert every == pytest.approx((1 - exact.high, 1), abs=1e-6)

    @UNHURRIED
    @given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(2, 20))
    def test_trials_that_all_agree_add_nothing(self, answers: list[bool], trials: int) -> None:
        once = interval([(int(a), 1) for a in answers])
        often = interval([(trials * a, trials) for a in answers])
        assert often[0] <= once[0] + 1e-9
        assert often[1] >= once[1] - 1e-9

    def test_trials_that_vary_within_a_prompt_add_something(self) -> None:
        once = interval([(1, 1), (0, 1)] * 20)
        often = interval([(3, 5), (2, 5)] * 20)
        assert often[1] - often[0] < 0.6 * (once[1] - once[0])

    def test_a_first_refusal_does_not_narrow_what_is_left_open(self) -> None:
        for prompts in (5, 35, 166):
            none = interval([(0, 5)] * prompts)
            one = interval([(1, 5)] + [(0, 5)] * (prompts - 1))
            assert one[1] > 0.98 * none[1]

    @UNHURRIED
    @given(CLUSTERS)
    def test_success_and_failure_are_mirror_images(self, clusters: Clusters) -> None:
        low, high = interval(clusters)
        mirrored = interval([(n - s, n) for s, n in clusters])
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-7)

    @UNHURRIED
    @given(CLUSTERS, st.randoms(use_true_random=False))
    def test_the_order_of_prompts_does_not_matter(
        self, clusters: Clusters, order: random.Random
    ) -> None:
        shuffled = clusters.copy()
        order.shuffle(shuffled)
        assert interval(shuffled) == pytest.approx(interval(clusters), abs=1e-9)

    @UNHURRIED
    @given(CLUSTERS)
    def test_prompts_alike_may_be_counted_instead_of_listed(self, clusters: Clusters) -> None:
        alike = Counter(clusters)
        successes, counts = zip(*alike, strict=True)
        counted = korn_graubard(pooled(clusters), successes, counts, times=list(alike.values()))
        assert counted == interval(clusters)

    def test_a_higher_level_is_wider(self) -> None:
        narrow = korn_graubard(0.4, [1, 2, 3], [5, 5, 5], level=0.8)
        wide = korn_graubard(0.4, [1, 2, 3], [5, 5, 5], level=0.99)
        assert wide[0] < narrow[0] < narrow[1] < wide[1]

    def test_needs_a_prompt(self) -> None:
        with pytest.raises(ValueError, match="at least one prompt"):
            korn_graubard(0.5, [], [])


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "call",
    [
        lambda: korn_graubard(NAN, [1], [2]),
        lambda: korn_graubard(1.1, [1], [2]),
        lambda: korn_graubard(-0.1, [1], [2]),
        lambda: korn_graubard(0.5, [NAN], [2]),
        lambda: korn_graubard(0.5, [-1], [2]),
        lambda: korn_graubard(0.5, [3], [2]),
        lambda: korn_graubard(0.5, [1], [INF]),
        lambda: korn_graubard(0.5, [1], [NAN]),
        lambda: korn_graubard(0.5, [0], [0]),
        lambda: korn_graubard(0.5, [1, 1], [2]),
        lambda: korn_graubard(0.5, [1], [2], times=[0]),
        lambda: korn_graubard(0.5, [1], [2], level=1),
        lambda: korn_graubard(0.5, [1], [2], level=NAN),
        lambda: clopper_pearson(NAN, 5),
        lambda: clopper_pearson(0.5, 0),
        lambda: clopper_pearson(0.5, INF),
        lambda: effective_size(NAN, [1], [2], 2),
        lambda: effective_size(0.5, [NAN], [2], 2),
        lambda: effective_size(0.5, [], [], 2),
        lambda: effective_size(0.5, [1], [-2], 2),
        lambda: effective_size(0.5, [1], [2], INF),
        lambda: difference((NAN, 0, 1), (0.5, 0, 1)),
        lambda: difference((0.5, 0.6, 1), (0.5, 0, 1)),
        lambda: difference((0.5, 0, INF), (0.5, 0, 1)),
        lambda: clustered_kappa([(1, 0, 0, NAN), (1, 1, 1, 1)]),
        lambda: clustered_kappa([(1, 0, 0, -1), (1, 1, 1, 1)]),
        lambda: exact_upper(-1, 5),
        lambda: exact_upper(6, 5),
        lambda: exact_upper(NAN, 5),  # type: ignore[arg-type]
        lambda: exact_upper(0, INF),  # type: ignore[arg-type]
        lambda: exact_upper(0, 5, level=0),
        lambda: exact_lower(6, 5),
        lambda: exact_lower(1.5, 5),  # type: ignore[arg-type]
        lambda: beta_quantile(0, 1, 0.5),
        lambda: beta_quantile(1, NAN, 0.5),
        lambda: beta_quantile(1, 1, 1.5),
        lambda: student_quantile(0, 0.9),
        lambda: student_quantile(5, 1),
        lambda: student_quantile(NAN, 0.9),
    ],
)
def test_what_cannot_be_is_turned_away_with_a_sentence(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w+ .*\w+ .*\w+"):
        call()


@pytest.mark.parametrize(("events", "trials"), [(1, 21), (2, 21), (21, 21), (3, 400)])
def test_the_lower_bound_is_clopper_and_pearsons(events: int, trials: int) -> None:
    test = binomtest(events, trials, alternative="greater")
    expected = test.proportion_ci(0.95, "exact").low
    assert exact_lower(events, trials) == pytest.approx(expected, rel=1e-6)
    assert exact_lower(0, trials) == exact_lower(0, 0) == 0


class TestCoverage:
    """The interval holds the true rate at least 95 times in 100, however alike trials are."""

    RUNS = 400
    TRIALS = 5
    RATES = (0.02, 0.05, 0.2, 0.5, 0.98)
    # Four standard errors of a coverage of 95 % over so many runs.
    ERROR = 4 * math.sqrt(0.95 * 0.05 / RUNS)

    @pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("prompts", [5, 35, 166])
    @pytest.mark.slow
    def test_of_the_true_rate(self, prompts: int, alike: float) -> None:
        rng = np.random.default_rng(20250818)
        for rate in self.RATES:
            successes = rng.binomial(self.TRIALS, self._leanings(rng, rate, prompts, alike))
            # Runs with the same counts of prompts by successes have the same interval.
            spectra = np.stack(
                [(successes == s).sum(axis=1) for s in range(self.TRIALS + 1)], axis=1
            )
            distinct, times = np.unique(spectra, axis=0, return_counts=True)
            held = sum(
                count
                for spectrum, count in zip(distinct.tolist(), times.tolist(), strict=True)
                if self._holds(spectrum, rate)
            )
            assert held / self.RUNS >= 0.95 - self.ERROR, f"{rate=}"

    def _leanings(
        self, rng: np.random.Generator, rate: float, prompts: int, alike: float
    ) -> np.ndarray:
        """Each prompt's own rate; `alike` is the correlation of its trials."""
        shape = (self.RUNS, prompts)
        if alike == 0:
            return np.full(shape, rate)
        if alike == 1:
            return (rng.random(shape) < rate).astype(float)
        spread = 1 / alike - 1
        return rng.beta(rate * spread, (1 - rate) * spread, shape)

    def _holds(self, spectrum: list[int], rate: float) -> bool:
        clusters = [(s, self.TRIALS) for s, times in enumerate(spectrum) for _ in range(times)]
        low, high = interval(clusters)
        return low <= rate <= high
