"""An event loop whose time is its own: it does not wait, it sets its clock to what comes next.

What is timed in it is exact, on any machine. It notices a hang at once: when nothing that runs in
it would ever happen.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

_T = TypeVar("_T")

_TICK_S = 1e-7


class _Skips(selectors.DefaultSelector):
    """Counts the time that it is to wait for, and does not wait."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "it hangs"
        # Like any clock it never stops: waiting for less than it can show would spin.
        self.now += max(_TICK_S, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skips = _Skips()
        super().__init__(self._skips)

    def time(self) -> float:
        return self._skips.now


def in_own_time(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run `main` without waiting; `now()` of this module is the time within."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("refusalkit.models.pacing.monotonic", now)
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(main())


def now() -> float:
    """Seconds."""
    return asyncio.get_running_loop().time()
