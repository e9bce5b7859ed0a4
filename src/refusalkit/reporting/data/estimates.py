"""An estimate as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refusalkit.estimates import RunEstimate


def estimate_data(estimate: RunEstimate) -> dict[str, Any]:
    """What a run would take, as JSON values (docs/records.md)."""
    total = estimate.cost_usd
    return {
        "schema": 1,
        **asdict(estimate),
        "requests": estimate.requests,
        "cost_usd": None if total is None else asdict(total),
    }
