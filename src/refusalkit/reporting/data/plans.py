"""Plans as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refusalkit.scoring.planning import Plan


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values (docs/records.md)."""
    rows = [{**asdict(row), "n_requests": row.n_requests} for row in plan.rows]
    labels = [asdict(one) for one in plan.labels]
    return {"schema": 1, **asdict(plan), "rows": rows, "labels": labels, "notes": list(plan.notes)}
