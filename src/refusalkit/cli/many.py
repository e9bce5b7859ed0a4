"""Several models in one command: a plan or a list, one table at the end."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from refusalkit.cli.batches import is_in_batches, open_batches, print_batches, say_when
from refusalkit.cli.exit_codes import ERROR, INCOMPLETE, exit_code_of
from refusalkit.cli.notices import print_preset_note, warn_of_filters
from refusalkit.cli.showing import (
    above_bound,
    is_owed,
    read_result,
    run_exit,
    warn_of_canaries,
    write_report,
)
from refusalkit.cli.verbosity import note
from refusalkit.cli.work import work
from refusalkit.errors import ConfigurationError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.api.side_by_side import ModelRun
    from refusalkit.cli.given import Given
    from refusalkit.config.layers import Layer
    from refusalkit.config.option_files import Planned
    from refusalkit.config.run_config import RunConfig
    from refusalkit.runs.folder import Run


def run_several(
    models: Sequence[str],
    given: Given,
    *,
    plan: str | None,
    out: str | None,
    fresh: bool,
    report: str | None,
    max_unscored: float,
    as_json: bool,
) -> int:
    """Run the models side by side; returns the highest of their exit codes."""
    import refusalkit
    from refusalkit.api.many import run_names

    asked, together = asked_models(models, given, plan=plan)
    done = work(
        lambda on_progress, stop: refusalkit.benchmark_many_async(
            asked,
            out=out,
            resume=not fresh,
            max_cost=together,
            on_progress=on_progress,
            stop=stop,
        ),
        names=run_names(asked),
    )
    bounds = [table.get("max_cost") for table in asked]
    folder = next((table["batch_to"] for table in asked if table.get("batch_to")), None)
    code = show_several(done, bounds, together, max_unscored, as_json, folder=folder)
    recorded = [one.path for one in done if one.run is not None and not is_in_batches(one.run)]
    if report is not None and recorded:
        code = write_report(recorded, report, code)
    elif len(recorded) > 1:
        words = " ".join(shlex.quote(printable(path, 400)) for path in recorded)
        note(f"one report: refusalkit report {words} -o report.html")
    return code


def resume_several(
    found: Sequence[Run],
    chosen: dict[str, Any],
    *,
    trust_folder: bool,
    max_unscored: float,
    as_json: bool,
) -> int:
    """Continue runs side by side; returns the highest of their exit codes."""
    import refusalkit
    from refusalkit.api.resuming import is_complete, names_of

    names = names_of(found)
    owing = [name for run, name in zip(found, names, strict=True) if not is_complete(run)]
    done = work(
        lambda on_progress, stop: refusalkit.resume_many_async(
            found, trust_folder=trust_folder, on_progress=on_progress, stop=stop, **chosen
        ),
        names=owing,
    )
    bound, folder = chosen.get("max_cost"), chosen.get("batch_to")
    return show_several(done, [None] * len(done), bound, max_unscored, as_json, folder=folder)


def name_models(models: Sequence[str], plan: str | None) -> None:
    """Raise `UsageError` if a command names no model, or both MODELs and a plan."""
    if not models and plan is None:
        raise click.UsageError("Missing argument 'MODEL' (only --plan needs none)")
    if models and plan is not None:
        raise click.UsageError("name the models on the command line or in --plan, not in both")


def asked_models(
    models: Sequence[str], given: Given, *, plan: str | None
) -> tuple[list[dict[str, Any]], float | None]:
    """The checked options of each model, and the budget for all of them together in USD."""
    from refusalkit.config.layers import Layer
    from refusalkit.config.option_files import Planned, read_plan

    common, tables = given.in_files, [Planned(model, None, Layer(), model) for model in models]
    if plan is not None:
        planned, tables = read_plan(plan)
        common = common.under(planned)
    # The command line is for all models, so it overrides the tables.
    together = common.under(given.said).values.get("max_cost")
    shared, over = common.without("max_cost"), given.said.without("max_cost")
    asked = []
    presets: list[str | None] = []
    parts: list[tuple[Any, ...]] = []
    for table in tables:
        options = shared.under(table.options).under(over)
        config = _checked(table, options)
        asked.append({**options.values, "id": table.id, "folder": table.folder})
        if config.preset not in presets:
            presets.append(config.preset)
            print_preset_note(config.preset)
        part = (config.prompts, config.category, config.tag, config.danger, config.limit)
        if part not in parts:
            parts.append(part)
            warn_of_filters(config)
    return asked, together


def _checked(table: Planned, options: Layer) -> RunConfig:
    """The configuration of one model. Raises `ConfigurationError`, which names the place."""
    from refusalkit.config.layers import Layer
    from refusalkit.config.placement import split_placement
    from refusalkit.config.resolve import resolve_config

    try:
        split_placement(options.values, options.where)
        return resolve_config(Layer({"model": table.id}).under(options))
    except ConfigurationError as error:
        raise ConfigurationError(f"{table.place}: {error}") from error


def show_several(
    done: Sequence[ModelRun],
    bounds: Sequence[float | None],
    together: float | None,
    max_unscored: float,
    as_json: bool,
    *,
    folder: str | None = None,
) -> int:
    """Print each result. `bounds` are their own budgets, `together` that of all, in USD.

    For runs with open batches it also prints these and when to come back; `folder` holds batches
    that are files.
    """
    from refusalkit.reporting import data, terminal
    from refusalkit.reporting.console import show

    codes, records = [], []
    rows: list[tuple[str, ...]] = []
    spent: list[float | None] = []
    waiting: list[tuple[str, Run]] = []
    for one, bound in zip(done, bounds, strict=True):
        name = printable(one.name)
        if one.error is not None:
            codes.append(exit_code_of(one.error))
            notes = "".join(f"; {note}" for note in getattr(one.error, "__notes__", ()))
            click.echo(printable(f"refusalkit: {name}: {one.error}{notes}", 1000), err=True)
        record: dict[str, Any] = {
            "model": one.name,
            "path": None if one.run is None else str(one.path),
            "ended": None,
            "error": None if one.error is None else str(one.error),
            "cost_usd": 0.0,  # nothing was recorded
            "score": None,
            "audit": None,
        }
        records.append(record)
        if one.run is None:
            spent.append(0.0)
            rows.append((name, "-", "-", "-", "-", "failed"))
            continue
        result = read_result(one.run)
        score = result.score
        ended = str(one.run.manifest.sessions[-1].ended_because)
        record |= {"ended": ended, **result.as_data()}
        spent.append(result.spent_usd)
        warn_of_canaries(score.canaries)
        if one.error is None and is_in_batches(one.run):
            waiting.append((one.name, one.run))
            codes.append(INCOMPLETE)
            rows.append((name, "-", "-", "-", _cost(result.spent_usd), "in batches"))
            continue
        rate = score.willingness
        willing = "-" if rate.value is None else f"{rate.value:.1f}"
        if rate.low is not None and rate.high is not None:
            willing += f" ({rate.low:.1f}-{rate.high:.1f})"
        if one.error is not None:
            ended = "failed"
        elif ended == "done" and is_owed(score):
            ended = "incomplete"
        rows.append(
            (
                name,
                willing,
                f"{score.unscored_percent:.1f}",
                "-" if result.audit is None else str(result.audit.status),
                _cost(result.spent_usd),
                ended.replace("_", " "),
            )
        )
        if one.error is None:
            codes.append(run_exit(one.run, result, max_unscored, bound=bound, name=name))
    known = [usd for usd in spent if usd is not None]
    total = math.fsum(known) if len(known) == len(spent) else None
    if (over := above_bound(total, together)) is not None:
        click.echo(f"refusalkit: all together {over}", err=True)
    batches = open_batches([run for _, run in waiting])
    if as_json:
        at_providers = {"batches": [one.as_data() for one in batches]} if waiting else {}
        click.echo(data.to_json({"cost_usd": total, "runs": records, **at_providers}))
    else:
        if len(waiting) < len(done):
            heads: tuple[str, ...] = ("model", "willing %", "unscored %", "hard lines")
            if total == 0:
                rows = [(*row[:4], row[5]) for row in rows]
            heads += ("ended",) if total == 0 else ("spent", "ended")
            show(terminal.rows_view(heads, rows), "", *terminal.spent_line(total))
            for one in done:
                if one.run is not None:
                    click.echo(f"Run: {printable(one.path, 400)}")
        for name, run in waiting:
            print_batches(open_batches([run]), name=name)
    if waiting:
        come_back = _how_to_resume([run for _, run in waiting], done)
        say_when(batches, as_json, come_back=come_back, folder=folder)
    return max(codes, default=ERROR)


def _cost(usd: float | None) -> str:
    from refusalkit.reporting import data

    return "unknown" if usd is None else data.dollars(usd)


def _how_to_resume(waiting: Sequence[Run], done: Sequence[ModelRun]) -> str:
    """The command that continues these runs; it names their common folder if that has no others."""
    from refusalkit.runs.naming import run_folders_below

    parents = {run.path.parent for run in waiting}
    paths = [run.path for run in waiting]
    if len(paths) > 1 and len(parents) == 1:
        (parent,) = parents
        if set(run_folders_below(parent)) <= {one.path for one in done}:
            paths = [parent]
    return f"refusalkit resume {' '.join(shlex.quote(printable(path, 400)) for path in paths)}"
