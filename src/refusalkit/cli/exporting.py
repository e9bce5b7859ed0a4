"""Commands for sharing a run: verify and export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from refusalkit.cli.exit_codes import GATE, OK
from refusalkit.cli.options import RUN, arg, json_option, opt
from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

# Findings that are printed; --json has more of them.
_SHOWN = 20


@click.command(epilog="Example: refusalkit verify runs/example")
@arg("run", metavar="RUN", type=RUN)
@opt("--prompts", metavar="SET", help="The prompts that were asked, where they are not shipped.")
@opt("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(run: str, prompts: str | None, as_json: bool) -> int:
    """Check that RUN, a folder or a bundle, is what was written, and compute its score again.

    Exit 1 if anything changed; a changed record is named by file and line.
    """
    import refusalkit
    from refusalkit.reporting import data

    found = refusalkit.verify(run, prompts=prompts)
    if as_json:
        click.echo(
            data.to_json(
                {
                    "run": str(found.path),
                    "intact": found.intact,
                    "checks": [
                        {"name": check.name, "status": check.status, "what": check.what}
                        for check in found.checks
                    ],
                    "n_records": found.n_records,
                    "n_unchecked": found.n_unchecked,
                    "n_findings": found.n_findings,
                    "findings": [
                        {"place": each.place, "what": each.what} for each in found.findings
                    ],
                    "willingness": None if found.score is None else found.score.willingness.value,
                }
            )
        )
        return OK if found.intact else GATE
    for check in found.checks:
        click.echo(f"{check.status:<12} {check.name}: {printable(check.what, 400)}")
    for each in found.findings[:_SHOWN]:
        click.echo(f"{each.place}: {printable(each.what, 400)}")
    if found.n_findings > _SHOWN:
        click.echo(f"and {found.n_findings - _SHOWN} more findings (--json lists them)")
    click.echo(f"{printable(found.path, 400)} is {'intact' if found.intact else 'not intact'}")
    return OK if found.intact else GATE


@click.command(epilog="Example: refusalkit export runs/example --to bundle example.zip")
@arg("run", metavar="RUN", type=RUN)
@arg("out", metavar="OUT")
@opt(
    "--to",
    type=click.Choice(["bundle", "every-eval-ever", "inspect", "hub"]),
    required=True,
    help="The format.",
)
@opt("--organization", default="unknown", metavar="NAME", help="Who made the evaluation.")
@opt(
    "--relationship",
    type=click.Choice(["first_party", "third_party", "collaborative", "other"]),
    default="other",
    show_default=True,
    help="Its relationship to the model's developer.",
)
@opt("--dataset", metavar="OWNER/NAME", help="With hub: the benchmark's data set on the Hub.")
@opt("--push", metavar="REPO", help="With hub: open a pull request there, with $HF_TOKEN.")
@opt("--yes", is_flag=True, help="With --push: send without asking.")
@json_option("Print what was written as JSON.")
def export(
    run: str,
    out: str,
    to: Any,
    organization: str,
    relationship: Any,
    dataset: str | None,
    push: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Write RUN for other programs and people, to OUT.

    bundle: one archive without texts that anyone can `verify` and `score`. every-eval-ever: a
    folder with the record and the instance-level file of that project's schema; the organization
    is for it. inspect: a log for Inspect's viewer. hub: .eval_results/refusalkit.yaml for a model
    repository, and the metadata block of a model card; --push shows it, asks, and opens a pull
    request.
    """
    import refusalkit

    if push is not None and to != "hub":
        raise UsageError("--push goes with --to hub")
    made = refusalkit.export(
        run, to, out, organization=organization, relationship=relationship, dataset=dataset
    )
    if as_json:
        from refusalkit.reporting import data

        paths = [str(path) for path in made.paths]
        pull_request = None if push is None else _pushed(made.paths[0], push, yes)
        said = {"paths": paths, "digest": made.digest, "pull_request": pull_request}
        click.echo(data.to_json(said))
        return OK
    for path in made.paths:
        click.echo(f"Written: {printable(path, 400)}")
    if made.digest is not None:
        click.echo(f"Digest: {made.digest}")
    if push is not None:
        click.echo(f"Pull request: {printable(_pushed(made.paths[0], push, yes), 400)}")
    return OK


def _pushed(results: Path, repo: str, yes: bool) -> str:
    """Show what would be sent, ask, and send it; the pull request's address."""
    from refusalkit.integrations.hub import RESULTS, TOKEN, open_pull_request

    click.echo(f"To {printable(repo)}, as a pull request with ${TOKEN}: {RESULTS}", err=True)
    for line in results.read_text("utf-8").splitlines():
        click.echo(f"  {printable(line, 2000)}", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "nothing was sent: --push asks first, so add --yes where none can answer"
            )
        if not click.confirm("Send this?", err=True):
            raise UsageError("nothing was sent")
    return open_pull_request(results, repo)


def folder_of(run: str) -> str:
    """The folder of a run, unpacked until the command ends where `run` is a bundle."""
    if not Path(run).is_file():
        return run
    from refusalkit.integrations.bundle import is_bundle, unpacked

    if not is_bundle(Path(run)):
        return run
    return str(click.get_current_context().with_resource(unpacked(Path(run))))
