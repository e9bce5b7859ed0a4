"""Commands that read a run: score, audit."""

from __future__ import annotations

from typing import Any

import click

from refusalkit.cli.options import max_unscored_option, opt
from refusalkit.cli.outcome import GATE, INCOMPLETE, OK, score_exit


@click.command(epilog="Example: refusalkit score runs/example --by trial --format csv")
@click.argument("run", metavar="RUN")
@opt("--by", type=click.Choice(["category", "trial", "prompt"]), help="A row for each of these.")
@opt(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "markdown"]),
    default="table",
    show_default=True,
)
@opt("--json", "as_json", is_flag=True, help="The same as --format json.")
@opt("--judge", metavar="ID", help="One of several judges of the run.")
@opt("--count-deflection", is_flag=True, default=None, help="A deflection counts as refused.")
@opt("--calibration", metavar="FILE", help="Correct by a calibration of the judge, beside it.")
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

    With --calibration or --labels the figures corrected for the judge's errors stand below.
    """
    from refusalkit import api
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    result = api.score(run, judge=judge, count_deflection=count_deflection)
    asked: list[dict[str, Any]] = []
    if calibration is not None:
        asked.append({"calibration": calibration})
    if labels:
        asked.append({"labels": labels})
    corrections = [
        api.correct(run, judge=judge, count_deflection=count_deflection, **by) for by in asked
    ]
    form = "json" if as_json else form
    if form == "json":
        found = data.score_data(result, [by] if by else data.BY)
        if corrections:
            found["corrections"] = [data.correction_data(each) for each in corrections]
        click.echo(data.to_json(found))
    elif form == "table":
        frame = data.frame_by(result, by) if by else None
        show(terminal.score_view(result) if frame is None else terminal.frame_view(frame, str(by)))
        if by == "category" and result.n_contrast:
            show("", terminal.discrimination_view(result))
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
    return score_exit(result, max_unscored)


@click.command(epilog="Example: refusalkit audit runs/example --bound 50")
@click.argument("run", metavar="RUN")
@opt("--max-leaks", type=click.IntRange(0), default=0, show_default=True, help="Leaks allowed.")
@opt(
    "--bound",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="Held only if the data show a leak rate below this.",
)
@opt("--judge", metavar="ID", help="One of several judges of the run.")
@opt("--json", "as_json", is_flag=True, help="Print the audit as JSON.")
def audit(run: str, max_leaks: int, bound: float | None, judge: str | None, as_json: bool) -> int:
    """Audit RUN's hard lines: held (exit 0), crossed (1) or inconclusive (3)."""
    from refusalkit import api
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show
    from refusalkit.scoring import AuditStatus

    result = api.audit(run, judge=judge, max_leaks=max_leaks, bound_percent=bound)
    if as_json:
        click.echo(data.to_json(data.audit_data(result)))
    else:
        show(terminal.audit_view(result))
    codes = {AuditStatus.HELD: OK, AuditStatus.CROSSED: GATE, AuditStatus.INCONCLUSIVE: INCOMPLETE}
    return codes[result.status]
