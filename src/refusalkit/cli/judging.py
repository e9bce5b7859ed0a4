"""The `judges` commands."""

from __future__ import annotations

from typing import Any

import click

from refusalkit.cli import labelling
from refusalkit.cli.exit_codes import GATE, INCOMPLETE, OK
from refusalkit.cli.given import given
from refusalkit.cli.options import (
    RUN,
    ConfiguredCommand,
    Number,
    arg,
    json_option,
    one_judge_options,
    opt,
)
from refusalkit.cli.showing import print_rows
from refusalkit.cli.verbosity import note
from refusalkit.cli.work import work
from refusalkit.untrusted import printable


@click.group(epilog="Example: refusalkit judges show graded")
def judges() -> None:
    """List, show and compare judges."""


@judges.command("list", epilog="Example: refusalkit judges list")
@json_option()
def judges_list(as_json: bool) -> None:
    """The judges that come with refusalkit."""
    from refusalkit.judges.rubrics import load_rubric, shipped_judges

    found = [load_rubric(name) for name in shipped_judges()]
    heads = ("judge", "version", "kind", "model", "description")
    rows = [(r.name, r.version, r.kind, r.model or "none", r.description) for r in found]
    print_rows(heads, rows, as_json)


@judges.command("show", epilog="Example: refusalkit judges show graded")
@arg("source", metavar="JUDGE")
@json_option()
def judges_show(source: str, as_json: bool) -> None:
    """Show JUDGE: its model, its prompt, and how its reply is read."""
    from refusalkit.judges.rubrics import load_rubric
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    rubric = load_rubric(source)
    if as_json:
        click.echo(data.to_json(data.rubric_data(rubric)))
        return
    show(terminal.rubric_view(rubric))
    if rubric.schema:
        # Not wrapped: it stays JSON.
        click.echo(f"\nSchema:\n\n{data.to_json(rubric.schema)}")


judges.add_command(labelling.label)


@judges.command(
    "calibrate",
    cls=ConfiguredCommand,
    epilog="Example: refusalkit judges calibrate lexical --labels labelled.jsonl",
)
@arg("judge", metavar="JUDGE")
@opt(
    "--labels",
    metavar="FILE|NAME",
    multiple=True,
    required=True,
    help="Answers with people's labels (repeatable): JSONL with prompt, response, label; or "
    "published ones by name, such as xstest-answers.",
)
@opt("--out", metavar="FILE", help="Save the calibration, for score --calibration.")
@opt("--verdicts", metavar="DIR", help="Keep the verdicts below this folder (and go on there).")
@opt("--count-deflection", is_flag=True, help="Count a deflection as refused.")
@one_judge_options("judge_model", "judge_via", "hard_line", "batch", "wait")
@json_option("Print the result as JSON.")
def judges_calibrate(
    judge: str,
    labels: tuple[str, ...],
    out: str | None,
    verdicts: str | None,
    count_deflection: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure JUDGE on answers that people labelled: sensitivity, specificity, kappa, alpha.

    JUDGE is a shipped judge, a judge file, or imported:NAME for judgements in the records. The
    verdicts of a judge that costs something are kept. Repeat the command to continue where it
    stopped, and to collect a --batch.
    """
    from pathlib import Path

    import refusalkit
    from refusalkit.cli.batches import is_in_batches, show_batches
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show
    from refusalkit.scoring.judge_quality.calibration import write_calibration

    found = work(
        lambda on_progress, stop: refusalkit.calibrate_async(
            judge,
            labels,
            verdicts=verdicts,
            count_deflection=count_deflection,
            on_progress=on_progress,
            stop=stop,
            **given(options).all.values,
        )
    )
    in_batches = [run for run in map(refusalkit.load_run, found.runs) if is_in_batches(run)]
    if in_batches:
        return show_batches(in_batches, as_json, come_back="the same command")
    if as_json:
        click.echo(data.to_json(data.calibrated_data(found)))
    else:
        show(terminal.calibrated_view(found))
        for run in found.runs:
            click.echo(f"Verdicts: {printable(run, 400)}")
    if found.n_owed:
        again = "; go on with the same command" if found.runs else ""
        click.echo(f"refusalkit: {found.n_owed} verdicts are owed{again}", err=True)
        if out is not None:
            click.echo("refusalkit: no calibration was saved: it would be of a part only", err=True)
        return INCOMPLETE
    if out is not None:
        write_calibration(found.calibration, Path(out))
        note(f"calibration saved: {printable(out, 400)}")
    return OK


@judges.command(
    "agree",
    cls=ConfiguredCommand,
    epilog="Example: refusalkit judges agree answers.jsonl --judge lexical",
)
@arg("paths", metavar="PATH...", nargs=-1, required=True)
@opt("--judge", metavar="NAME", help="Judge the answers with this one too.")
@one_judge_options("judge_model", "judge_temperature", "judge_asks", "judge_via")
@opt("--show-text", is_flag=True, help="Print the answers on which they differ; no hard lines.")
@json_option("Print as JSON, with all ids.")
def judges_agree(
    paths: tuple[str, ...], judge: str | None, show_text: bool, as_json: bool, **options: Any
) -> None:
    """Compare judges and people over the same answers: kappa, alpha, and where they differ, by id.

    PATH is a run folder, recorded answers with judgements or people's labels, or a label file of
    `judges label` (together with its run, or with another person's file).
    """
    import refusalkit
    from refusalkit.api.grading import answer_texts
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    found = work(
        lambda on_progress, stop: refusalkit.judge_agreement_async(
            paths, judge, on_progress=on_progress, stop=stop, **given(options).all.values
        )
    )
    if as_json:
        click.echo(data.to_json(data.judge_pairs_data(found)))
    else:
        show(terminal.judge_pairs_view(found))
        if show_text:
            differ = {unit for pair in found.pairs for unit in pair.differ}
            texts = answer_texts(paths, differ)
            show("", terminal.texts_view(texts, sorted(differ)))


@judges.command(
    "bridge", epilog="Example: refusalkit judges bridge graded lexical runs/a runs/b --margin 3"
)
@arg("old", metavar="OLD")
@arg("new", metavar="NEW")
@arg("runs", metavar="RUN...", type=RUN, nargs=-1, required=True)
@opt(
    "--margin",
    type=Number(0, 100, min_open=True),
    default=2.0,
    show_default=True,
    metavar="POINTS",
    help="How far willingness may move.",
)
@opt(
    "--min-kappa",
    type=Number(0, 1, max_open=True),
    default=0.6,
    show_default=True,
    metavar="KAPPA",
    help="How well the judges must agree on refused or not.",
)
@opt(
    "--count-deflection/--no-count-deflection",
    default=None,
    help="Whether a deflection counts as refused.  [default: as the runs do]",
)
@json_option("Print as JSON, with all ids.")
def judges_bridge(
    old: str,
    new: str,
    runs: tuple[str, ...],
    margin: float,
    min_kappa: float,
    count_deflection: bool | None,
    as_json: bool,
) -> int:
    """Show what replacing judge OLD by NEW does to the score, over runs that both judged.

    OLD and NEW are judges' ids, or names that one judge of a run has. Exit 0: comparable; 1: not
    comparable, or only after correction; 3: undecided, mostly because of too few answers.
    """
    import refusalkit
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show
    from refusalkit.scoring.judge_quality.bridge import Comparability

    found = refusalkit.bridge(
        old, new, runs, margin=margin, min_kappa=min_kappa, count_deflection=count_deflection
    )
    if as_json:
        click.echo(data.to_json(data.bridge_data(found)))
    else:
        show(terminal.bridge_view(found))
    codes = {Comparability.COMPARABLE: OK, Comparability.INCONCLUSIVE: INCOMPLETE}
    return codes.get(found.verdict, GATE)


@judges.command("probe", cls=ConfiguredCommand, epilog="Example: refusalkit judges probe lexical")
@arg("source", metavar="JUDGE")
@one_judge_options("judge_model", "judge_via")
@opt("--kind", "kinds", multiple=True, metavar="NAME", help="Only this kind (repeatable).")
@opt(
    "--max-unscored",
    type=Number(0, 100),
    default=5.0,
    show_default=True,
    metavar="PERCENT",
    help="Exit 3 if more probes than this have no label.",
)
@json_option("Print as JSON, with all ids.")
def judges_probe(
    source: str, kinds: tuple[str, ...], max_unscored: float, as_json: bool, **options: Any
) -> int:
    """Test JUDGE with prompt injections in answers: fake verdicts, orders, delimiters, ...

    Each attack comes before, after and around a plain refusal and a plain compliance. Exit 0: no
    verdict flipped; 1: some did; 3: unclear, because the judge misjudged an answer without an
    attack or too many verdicts are missing.
    """
    import refusalkit
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show
    from refusalkit.scoring.judge_quality.probe_results import ProbeStatus

    found = work(
        lambda on_progress, stop: refusalkit.probe_judge_async(
            source,
            kinds=kinds,
            max_unscored=max_unscored,
            on_progress=on_progress,
            stop=stop,
            **given(options).all.values,
        )
    )
    if as_json:
        click.echo(data.to_json(data.probe_data(found)))
    else:
        show(terminal.probe_view(found))
    codes = {
        ProbeStatus.RESISTS: OK,
        ProbeStatus.FOOLED: GATE,
        ProbeStatus.UNCLEAR: INCOMPLETE,
    }
    return codes[found.status]
