"""Deadlines of many requests at once, with one timer for all of them.

`asyncio.timeout` means the same, and makes and takes back a timer for each: at an endpoint that
answers at once that is a twentieth of a run's CPU.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Whoever works `within` one is cancelled when it has passed, and sees a `TimeoutError`."""

    def __init__(self) -> None:
        self._running: dict[Deadline, None] = {}  # in the order in which they began
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> Deadline:
        """A context that ends by `TimeoutError` after so many seconds."""
        return Deadline(self, seconds)

    def add(self, deadline: Deadline) -> None:
        """Watch one that begins now."""
        self._running[deadline] = None
        if self._timer is None or deadline.at < self._timer.when():
            self._wake_at(deadline.at)

    def remove(self, deadline: Deadline) -> None:
        """Forget one that has ended."""
        del self._running[deadline]
        if not self._running and self._timer is not None:
            # The next may run in another event loop.
            self._timer.cancel()
            self._timer = None

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for deadline in self._running:
            if deadline.at <= now:
                deadline.expire()
        if waiting := [deadline.at for deadline in self._running if not deadline.expired]:
            self._wake_at(min(waiting))


class Deadline:
    """One of them, for the task that enters it; `at` is in the event loop's time."""

    __slots__ = ("_all", "_cancelling", "_seconds", "_task", "at", "expired")

    def __init__(self, all_: Deadlines, seconds: float) -> None:
        self._all = all_
        self._seconds = seconds
        self.expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "a deadline is a task's"
        self._task = task
        # Who cancels the task as well, and when, is not to be mistaken for the deadline.
        self._cancelling = task.cancelling()
        self.at = loop.time() + self._seconds
        self._all.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._all.remove(self)
        ours = self.expired and self._task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task, once."""
        if not self.expired:
            self.expired = True
            self._task.cancel()
