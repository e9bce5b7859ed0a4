"""Values that are computed in the background and kept until their inputs change."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from refusalkit.errors import RefusalkitError
from refusalkit.redaction import redact

_LOG = logging.getLogger("refusalkit")
_T = TypeVar("_T")

# A value that took t seconds to compute is not computed again within _PAUSE * t seconds, and never
# within _MIN_PAUSE_S: a running run changes all the time.
_PAUSE = 8.0
_MIN_PAUSE_S = 1.5
_NICE = 5


class Lane:
    """One thread that works through jobs, the newest first.

    A lane `after` another begins no job while that one has work, and its thread has a lower
    priority (on Linux).
    """

    def __init__(self, name: str, *, after: Lane | None = None) -> None:
        self._jobs: queue.LifoQueue[Callable[[], None] | None] = queue.LifoQueue()
        self._name, self._after = name, after
        self._started = self._closed = False
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def add(self, job: Callable[[], None]) -> None:
        """Queue a job, which must not raise. A closed lane ignores it."""
        with self._lock:
            if self._closed:
                return
            if not self._started:
                # A daemon: Ctrl-C does not wait for it, and it writes nothing.
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._started = True
            self._idle.clear()
            self._jobs.put(job)

    def close(self) -> None:
        """End the thread after its present job; those that wait are dropped."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)  # the last one in is taken first

    def _work(self) -> None:
        if self._after is not None and sys.platform == "linux":
            # On Linux this sets the priority of this thread and of those that it starts, no others.
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            job = self._jobs.get()
            if job is None:
                self._idle.set()
                return
            if self._after is not None:
                self._after._idle.wait()
            job()
            with self._lock:
                if self._jobs.empty():
                    self._idle.set()


class Kept(Generic[_T]):
    """A value that `make` computes, and computes again whenever `stamp` returns something else.

    `value` is the latest, None before the first; `error` says why the latest attempt failed.
    """

    def __init__(self, lane: Lane, stamp: Callable[[], Hashable], make: Callable[[], _T]) -> None:
        self._lane, self._stamp, self._make = lane, stamp, make
        self._changed = threading.Condition()
        self._of: Hashable = None
        self._busy = False
        self._not_before = 0.0
        self.value: _T | None = None
        self.error: str | None = None
        self.version = 0
        """The number of attempts so far, so that a reader can tell that there is a new value."""

    @property
    def is_busy(self) -> bool:
        """Whether the value is being computed."""
        return self._busy

    def forget(self) -> None:
        """Drop the value, to free its memory; the next `get` has it computed again."""
        with self._changed:
            self.value, self._of, self._not_before = None, None, 0.0

    def get(self, wait_s: float = 0.0) -> _T | None:
        """The latest value, if there is one; if it is out of date, a new one is queued.

        Where there is none yet, wait for it at most `wait_s` seconds.
        """
        stamp = self._stamp()
        with self._changed:
            if stamp != self._of and not self._busy and time.monotonic() >= self._not_before:
                self._busy = True
                self._lane.add(lambda: self._work(stamp))
            if self.value is None and self.error is None and wait_s:
                self._changed.wait_for(lambda: not self._busy, wait_s)
            return self.value

    def _work(self, stamp: Hashable) -> None:
        started = time.monotonic()
        value, error = None, None
        try:
            value = self._make()
        except RefusalkitError as found:
            error = str(found)
        except Exception as found:  # noqa: BLE001 - the page shows it and the server goes on
            error = redact(f"{type(found).__name__}: {found}", 300)
            _LOG.debug("the viewer failed", exc_info=True)
        took = time.monotonic() - started
        with self._changed:
            if value is not None:
                self.value = value
            self.error, self._of, self._busy = error, stamp, False
            self.version += 1
            self._not_before = time.monotonic() + max(_MIN_PAUSE_S, _PAUSE * took)
            self._changed.notify_all()
