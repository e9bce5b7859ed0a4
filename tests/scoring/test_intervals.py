"""The default interval: categories are strata, two sides, one prompt added; and asking again."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from refusalkit.scoring.statistics.asked_again import asked_again
from refusalkit.scoring.statistics.intervals import (
    Interval,
    PromptRate,
    effective_prompts,
    prompts_like_these,
    variance_of_mean,
)
from refusalkit.scoring.statistics.partly_unscored import partly_unscored
from refusalkit.scoring.statistics.proportions import clopper_pearson, effective_size

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PROMPT: st.SearchStrategy[PromptRate] = st.integers(1, 8).flatmap(
    lambda trials: st.builds(
        PromptRate,
        mean=st.integers(0, trials).map(lambda hits: hits / trials),
        trials=st.just(trials),
        stratum=st.integers(0, 5),
        side=st.booleans(),
        weight=st.just(1.0),
        times=st.just(1),
        noise=st.just(0.0),
    )
)
PROMPTS = st.lists(PROMPT, min_size=1, max_size=40)
BOTH = pytest.mark.parametrize("interval", [prompts_like_these, asked_again])


def width(interval: Interval) -> float:
    return interval.high - interval.low


def alike(rates: list[float], trials: int = 5, **fields: object) -> list[PromptRate]:
    return [PromptRate(rate, trials, **fields) for rate in rates]  # type: ignore[arg-type]


@BOTH
@UNHURRIED
@given(prompts=PROMPTS)
def test_contains_the_mean_over_prompts(interval: object, prompts: list[PromptRate]) -> None:
    rate, low, high = interval(prompts)  # type: ignore[operator]
    assert rate == pytest.approx(sum(p.mean for p in prompts) / len(prompts))
    assert 0 <= low <= rate + 1e-9
    assert rate - 1e-9 <= high <= 1
    assert high > low


@BOTH
@UNHURRIED
@given(prompts=PROMPTS)
def test_success_and_failure_are_mirror_images(interval: object, prompts: list[PromptRate]) -> None:
    rate, low, high = interval(prompts)  # type: ignore[operator]
    mirrored = interval([p._replace(mean=1 - p.mean) for p in prompts])  # type: ignore[operator]
    assert mirrored == pytest.approx((1 - rate, 1 - high, 1 - low), abs=1e-6)


@BOTH
@UNHURRIED
@given(prompts=PROMPTS, order=st.randoms(use_true_random=False))
def test_neither_order_nor_counting_those_alike_matters(
    interval: object, prompts: list[PromptRate], order: random.Random
) -> None:
    expected = interval(prompts)  # type: ignore[operator]
    shuffled = prompts.copy()
    order.shuffle(shuffled)
    assert interval(shuffled) == pytest.approx(expected, abs=1e-9)  # type: ignore[operator]
    counted = [p._replace(times=n) for p, n in Counter(prompts).items()]
    assert interval(counted) == pytest.approx(expected, abs=1e-9)  # type: ignore[operator]


@BOTH
@UNHURRIED
@given(prompts=PROMPTS, weight=st.floats(0.01, 100))
def test_equal_weights_give_the_same_as_no_weights(
    interval: object, prompts: list[PromptRate], weight: float
) -> None:
    weighted = [p._replace(weight=weight) for p in prompts]
    assert interval(weighted) == pytest.approx(  # type: ignore[operator]
        interval(prompts),  # type: ignore[operator]
        abs=1e-9,
    )


@pytest.mark.parametrize(
    ("prompts", "what"),
    [
        ([], "at least one prompt"),
        ([PromptRate(float("nan"))], "mean is nan"),
        ([PromptRate(1.2)], "mean is 1.2"),
        ([PromptRate(-0.1)], "mean is -0.1"),
        ([PromptRate(float("inf"))], "mean is inf"),
        ([PromptRate(0.5, 0)], "0 scored trials"),
        ([PromptRate(0.5, float("nan"))], "nan scored trials"),
        ([PromptRate(0.5, float("inf"))], "inf scored trials"),
        ([PromptRate(0.5, -1)], "-1 scored trials"),
        ([PromptRate(0.5, 5, weight=0)], "weight is 0"),
        ([PromptRate(0.5, 5, weight=float("nan"))], "weight is nan"),
        ([PromptRate(0.5, 5, times=0)], "counted 0 times"),
        ([PromptRate(0.5, 5, noise=float("nan"))], "noise is nan"),
        ([PromptRate(0.5, 5, noise=-1.0)], "noise is -1"),
    ],
)
def test_an_invalid_rate_is_refused_with_a_sentence(prompts: list[PromptRate], what: str) -> None:
    for interval in (prompts_like_these, asked_again, variance_of_mean):
        with pytest.raises(ValueError, match=what):
            interval(prompts)
    with pytest.raises(ValueError, match=what):
        partly_unscored(prompts, prompts)


@pytest.mark.parametrize("level", [0, 1, -0.5, float("nan"), 95])
@BOTH
def test_an_invalid_level_is_refused(interval: object, level: float) -> None:
    with pytest.raises(ValueError, match=f"level is {level}"):
        interval([PromptRate(0.5)], level=level)  # type: ignore[operator]


class TestPromptsLikeThese:
    @UNHURRIED
    @given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 9))
    def test_at_0_and_1_it_counts_prompts(self, n: int, trials: int, strata: int) -> None:
        exact = binomtest(0, n).proportion_ci(0.95, "exact")
        none = [PromptRate(0.0, trials, i % strata) for i in range(n)]
        assert prompts_like_these(none) == pytest.approx((0, 0, exact.high), abs=1e-6)

    def test_with_one_trial_and_one_stratum_it_is_never_narrower_than_the_exact_interval(
        self,
    ) -> None:
        for n in (5, 21, 64, 166):
            for hits in range(n + 1):
                exact = binomtest(hits, n).proportion_ci(0.95, "exact")
                _, low, high = prompts_like_these([PromptRate(float(i < hits)) for i in range(n)])
                assert low <= exact.low + 1e-6
                assert high >= exact.high - 1e-6

    def test_differences_between_categories_are_not_uncertainty(self) -> None:
        apart = [PromptRate(rate, 5, rate) for rate in (0.2, 0.8) for _ in range(20)]
        mixed = [p._replace(stratum=None) for p in apart]
        assert width(prompts_like_these(apart)) < 0.75 * width(prompts_like_these(mixed))

    def test_strata_of_one_prompt_are_taken_together(self) -> None:
        rates = [0.0, 0.2, 0.4, 0.8, 1.0, 0.2]
        single = [PromptRate(rate, 5, i) for i, rate in enumerate(rates)]
        assert prompts_like_these(single) == pytest.approx(prompts_like_these(alike(rates)))

    def test_a_lone_stratum_is_compared_with_all_prompts(self) -> None:
        lone = [*alike([0.0] * 6, stratum="many"), PromptRate(1.0, 5, "one")]
        assert width(prompts_like_these(lone)) > 0.4

    def test_strata_in_which_nothing_varies_leave_what_one_prompt_more_could_do(self) -> None:
        pure = [PromptRate(float(i % 2), 5, i % 2) for i in range(40)]
        assert width(prompts_like_these(pure)) > 0.5 / 41

    def test_a_side_without_prompts_does_not_count(self) -> None:
        one = alike([0.2, 0.4, 0.6], side=False)
        assert prompts_like_these(one) == prompts_like_these(alike([0.2, 0.4, 0.6]))

    def test_a_prompt_asked_twenty_times_counts_once(self) -> None:
        often = [PromptRate(1.0, 20), *alike([0.0] * 50, trials=1)]
        assert prompts_like_these(often).rate == pytest.approx(1 / 51)
        once = alike([1.0] + [0.0] * 50, trials=1)
        assert prompts_like_these(often) == pytest.approx(prompts_like_these(once), abs=2e-3)

    def test_a_first_refusal_does_not_narrow_what_is_left_open(self) -> None:
        for n in (5, 35, 166):
            none = prompts_like_these(alike([0.0] * n))
            one = prompts_like_these(alike([0.2] + [0.0] * (n - 1)))
            assert one.high > 0.98 * none.high


def test_variance_and_effective_size_are_those_of_a_calculation_by_hand() -> None:
    """Cochran (1977), 5.4: the variance of the mean of a stratified sample."""
    prompts = [
        *alike([0.2, 0.4, 0.6], stratum="a"),
        *alike([1.0, 0.5], stratum="b"),
        *alike([0.0, 0.1, 0.2, 0.1], stratum="c"),
    ]
    # Squared deviations 0.08, 0.125, 0.02; times n_h / (n_h - 1): 0.12, 0.25, 0.08 / 3.
    spread = 0.12 + 0.25 + 0.08 / 3
    assert variance_of_mean(prompts) == pytest.approx(spread / 81)
    # One prompt added, the way that says less: 1, for a rate of 3.1 / 9.
    rate, added = 3.1 / 9, (3.1 / 9 - 1) ** 2
    mean = (9 * rate + 1) / 10
    freedom = min(7, (spread + added) ** 2 / (0.12**2 / 4 + 0.25**2 / 3 + (0.08 / 3) ** 2 / 5))
    adjusted = (t.ppf(0.975, 44) / t.ppf(0.975, freedom)) ** 2
    expected = mean * (1 - mean) * 100 / (spread + added) * adjusted
    assert effective_prompts(prompts) == pytest.approx(expected, rel=1e-9)


class TestAskedAgain:
    def test_is_about_the_answers_and_not_the_choice_of_prompts(self) -> None:
        prompts = alike([1.0, 0.0] * 60 + [0.8, 0.2] * 23)
        assert width(asked_again(prompts)) < 0.3 * width(prompts_like_these(prompts))

    def test_where_all_trials_agree_it_leaves_what_is_too_rare_to_be_seen(self) -> None:
        agreed = asked_again(alike([1.0] * 83 + [0.0] * 83))
        missed = 1 - 0.025 ** (1 / (83 * 5))
        assert agreed.high - agreed.rate == pytest.approx(missed / 2, rel=1e-6)

    def test_prompts_of_one_trial_say_nothing_about_asking_again(self) -> None:
        once = alike([1.0, 0.0, 0.0], trials=1)
        assert asked_again(once) == prompts_like_these(once)

    def test_more_trials_narrow_it(self) -> None:
        widths = [width(asked_again(alike([0.4, 0.6] * 20, trials=t))) for t in (5, 10, 20, 40)]
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] < 0.4 * widths[0]


class TestPartlyUnscored:
    def test_is_the_plain_interval_where_nothing_is_unscored(self) -> None:
        prompts = alike([0.2, 0.4, 1.0, 0.0])
        plain = prompts_like_these(prompts)
        assert partly_unscored(prompts, prompts) == pytest.approx(plain[1:], abs=1e-9)

    def test_where_much_is_unscored_each_end_is_one_sided(self) -> None:
        # Imbens & Manski (2004): c falls from 1.96 to 1.645 as the bounds move apart.
        lowest, highest = alike([0.2, 0.4] * 80), alike([0.6, 0.8] * 80)
        low, high = partly_unscored(lowest, highest)
        assert low == pytest.approx(prompts_like_these(lowest, level=0.9).low, abs=1e-6)
        assert high == pytest.approx(prompts_like_these(highest, level=0.9).high, abs=1e-6)
        assert low > prompts_like_these(lowest).low

    @UNHURRIED
    @given(PROMPTS, st.randoms(use_true_random=False))
    def test_holds_both_bounds(self, prompts: list[PromptRate], order: random.Random) -> None:
        lowest = [p._replace(mean=p.mean * order.random()) for p in prompts]
        low, high = partly_unscored(lowest, prompts)
        assert low <= sum(p.mean for p in lowest) / len(lowest) + 1e-9
        assert high >= sum(p.mean for p in prompts) / len(prompts) - 1e-9


class TestCoverage:
    """At least 95 in 100, in settings in which earlier intervals failed."""

    RUNS = 250
    # Four standard errors of a coverage of 95 % over so many runs.
    LEAST = 0.95 - 4 * (0.95 * 0.05 / RUNS) ** 0.5

    @pytest.mark.parametrize("rate", [0.05, 0.5, 0.95])
    @pytest.mark.parametrize("second", [1, 6])
    def test_where_some_prompts_have_a_second_trial(self, rate: float, second: int) -> None:
        rng = np.random.default_rng([20261129, second, round(100 * rate)])
        trials = np.where(np.arange(51) < second, 2, 1)
        held = 0
        for _ in range(self.RUNS):
            means = rng.binomial(trials, rate) / trials
            alike_ = Counter(zip(means.tolist(), trials.tolist(), strict=True))
            found = prompts_like_these(
                PromptRate(mean, n, times=times) for (mean, n), times in alike_.items()
            )
            held += found.low <= rate <= found.high
        assert held / self.RUNS >= self.LEAST

    @pytest.mark.parametrize("trials", [2, 5])
    def test_of_the_same_prompts_asked_again(self, trials: int) -> None:
        rng = np.random.default_rng([20261129, trials])
        own = rng.beta(0.2, 0.2, 40)
        held = 0
        for _ in range(self.RUNS):
            means = (rng.binomial(trials, own) / trials).tolist()
            found = asked_again(PromptRate(m, trials, times=n) for m, n in Counter(means).items())
            held += found.low <= own.mean() <= found.high
        assert held / self.RUNS >= self.LEAST

    def test_where_refusals_alone_go_unscored(self) -> None:
        """The plain interval is certain of the wrong rate; the partly unscored one is not."""
        rng = np.random.default_rng(20261129)
        plain = held = 0
        for _ in range(self.RUNS):
            answered = int(rng.binomial(60, 0.6))
            lost = int(rng.binomial(60 - answered, 0.5))
            seen = [(1.0, answered), (0.0, 60 - answered - lost)]
            rates = [PromptRate(mean, times=n) for mean, n in seen if n]
            found = prompts_like_these(rates)
            plain += found.low <= 0.6 <= found.high
            missing = [PromptRate(0.0, times=lost)] if lost else []
            low, high = partly_unscored(
                rates + missing, rates + [m._replace(mean=1.0) for m in missing]
            )
            held += low <= 0.6 <= high
        assert held / self.RUNS >= self.LEAST
        assert plain / self.RUNS < 0.6


# Of the survey package's `data(api)`: Californian schools, drawn by district (apiclus1) or by type
# (apistrat). How many schools of each district, how many of them without English learners, with
# more than 30 percent of them, and with an award.
DISTRICTS = (
    (13, 0, 5, 10), (34, 0, 16, 26), (4, 0, 3, 3), (13, 0, 2, 9), (16, 0, 4, 13),
    (2, 0, 1, 2), (1, 0, 1, 1), (4, 0, 4, 3), (12, 0, 3, 11), (21, 0, 8, 14),
    (9, 4, 0, 4), (11, 0, 2, 9), (37, 0, 16, 24), (2, 0, 2, 1), (4, 0, 0, 0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("column", "rate", "low", "high"),
    [
        # By R 4.2.2 and survey 4.1-1 with d <- svydesign(id=~dnum, weights=~pw, data=apiclus1):
        # svyciprop(~I(ell==0), d, method="beta"), then ell>30 and awards=="Yes".
        (1, 0.0218579234973, 0.000198643678807, 0.139396111631),
        (2, 0.366120218579, 0.273227563924, 0.466951281321),
        (3, 0.710382513661, 0.632600481412, 0.780010595743),
    ],
)
def test_a_cluster_sample_has_the_interval_of_the_survey_package(
    column: int, rate: float, low: float, high: float
) -> None:
    sizes, hits = [row[0] for row in DISTRICTS], [row[column] for row in DISTRICTS]
    found = sum(hits) / sum(sizes)
    size = effective_size(found, hits, sizes, sum(sizes))
    assert (found, *clopper_pearson(found, size)) == pytest.approx((rate, low, high), rel=1e-8)


@pytest.mark.parametrize(
    ("hits", "rate", "error", "low", "high"),
    [
        # The same with d <- svydesign(id=~1, strata=~stype, data=apistrat): of 100 elementary, 50
        # high and 50 middle schools ell==0, awards=="Yes" and yr.rnd=="Yes".
        ((4, 6, 3), 0.065, 0.0174241886477, 0.0350705032137, 0.108566555178),
        ((73, 16, 24), 0.565, 0.0330703135769, 0.497458450119, 0.630803638039),
        ((18, 1, 2), 0.105, 0.0211354409598, 0.0670489776194, 0.154535901361),
    ],
)
def test_a_stratified_sample_has_the_variance_and_interval_of_the_survey_package(
    hits: tuple[int, ...], rate: float, error: float, low: float, high: float
) -> None:
    sample = [
        PromptRate(mean, stratum=stratum, times=times)
        for stratum, (n, k) in enumerate(zip((100, 50, 50), hits, strict=True))
        for mean, times in ((1.0, k), (0.0, n - k))
    ]
    found, variance = sum(hits) / 200, variance_of_mean(sample)
    assert (found, variance**0.5) == pytest.approx((rate, error), rel=1e-8)
    # R's degrees of freedom are those of the design, and no prompt is added.
    size = found * (1 - found) / variance * (t.ppf(0.975, 199) / t.ppf(0.975, 197)) ** 2
    assert clopper_pearson(found, size) == pytest.approx((low, high), rel=1e-8)
    # With one added, and Satterthwaite's degrees of freedom, it says less.
    ours = prompts_like_these(sample)
    assert ours.low < low < high < ours.high
    assert width(ours) < 1.2 * (high - low)
