"""Several models in one call, asked at the same time, each into a run folder of its own."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import check_options
from refusalkit.api.resuming import continue_run, same_run
from refusalkit.api.runs import PreparedRun, prepare_run, work_prepared
from refusalkit.api.side_by_side import ModelRun, OnSeveral, Work, side_by_side
from refusalkit.api.sync import sync
from refusalkit.config.placement import PlacedOptions, split_placement
from refusalkit.config.resolve import check_option
from refusalkit.engine.batch_checks import check_no_bound
from refusalkit.engine.opening import config_of_call
from refusalkit.engine.plan import OnProgress
from refusalkit.errors import ConfigurationError, RefusalkitError, RunFolderError, UsageError
from refusalkit.prompts.categories import slug_of
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run, holds_run
from refusalkit.runs.naming import RUNS
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model

_FOLDER = re.compile(r"\w[\w.-]{0,119}")


def benchmark_many(
    models: Sequence[str | Model | Mapping[str, Any]],
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_progress: OnSeveral | None = None,
    **options: Unpack[PlacedOptions],
) -> list[ModelRun]:
    """Benchmark several models at the same time, each into a run folder of its own.

    One that is slow or fails does not stop the others. Models with one id at one endpoint share its
    pace, and so do judges.

    Args:
        models: ids, your own `Model` objects, or mappings: ``id``, perhaps ``folder``, and any
            option that differs for this one.
        prompts: as for `benchmark`.
        judge: as for `benchmark`, for all.
        out: the folder for the runs' folders, which are named after the models; default ``runs``,
            where each name begins with the time.
        resume: continue runs that exist in `out`, if their configuration is the same.
        on_progress: called after each step with the run's name and a `Progress`.
        **options: `RunOptions`, for all; `max_cost` in USD bounds all together, and a mapping's own
            ``max_cost`` that model.

    Returns:
        The result of each, in the order of `models`. An error after the first request is the
        `error` of that run.

    Raises:
        TypeError: an option is unknown; a similar one is suggested.
        UsageError, ConfigurationError, RunFolderError: something is wrong with a model, which is
            named, or models at one endpoint have different limits; nothing was sent and no folder
            was made.

    Examples:
        >>> import refusalkit as rk
        >>> both = ["demo/open", "demo/cautious"]
        >>> both = rk.benchmark_many(both, "starter", trials=1, out="runs/both")
        >>> [round(rk.score(one.run).refusal_rate.value) for one in both]
        [14, 71]
    """
    check_options(benchmark_many, options, PlacedOptions)
    return sync(
        lambda stop: benchmark_many_async(
            models,
            prompts,
            judge=judge,
            out=out,
            resume=resume,
            on_progress=on_progress,
            stop=stop,
            **options,
        ),
        go_on=_how_to_go_on,
    )


def _how_to_go_on(done: Sequence[ModelRun]) -> str:
    begun = (shlex.quote(printable(one.path, 400)) for one in done if one.run is not None)
    return "; ".join(f"go on with: refusalkit resume {path}" for path in begun)


async def benchmark_many_async(
    models: Sequence[str | Model | Mapping[str, Any]],
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    on_progress: OnSeveral | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[PlacedOptions],
) -> list[ModelRun]:
    """`benchmark_many` for async code. `stop`, once set, ends all runs in good order."""
    check_options(benchmark_many_async, options, PlacedOptions)
    from refusalkit.engine.budget import Budget
    from refusalkit.engine.serving.slots import Slots
    from refusalkit.models.endpoints import Pacers

    if isinstance(models, str | Mapping) or not models:
        raise UsageError("name the models as a list, of one at least")
    # Checked here: it bounds all together, and a model may have a bound of its own.
    max_cost = check_option("max_cost", options.get("max_cost"))
    names, folders = run_names(models), _folders(models)
    pacers, budget = Pacers(), None if max_cost is None else Budget(max_cost)
    paths: list[Path] = []
    works: list[Work] = []
    shared: dict[str, Any] = {
        "budget": budget,
        "close_judge": judge is None or isinstance(judge, str),
    }
    slots, batches = Slots(), False
    for name, folder, model in zip(names, folders, models, strict=True):
        own = dict(model) if isinstance(model, Mapping) else {"id": model}
        own.pop("folder", None)
        chosen = {"prompts": prompts, "judge": judge, **options, **own}
        if chosen.get("max_cost") is None:
            # On record in each run too: resumed by itself, it is still bounded.
            chosen["max_cost"] = max_cost
        asked = chosen.pop("id")
        path = None if out is None else Path(out) / folder
        try:
            called = {key: chosen.pop(key) for key in ("prompts", "judge")}
            there = None
            if resume and path is not None:
                config = config_of_call(split_placement(chosen)[1], model=asked, **called)
                there = same_run(path, config)
                batches |= config.batch is not None
            if there is not None:
                paths.append(there.path)
                going_on = partial(_go_on, there, chosen, **called, model=asked)
                works.append(partial(going_on, pacers=pacers, slots=slots, **shared))
                continue
            prepared = prepare_run(asked, pacers=pacers, slots=slots, **called, **chosen)
        except (UsageError, ConfigurationError) as error:
            raise _of_model(name, error) from error
        batches |= prepared.config.batch is not None
        paths.append(path or RUNS / prepared.manifest.id)
        works.append(partial(_start, prepared, paths[-1], **shared))
    if batches:
        check_no_bound(max_cost)
    _check_paths(paths, None if out is None else Path(out), resume=resume)
    try:
        return await side_by_side(names, paths, works, on_progress, stop)
    finally:
        if judge is not None and not isinstance(judge, str):
            await judge.aclose()


async def _start(
    prepared: PreparedRun, path: Path, show: OnProgress, stop: asyncio.Event, **shared: Any
) -> Run:
    return await work_prepared(prepared, path, show, stop, **shared)


async def _go_on(
    there: Run, options: Mapping[str, Any], show: OnProgress, stop: asyncio.Event, **called: Any
) -> Run:
    return await continue_run(there, options, on_progress=show, stop=stop, **called)


def run_names(models: Sequence[str | Model | Mapping[str, Any]]) -> list[str]:
    """A name for each run: its folder's given name, else its model's id; all are different."""
    given = [
        str(model.get("folder") or _id_of(model)) if isinstance(model, Mapping) else _id_of(model)
        for model in models
    ]
    return _numbered(given, " ")


def _folders(models: Sequence[str | Model | Mapping[str, Any]]) -> list[str]:
    given = []
    for model in models:
        folder = model.get("folder") if isinstance(model, Mapping) else None
        if folder is not None and not (isinstance(folder, str) and _FOLDER.fullmatch(folder)):
            raise UsageError(
                f"{printable(folder)!r} is not a name for a run's folder: use letters, digits, - _ "
                "and ."
            )
        given.append(folder or slug_of(_id_of(model)))
    return _numbered(given, "-")


def _id_of(model: str | Model | Mapping[str, Any]) -> str:
    if isinstance(model, Mapping):
        if "id" not in model:
            raise UsageError("a model's mapping has no id: provider/name, or your own Model")
        model = model["id"]
    return model if isinstance(model, str) else str(getattr(model, "id", model))


def _numbered(names: Sequence[str], between: str) -> list[str]:
    """The names, repeated ones with a number. Case is ignored, as some file systems do."""
    seen: Counter[str] = Counter()
    taken = {name.casefold() for name in names}
    found = []
    for name in names:
        seen[name.casefold()] += 1
        chosen = name
        while seen[name.casefold()] > 1 and chosen.casefold() in taken:
            chosen = f"{name}{between}{seen[name.casefold()]}"
            if chosen.casefold() in taken:
                seen[name.casefold()] += 1
        taken.add(chosen.casefold())
        found.append(chosen)
    return found


def _of_model(name: str, error: RefusalkitError) -> RefusalkitError:
    """The error with the model's name in its message."""
    kind = UsageError if isinstance(error, UsageError) else ConfigurationError
    return kind(f"{printable(name)}: {error}")


def _check_paths(paths: Sequence[Path], parent: Path | None, *, resume: bool) -> None:
    """Raise, before anything is created, the errors that would otherwise stop it half-way."""
    if parent is not None and holds_run(parent):
        raise RunFolderError(f"{printable(parent)} holds a run: choose another --out for several")
    for path in paths:
        if resume and holds_run(path):
            continue  # it is the very same run
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunFolderError(
                f"{printable(path)} exists already: go on with it by `refusalkit resume "
                f"{printable(path)}`, or choose another --out"
            )
