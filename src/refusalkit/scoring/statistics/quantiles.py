"""Quantiles of the beta and of Student's distribution.

Not scipy's: loading `scipy.special` for these two took a quarter of a run's memory and half a
second of each command. The tests compare them with scipy's.
"""

from __future__ import annotations

import math
from functools import lru_cache

_MAX_TERMS = 100_000  # the continued fraction needs about sqrt(max(a, b)) of them
_MAX_STEPS = 200
_TINY = 1e-300


@lru_cache(maxsize=4096)
def beta_quantile(a: float, b: float, p: float) -> float:
    """The x in [0, 1] below which a share `p` of the beta distribution (a, b) lies.

    Newton's method on the regularised incomplete beta function, kept within a bracket that halves
    where a step would leave it. Raises `ValueError` unless a and b are above 0 and finite and p
    lies between 0 and 1.
    """
    if not (0 < a < math.inf and 0 < b < math.inf and 0 <= p <= 1):
        raise ValueError(
            f"a beta distribution ({a}, {b}) has no quantile at {p}: its parameters must be above "
            "0 and finite, and the share between 0 and 1"
        )
    if p in (0, 1):
        return float(p)
    low, high = 0.0, 1.0
    x = min(a / (a + b), math.nextafter(1.0, 0.0))
    for _ in range(_MAX_STEPS):
        share, density = _incomplete_beta(a, b, x)
        low, high = (x, high) if share < p else (low, x)
        step = (share - p) / density if density > 0 else math.inf
        following = x - step
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - x) <= 1e-15 * x or not low < following < high:
            break
        x = following
    return x


@lru_cache(maxsize=4096)
def student_quantile(df: float, p: float) -> float:
    """The t below which a share `p`, at least a half, of Student's distribution lies.

    Raises `ValueError` unless df is above 0 and finite and p from 0.5 to below 1.
    """
    if not (0 < df < math.inf and 0.5 <= p < 1):
        raise ValueError(
            f"Student's distribution with {df} degrees of freedom has no quantile at {p} here: "
            "they must be above 0 and finite, and the share from 0.5 to below 1"
        )
    # t^2 / (df + t^2) has the beta distribution (1/2, df/2).
    x = beta_quantile(0.5, df / 2, 2 * p - 1)
    return math.sqrt(df * x / (1 - x))


def beta_share(a: float, b: float, x: float) -> float:
    """The share of the beta distribution (a, b) that lies below x: regularised incomplete beta."""
    if not 0 < x < 1:
        return float(x >= 1)
    return _incomplete_beta(a, b, x)[0]


def _incomplete_beta(a: float, b: float, x: float) -> tuple[float, float]:
    """The regularised incomplete beta function and its derivative, the density.

    By its continued fraction (DLMF 8.17.22), on the side of the mean where that converges quickly
    (8.17.4 gives the other side), evaluated by Lentz's method.
    """
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    height = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta)
    density = height / (x * (1 - x))
    if x > (a + 1) / (a + b + 2):
        return 1 - height * _fraction(b, a, 1 - x) / b, density
    return height * _fraction(a, b, x) / a, density


def _fraction(a: float, b: float, x: float) -> float:
    d = 1 / _not_zero(1 - (a + b) * x / (a + 1))
    c, value = 1.0, d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return value
    raise ArithmeticError(f"no beta distribution ({a:g}, {b:g}) at {x:g}")


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
