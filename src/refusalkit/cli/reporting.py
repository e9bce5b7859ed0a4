"""The `report` command."""

from __future__ import annotations

import click

from refusalkit.cli.exit_codes import OK
from refusalkit.cli.options import RUN, arg, opt
from refusalkit.untrusted import printable


@click.command(epilog="Example: refusalkit report runs/example -o report.html")
@arg("runs", metavar="RUN...", type=RUN, nargs=-1, required=True)
@opt(
    "-o",
    "--out",
    metavar="FILE",
    help="Ends in .html, .md, .json, .csv or .parquet.  [default: RUN/report.html]",
)
@opt("--show-text", is_flag=True, help="Show kept answers; never those to hard-line prompts.")
@opt("--judge", metavar="ID", help="One of several judges of the runs.")
@opt("--anyway", is_flag=True, help="Compare runs on other prompts or judges, with a warning.")
@opt("--calibration", metavar="FILE", help="Show the figures corrected for judge error, too.")
@opt("--force", is_flag=True, help="Replace FILE even if it is not a report.")
@opt("--json", "as_json", is_flag=True, help="Print the report as JSON and write no file.")
def report(
    runs: tuple[str, ...],
    out: str | None,
    show_text: bool,
    judge: str | None,
    anyway: bool,
    calibration: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Write a report of RUN, or of several side by side.

    One self-contained page (.html), Markdown for a model card (.md), the same as data (.json), or
    the units as a table (.csv, .parquet).
    """
    import refusalkit

    if as_json:
        from refusalkit.reporting.data import to_json
        from refusalkit.reporting.document import report_data
        from refusalkit.reporting.document.facts import gather
        from refusalkit.scoring.judge_quality.calibration import read_calibration

        if out is not None or show_text:
            raise click.UsageError("--json prints data without texts: leave -o and --show-text out")
        opened = [refusalkit.load_run(run) for run in runs]
        known = None if calibration is None else read_calibration(calibration)
        click.echo(
            to_json(report_data(gather(opened, judge=judge, anyway=anyway, calibration=known)))
        )
        return OK
    if out is None and len(runs) > 1:
        raise click.UsageError("a report of several runs has no default place: name a file with -o")
    path = refusalkit.report(
        list(runs),
        out,
        judge=judge,
        show_text=show_text,
        anyway=anyway,
        calibration=calibration,
        force=force,
    )
    click.echo(f"Report: {printable(path, 400)}")
    return OK
