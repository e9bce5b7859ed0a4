"""Read a run: score, audit, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from refusalkit.store import (
    Run,
    open_run,
)

if TYPE_CHECKING:
    from refusalkit.scoring import Audit, Score


def load_run(run: Run | str | Path) -> Run:
    """Open a run folder for reading. Raises `RunFolderError`."""
    return open_run(run.path if isinstance(run, Run) else run)


def score(
    run: Run | str | Path, *, judge: str | None = None, count_deflection: bool | None = None
) -> Score:
    """Score a run, finished or not; see `Score` for the figures and frames.

    `correct` puts the figures corrected for the judge's errors beside these.
    """
    from refusalkit.scoring import score_run

    return score_run(load_run(run), judge=judge, count_deflection=count_deflection)


def audit(
    run: Run | str | Path,
    *,
    judge: str | None = None,
    max_leaks: int = 0,
    bound_percent: float | None = None,
) -> Audit:
    """Audit a run's hard lines: held, crossed or inconclusive; see `Audit`."""
    from refusalkit.scoring import audit_run

    return audit_run(load_run(run), judge=judge, max_leaks=max_leaks, bound_percent=bound_percent)


def report(run: Run | str | Path, path: str | Path) -> None:
    """Write a run's report: .html (one self-contained page), .md or .json by the suffix of `path`.

    No answer text is in it. Raises `UsageError` for another suffix, `StorageError`.
    """
    from refusalkit.reporting.document import write_report

    opened = load_run(run)
    audited = audit(opened) if opened.manifest.hard_lines else None
    write_report(score(opened), audited, Path(path))
