"""Make runs: ask a model every prompt, and judge every answer."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from refusalkit.api.calls import check_options
from refusalkit.api.order import plan_of, stop_rule_of
from refusalkit.api.resuming import continue_run, how_to_go_on, same_run
from refusalkit.config.placement import PlacedOptions, split_placement
from refusalkit.config.run_config import RunConfig
from refusalkit.engine.batch_checks import batched_to_files, check_batch
from refusalkit.engine.opening import (
    config_of_call,
    in_batch_files,
    open_configured_judge,
    open_configured_model,
    ready_config,
)
from refusalkit.engine.serving.workplace import (
    Workplace,
    at_workplace,
    open_workplace,
    reserved,
)
from refusalkit.engine.session import work_session
from refusalkit.errors import (
    FatalProviderError,
)
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run, create_run
from refusalkit.runs.manifest import Manifest
from refusalkit.runs.new import is_untouched, new_manifest
from refusalkit.runs.prompt_choice import choose_prompts

if TYPE_CHECKING:
    from refusalkit.engine.budget import Budget
    from refusalkit.engine.serving.slots import Slots
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.endpoints import Pacers
    from refusalkit.models.protocol import Model
from refusalkit.api.sync import sync
from refusalkit.engine.plan import OnProgress
from refusalkit.runs.naming import RUNS

# How an error's message ends if its run can be resumed later.
_RESUME = "; resume the run then"


def benchmark(
    model: str | Model,
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[PlacedOptions],
) -> Run:
    """Ask a model every prompt, judge every answer, and record everything in a run folder.

    Args:
        model: an id such as ``openai/gpt-6-luna``, or your own `Model`.
        prompts: a shipped name, a path, several of them separated by commas, or a `PromptSet`.
            Default: the preset's, else ``refusalkit-166``.
        judge: a shipped name, the path of a judge file, several of them with commas for a council,
            or your own `Judge`. Default: ``graded``, and ``lexical`` for ``demo/...`` models.
        out: the folder to make; default ``runs/<time>-<model>``.
        resume: continue the run in `out`, if there is one and all options that its figures depend
            on are the same. Without it a folder that holds a run is refused.
        on_progress: called after each step with a `Progress`.
        **options: `RunOptions`: trials, temperature, concurrency, max_cost, ...; and
            `PlacementOptions`, which say where the model runs: serve, engine, workers, gpus, ...

    Returns:
        The run; `run.manifest.sessions[-1].ended_because` says whether it is done.

    Raises:
        TypeError: an option is unknown; a similar one is suggested.
        UsageError: prompts, judge file or folder are wrong; nothing was sent.
        ConfigurationChanged: with `resume`, the run in `out` is another one; what differs is named.
        ConfigurationError: no key, an unknown provider, a value out of range.
        FatalProviderError: no request can succeed, or too many in a row failed.
        StorageError: a write failed; what was written stays readable.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, limit=5, out="runs/five")
        >>> rk.score(run).n_scored
        5
    """
    check_options(benchmark, options, PlacedOptions)
    return sync(
        lambda stop: benchmark_async(
            model,
            prompts,
            judge=judge,
            out=out,
            resume=resume,
            on_progress=on_progress,
            stop=stop,
            **options,
        ),
        go_on=how_to_go_on,
    )


async def benchmark_async(
    model: str | Model,
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[PlacedOptions],
) -> Run:
    """`benchmark` for async code. `stop`, once set, ends the run in good order."""
    check_options(benchmark_async, options, PlacedOptions)
    if resume and out is not None:
        asked = config_of_call(
            split_placement(options)[1], model=model, prompts=prompts, judge=judge
        )
        there = same_run(Path(out), asked)
        if there is not None:
            return await continue_run(
                there,
                options,
                prompts=prompts,
                model=model,
                judge=judge,
                on_progress=on_progress,
                stop=stop,
            )
    prepared = prepare_run(model, prompts, judge=judge, **options)
    return await work_prepared(prepared, out, on_progress, stop)


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run before its folder is created: all parts are open and checked."""

    config: RunConfig
    prompts: PromptSet
    model: Model
    judge: Judge
    manifest: Manifest
    workplace: Workplace | None = None


def prepare_run(
    model: str | Model,
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    pacers: Pacers | None = None,
    slots: Slots | None = None,
    **options: Unpack[PlacedOptions],
) -> PreparedRun:
    """Open and check all that a run needs. Nothing is sent and nothing written."""
    placement, rest = split_placement(options)
    asked_for = config_of_call(rest, model=model, prompts=prompts, judge=judge)
    chosen = choose_prompts(asked_for, prompts if isinstance(prompts, PromptSet) else None)
    own = None if isinstance(model, str) else model
    workplace = open_workplace(asked_for, placement, own, slots=slots)
    config = batched_to_files(at_workplace(asked_for, workplace), placement.batch_to)
    if own is None:
        asked = open_configured_model(config, pacers, workplace, batch_to=placement.batch_to)
    else:
        asked = own if placement.batch_to is None else in_batch_files(own, placement.batch_to)
    grader = open_configured_judge(config, judge, hard_lines=chosen.hard_lines, pacers=pacers)
    config = ready_config(
        config,
        grader,
        asks_model=isinstance(model, str),
        named_judge=judge is None or isinstance(judge, str),
    )
    check_batch(config, asked, grader)
    recorded = config
    if workplace is not None:
        # The server ends with the session, and another program may use its address later.
        recorded = config.model_copy(update={"api_base": asked_for.api_base})
    manifest = new_manifest(recorded, chosen, grader, kind="run")
    return PreparedRun(config, chosen, asked, grader, manifest, workplace)


async def work_prepared(
    prepared: PreparedRun,
    out: str | Path | None,
    on_progress: OnProgress | None,
    stop: asyncio.Event | None,
    *,
    budget: Budget | None = None,
    close_judge: bool = True,
) -> Run:
    """Make the run's folder and do the work. Arguments and errors: `benchmark`, `work_session`."""
    manifest, config = prepared.manifest, prepared.config
    async with reserved(prepared.workplace, stop):
        run = create_run(Path(out) if out is not None else RUNS / manifest.id, manifest)
        plan = plan_of(config, prepared.prompts)
        try:
            return await work_session(
                run,
                plan,
                prepared.model,
                prepared.judge,
                config,
                on_progress,
                stop,
                budget=budget,
                close_judge=close_judge,
                stop_rule=stop_rule_of(config, prepared.prompts),
                hard_lines=prepared.prompts.hard_lines,
                keep_hard_line_text=config.keep_hard_line_text,
                workplace=prepared.workplace,
            )
        except FatalProviderError as error:
            # The folder stays if it has a server's log, which says why.
            if prepared.workplace is None and is_untouched(run):
                # A run whose first request could not succeed leaves nothing behind.
                shutil.rmtree(run.path, ignore_errors=True)
                told = str(error)
                if told.endswith(_RESUME):
                    text = f"{told.removesuffix(_RESUME)}; nothing was recorded: start the run then"
                    raise FatalProviderError(text, status=error.status, code=error.code) from error
            raise
