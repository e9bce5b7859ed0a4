"""Several runs at the same time: one that is slow or fails does not stop the others."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from refusalkit.display import shows
from refusalkit.engine.plan import OnProgress, Progress
from refusalkit.errors import RefusalkitError
from refusalkit.runs.folder import Run, holds_run, open_run
from refusalkit.untrusted import printable

OnSeveral = Callable[[str, Progress], None]
"""Called with a run's name and its progress."""

Work = Callable[[OnProgress, asyncio.Event], Awaitable[Run]]
"""Does the work of one run, reports its progress, and ends cleanly once the event is set."""


@shows(
    "name",
    path=lambda one: str(one.path),
    error=lambda one: None if one.error is None else type(one.error).__name__,
)
@dataclass(frozen=True, slots=True)
class ModelRun:
    """The result of one of several models."""

    name: str
    """The model's id, or its folder's name if one was given or ids repeat."""
    path: Path
    """The path of its run folder, even if that was never created."""
    run: Run | None
    """The run; None if nothing was recorded."""
    error: RefusalkitError | None = None
    """The error that stopped the work; None if there was none."""


async def side_by_side(
    names: Sequence[str],
    paths: Sequence[Path],
    works: Sequence[Work],
    on_progress: OnSeveral | None,
    stop: asyncio.Event | None,
) -> list[ModelRun]:
    """Do the work of several runs at the same time; if one fails, that is its `error`."""

    async def work_one(name: str, path: Path, work: Work) -> ModelRun:
        def show(progress: Progress) -> None:
            if on_progress is not None:
                on_progress(name, progress)

        # Its own: a run that fails sets it for its workers, and the others are to go on.
        own_stop = asyncio.Event()
        async with _following(stop, own_stop):
            try:
                run = await work(show, own_stop)
            except RefusalkitError as error:
                return ModelRun(name, path, open_run(path) if holds_run(path) else None, error)
        return ModelRun(name, path, run)

    jobs = [
        asyncio.ensure_future(work_one(name, path, work))
        for name, path, work in zip(names, paths, works, strict=True)
    ]
    try:
        # A defect of one is raised when the others are through: nothing of theirs is lost.
        done = await asyncio.gather(*jobs, return_exceptions=True)
    except asyncio.CancelledError as error:
        for path in filter(holds_run, paths):
            error.add_note(f"go on with: refusalkit resume {shlex.quote(printable(path, 400))}")
        raise
    found: list[ModelRun] = []
    for result in done:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found


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
