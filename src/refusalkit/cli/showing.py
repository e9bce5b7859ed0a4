"""Shows the result of a command: its tables, its messages on stderr, its exit code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from refusalkit.cli.exit_codes import AUDIT_EXITS, ERROR, GATE, INCOMPLETE, OK
from refusalkit.cli.verbosity import note, warn
from refusalkit.errors import RefusalkitError
from refusalkit.redaction import redact
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    import polars as pl

    from refusalkit.runs.canaries import CanaryCheck
    from refusalkit.runs.folder import Run
    from refusalkit.scoring.audit import Audit
    from refusalkit.scoring.score import Score


class Result(NamedTuple):
    """Score, audit and cost of a run; `spent_usd` is None if a price is unknown."""

    score: Score
    audit: Audit | None
    spent_usd: float | None

    def as_data(self) -> dict[str, Any]:
        """As JSON values."""
        from refusalkit.reporting import data

        return {
            "cost_usd": self.spent_usd,
            "score": data.score_data(self.score, ["category"]),
            "audit": None if self.audit is None else data.audit_data(self.audit),
        }


def read_result(run: Run) -> Result:
    """Score, audit and price of a run; its records are read once."""
    from refusalkit.runs.frames import SCORED, RunRecords
    from refusalkit.scoring.score import score_run

    records = RunRecords(run, SCORED | {"cost_usd"}, count_odd=True)
    audit = None
    if run.manifest.hard_lines:
        from refusalkit.scoring.audit import audit_run

        audit = audit_run(run, records=records)
    return Result(score_run(run, records=records), audit, records.spent_usd())


def show_run(run: Run, max_unscored: float, as_json: bool) -> int:
    """Print the result of a run; returns the command's exit code."""
    result = read_result(run)
    score = result.score
    if as_json:
        from refusalkit.reporting import data

        click.echo(data.to_json({"path": str(run.path), **result.as_data()}))
        for line in score.odd.sentences:
            warn(line)
    else:
        from refusalkit.reporting import terminal
        from refusalkit.reporting.console import show
        from refusalkit.scoring.listed_categories import listed_note

        show(*terminal.canary_warning(score.canaries), *terminal.odd_view(score.odd.sentences))
        note = listed_note(score.manifest)
        show(terminal.frame_view(score.by_category, "category", note))
        show("", terminal.score_view(score))
        show("", *terminal.spent_line(result.spent_usd))
        click.echo(f"Run: {printable(run.path, 400)}")
        if result.audit is not None:
            show("", terminal.audit_view(result.audit))
    warn_of_canaries(score.canaries)
    _tell_dropped(run)
    if run.manifest.hard_line_text == "kept":
        warn("hard-line answers were kept on disk, as asked")
    return run_exit(run, result, max_unscored, bound=_bound(run))


def run_exit(
    run: Run, result: Result, max_unscored: float, *, bound: float | None, name: str | None = None
) -> int:
    """The exit code for a run; prints on stderr why, and how to continue.

    `bound` is its budget in USD. `name` says which of several runs it is about.
    """
    from refusalkit.engine.session import how_to_resume
    from refusalkit.scoring.asked_part import has_settled

    ended, spent = run.manifest.sessions[-1].ended_because, result.spent_usd
    done = ended == "done"
    code = score_exit(result.score, max_unscored, name=name) if done else INCOMPLETE
    whose = "" if name is None else f"{printable(name)}: "
    _tell_failures(run, result.score, whose)
    if result.audit is not None and has_settled(run.manifest):
        click.echo(f"refusalkit: {whose}stopped as asked: {result.audit.status}", err=True)
        return AUDIT_EXITS[result.audit.status]
    owes = not done or is_owed(result.score)
    over = above_bound(spent, bound)
    why = {
        "interrupted": "interrupted",
        "max_cost": "stopped before --max-cost",
        "batches": "in batches",
    }.get(str(ended), "not complete")
    if over is not None:
        why = over if done or ended == "max_cost" else f"{why}, {over}"
    if owes:
        # Where nothing is left to spend the same bound would stop it at once.
        stops = ended == "max_cost" or (spent is not None and bound is not None and spent >= bound)
        more = " --max-cost MORE" if stops else ""
        why += f"; go on with: {how_to_resume(run)}{more}"
    if owes or over is not None:
        click.echo(f"refusalkit: {whose}{why}", err=True)
    return code


def _bound(run: Run) -> float | None:
    bound = run.manifest.sessions[-1].operational.get("max_cost")
    return float(bound) if isinstance(bound, int | float) else None


def above_bound(spent: float | None, bound: float | None) -> str | None:
    """A sentence if the cost has exceeded `--max-cost`, else None."""
    if spent is None or bound is None or spent <= bound:
        return None
    # As many digits as it takes to tell the two apart.
    digits = next((n for n in range(2, 9) if f"{spent:.{n}f}" != f"{bound:.{n}f}"), 9)
    return f"spent {spent:.{digits}f} USD, above --max-cost {bound:.{digits}f}"


def check_report(report: str | None, out: str | None, *, several: bool = False) -> None:
    """Raise an error, before the run is paid for, if its report cannot be written."""
    if report is None:
        return
    from refusalkit.reporting.target import check_target
    from refusalkit.runs.naming import RUNS

    path, made = Path(report), [RUNS if out is None else Path(out)]
    if several and path.parent.parent == made[0]:
        made.append(path.parent)  # perhaps the folder of one of them
    check_target(path, made)


def write_report(runs: Path | Sequence[Path], report: str, code: int) -> int:
    """Write the report and print its path on stderr, because stdout may be JSON.

    Returns `code`, or `ERROR` if it could not be written: the result is already printed then.
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
    note(f"report: {printable(path, 400)}")
    return code


def show_regrade(run: Run, as_json: bool) -> int:
    """Print the score by the judge of a regrade; returns the command's exit code."""
    import refusalkit
    from refusalkit.reporting import data

    session = run.manifest.sessions[-1]
    judge = run.manifest.judge_id(session.judge)
    score = refusalkit.score(run, judge=judge)
    audited = refusalkit.audit(run, judge=judge) if run.manifest.hard_lines else None
    result = Result(score, audited, _spent_by_judge(run, judge))
    if as_json:
        head = {"path": str(run.path), "judge": judge, "judge_of_record": run.manifest.judge}
        click.echo(data.to_json({**head, **result.as_data()}))
    else:
        from refusalkit.reporting import terminal
        from refusalkit.reporting.console import show

        show(*terminal.canary_warning(score.canaries), terminal.score_view(score))
        show(*terminal.spent_line(result.spent_usd))
        if judge != run.manifest.judge:
            record = printable(run.manifest.judge, 200)
            click.echo(f"\nJudge: {printable(judge, 200)}; the judge of record stays {record}")
    warn_of_canaries(score.canaries)
    _tell_dropped(run)
    # An answer that never came is the run's to ask for, not this judge's.
    never_came = score.n_units - sum(score.outcomes.values())
    owed = _owed(score) - score.unscored["error"] - never_came
    at_bound = session.ended_because == "max_cost"
    done = session.ended_because == "done" and not owed
    over = above_bound(result.spent_usd, _bound(run))
    why = over or ("stopped before --max-cost" if at_bound else "not complete")
    if not done:
        more = " and a higher --max-cost" if at_bound or over is not None else ""
        why += f"; go on with the same command{more}"
    if over is not None or not done:
        click.echo(f"refusalkit: {why}", err=True)
    return OK if done else INCOMPLETE


def _spent_by_judge(run: Run, judge: str) -> float | None:
    """Cost in USD of a judge's verdicts, including those of a council's members."""
    from refusalkit.runs import frames
    from refusalkit.runs.costs import spent_on

    votes = [judge, *run.manifest.judges[judge].members]
    return spent_on(None, frames.judgements(run, votes), run, votes)


def _tell_dropped(run: Run) -> None:
    for line in run.manifest.dropped():
        note(printable(line, 300))


def warn_of_canaries(check: CanaryCheck) -> None:
    """Warn on stderr if the canaries failed."""
    if check.warning is not None:
        warn(check.warning)


# How a judge's failures are described on the screen.
_JUDGE_FAILURES = {
    "judge_error": "could not be judged",
    "unparsable": "got no verdict that can be read",
    "judge_blocked": "were not judged, as the judge declined or was filtered",
}


# A few empty answers are a model's; many are a mistake of the chat template or the server.
_MANY_EMPTY = 0.2


def _tell_failures(run: Run, score: Score, whose: str) -> None:
    """Say on stderr why requests and verdicts failed: the most common reason of each kind."""
    if not any(score.unscored[why] for why in ("error", "empty", *_JUDGE_FAILURES)):
        return
    import polars as pl

    from refusalkit.runs.columns import COMPLETION, VERDICT, read_columns

    # Of a hard line the provider's words are not shown, kept or not: they may repeat the request.
    shown = ~pl.col("category").is_in(sorted(run.manifest.hard_lines))

    def tell(count: int, what: str, failed: pl.DataFrame, reason: str) -> None:
        why = _commonest(failed[reason])
        told = failed.filter(shown & (pl.col(reason) == why)) if why else failed.clear()
        # Some clients hand on the whole of an exception.
        detail = _commonest(told["error_detail"]) or ""
        words = detail.partition("Traceback (most recent call last)")[0].strip()
        text = ": ".join(filter(None, (why or "no reason is on record", words)))
        click.echo(f"refusalkit: {whose}{count} {what}: {redact(text, 300)}", err=True)

    if failed := score.unscored["error"]:
        columns = ["unit", "category", "outcome", "error", "error_detail"]
        asked = read_columns(run.completions, {**COMPLETION, "error_detail": pl.String}, columns)
        said = asked.unique("unit", keep="last").filter(pl.col("outcome") == "error")
        tell(failed, "failed", said, "error")
    empty = score.unscored["empty"]
    if empty and empty >= _MANY_EMPTY * score.n_units:
        known = {**COMPLETION, "finish_reason": pl.String}
        asked = read_columns(run.completions, known, ["unit", "outcome", "finish_reason"])
        said = asked.unique("unit", keep="last").filter(pl.col("outcome") == "empty")
        word = redact(_commonest(said["finish_reason"]) or "unnamed", 60)
        answers = "1 answer is" if empty == 1 else f"{empty} answers are"
        text = f"{answers} empty: a normal stop ({word}) and no text"
        click.echo(f"refusalkit: {whose}{text}", err=True)
    if any(score.unscored[why] for why in _JUDGE_FAILURES):
        columns = ["unit", "category", "judge", "unscored", "reason", "error_detail"]
        known = {**VERDICT, "category": pl.String}
        judged = read_columns(run.verdicts, known, columns)
        last = judged.filter(pl.col("judge") == score.judge).unique("unit", keep="last")
        for why, what in _JUDGE_FAILURES.items():
            if count := score.unscored[why]:
                tell(count, what, last.filter(pl.col("unscored") == why), "reason")


def _commonest(words: pl.Series) -> str | None:
    found = sorted(words.drop_nulls().mode().to_list())
    return str(found[0]) if found else None


def is_owed(score: Score) -> bool:
    """Whether a request or a verdict is still to be asked for."""
    return _owed(score) > 0


def _owed(score: Score) -> int:
    votes = score.council.n_owed if score.council is not None else 0
    return votes + score.n_owed


def score_exit(score: Score, max_unscored: float, *, name: str | None = None) -> int:
    """The exit code for a score's share of unscored units; says on stderr if that is too large."""
    # Written this way so that a bound of NaN fails.
    if not score.unscored_percent <= max_unscored:
        owed = f" ({score.n_owed} of {score.n_units} are missing)" if score.n_owed else ""
        text = (
            f"{score.unscored_percent:.1f} % of the units are unscored{owed}, allowed: "
            f"{max_unscored:g} %"
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
