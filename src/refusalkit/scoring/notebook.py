"""Estimates as cells of a notebook's table."""

from __future__ import annotations

from refusalkit.types import Estimate

ESTIMATE_HEADS = (
    "value",
    "95 %: prompts like these",
    "95 %: these, asked again",
    "prompts",
    "responses",
    "unscored",
)


def estimate_cells(estimate: Estimate) -> tuple[str, ...]:
    """An estimate as the cells below `ESTIMATE_HEADS`."""
    known = estimate.value is not None
    again = estimate.asked_again
    interval = known and estimate.low is not None and estimate.high is not None
    return (
        f"{estimate.value:.1f}" if known else "-",
        f"{estimate.low:.1f} to {estimate.high:.1f}" if interval else "-",
        "-" if again is None else f"{again[0]:.1f} to {again[1]:.1f}",
        str(estimate.n_prompts),
        str(estimate.n_responses),
        str(estimate.n_unscored),
    )
