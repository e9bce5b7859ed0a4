"""Several models in one call, asked at the same time, each into a run folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import check_options
from refusalkit.api.runs import PreparedRun, prepare_run, work_prepared
from refusalkit.api.sync import sync
from refusalkit.config.resolve import check_option
from refusalkit.config.run_config import RunOptions
from refusalkit.display import shows
from refusalkit.errors import ConfigurationError, RefusalkitError, RunFolderError, UsageError
from refusalkit.prompts.categories import slug_of
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run, holds_run, open_run
from refusalkit.runs.naming import RUNS
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.engine.plan import Progress
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model

OnSeveral = Callable[[str, "Progress"], None]
"""Called with the name of a run, see `run_names`, and how far it is."""

_FOLDER = re.compile(r"\w[\w.-]{0,119}")


@shows(
    "name",
    path=lambda one: str(one.path),
    error=lambda one: None if one.error is None else type(one.error).__name__,
)
@dataclass(frozen=True, slots=True)
class ModelRun:
    """The result of one of several models."""

    name: str
    """The model's id, or the name of its folder where that says more."""
    path: Path
    """Where its run folder is, or would be."""
    run: Run | None
    """The run; None where nothing was recorded."""
    error: RefusalkitError | None = None
    """Why the work stopped; None where it ended in good order."""


def benchmark_many(
    models: Sequence[str | Model | Mapping[str, Any]],
    prompts: str | Path | PromptSet | None = None,
    *,
    judge: str | Judge | None = None,
    out: str | Path | None = None,
    on_progress: OnSeveral | None = None,
    **options: Unpack[RunOptions],
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
        on_progress: called after each step with the run's name and a `Progress`.
        **options: `RunOptions`, for all; `max_cost` in USD bounds all together, and a mapping's own
            ``max_cost`` that model.

    Returns:
        What became of each, in the order of `models`. What goes wrong after the first request is
        that run's `error`.

    Raises:
        TypeError: an option is unknown; a similar one is suggested.
        UsageError, ConfigurationError, RunFolderError: the part of a model is wrong, which is
            named; nothing was sent and nothing made. Also where models share an endpoint with
            different limits.

    Examples:
        >>> import refusalkit as rk
        >>> both = ["demo/open", "demo/cautious"]
        >>> both = rk.benchmark_many(both, "starter", trials=1, out="runs/both")
        >>> [round(rk.score(one.run).refusal_rate.value) for one in both]
        [14, 71]
    """
    check_options(benchmark_many, options, RunOptions)
    return sync(
        lambda stop: benchmark_many_async(
            models,
            prompts,
            judge=judge,
            out=out,
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
    on_progress: OnSeveral | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[RunOptions],
) -> list[ModelRun]:
    """`benchmark_many` for async code. `stop`, once set, ends all runs in good order."""
    check_options(benchmark_many_async, options, RunOptions)
    from refusalkit.engine.budget import Budget
    from refusalkit.models.endpoints import Pacers

    if isinstance(models, str | Mapping) or not models:
        raise UsageError("name the models as a list, of one at least")
    # Checked here: it bounds all together, and a model may have a bound of its own.
    max_cost = check_option("max_cost", options.get("max_cost"))
    names, folders = run_names(models), _folders(models)
    pacers = Pacers()
    prepared: list[PreparedRun] = []
    for name, model in zip(names, models, strict=True):
        own = dict(model) if isinstance(model, Mapping) else {"id": model}
        own.pop("folder", None)
        chosen = {"prompts": prompts, "judge": judge, **options, **own}
        if chosen.get("max_cost") is None:
            # On record in each run too: resumed by itself, it is still bounded.
            chosen["max_cost"] = max_cost
        try:
            prepared.append(prepare_run(chosen.pop("id"), pacers=pacers, **chosen))
        except (UsageError, ConfigurationError) as error:
            raise _of_model(name, error) from error
    if max_cost is not None and any(one.config.batch is not None for one in prepared):
        raise ConfigurationError(
            "max_cost cannot hold over a batch, which is paid for once it is handed over: bound "
            "the runs with limit"
        )
    paths = [
        RUNS / one.manifest.id if out is None else Path(out) / folder
        for one, folder in zip(prepared, folders, strict=True)
    ]
    _check_paths(paths, None if out is None else Path(out))
    budget = None if max_cost is None else Budget(max_cost)

    async def work_one(name: str, one: PreparedRun, path: Path) -> ModelRun:
        def show(progress: Progress) -> None:
            if on_progress is not None:
                on_progress(name, progress)

        # Its own: a run that fails sets it for its workers, and the others are to go on.
        own_stop = asyncio.Event()
        async with _following(stop, own_stop):
            try:
                run = await work_prepared(
                    one,
                    path,
                    show,
                    own_stop,
                    budget=budget,
                    close_judge=judge is None or isinstance(judge, str),
                )
            except RefusalkitError as error:
                return ModelRun(name, path, open_run(path) if holds_run(path) else None, error)
        return ModelRun(name, path, run)

    jobs = [
        asyncio.ensure_future(work_one(name, one, path))
        for name, one, path in zip(names, prepared, paths, strict=True)
    ]
    try:
        # A defect of one is raised when the others are through: nothing of theirs is lost.
        done = await asyncio.gather(*jobs, return_exceptions=True)
    except asyncio.CancelledError as error:
        for path in filter(holds_run, paths):
            error.add_note(f"go on with: refusalkit resume {shlex.quote(printable(path, 400))}")
        raise
    finally:
        if judge is not None and not isinstance(judge, str):
            await judge.aclose()
    found: list[ModelRun] = []
    for result in done:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found


def run_names(models: Sequence[str | Model | Mapping[str, Any]]) -> list[str]:
    """What each run is called: its folder's given name, else its model's id; no two alike."""
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
    """The names, from the second of one name on with a number. Cases alike are alike to a disk."""
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
    """The same error, saying which model it is about."""
    kind = UsageError if isinstance(error, UsageError) else ConfigurationError
    return kind(f"{printable(name)}: {error}")


def _check_paths(paths: Sequence[Path], parent: Path | None) -> None:
    """Refuse before anything is made what would be refused half-way."""
    if parent is not None and holds_run(parent):
        raise RunFolderError(f"{printable(parent)} holds a run: choose another --out for several")
    for path in paths:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunFolderError(
                f"{printable(path)} exists already: go on with it by `refusalkit resume "
                f"{printable(path)}`, or choose another --out"
            )


@contextlib.asynccontextmanager
async def _following(outer: asyncio.Event | None, own: asyncio.Event) -> AsyncIterator[None]:
    """Sets `own` once `outer` is set."""
    if outer is None:
        yield
        return

    async def follow() -> None:
        await outer.wait()
        own.set()

    following = asyncio.ensure_future(follow())
    try:
        yield
    finally:
        following.cancel()
