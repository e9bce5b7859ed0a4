"""Runs async work from synchronous code, so that an interruption ends it cleanly."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from refusalkit.errors import one_sentence

_T = TypeVar("_T")

# Seconds to wait for requests in flight after an interruption.
_GRACE_S = 1.2


def sync(
    start: Callable[[asyncio.Event], Coroutine[Any, Any, _T]],
    *,
    go_on: Callable[[_T], str] | None = None,
) -> _T:
    """Run async work from synchronous code, even inside a running event loop, as in a notebook.

    `start` is given an event that asks the work to stop. An interruption (Ctrl-C, a notebook's Stop
    button) sets it; requests in flight get a few seconds to finish, and a second interruption ends
    them at once. Then `KeyboardInterrupt` is raised, with the hint that `go_on` gives for the
    result.
    """
    work = _Work(start)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        found = work.here()
    else:
        # An event loop is already running in this thread, so use a thread with its own loop.
        found = work.in_a_thread()
    if work.interrupted:
        raise _interruption(None if found is None or go_on is None else go_on(found[0]), work.notes)
    assert found is not None
    return found[0]


class _Work(Generic[_T]):
    """A piece of async work that can be interrupted from outside its loop."""

    def __init__(self, start: Callable[[asyncio.Event], Coroutine[Any, Any, _T]]) -> None:
        self._start = start
        self._begun: concurrent.futures.Future[asyncio.AbstractEventLoop] = (
            concurrent.futures.Future()
        )
        self.interrupted = False
        self.notes: tuple[str, ...] = ()

    def here(self) -> tuple[_T] | None:
        """The result, or None if the work was cancelled."""
        return asyncio.run(self._drive(signals=_is_ctrl_c_ours()))

    def in_a_thread(self) -> tuple[_T] | None:
        """`run` in another thread, while this one waits for an interruption."""
        context = contextvars.copy_context()  # ipykernel's says which cell output belongs to
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            done = pool.submit(context.run, asyncio.run, self._drive(signals=False))
            while True:
                try:
                    return done.result()
                except KeyboardInterrupt:
                    if done.done():
                        raise
                    loop = self._begun.result()
                    with contextlib.suppress(RuntimeError):  # it ended meanwhile
                        loop.call_soon_threadsafe(self._interrupt)

    async def _drive(self, *, signals: bool) -> tuple[_T] | None:
        loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._stop = asyncio.Event()
        self._begun.set_result(loop)
        if signals:
            with contextlib.suppress(NotImplementedError):  # Windows: asyncio.run cancels
                loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            return (await self._start(self._stop),)
        except asyncio.CancelledError as error:
            if not self.interrupted:
                raise
            self.notes = tuple(getattr(error, "__notes__", ()))
            return None

    def _interrupt(self) -> None:
        assert self._task is not None
        if self.interrupted:
            self._task.cancel()
            return
        self.interrupted = True
        self._stop.set()
        asyncio.get_running_loop().call_later(_GRACE_S, self._task.cancel)


def _is_ctrl_c_ours() -> bool:
    """Whether Ctrl-C has Python's default handler: a program's own handler is left alone."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def _interruption(go_on: str | None, notes: tuple[str, ...]) -> KeyboardInterrupt:
    told = "; ".join(("interrupted", *notes, *(() if go_on is None else (go_on,))))
    error = KeyboardInterrupt(told)
    error._render_traceback_ = lambda: one_sentence(error)  # type: ignore[attr-defined]
    return error
