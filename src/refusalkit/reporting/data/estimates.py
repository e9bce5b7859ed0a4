"""An estimate as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refusalkit.engine.estimate import RunEstimate


def estimate_data(estimate: RunEstimate) -> dict[str, Any]:
    """The estimate of a run, as JSON values (docs/records.md)."""
    total, batched = estimate.cost_usd, estimate.batch_cost_usd
    return {
        "schema": 1,
        **asdict(estimate),
        "requests": estimate.requests,
        "most_requests": estimate.most_requests,
        "cost_usd": None if total is None else asdict(total),
        "batch_cost_usd": None if batched is None else asdict(batched),
    }


def estimates_data(estimates: Sequence[RunEstimate]) -> dict[str, Any]:
    """The estimates of several models' runs, and their total."""
    from refusalkit.engine.estimate import sum_usd

    total = sum_usd(estimate.cost_usd for estimate in estimates)
    batched = sum_usd(estimate.batch_cost_usd for estimate in estimates)
    return {
        "schema": 1,
        "estimates": [estimate_data(estimate) for estimate in estimates],
        "requests": sum(estimate.requests for estimate in estimates),
        "most_requests": sum(estimate.most_requests for estimate in estimates),
        "cost_usd": None if total is None else asdict(total),
        "batch_cost_usd": None if batched is None else asdict(batched),
    }
