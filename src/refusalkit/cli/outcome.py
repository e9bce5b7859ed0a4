"""What a command ends with: an exit code, a table, a finished run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refusalkit.errors import RefusalkitError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.canaries import CanaryCheck
    from refusalkit.scoring.willingness import Score
    from refusalkit.store import Run

OK, GATE, USAGE, INCOMPLETE, ERROR = range(5)


def show_run(run: Run, max_unscored: float, as_json: bool) -> int:
    """Print what a run says; returns the command's exit code."""
    import refusalkit
    from refusalkit.reporting import data

    result = refusalkit.score(run)
    audited = refusalkit.audit(run) if run.manifest.hard_lines else None
    path = printable(run.path, 400)
    if as_json:
        both = {
            "path": str(run.path),
            "score": data.score_data(result, ["category"]),
            "audit": None if audited is None else data.audit_data(audited),
        }
        click.echo(data.to_json(both))
    else:
        from refusalkit.reporting import terminal
        from refusalkit.reporting.console import show

        show(*terminal.canary_warning(result.canaries))
        show(terminal.frame_view(result.by_category, "category"), "", terminal.score_view(result))
        if audited is not None:
            show("", terminal.audit_view(audited))
        click.echo(f"\nRun: {path}")
    warn_of_canaries(result.canaries)
    _tell_dropped(run)
    if run.manifest.hard_line_text == "kept":
        click.echo("refusalkit: hard-line answers were kept on disk, as asked", err=True)
    return run_exit(run, result, max_unscored)


def run_exit(run: Run, result: Score, max_unscored: float, *, name: str | None = None) -> int:
    """The exit code that a run calls for; why, and how to go on, told on stderr.

    `name` says which of several runs it is about.
    """
    from refusalkit.session import how_to_resume

    ended = run.manifest.sessions[-1].ended_because
    code = INCOMPLETE if ended != "done" else score_exit(result, max_unscored, name=name)
    _tell_failures(result)
    if ended != "done" or _owed(result):
        why = {"interrupted": "interrupted", "max_cost": "stopped before --max-cost"}.get(
            str(ended), "not complete"
        )
        whose = "" if name is None else f"{name}: "
        click.echo(f"refusalkit: {whose}{why}; go on with: {how_to_resume(run)}", err=True)
    return code


def check_report(report: str | None, out: str | None, *, several: bool = False) -> None:
    """Refuse a report that could not be written before the run is paid for."""
    if report is None:
        return
    from refusalkit.api.sync import RUNS
    from refusalkit.reporting.target import check_target

    path, made = Path(report), [RUNS if out is None else Path(out)]
    if several and path.parent.parent == made[0]:
        made.append(path.parent)  # perhaps the folder of one of them
    check_target(path, made)


def write_report(runs: Path | Sequence[Path], report: str, code: int) -> int:
    """Write the report of what was run and say on stderr where it lies: stdout may be JSON.

    Returns `code`, or `ERROR` where it could not be written: the result was told by then.
    """
    import refusalkit

    try:
        path = refusalkit.report(runs, report)
    except RefusalkitError as error:
        several = [runs] if isinstance(runs, Path) else runs
        words = " ".join(shlex.quote(printable(each, 400)) for each in several)
        again = f"what was run is kept; write it with: refusalkit report {words} -o FILE"
        click.echo(f"refusalkit: {error}; {again}", err=True)
        return ERROR
    click.echo(f"refusalkit: report: {printable(path, 400)}", err=True)
    return code


def show_regrade(run: Run, as_json: bool) -> int:
    """Print what the judge says that judged a run again; returns the command's exit code."""
    import refusalkit
    from refusalkit.reporting import data

    session = run.manifest.sessions[-1]
    judge = run.manifest.judge_id(session.judge)
    result = refusalkit.score(run, judge=judge)
    audited = refusalkit.audit(run, judge=judge) if run.manifest.hard_lines else None
    if as_json:
        both = {
            "path": str(run.path),
            "judge": judge,
            "judge_of_record": run.manifest.judge,
            "score": data.score_data(result, ["category"]),
            "audit": None if audited is None else data.audit_data(audited),
        }
        click.echo(data.to_json(both))
    else:
        from refusalkit.reporting import terminal
        from refusalkit.reporting.console import show

        show(*terminal.canary_warning(result.canaries), terminal.score_view(result))
        if judge != run.manifest.judge:
            record = printable(run.manifest.judge, 200)
            click.echo(f"\nJudge: {printable(judge, 200)}; the judge of record stays {record}")
    warn_of_canaries(result.canaries)
    _tell_dropped(run)
    # An answer that never came is the run's to ask for, not this judge's.
    never_came = result.n_units - sum(result.outcomes.values())
    owed = _owed(result) - result.unscored["error"] - never_came
    if session.ended_because == "done" and not owed:
        return OK
    why = "stopped before --max-cost" if session.ended_because == "max_cost" else "not complete"
    click.echo(f"refusalkit: {why}; go on with the same command", err=True)
    return INCOMPLETE


def _tell_dropped(run: Run) -> None:
    for part, entry in run.manifest.parameters.items():
        for name, why in entry.dropped.items():
            click.echo(printable(f"refusalkit: {part}: {name} was left out: {why}", 300), err=True)


def warn_of_canaries(check: CanaryCheck) -> None:
    """Say on stderr that the canaries failed, if they did."""
    if check.warning is not None:
        click.echo(f"refusalkit: {check.warning}", err=True)


def _tell_failures(score: Score) -> None:
    """Say on stderr why requests failed, the commonest reason first."""
    failed = score.responses["error"].drop_nulls()
    if len(failed):
        why = sorted(failed.mode().to_list())[0]
        click.echo(printable(f"refusalkit: {len(failed)} failed: {why}", 300), err=True)


def _owed(score: Score) -> int:
    votes = score.council.n_owed if score.council is not None else 0
    return votes + sum(score.unscored[reason] for reason in ("owed", "error", "judge_error"))


def score_exit(score: Score, max_unscored: float, *, name: str | None = None) -> int:
    """The exit code that a score's unscored units call for, told on stderr."""
    # Written so that a bound that is not a number fails.
    if not score.unscored_percent <= max_unscored:
        text = (
            f"{score.unscored_percent:.1f} % of the units are unscored, allowed: {max_unscored:g} %"
        )
        click.echo(
            f"refusalkit: {text}" if name is None else f"refusalkit: {name}: {text}", err=True
        )
        return GATE
    return INCOMPLETE if _owed(score) else OK


def print_rows(heads: tuple[str, ...], rows: list[tuple[Any, ...]], as_json: bool) -> None:
    """Print rows as a table or as JSON."""
    from refusalkit.reporting import terminal
    from refusalkit.reporting.console import show

    if as_json:
        keys = [head.replace(" ", "_") for head in heads]
        records = [dict(zip(keys, row, strict=True)) for row in rows]
        click.echo(json.dumps(records, indent=2))
    else:
        show(terminal.rows_view(heads, rows))
