"""A run as a row of the list: model, set and judge, progress, figures."""

from __future__ import annotations

from typing import Any

from refusalkit.types import Estimate
from refusalkit.viewer.shelf import OpenedRun, id_of
from refusalkit.viewer.unit_reading import shown


def run_row(opened: OpenedRun) -> dict[str, Any]:
    """The row of a run as JSON values; figures that are not known yet are None."""
    manifest, state = opened.manifest, opened.state
    entry = manifest.judges[manifest.judge]
    sessions = manifest.sessions
    row: dict[str, Any] = {
        "id": opened.id,
        "name": shown(opened.name),
        "run": shown(manifest.id),
        "model": shown(opened.model),
        "set": shown(f"{manifest.prompt_set.name} {manifest.prompt_set.version}"),
        "judge": shown(manifest.judge),
        "judge_name": shown(entry.name),
        "judge_model": shown(entry.model),
        "state": state,
        "ended": shown(sessions[-1].ended_because) if sessions else None,
        "started": shown(sessions[0].started_at) if sessions else None,
        "n_units": manifest.n_units,
        "n_prompts": manifest.prompt_set.n_prompts,
        "trials": manifest.trials,
        "has_hard_lines": bool(manifest.hard_lines),
    }
    figures = opened.figures.get()
    row["busy"] = opened.figures.is_busy
    row["error"] = None if opened.figures.error is None else shown(opened.figures.error)
    row["n_scored"] = None if figures is None else figures.n_scored
    row["willingness"] = None if figures is None else _estimate(figures.willingness)
    row["hard_lines"] = None if figures is None else figures.hard_lines
    row["n_leaks"] = None if figures is None else figures.n_leaks
    row["cost_usd"] = None if figures is None else figures.cost_usd
    row["pace"] = None
    if state == "running" and (pace := opened.tally.get()) is not None:
        row["pace"] = {"n_done": pace.n_done, "per_s": pace.per_s, "eta_s": pace.eta_s}
        row["cost_usd"] = pace.cost_usd
    return row


def unreadable_row(name: str, why: str) -> dict[str, Any]:
    """The row of a run folder whose manifest cannot be read."""
    empty = dict.fromkeys(("run", "model", "set", "judge", "judge_name", "judge_model"), "")
    none = ["ended", "started", "n_units", "n_prompts", "trials", "has_hard_lines", "n_scored"]
    none += ["willingness", "hard_lines", "n_leaks", "cost_usd", "pace"]
    told = {"id": id_of(name), "name": shown(name), "state": "unreadable", "busy": False}
    return {**told, **empty, **dict.fromkeys(none), "error": shown(why)}


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
