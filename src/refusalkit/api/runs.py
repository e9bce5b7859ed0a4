"""Make runs: ask a model, and continue where a run stopped."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import RunLike, check_options, load_run
from refusalkit.config.resolve import check_unchanged, resolve_config
from refusalkit.config.run_config import RunConfig, RunOptions
from refusalkit.engine.batching import check_batch
from refusalkit.engine.opening import (
    config_of_call,
    open_configured_judge,
    open_configured_model,
    ready_config,
)
from refusalkit.engine.session import how_to_resume, work_session
from refusalkit.errors import (
    ConfigurationChanged,
    ConfigurationError,
    FatalProviderError,
    PromptSetError,
    RunFolderError,
)
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.batch_journal import check_trusted
from refusalkit.runs.folder import Run, create_run
from refusalkit.runs.judge_entries import check_same_judge
from refusalkit.runs.manifest import Manifest
from refusalkit.runs.new import is_untouched, new_manifest
from refusalkit.runs.prompt_choice import choose_prompts, is_gone, same_prompts, without_inversion
from refusalkit.runs.trust import followed_config
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.engine.budget import Budget
    from refusalkit.engine.plan import Plan, StopRule
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.endpoints import Pacers
    from refusalkit.models.protocol import Model
from refusalkit.api.sync import sync
from refusalkit.engine.plan import OnProgress
from refusalkit.runs.naming import RUNS

# How an error ends whose run can go on later.
_RESUME = "; resume the run then"


def benchmark(
    model: str | Model,
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[RunOptions],
) -> Run:
    """Ask a model every prompt, judge every answer, keep it all in a run folder.

    Args:
        model: an id such as ``openai/gpt-6-luna``, or your own `Model`.
        prompts: a shipped name, a path, several of them separated by commas, or a `PromptSet`.
            Default: the preset's, else ``refusalkit-166``.
        judge: a shipped name, the path of a judge file, several of them with commas for a council,
            or your own `Judge`. Default: ``graded``, and ``lexical`` for ``demo/...`` models.
        out: the folder to make; default ``runs/<time>-<model>``.
        on_progress: called after each step with a `Progress`.
        **options: `RunOptions`: trials, temperature, concurrency, max_cost, ...

    Returns:
        The run; `run.manifest.sessions[-1].ended_because` says whether it is done.

    Raises:
        TypeError: an option is unknown; a similar one is suggested.
        UsageError: prompts, judge file or folder are wrong; nothing was sent.
        ConfigurationError: no key, an unknown provider, a value out of range.
        FatalProviderError: no request can succeed, or too many in a row failed.
        StorageError: the disk refused a write; what was written stays readable.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, limit=5, out="runs/five")
        >>> rk.score(run).n_scored
        5
    """
    check_options(benchmark, options, RunOptions)
    return sync(
        lambda stop: benchmark_async(
            model, prompts, judge=judge, out=out, on_progress=on_progress, stop=stop, **options
        ),
        go_on=_how_to_go_on,
    )


async def benchmark_async(
    model: str | Model,
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[RunOptions],
) -> Run:
    """`benchmark` for async code. `stop`, once set, ends the run in good order."""
    check_options(benchmark_async, options, RunOptions)
    prepared = prepare_run(model, prompts, judge=judge, **options)
    return await work_prepared(prepared, out, on_progress, stop)


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run before its folder is made: all that was asked for is there and fits together."""

    config: RunConfig
    prompts: PromptSet
    model: Model
    judge: Judge
    manifest: Manifest


def prepare_run(
    model: str | Model,
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    pacers: Pacers | None = None,
    **options: Unpack[RunOptions],
) -> PreparedRun:
    """Open and check all that a run needs. Nothing is asked and nothing written."""
    config = config_of_call(options, model=model, prompts=prompts, judge=judge)
    chosen = choose_prompts(config, prompts if isinstance(prompts, PromptSet) else None)
    asked = open_configured_model(config, pacers) if isinstance(model, str) else model
    grader = open_configured_judge(config, judge, hard_lines=chosen.hard_lines, pacers=pacers)
    config = ready_config(
        config,
        grader,
        asks_model=isinstance(model, str),
        named_judge=judge is None or isinstance(judge, str),
    )
    check_batch(config, asked, grader)
    manifest = new_manifest(config, chosen, grader, kind="run")
    return PreparedRun(config, chosen, asked, grader, manifest)


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
    run = create_run(Path(out) if out is not None else RUNS / manifest.id, manifest)
    plan = _plan(config, prepared.prompts)
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
            stop_rule=_stop_rule(config, prepared.prompts),
            hard_lines=prepared.prompts.hard_lines,
            keep_hard_line_text=config.keep_hard_line_text,
        )
    except FatalProviderError as error:
        if is_untouched(run):
            # A run whose first request could not succeed leaves nothing behind.
            shutil.rmtree(run.path, ignore_errors=True)
            told = str(error)
            if told.endswith(_RESUME):
                text = f"{told.removesuffix(_RESUME)}; nothing was recorded: start the run then"
                raise FatalProviderError(text, status=error.status, code=error.code) from error
        raise


def resume(
    run: RunLike,
    *,
    prompts: str | Path | PromptSet | None = None,
    model: str | Model | None = None,
    judge: str | Judge | None = None,
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[RunOptions],
) -> Run:
    """Continue a run: ask what was not asked, judge what was not judged, pay for nothing twice.

    Args:
        run: a run, or the path of its folder.
        prompts: needed only where the run was started with a `PromptSet` of your own, or where a
            file of yours has moved since: then its new path.
        model: needed only where the run was started with a `Model` of your own.
        judge: needed only where the run was started with a `Judge` of your own.
        trust_folder: follow what the folder says about where requests go and with which key,
            although it was not written by this user on this machine, or was changed since.
            Variables that hold no provider's key are not followed, and such a folder never makes a
            run keep hard-line answers.
        on_progress: called after each step with a `Progress`.
        **options: `RunOptions`; those that say how fast and where may differ from the run's
            (concurrency, rpm, api_base, max_cost, ...).

    Returns:
        The run as it is now.

    Raises:
        ConfigurationChanged: something that is measured is not what it was; the field is named.
        FolderNotTrusted: the folder is not this user's own; the options to give are named.
        RunFolderError: there is no run, or it holds graded answers.
        RunLocked: another process is writing the run.
        Exception: what `benchmark` raises.

    Examples:
        >>> import refusalkit as rk
        >>> run = rk.benchmark("demo/mixed", "starter", trials=1, limit=4, out="runs/four")
        >>> rk.resume(run).manifest.sessions[-1].ended_because
        'done'
    """
    check_options(resume, options, RunOptions)
    return sync(
        lambda stop: resume_async(
            run,
            prompts=prompts,
            model=model,
            judge=judge,
            trust_folder=trust_folder,
            on_progress=on_progress,
            stop=stop,
            **options,
        ),
        go_on=_how_to_go_on,
    )


async def resume_async(
    run: RunLike,
    *,
    prompts: str | Path | PromptSet | None = None,
    model: str | Model | None = None,
    judge: str | Judge | None = None,
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[RunOptions],
) -> Run:
    """`resume` for async code."""
    check_options(resume_async, options, RunOptions)
    from refusalkit.runs.checkpoint import load_checkpoint

    # Names are configuration values: they are refused below unless they are the run's own.
    given: dict[str, Any] = dict(options)
    if isinstance(model, str):
        given["model"], model = model, None
    if isinstance(judge, str):
        given["judge"], judge = judge, None

    folder = load_run(run)
    manifest = folder.manifest
    started = manifest.run_config
    if manifest.kind == "grade":
        raise RunFolderError(
            f"{printable(folder.path)} holds graded answers: repeat the `refusalkit grade` "
            "command with the same --out to go on"
        )
    if started.digest != manifest.config_digest:
        raise ConfigurationChanged(
            f"the configuration in {printable(folder.path)}/manifest.json is not the one the run "
            "was started with (config_digest): undo the edit"
        )
    check_unchanged(started, resolve_config(given, base=started))
    check_trusted(folder, trust_folder=trust_folder)
    followed = followed_config(
        folder,
        given,
        trust_folder=trust_folder,
        asks_model=model is None,
        asks_judge=judge is None,
    )
    config = resolve_config(given, base=followed)
    # The records are compared with what is known of them while the prompts are read.
    kept = asyncio.get_running_loop().run_in_executor(None, load_checkpoint, folder)
    source = None
    if isinstance(prompts, str | Path):
        # Its prompts may lie elsewhere by now. What it was asked for stays what it was.
        source = None if str(prompts) == started.prompts else str(prompts)
        prompts = None
    try:
        chosen = same_prompts(
            manifest, config, prompts, source=source, beside=folder.path.absolute().parent
        )
    except PromptSetError as error:
        if source is None and is_gone(manifest.prompt_set.source):
            error.add_note("if they were moved, say where to with --prompts")
        raise
    hard_lines = manifest.hard_lines | chosen.hard_lines
    entry = manifest.judges[manifest.judge]
    asked = [manifest.judges[member] for member in entry.members] or [entry]
    if judge is None and any(one.source is None for one in asked):
        raise ConfigurationError(
            f"the run was judged by {printable(manifest.judge)}, an object of yours: resume it "
            "from Python, with judge="
        )
    grader = open_configured_judge(config, judge, hard_lines=hard_lines, recorded=manifest)
    own = None if judge is None else grader
    for part, own_object, was in (("model", model, config.model), ("judge", own, manifest.judge)):
        if own_object is not None and own_object.id != was:
            raise ConfigurationChanged(
                f"{part} is {printable(own_object.id)}, but the run was started with "
                f"{printable(was)}"
            )
    check_same_judge(manifest, grader)
    target = model or open_configured_model(config)
    config = ready_config(config, grader, asks_model=model is None, named_judge=judge is None)
    check_batch(config, target, grader)
    return await work_session(
        folder,
        _plan(config, chosen),
        target,
        grader,
        config,
        on_progress,
        stop,
        kept=await kept,
        stop_rule=_stop_rule(config, chosen, folder),
        hard_lines=hard_lines,
        withheld=(
            frozenset()
            if folder.is_own or "inversion" in given
            else without_inversion(chosen, config)
        ),
        keep_hard_line_text=given.get("keep_hard_line_text") is True,
    )


def _how_to_go_on(run: Run) -> str:
    return f"go on with: {how_to_resume(run)}"


def _plan(config: RunConfig, prompts: PromptSet) -> Plan:
    """The order in which a run asks its units."""
    from refusalkit.engine.plan import plan_prompts, plan_trials

    if config.order is None:
        return plan_trials(prompts, config.trials)
    return plan_prompts(prompts, config.trials, config.order)


def _stop_rule(config: RunConfig, prompts: PromptSet, run: Run | None = None) -> StopRule | None:
    """When a run may stop early; of a `run` that is resumed it has seen what is on disk."""
    if config.stop_when is None or config.order is None:
        return None
    from refusalkit.prompts.random_order import in_random_order
    from refusalkit.scoring.stop_rule import LeakRule

    rule = LeakRule(
        in_random_order(prompts, config.order),
        config.trials,
        when=config.stop_when,
        bound_percent=config.bound,
        max_leaks=config.max_leaks or 0,
    )
    if run is not None:
        rule.read(run)
    return rule
