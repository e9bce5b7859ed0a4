"""One interval for chance and for what is unscored (Imbens & Manski 2004).

Where responses have no label, a rate is known only to lie between two bounds: its value if all of
them had gone one way, and if all had gone the other. Each bound is itself an estimate. The interval
that covers the true rate, wherever between the bounds it lies, in 95 % of runs is (Imbens & Manski
2004, Econometrica 72, 1845-1857, equations 6 and 7)

    [lowest - c * SE(lowest), highest + c * SE(highest)]
    with c from  Phi(c + (highest - lowest) / max SE) - Phi(-c) = level

Where nothing is unscored c is 1.96, the two-sided quantile; where much is, the rate cannot lie near
both bounds at once and c falls to 1.645. Here each end is that of `prompts_like_these` at the level
that belongs to c, in place of a normal approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from refusalkit.scoring.statistics.intervals import PromptRate, prompts_like_these

if TYPE_CHECKING:
    from statistics import NormalDist


def partly_unscored(
    lowest: Sequence[PromptRate], highest: Sequence[PromptRate], *, level: float = 0.95
) -> tuple[float, float]:
    """The interval of a rate of which only the lowest and the highest possible data are known.

    Args:
        lowest, highest: each prompt's rate with every unscored trial counted as 0, and as 1.
        level: confidence that the interval holds the rate.

    Returns:
        The lower and the upper end, as fractions.

    Raises:
        ValueError: as `prompts_like_these`.
    """
    low = prompts_like_these(lowest, level=level)
    if lowest == highest:
        return low.low, low.high

    # Imported here: it is slow, and most runs have a label for every response.
    from statistics import NormalDist

    normal = NormalDist()
    high = prompts_like_these(highest, level=level)
    two_sided = normal.inv_cdf((1 + level) / 2)
    error = max(low.rate - low.low, high.high - high.rate) / two_sided
    apart = max(0.0, high.rate - low.rate)
    c = _critical(apart / error, level, normal) if error > 0 else normal.inv_cdf(level)
    adjusted = 2 * normal.cdf(c) - 1
    return (
        prompts_like_these(lowest, level=adjusted).low,
        prompts_like_these(highest, level=adjusted).high,
    )


def _critical(apart: float, level: float, normal: NormalDist) -> float:
    """The c that solves Phi(c + apart) - Phi(-c) = level, by bisection."""
    low, high = normal.inv_cdf(level), normal.inv_cdf((1 + level) / 2)
    for _ in range(60):
        c = (low + high) / 2
        if normal.cdf(c + apart) - normal.cdf(-c) < level:
            low = c
        else:
            high = c
    return high
