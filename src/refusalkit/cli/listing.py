"""Commands that show what is there: runs, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refusalkit.cli.exit_codes import OK
from refusalkit.cli.options import RUN, arg, opt
from refusalkit.errors import RefusalkitError, UsageError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.runs.folder import Run


@click.command(epilog="Example: refusalkit runs")
@arg("folder", metavar="[FOLDER]", default="runs")
@opt("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def runs(folder: str, as_json: bool) -> int:
    """List the runs in FOLDER (default: runs), the most recent session first.

    Wherever a command takes a RUN, `@last` stands for the first one in runs/, and the beginning of
    a folder's name or of a run's id is enough.
    """
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show
    from refusalkit.runs.naming import runs_and_unreadable

    if not Path(folder).is_dir():
        raise UsageError(f"{printable(folder)} is not a folder: name the one that holds your runs")
    found, unreadable = runs_and_unreadable(Path(folder))
    rows = [_row(run) for run in found]
    rows += [_unreadable_row(path, why) for path, why in unreadable.items()]
    if as_json:
        click.echo(data.to_json({"runs": rows}))
    elif rows:
        heads = ("run", "model", "judge", "scored", "will.", "cost", "started")
        show(terminal.rows_view(heads, [_cells(row, folder) for row in rows]))
        for row in rows:
            if row["error"] is not None:
                click.echo(f"{printable(row['path'])}: {printable(row['error'], 400)}")
    else:
        click.echo(f"No run in {printable(folder)}.")
    return OK


def _row(run: Run) -> dict[str, Any]:
    from refusalkit.runs.frames import SCORED, RunRecords
    from refusalkit.scoring.score import score_run

    manifest = run.manifest
    row: dict[str, Any] = {
        "path": str(run.path),
        "id": manifest.id,
        "model": str(manifest.config.get("model", "")),
        "prompts": manifest.prompt_set.name,
        "judge": manifest.judge,
        "n_units": manifest.n_units,
        "n_scored": None,
        "willingness": None,
        "cost_usd": None,
        "ended": str(manifest.sessions[-1].ended_because) if manifest.sessions else None,
        "started_at": str(manifest.sessions[0].started_at) if manifest.sessions else None,
        "error": None,
    }
    try:
        records = RunRecords(run, SCORED | {"cost_usd"})
        score = score_run(run, records=records)
        spent = records.spent_usd()
    except RefusalkitError as error:
        return {**row, "error": str(error)}
    willing = score.willingness.value
    return {**row, "n_scored": score.n_scored, "willingness": willing, "cost_usd": spent}


def _unreadable_row(path: Path, why: str) -> dict[str, Any]:
    names = ("id", "model", "prompts", "judge", "n_units", "n_scored", "willingness", "cost_usd")
    empty = dict.fromkeys((*names, "ended", "started_at"))
    return {"path": str(path), **empty, "error": why}


def _cells(row: dict[str, Any], folder: str) -> tuple[str, ...]:
    from refusalkit.reporting import data

    path = Path(row["path"])
    name = path.relative_to(folder) if path != Path(folder) else path
    started = (row["started_at"] or "-")[:16].replace("T", " ")
    if row["id"] is None:
        return (printable(name), "-", "-", "cannot be read", "-", "-", "-")
    asked = f"{printable(row['model'], 80)} on {printable(row['prompts'], 80)}"
    judge = printable(row["judge"], 80)
    if row["error"] is not None:
        return (printable(name), asked, judge, "cannot be read", "-", "-", started)
    return (
        printable(name),
        asked,
        judge,
        f"{row['n_scored']}/{row['n_units']}",
        "-" if row["willingness"] is None else f"{row['willingness']:.1f}",
        "?" if row["cost_usd"] is None else data.dollars(row["cost_usd"]),
        started,
    )


@click.command(epilog="Example: refusalkit show runs/example weapons-01#1")
@arg("run", metavar="RUN", type=RUN)
@arg("unit", metavar="UNIT")
@opt("--show-text", is_flag=True, help="Print the texts too, where they were kept.")
@opt("--json", "as_json", is_flag=True, help="Print the unit as JSON.")
def show(run: str, unit: str, show_text: bool, as_json: bool) -> int:
    """Show one UNIT of RUN, such as weapons-01#2: its completion, and each judge's verdict.

    Texts are printed only with --show-text. Withheld hard-line answers were never written to disk.
    """
    import refusalkit
    from refusalkit.reporting import data

    found = unit_facts(refusalkit.load_run(run), unit, show_text=show_text)
    if as_json:
        click.echo(data.to_json(found))
        return OK
    for name, value in found.items():
        if name == "text" and value is None and found["text_chars"]:
            value = "withheld: its text is on no disk"
        if name != "verdicts" and value is not None:
            click.echo(f"{name}: {_told(value)}")
    for verdict in found["verdicts"]:
        label = verdict["label"] or f"unscored ({verdict['unscored']})"
        click.echo(f"verdict by {printable(verdict['judge'], 200)}: {printable(label)}")
        if verdict.get("reason"):
            click.echo(f"  reason: {_told(verdict['reason'])}")
    return OK


def unit_facts(run: Run, unit: str, *, show_text: bool) -> dict[str, Any]:
    """What a run has on one unit, as JSON values. Raises `UsageError` if it has nothing."""
    from refusalkit.runs.records import read_records

    completion: dict[str, Any] = {}
    for _, record in read_records(run.completions):
        if record["unit"] == unit:
            completion = dict(record)
    if not completion:
        raise UsageError(
            f"{printable(run.path)} has no answer to {printable(unit)}: a unit is a prompt's id "
            "and a trial, such as weapons-01#2"
        )
    verdicts: dict[str, dict[str, Any]] = {}
    for _, record in read_records(run.verdicts):
        if record["unit"] == unit:
            verdicts[record["judge"]] = dict(record)
    names = [*("unit", "category", "model", "outcome", "error", "finish_reason", "text_chars")]
    names += ["reasoning_chars", "latency_s", "cost_usd", "at"]
    facts = {name: completion.get(name) for name in names}
    said = ("judge", "label", "unscored", "source", "cost_usd", "at")
    keys = (*said, "reason") if show_text else said
    if show_text:
        facts["prompt"] = _prompt_text(run, completion["prompt_id"])
        facts["text"] = completion.get("text")
    own = [{key: one.get(key) for key in keys} for one in verdicts.values()]
    return {**facts, "verdicts": own}


def _prompt_text(run: Run, prompt_id: str) -> str | None:
    """A prompt's text; None if the run's prompts can no longer be read."""
    from refusalkit.runs.prompt_choice import same_prompts

    manifest = run.manifest
    if manifest.kind != "run":
        return None
    beside = run.path.absolute().parent
    try:
        chosen = same_prompts(manifest, manifest.run_config, None, beside=beside)
    except RefusalkitError:
        return None
    return next((prompt.text for prompt in chosen.prompts if prompt.id == prompt_id), None)


def _told(value: object) -> str:
    return printable(value, 4000)
