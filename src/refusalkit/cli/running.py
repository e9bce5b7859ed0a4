"""Commands that send requests: run, resume, grade, regrade."""

from __future__ import annotations

from typing import Any

import click

from refusalkit.cli.batches import is_in_batches, show_batches
from refusalkit.cli.exit_codes import INCOMPLETE, OK
from refusalkit.cli.given import given
from refusalkit.cli.many import name_models, resume_several, run_several
from refusalkit.cli.notices import print_preset_note, warn_of_filters, warn_unmarked_hard_lines
from refusalkit.cli.options import (
    RUN,
    ConfiguredCommand,
    arg,
    config_options,
    json_option,
    judging_options,
    max_unscored_option,
    opt,
    run_options,
    trust_folder_option,
)
from refusalkit.cli.showing import (
    check_report,
    show_regrade,
    show_run,
    warn_of_canaries,
    write_report,
)
from refusalkit.cli.work import work
from refusalkit.errors import UsageError
from refusalkit.untrusted import printable


@click.command(
    cls=ConfiguredCommand, epilog="Example: refusalkit run openai/gpt-6-luna --max-cost 5"
)
@arg("models", metavar="MODEL...", nargs=-1)
@run_options
@opt("--fresh", is_flag=True, help="Refuse if --out already holds a run.")
@opt(
    "--log-to",
    type=click.Choice(["wandb", "mlflow", "trackio"]),
    multiple=True,
    help="Log figures, configuration and report to this tracker (repeatable).",
)
@json_option("Print score and audit as JSON.")
def run(
    models: tuple[str, ...],
    plan: str | None,
    out: str | None,
    fresh: bool,
    report: str | None,
    max_unscored: float,
    log_to: tuple[Any, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Ask MODEL (provider/name) every prompt, judge every answer, score and audit.

    Several models run at the same time, each in its own folder below --out. --max-cost then holds
    for all together, and one that fails does not stop the others. If --out already holds this run,
    the command continues it. With --batch requests are submitted as batches and the command exits
    with 3: `refusalkit resume` collects the results.
    """
    import refusalkit
    from refusalkit.config.layers import Layer
    from refusalkit.config.placement import split_placement
    from refusalkit.config.resolve import resolve_config
    from refusalkit.engine.session import how_to_resume

    name_models(models, plan)
    for tracker in log_to:
        from refusalkit.integrations.trackers import check_tracker

        check_tracker(tracker)
    if plan is not None or len(models) > 1:
        check_report(report, out, several=True)
        if log_to:
            raise UsageError("--log-to is for one model; rk.log_to logs a run that is there")
        return run_several(
            models,
            given(options),
            plan=plan,
            out=out,
            fresh=fresh,
            report=report,
            max_unscored=max_unscored,
            as_json=as_json,
        )
    check_report(report, out)
    (model,) = models
    layer = Layer({"model": model}).under(given(options).all)
    config, (placement, _) = resolve_config(layer), split_placement(layer.values)
    print_preset_note(config.preset)
    warn_unmarked_hard_lines(config)
    warn_of_filters(config)
    chosen = config.model_dump(exclude_unset=True)
    chosen.pop("judge", None)
    asked, prompts = chosen.pop("model"), chosen.pop("prompts", None)
    chosen |= placement.model_dump(exclude_unset=True)
    done = work(
        lambda on_progress, stop: refusalkit.benchmark_async(
            asked,
            prompts,
            judge=config.judge,
            out=out,
            resume=not fresh,
            on_progress=on_progress,
            stop=stop,
            **chosen,
        ),
        tables=not as_json,
    )
    if is_in_batches(done):
        folder = chosen.get("batch_to")
        return show_batches([done], as_json, come_back=how_to_resume(done), folder=folder)
    code = show_run(done, max_unscored, as_json)
    for tracker in log_to:
        refusalkit.log_to(done, tracker)
        click.echo(f"refusalkit: logged to {tracker}", err=True)
    return code if report is None else write_report(done.path, report, code)


@click.command(
    cls=ConfiguredCommand, epilog="Example: refusalkit resume runs/20261123-101500-demo-mixed-1a2b"
)
@arg("runs", metavar="RUN...", type=RUN, nargs=-1, required=True)
@config_options("measured", "judge", "operational", "batch", "placement", file=True, defaults=False)
@max_unscored_option
@opt("--model", metavar="ID", section="What is asked", help="Refused unless it is the run's own.")
@trust_folder_option
@json_option("Print score and audit as JSON.")
def resume(
    runs: tuple[str, ...],
    model: str | None,
    max_unscored: float,
    trust_folder: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Continue RUN: only missing answers and verdicts are requested.

    Options that you leave out are the run's own. Those about pace and endpoint may differ from the
    run's; any other change is refused. --serve and --engine are not recorded: give them again. Of
    several runs, or a folder of runs, all incomplete ones continue at the same time, and --max-cost
    holds for all together.
    """
    import refusalkit
    from refusalkit.api.resuming import runs_named
    from refusalkit.engine.session import how_to_resume

    found = runs_named(list(runs))
    # Values that differ between runs are checked for each, below.
    base = found[0].manifest.run_config
    chosen = dict(given(options, base=base).all.values)
    if model is not None:
        chosen["model"] = model
    if len(found) > 1:
        if model is not None:
            raise UsageError("--model is for one run")
        return resume_several(
            found, chosen, trust_folder=trust_folder, max_unscored=max_unscored, as_json=as_json
        )
    done = work(
        lambda on_progress, stop: refusalkit.resume_async(
            found[0], trust_folder=trust_folder, on_progress=on_progress, stop=stop, **chosen
        ),
        tables=not as_json,
    )
    if is_in_batches(done):
        folder = chosen.get("batch_to")
        return show_batches([done], as_json, come_back=how_to_resume(done), folder=folder)
    return show_run(done, max_unscored, as_json)


@click.command(
    cls=ConfiguredCommand, epilog="Example: refusalkit grade answers.jsonl --judge lexical"
)
@arg("records", metavar="RESPONSES", type=RUN)
@opt("--judge", default="graded", show_default=True, help="A shipped judge or a judge file.")
@judging_options
@config_options(only=["hard_line"])
@opt("--out", metavar="DIR", help="Keep the verdicts in this folder (and go on with it).")
@trust_folder_option
@json_option("Print the result as JSON.")
def grade(
    records: str,
    judge: str,
    out: str | None,
    trust_folder: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Judge recorded answers, and compare with the labels that they carry.

    RESPONSES is a .jsonl file, a run folder, a log folder of the reference environment, or a log of
    lm-evaluation-harness, promptfoo, garak, PyRIT, SpeechMap or Inspect. The judge "imported"
    repeats the judgements in the records. With --batch the judge's requests are submitted as a
    batch and the command exits with 3: repeat it to collect the verdicts.
    """
    import refusalkit
    from refusalkit.engine.session import how_to_resume
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    grades = work(
        lambda on_progress, stop: refusalkit.grade_async(
            records,
            judge,
            out=out,
            trust_folder=trust_folder,
            on_progress=on_progress,
            stop=stop,
            **given(options).all.values,
        )
    )
    if grades.run is not None and is_in_batches(grades.run):
        return show_batches([grades.run], as_json, come_back=how_to_resume(grades.run))
    if as_json:
        click.echo(data.to_json(data.grades_data(grades)))
    else:
        show(*terminal.canary_warning(grades.canaries), terminal.grades_view(grades))
        if grades.run is not None:
            click.echo(f"Verdicts: {printable(grades.run.path, 400)}")
    warn_of_canaries(grades.canaries)
    if not grades.n_owed:
        return OK
    stopped = {"interrupted": "interrupted", "max_cost": "stopped before --max-cost"}
    why = stopped.get(str(grades.ended), "not complete")
    how = "what was judged is not kept: give --out to go on another time"
    if grades.run is not None:
        more = " and a higher --max-cost" if grades.ended == "max_cost" else ""
        how = f"go on with: {how_to_resume(grades.run)}{more}"
    click.echo(f"refusalkit: {why}; {how}", err=True)
    return INCOMPLETE


@click.command(
    cls=ConfiguredCommand, epilog="Example: refusalkit regrade runs/example --judge lexical"
)
@arg("run", metavar="RUN", type=RUN)
@opt(
    "--judge",
    required=True,
    metavar="NAME",
    help="A judge or a judge file; several, separated by commas, make a council.",
)
@judging_options
@trust_folder_option
@json_option("Print score and audit by this judge as JSON.")
def regrade(run: str, judge: str, trust_folder: bool, as_json: bool, **options: Any) -> int:
    """Judge RUN again; its answers stay as they are, and so does its own judge.

    The new verdicts are kept in addition to the others: score, audit and judges bridge read any
    judge by --judge or by name. Repeat the command to continue where it stopped, and to collect a
    --batch. --max-cost bounds what this judge costs, including earlier calls.
    """
    import refusalkit

    done = work(
        lambda on_progress, stop: refusalkit.regrade_async(
            run,
            judge,
            trust_folder=trust_folder,
            on_progress=on_progress,
            stop=stop,
            **given(options).all.values,
        ),
        tables=not as_json,
    )
    if is_in_batches(done):
        return show_batches([done], as_json, come_back="the same command")
    return show_regrade(done, as_json)
