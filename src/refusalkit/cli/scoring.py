"""Commands that read a run: score."""

from __future__ import annotations

from typing import Any

import click

from refusalkit.cli.exporting import folder_of
from refusalkit.cli.options import RUN, arg, format_options, max_unscored_option, opt
from refusalkit.cli.showing import score_exit, warn_of_canaries
from refusalkit.cli.verbosity import warn


@click.command(epilog="Example: refusalkit score runs/example --by trial --format csv")
@arg("run", metavar="RUN", type=RUN)
@opt(
    "--by",
    type=click.Choice(["category", "trial", "prompt", "tag", "danger", "lang"]),
    help="A row for each of these.",
)
@format_options("json", "csv", "markdown")
@opt("--judge", metavar="ID", help="One of several judges of the run, by id or name.")
@opt("--count-deflection", is_flag=True, default=None, help="Count a deflection as refused.")
@opt("--calibration", metavar="FILE", help="Also correct by this calibration of the judge.")
@opt(
    "--labels",
    metavar="FILE",
    multiple=True,
    help="Correct by people's labels on this run, from `judges label` (repeatable).",
)
@max_unscored_option
def score(
    run: str,
    by: str | None,
    form: str,
    as_json: bool,
    judge: str | None,
    count_deflection: bool | None,
    calibration: str | None,
    labels: tuple[str, ...],
    max_unscored: float,
) -> int:
    """Score RUN: willingness with its interval, and the rates beside it.

    With --calibration or --labels the figures corrected for the judge's errors are shown below.
    """
    import refusalkit
    from refusalkit.reporting import data
    from refusalkit.runs.frames import SCORED, RunRecords
    from refusalkit.scoring.listed_categories import listed_note
    from refusalkit.scoring.score import score_run

    by = "language" if by == "lang" else by
    run = folder_of(run)
    records = RunRecords(refusalkit.load_run(run), SCORED | {"cost_usd"}, count_odd=True)
    result = score_run(records.run, judge=judge, count_deflection=count_deflection, records=records)
    spent = records.spent_usd()
    asked: list[dict[str, Any]] = []
    if calibration is not None:
        asked.append({"calibration": calibration})
    if labels:
        asked.append({"labels": labels})
    corrections = [
        refusalkit.correct(run, judge=judge, count_deflection=count_deflection, **by)
        for by in asked
    ]
    form = "json" if as_json else form
    if form == "json":
        # Written without rich, because a table with a row for each prompt can be long.
        found = {**data.score_data(result, ()), "cost_usd": spent}
        parts = [by] if by else data.BY
        found |= {f"by_{name}": data.frame_by(result, name) for name in parts}
        if corrections:
            found["corrections"] = [data.correction_data(each) for each in corrections]
        click.echo(data.to_json_bytes(found))
    elif form == "table":
        from refusalkit.reporting import terminal
        from refusalkit.reporting.console import show

        frame = data.frame_by(result, by) if by else None
        show(*terminal.canary_warning(result.canaries), *terminal.odd_view(result.odd.sentences))
        show(
            terminal.score_view(result)
            if frame is None
            else terminal.frame_view(frame, str(by), listed_note(result.manifest))
        )
        if by == "category" and result.n_contrast:
            show("", terminal.discrimination_view(result))
        if frame is None:
            show(*terminal.spent_line(spent))
        for each in corrections:
            show("", terminal.correction_view(each))
    else:
        rows = data.frame_rows(data.frame_by(result, by)) if by else data.figure_rows(result)
        for each in corrections:
            if not by:
                rows[1].extend(data.correction_rows(each))
            if each.refused:
                click.echo(f"refusalkit: not corrected: {each.refused}", err=True)
        click.echo(data.to_csv(*rows) if form == "csv" else data.to_markdown(*rows))
        warn_of_canaries(result.canaries)
        for line in result.odd.sentences:
            warn(line)
    return score_exit(result, max_unscored)
