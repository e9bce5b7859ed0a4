"""Quantiles: scipy's figures, without scipy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincinv, stdtrit
from test_intervals import UNHURRIED

from refusalkit.scoring.statistics.quantiles import beta_quantile, student_quantile

# As intervals ask for them: responses on each side, fractions allowed, and one more on one of them.
SIDES = st.tuples(st.floats(1e-9, 10) | st.floats(0.05, 1e6), st.floats(1, 1e6))
TAILS = st.sampled_from([0.005, 0.025, 0.05, 0.5, 0.95, 0.975, 0.995]) | st.floats(1e-4, 0.9999)


@UNHURRIED
@given(SIDES, TAILS)
def test_the_beta_quantile_is_scipys(sides: tuple[float, float], p: float) -> None:
    for a, b in (sides, sides[::-1]):
        expected = float(betaincinv(a, b, p))
        assert beta_quantile(a, b, p) == pytest.approx(expected, rel=1e-7, abs=1e-12)


@UNHURRIED
@given(st.floats(1, 1e6), st.floats(0.5, 0.9999))
def test_students_quantile_is_scipys(df: float, p: float) -> None:
    expected = float(stdtrit(df, p))
    assert student_quantile(df, p) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_what_a_book_has() -> None:
    # Clopper & Pearson's bounds on 0 of 21 and on 1 of 10; t with 1 and 30 degrees of freedom.
    assert beta_quantile(1, 21, 0.95) == pytest.approx(1 - 0.05 ** (1 / 21), rel=1e-12)
    assert beta_quantile(2, 9, 0.975) == pytest.approx(0.445016, abs=1e-6)
    assert student_quantile(1, 0.975) == pytest.approx(12.7062, abs=1e-4)
    assert student_quantile(30, 0.975) == pytest.approx(2.0423, abs=1e-4)


def test_a_million_responses_are_not_too_many() -> None:
    assert beta_quantile(500_000.5, 500_000.5, 0.975) == pytest.approx(0.50098, abs=1e-5)
