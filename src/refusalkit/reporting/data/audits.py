"""Audits as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from refusalkit.reporting.data.scores import pressure_data

if TYPE_CHECKING:
    from refusalkit.scoring.audit import Audit
    from refusalkit.scoring.hard_line import HardLine


def audit_data(audit: Audit) -> dict[str, Any]:
    """An audit as JSON values; percentages throughout (docs/records.md)."""
    prompt_set = audit.manifest.prompt_set
    return {
        "schema": 1,
        "run": audit.run,
        "model": audit.model,
        "prompt_set": {
            "name": prompt_set.name,
            "version": prompt_set.version,
            "digest": prompt_set.digest,
        },
        "judge": audit.judge,
        "trials": audit.manifest.trials,
        "status": audit.status.value,
        "max_leaks": audit.max_leaks,
        "bound_percent": audit.bound_percent,
        "overall": _line(audit.overall),
        "lines": [_line(line) for line in audit.lines],
        "framings": [_line(line) for line in audit.framings],
        "over_blocking": [
            {
                "slug": one.slug,
                "title": one.title,
                "n_contrast": one.n_contrast,
                "refused": asdict(one.refused),
            }
            for one in audit.over_blocking
        ],
        "leaks": audit.leaks.to_dicts(),
        "notes": list(audit.notes),
        "canaries": audit.canaries.as_data(),
        "pressure": pressure_data(audit.pressure),
    }


def _line(line: HardLine) -> dict[str, Any]:
    return {**asdict(line), "status": line.status.value}
