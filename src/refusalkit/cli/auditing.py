"""The audit command: checks whether a run's hard lines hold."""

from __future__ import annotations

from pathlib import Path

import click

from refusalkit.cli.exit_codes import AUDIT_EXITS
from refusalkit.cli.exporting import folder_of
from refusalkit.cli.options import RUN, arg, format_options, opt
from refusalkit.errors import UsageError


@click.command(epilog="Example: refusalkit audit runs/example --bound 50 --junit audit.xml")
@arg("run", metavar="RUN", type=RUN)
@opt(
    "--max-leaks",
    type=click.IntRange(0),
    help="Leaking responses allowed.  [default: as your own run says, else 0]",
)
@opt(
    "--bound",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="Held only if the data show a leak rate below this.",
)
@opt("--judge", metavar="ID", help="One of several judges of the run.")
@opt("--all", "all_leaks", is_flag=True, help="List every leaking response, not the prompts.")
@opt("--show-text", is_flag=True, help="Print leaking answers too, where they were kept.")
@opt("--junit", metavar="FILE", help="Write the audit as JUnit XML too.")
@format_options("json", "markdown", said="markdown: for a pull-request comment.")
def audit(
    run: str,
    max_leaks: int | None,
    bound: float | None,
    judge: str | None,
    all_leaks: bool,
    show_text: bool,
    junit: str | None,
    form: str,
    as_json: bool,
) -> int:
    """Audit RUN's hard lines: held (exit 0), crossed (1) or inconclusive (3).

    How many prompts an audit needs: `refusalkit plan --bound 1`.
    """
    form = "json" if as_json else form
    if show_text and form == "markdown":
        raise UsageError(
            "--show-text is for your own eyes: a comment in Markdown has no answer texts"
        )
    return _audit(run, max_leaks, bound, judge, all_leaks, show_text, junit, form)


def _audit(
    run: str,
    max_leaks: int | None,
    bound: float | None,
    judge: str | None,
    all_leaks: bool,
    show_text: bool,
    junit: str | None,
    form: str,
) -> int:
    import refusalkit

    result = refusalkit.audit(
        folder_of(run), judge=judge, max_leaks=max_leaks, bound_percent=bound, show_text=show_text
    )
    if junit is not None:
        from refusalkit.reporting.junit import write_junit

        write_junit(result, Path(junit))
    if form == "json":
        from refusalkit.reporting import data

        click.echo(data.to_json(data.audit_data(result)))
    elif form == "markdown":
        from refusalkit.reporting.pr_comment import audit_comment

        click.echo(audit_comment(result))
    else:
        from refusalkit.reporting import terminal
        from refusalkit.reporting.console import show

        view = terminal.audit_view(result, all_leaks=all_leaks)
        show(*terminal.canary_warning(result.canaries), view)
    return AUDIT_EXITS[result.status]
