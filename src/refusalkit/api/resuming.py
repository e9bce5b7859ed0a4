"""Continue runs: one, several, or those of a command that is repeated."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import RunLike, as_list, check_options, load_run, path_of
from refusalkit.api.order import plan_of, stop_rule_of
from refusalkit.api.side_by_side import ModelRun, OnSeveral, side_by_side
from refusalkit.api.sync import sync
from refusalkit.config.placement import PlacedOptions, split_placement
from refusalkit.config.resolve import check_option, check_unchanged, resolve_config
from refusalkit.config.run_config import RunConfig
from refusalkit.engine.batch_checks import batched_to_files, check_batch, check_place
from refusalkit.engine.opening import (
    in_batch_files,
    open_configured_judge,
    open_configured_model,
    ready_config,
)
from refusalkit.engine.plan import OnProgress
from refusalkit.engine.serving.workplace import at_workplace, open_workplace, reserved
from refusalkit.engine.session import how_to_resume, was_served, work_session
from refusalkit.errors import (
    ConfigurationChanged,
    ConfigurationError,
    PromptSetError,
    RefusalkitError,
    RunFolderError,
)
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.batch_journal import check_trusted
from refusalkit.runs.folder import Run, holds_run, refuse_link
from refusalkit.runs.judge_entries import check_same_judge
from refusalkit.runs.naming import runs_below
from refusalkit.runs.prompt_choice import is_gone, same_prompts, without_inversion
from refusalkit.runs.trust import check_sources, followed_config
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.engine.budget import Budget
    from refusalkit.engine.serving.slots import Slots
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.endpoints import Pacers
    from refusalkit.models.protocol import Model

_LOG = logging.getLogger("refusalkit")


def resume(
    run: RunLike,
    *,
    prompts: str | Path | PromptSet | None = None,
    model: str | Model | None = None,
    judge: str | Judge | None = None,
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[PlacedOptions],
) -> Run:
    """Continue a run: get missing answers and verdicts, without paying for anything twice.

    Args:
        run: a run, or the path of its folder.
        prompts: needed only if the run was started with your own `PromptSet`, or if your prompt
            file has moved: then its new path.
        model: needed only if the run was started with your own `Model`.
        judge: needed only if the run was started with your own `Judge`.
        trust_folder: use the endpoints and key variables that the folder names, although it was not
            written by this user on this machine, or was changed since. Variables that hold no
            provider's key are never used, and such a folder never makes a run keep hard-line
            answers.
        on_progress: called after each step with a `Progress`.
        **options: `RunOptions`; those about pace and endpoint may differ from the run's
            (concurrency, rpm, api_base, max_cost, ...). `PlacementOptions` are not recorded in a
            run folder: give serve, engine, ... again.

    Returns:
        The run in its new state.

    Raises:
        ConfigurationChanged: an option that the figures depend on has changed; the field is named.
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
    check_options(resume, options, PlacedOptions)
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
        go_on=how_to_go_on,
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
    **options: Unpack[PlacedOptions],
) -> Run:
    """`resume` for async code."""
    check_options(resume_async, options, PlacedOptions)
    return await continue_run(
        load_run(run),
        options,
        prompts=prompts,
        model=model,
        judge=judge,
        trust_folder=trust_folder,
        on_progress=on_progress,
        stop=stop,
    )


async def continue_run(
    folder: Run,
    options: Mapping[str, Any],
    *,
    prompts: str | Path | PromptSet | None = None,
    model: str | Model | None = None,
    judge: str | Judge | None = None,
    trust_folder: bool = False,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    pacers: Pacers | None = None,
    budget: Budget | None = None,
    slots: Slots | None = None,
    close_judge: bool = True,
) -> Run:
    """`resume_async` for a run that may share its pace and its budget with others."""
    from refusalkit.runs.checkpoint import load_checkpoint

    # Names are configuration values: they are refused below unless they are the run's own.
    placement, given = split_placement(options)
    if isinstance(model, str):
        given["model"], model = model, None
    if isinstance(judge, str):
        given["judge"], judge = judge, None

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
    check_sources(folder, prompts=prompts is None, judge=judge is None, trusted=trust_folder)
    followed = followed_config(
        folder,
        given,
        trust_folder=trust_folder,
        asks_model=model is None,
        asks_judge=judge is None,
    )
    config = resolve_config(given, base=followed)
    # The records are compared with the checkpoint in a thread while the prompts are read.
    kept = asyncio.get_running_loop().run_in_executor(None, load_checkpoint, folder)
    source = None
    if isinstance(prompts, str | Path):
        # The prompts may have moved. The recorded name stays as it was.
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
    grader = open_configured_judge(
        config, judge, hard_lines=hard_lines, recorded=manifest, pacers=pacers
    )
    own = None if judge is None else grader
    for part, own_object, was in (("model", model, config.model), ("judge", own, manifest.judge)):
        if own_object is not None and own_object.id != was:
            raise ConfigurationChanged(
                f"{part} is {printable(own_object.id)}, but the run was started with "
                f"{printable(was)}"
            )
    check_same_judge(manifest, grader)
    if was_served(folder) and placement.serve is None and given.get("api_base") is None:
        raise ConfigurationError(
            "the model of this run was on a server that --serve started, and its command is not "
            "recorded: give --serve again, or --api-base with the address of a server"
        )
    check_place(folder, placement.batch_to)
    workplace = open_workplace(config, placement, model, slots=slots)
    config = batched_to_files(at_workplace(config, workplace), placement.batch_to)
    if model is None:
        target = open_configured_model(config, pacers, workplace, batch_to=placement.batch_to)
    else:
        target = model if placement.batch_to is None else in_batch_files(model, placement.batch_to)
    config = ready_config(config, grader, asks_model=model is None, named_judge=judge is None)
    check_batch(config, target, grader)
    async with reserved(workplace, stop):
        return await work_session(
            folder,
            plan_of(config, chosen),
            target,
            grader,
            config,
            on_progress,
            stop,
            budget=budget,
            close_judge=close_judge,
            kept=await kept,
            stop_rule=stop_rule_of(config, chosen, folder),
            hard_lines=hard_lines,
            withheld=(
                frozenset()
                if folder.is_own or "inversion" in given
                else without_inversion(chosen, config)
            ),
            keep_hard_line_text=given.get("keep_hard_line_text") is True,
            workplace=workplace,
        )


def how_to_go_on(run: Run) -> str:
    """The hint about the run that an interrupted call prints."""
    return f"go on with: {how_to_resume(run)}"


def same_run(path: Path, config: RunConfig) -> Run | None:
    """The run in a folder, if it has this `config`; None if there is no run.

    Raises:
        ConfigurationChanged: its configuration differs; the message says in what.
        RunFolderError: the folder is a link, or holds graded answers.
    """
    if not holds_run(path):
        return None
    refuse_link(path)
    there = load_run(path)
    where = printable(path)
    if there.manifest.kind != "run":
        raise RunFolderError(f"{where} holds graded answers: choose another --out")
    try:
        check_unchanged(there.manifest.run_config, config)
    except ConfigurationChanged as error:
        told = str(error).partition(": start a new run")[0]
        raise ConfigurationChanged(
            f"{where} holds another run: {told}; choose another --out to start a new one"
        ) from error
    _LOG.info(f"{where} holds this run: going on with it")
    return there


def resume_many(
    runs: RunLike | Sequence[RunLike],
    *,
    trust_folder: bool = False,
    on_progress: OnSeveral | None = None,
    **options: Unpack[PlacedOptions],
) -> list[ModelRun]:
    """Continue several runs at the same time. Complete ones are left as they are.

    Args:
        runs: runs, or the paths of their folders, or of folders that hold such folders.
        trust_folder: as for `resume`.
        on_progress: called after each step with the run's name and a `Progress`.
        **options: `RunOptions` for all, as for `resume`; `max_cost` in USD bounds all together.

    Returns:
        The result of each; if one fails, that is its `error`.

    Raises:
        TypeError: an option is unknown; a similar one is suggested.
        RunFolderError: there is no run at a path.

    Examples:
        >>> import refusalkit as rk
        >>> both = rk.benchmark_many(
        ...     ["demo/open", "demo/cautious"], "starter", trials=1, out="runs/pair"
        ... )
        >>> [one.name for one in rk.resume_many("runs/pair")]
        ['demo/cautious', 'demo/open']
    """
    check_options(resume_many, options, PlacedOptions)
    return sync(
        lambda stop: resume_many_async(
            runs, trust_folder=trust_folder, on_progress=on_progress, stop=stop, **options
        ),
        go_on=lambda done: "; ".join(how_to_go_on(one.run) for one in done if one.run is not None),
    )


async def resume_many_async(
    runs: RunLike | Sequence[RunLike],
    *,
    trust_folder: bool = False,
    on_progress: OnSeveral | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[PlacedOptions],
) -> list[ModelRun]:
    """`resume_many` for async code. `stop`, once set, ends all runs in good order."""
    check_options(resume_many_async, options, PlacedOptions)
    from refusalkit.engine.budget import Budget
    from refusalkit.engine.serving.slots import Slots
    from refusalkit.models.endpoints import Pacers

    found = runs_named(runs)
    names = names_of(found)
    max_cost = check_option("max_cost", options.get("max_cost"))
    pacers, budget = Pacers(), None if max_cost is None else Budget(max_cost)
    slots = Slots()

    async def go_on(run: Run, show: OnProgress, own_stop: asyncio.Event) -> Run:
        if is_complete(run):
            return run
        return await continue_run(
            run,
            options,
            trust_folder=trust_folder,
            on_progress=show,
            stop=own_stop,
            pacers=pacers,
            budget=budget,
            slots=slots,
        )

    return await side_by_side(
        names,
        [run.path for run in found],
        [
            lambda show, own_stop, run=run: go_on(run, show, own_stop)  # type: ignore[misc]
            for run in found
        ],
        on_progress,
        stop,
    )


def runs_named(runs: RunLike | Sequence[RunLike]) -> list[Run]:
    """The runs that paths name, those of a folder of runs in the order of their names.

    Raises `RunFolderError` if a path names none. Grade runs in a folder are skipped: they are
    continued by repeating their own command.
    """
    found: dict[Path, Run] = {}
    for one in as_list(runs):
        path = path_of(one)
        inside = [] if holds_run(path) or not path.is_dir() else runs_below(path)
        below = sorted(inside, key=lambda run: run.path)
        for run in [run for run in below if run.manifest.kind == "run"] or [load_run(one)]:
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its model, or its folder if models repeat."""
    models = [str(run.manifest.config.get("model", "")) for run in runs]
    seen = Counter(models)
    return [
        model if seen[model] == 1 else str(run.path)
        for run, model in zip(runs, models, strict=True)
    ]


def is_complete(run: Run) -> bool:
    """Whether a run is complete."""
    from refusalkit.scoring.score import score_run

    sessions = run.manifest.sessions
    if not sessions or sessions[-1].ended_because != "done":
        return False
    try:
        score = score_run(run)
    except RefusalkitError:
        return False  # going on with it says why
    votes = score.council.n_owed if score.council is not None else 0
    return score.n_owed + votes == 0
