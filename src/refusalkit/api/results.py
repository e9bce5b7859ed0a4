"""Read runs: score, audit, compare, leaderboard, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refusalkit.api.calls import RunLike, as_list, load_run
from refusalkit.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from refusalkit.scoring.audit import Audit
    from refusalkit.scoring.compare.comparison import Comparison
    from refusalkit.scoring.judge_quality.calibration import Calibration
    from refusalkit.scoring.leaderboard import Leaderboard
    from refusalkit.scoring.score import Score


def score(run: RunLike, *, judge: str | None = None, count_deflection: bool | None = None) -> Score:
    """Score a run, finished or not; see `Score` for the figures and frames.

    `correct` puts the figures corrected for the judge's errors beside these.
    """
    from refusalkit.scoring.score import score_run

    return score_run(load_run(run), judge=judge, count_deflection=count_deflection)


def audit(
    run: RunLike,
    *,
    judge: str | None = None,
    max_leaks: int | None = None,
    bound_percent: float | None = None,
    show_text: bool = False,
) -> Audit:
    """Audit a run's hard lines: held, crossed or inconclusive; see `Audit`.

    More than `max_leaks` leaking responses cross a line; default: what the run's stop rule allows,
    else none. With `bound_percent` it is held only if
    the data show a leak rate of new prompts below that. `show_text` adds the text of leaking
    answers to `Audit.leaks`, where it was kept. Raises `UsageError` where there is no hard line.
    """
    from refusalkit.scoring.audit import audit_run

    return audit_run(
        load_run(run),
        judge=judge,
        max_leaks=max_leaks,
        bound_percent=bound_percent,
        show_text=show_text,
    )


def compare(
    *runs: RunLike,
    judge: str | None = None,
    anyway: bool = False,
    count_deflection: bool | None = None,
    max_drop: float | None = None,
    max_rise: float | None = None,
    on: str = "willingness",
) -> Comparison:
    """Compare runs paired by prompt, the first against the second, or every pair of several.

    `max_drop` and `max_rise`, in points, make a gate of a comparison of two (`Comparison.gate`);
    `on` names its figure. Raises `UsageError` where prompts, hard lines, judge or preset differ;
    with `anyway` that becomes `Comparison.warnings`.
    """
    from refusalkit.scoring.compare.comparison import compare_runs

    return compare_runs(
        [load_run(run) for run in runs],
        judge=judge,
        anyway=anyway,
        count_deflection=count_deflection,
        max_drop=max_drop,
        max_rise=max_rise,
        on=on,
    )


def leaderboard(*runs: RunLike, judge: str | None = None) -> Leaderboard:
    """Runs beside the published RefusalBench figures, which stay apart; see `Leaderboard`."""
    from refusalkit.scoring.leaderboard import leaderboard_of

    return leaderboard_of([score(run, judge=judge) for run in runs])


def report(
    runs: RunLike | Sequence[RunLike],
    path: str | Path | None = None,
    *,
    judge: str | None = None,
    show_text: bool = False,
    anyway: bool = False,
    calibration: Calibration | str | Path | None = None,
    force: bool = False,
) -> Path:
    """Write the report of a run, or of several side by side, and return where it lies.

    Args:
        runs: a run, or several.
        path: its suffix says in which form: .html (one self-contained page), .md (for a model
            card), .json (docs/records.md describes it), .csv or .parquet (the units, see
            `units`). Default: ``report.html`` in the folder of a single run.
        judge: one of several judges of the runs.
        show_text: show kept answers, on the page and among the units. Never those of hard lines.
        anyway: compare several runs also where `compare` would refuse; a warning then stands above
            everything.
        calibration: of the judge (see `calibrate`): the figures are shown a second time, corrected
            for its errors.
        force: replace a file that is no report of refusalkit's, too.

    The file appears whole or not at all. Raises `UsageError` for another suffix or where several
    runs have no `path`, `RunFolderError`, `RecordError`, `StorageError`.
    """
    from refusalkit.reporting.document import write_report
    from refusalkit.scoring.judge_quality.calibration import read_calibration

    opened = [load_run(run) for run in as_list(runs)]
    if path is None and len(opened) != 1:
        raise UsageError("a report of several runs has no place of its own: name its file")
    target = Path(path) if path is not None else opened[0].path / "report.html"
    if isinstance(calibration, str | Path):
        calibration = read_calibration(calibration)
    write_report(
        opened,
        target,
        judge=judge,
        show_text=show_text,
        anyway=anyway,
        calibration=calibration,
        force=force,
    )
    return target


def units(run: RunLike, *, judge: str | None = None, show_text: bool = False) -> pl.DataFrame:
    """A run's units as a polars frame: one row for each that came back.

    Columns: run, model, judge, unit, prompt_id, category, hard_line, danger, twin, framing,
    frame_of, trial, outcome, label, unscored, source, word, credit (0, 1 or null; null for contrast
    prompts and framed requests), text_chars, reasoning_chars, latency_s (seconds), cost_usd and
    judge_cost_usd (USD), filter_category; with `show_text` also text: null where it was not kept,
    and on hard lines always. Raises `RunFolderError`, `RecordError`.
    """
    from refusalkit.reporting.document import units_frame
    from refusalkit.runs.frames import REPORTED, RunRecords

    return units_frame(RunRecords(load_run(run), REPORTED), judge, show_text=show_text)
