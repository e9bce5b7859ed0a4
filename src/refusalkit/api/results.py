"""Read runs: score, audit, compare, leaderboard, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refusalkit.api.calls import RunLike, as_list, load_run, path_of
from refusalkit.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from refusalkit.runs.merging import Merged
    from refusalkit.scoring.audit import Audit
    from refusalkit.scoring.compare.gate import Target
    from refusalkit.scoring.compare.result import Comparison
    from refusalkit.scoring.judge_quality.calibration import Calibration
    from refusalkit.scoring.leaderboard import Leaderboard
    from refusalkit.scoring.score import Score


def score(run: RunLike, *, judge: str | None = None, count_deflection: bool | None = None) -> Score:
    """Score a run, finished or not.

    Args:
        run: a run, or the path of its folder.
        judge: the id of one of the run's judges; default: its judge of record.
        count_deflection: count a deflection as refused; default: as the run was configured.

    Returns:
        The figures in percent, each an `Estimate` with a 95 % interval, and frames by category,
        trial and prompt. Willingness is the paper's score (arXiv 2508.18255, section 4.5.1): the
        mean over prompts of the share of answers not refused, on hard lines of the share refused.
        `correct` gives the figures corrected for the judge's errors.

    Raises:
        RunFolderError: there is no run, or it has no such judge.
        RecordError: a record cannot be read; file and line are named.

    Examples:
        >>> import refusalkit as rk
        >>> score = rk.score("runs/example")
        >>> score.willingness
        Estimate(value='61.4 % [...]', prompts=35, unscored=1, method=...)
        >>> score.by_category.columns[:3]
        ['category', 'title', 'hard_line']
    """
    from refusalkit.scoring.score import score_run

    return score_run(load_run(run), judge=judge, count_deflection=count_deflection)


def merge(shards: Sequence[RunLike], out: str | Path) -> Merged:
    """Merge the shards of a run, made with the option `shard`, into one run folder.

    Args:
        shards: the shards, in any order; units of missing ones can be done by `resume`.
        out: the new run folder; it must not exist, or be empty.

    Raises:
        RunFolderError: `out` holds something, a path is not a shard, or one is given twice.
        ConfigurationChanged: the shards are not of one run.
        RecordError: a record is broken, or of a prompt that is not in its shard.
        StorageError: a write fails; no folder is left behind.

    Examples:
        >>> import refusalkit as rk
        >>> def half(n: int) -> rk.Run:
        ...     out = f"runs/half-{n}"
        ...     return rk.benchmark("demo/mixed", "starter", trials=1, shard=f"{n}/2", out=out)
        >>> merged = rk.merge([half(1), half(2)], "runs/whole")
        >>> rk.score("runs/whole").n_units
        35
    """
    from refusalkit.runs.merging import merge_shards

    return merge_shards([path_of(shard) for shard in as_list(shards)], Path(out))


def audit(
    run: RunLike,
    *,
    judge: str | None = None,
    max_leaks: int | None = None,
    bound_percent: float | None = None,
    show_text: bool = False,
) -> Audit:
    """Audit the hard lines of a run: held, crossed or inconclusive.

    Args:
        run: a run, or the path of its folder.
        judge: the id of one of the run's judges; default: its judge of record.
        max_leaks: how many leaking responses are allowed; more of them cross a line. Default: what
            the stop rule of this user's own run allows, else none.
        bound_percent: held only if the data show a leak rate of new prompts below this, in percent:
            the exact one-sided 95 % bound (Clopper-Pearson) over prompts.
        show_text: add the text of leaking answers to `Audit.leaks`, if it was kept.

    Raises:
        UsageError: the run has no hard line, or `bound_percent` is not within 0 and 100.
        RunFolderError: there is no run, or it has no such judge.
        RecordError: a record cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> audit = rk.audit("runs/example")
        >>> audit.status
        <AuditStatus.HELD: 'held'>
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
    target: Target = "prompts-like-these",
    calibration: Calibration | str | Path | Sequence[Calibration | str | Path] = (),
    sequential: bool = False,
) -> Comparison:
    """Compare runs paired by prompt: the first against the second, or every pair of several.

    Args:
        *runs: two runs or more, or the paths of their folders.
        judge: the id of a judge that all of them have; default: each run's judge of record.
        anyway: compare runs even if their prompts, hard lines, judges or presets differ;
            `Comparison.warnings` then says what differs.
        count_deflection: count a deflection as refused; default: as the runs were configured.
        max_drop: a gate of two runs: how many points the first may be below the second.
        max_rise: a gate of two runs: how many points the first may be above the second.
        on: the figure of the gate, or of `sequential`: ``willingness``, ``answer_rate``,
            ``hold_rate``, ``refusal_rate`` or ``over_refusal``.
        target: what the gate is about: ``prompts-like-these`` (a claim about the models) or
            ``these-prompts``, asked again (a regression test).
        calibration: a calibration of the judge or its path, or one for each judge: differences are
            also corrected for its errors (`Difference.corrected`).
        sequential: compare two runs, finished or not, by a test that stays valid however often it
            is repeated (`Comparison.in_order`); both need the same `order_seed`.

    Raises:
        UsageError: fewer than two runs, runs that must not be compared, or a gate on more than two.
        RunFolderError: there is no run, or it has no such judge.
        RecordError: a record cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> found = rk.compare("runs/example", "runs/example", max_drop=30)
        >>> found.willingness.estimate.value
        0.0
        >>> found.gate.status
        <GateStatus.PASSED: 'passed'>
    """
    from refusalkit.scoring.compare.compare_runs import compare_runs
    from refusalkit.scoring.judge_quality.calibration import Calibration, read_calibration

    given: list[Calibration | str | Path]
    if isinstance(calibration, Calibration | str | Path):
        given = [calibration]
    else:
        given = list(calibration)
    return compare_runs(
        [load_run(run) for run in runs],
        judge=judge,
        anyway=anyway,
        count_deflection=count_deflection,
        max_drop=max_drop,
        max_rise=max_rise,
        on=on,
        target=target,
        calibrations=[
            one if isinstance(one, Calibration) else read_calibration(one) for one in given
        ],
        sequential=sequential,
    )


def leaderboard(*runs: RunLike, judge: str | None = None) -> Leaderboard:
    """A leaderboard of runs, and one of the published RefusalBench figures, in separate tables.

    Args:
        *runs: any number of runs, or the paths of their folders.
        judge: the id of a judge that all of them have; default: each run's judge of record.

    Raises:
        RunFolderError: there is no run, or it has no such judge.
        RecordError: a record cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> rk.leaderboard("runs/example").own["model"].to_list()
        ['demo/mixed']
    """
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
    """Write the report of a run, or of several side by side.

    Args:
        runs: a run, or several, or the paths of their folders.
        path: the suffix decides the format: .html (one self-contained page), .md (for a model
            card), .json (docs/records.md describes it), .csv or .parquet (the units, see `units`).
            Default: ``report.html`` in the folder of a single run.
        judge: the id of a judge that all of them have; default: each run's judge of record.
        show_text: show kept answers, on the page and among the units. Never those of hard lines.
        anyway: compare several runs even if `compare` would refuse; the page then begins with a
            warning.
        calibration: of the judge (see `calibrate`): the figures are also shown corrected for its
            errors.
        force: replace the file even if it is not a report of refusalkit.

    Returns:
        The path of the report. The file appears whole or not at all.

    Raises:
        UsageError: the suffix is unknown, or several runs have no `path`.
        RunFolderError: there is no run, or it has no such judge.
        RecordError: a record cannot be read.
        StorageError: the file cannot be written.

    Examples:
        >>> import refusalkit as rk
        >>> rk.report("runs/example", "example.md").name
        'example.md'
    """
    from refusalkit.reporting.document import write_report
    from refusalkit.scoring.judge_quality.calibration import read_calibration

    opened = [load_run(run) for run in as_list(runs)]
    if path is None and len(opened) != 1:
        raise UsageError("a report of several runs has no default place: name its file")
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
    """A run's units as a polars frame: one row for each unit with a completion.

    Columns: run, model, judge, unit, prompt_id, category, hard_line, danger, twin, framing,
    frame_of, trial, outcome, label, unscored, source, word, credit (0, 1 or null; null for contrast
    prompts and framed requests), text_chars, reasoning_chars, latency_s (seconds), cost_usd and
    judge_cost_usd (USD), filter_category.

    Args:
        run: a run, or the path of its folder.
        judge: the id of one of the run's judges; default: its judge of record.
        show_text: add the column text: null if it was not kept, and always null on hard lines.

    Raises:
        RunFolderError: there is no run, or it has no such judge.
        RecordError: a record cannot be read.

    Examples:
        >>> import refusalkit as rk
        >>> rk.units("runs/example")["outcome"].n_unique()
        4
    """
    from refusalkit.reporting.document import units_frame
    from refusalkit.runs.frames import REPORTED, RunRecords

    return units_frame(RunRecords(load_run(run), REPORTED), judge, show_text=show_text)
