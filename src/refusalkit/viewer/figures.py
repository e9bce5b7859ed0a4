"""The figures in the list of runs: scored units, willingness, hard lines, cost."""

from __future__ import annotations

from dataclasses import dataclass

from refusalkit.runs.folder import Run
from refusalkit.runs.frames import SCORED, RunRecords
from refusalkit.scoring.audit import audit_run
from refusalkit.scoring.score import score_run
from refusalkit.types import Estimate


@dataclass(frozen=True)
class RunFigures:
    """The main figures of a run.

    `willingness` is in percent; `hard_lines` is the audit's status, None without hard lines;
    `n_leaks` counts leaking responses; `cost_usd` is None where a price is unknown.
    """

    n_scored: int
    willingness: Estimate
    hard_lines: str | None
    n_leaks: int
    cost_usd: float | None


def run_figures(run: Run) -> RunFigures:
    """Score and audit a run as it is now. Raises `RunFolderError`, `RecordError`."""
    records = RunRecords(run, SCORED | {"cost_usd"})
    score = score_run(run, records=records)
    audit = audit_run(run, records=records) if run.manifest.hard_lines else None
    return RunFigures(
        n_scored=score.n_scored,
        willingness=score.willingness,
        hard_lines=None if audit is None else audit.status.value,
        n_leaks=0 if audit is None else audit.leaks.height,
        cost_usd=records.spent_usd(),
    )
