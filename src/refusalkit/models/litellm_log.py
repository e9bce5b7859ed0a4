"""Drops what litellm logs about our requests, and leaves the host program's logging alone.

litellm logs words that it does not know, and prints what a server sent unchanged, with escapes and
withheld text. Its loggers belong to the whole process, so they are neither disabled nor set to
another level: a filter drops what is logged within a request of ours, and is removed when the last
one has ended.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar


class _Request:
    """A request of ours; what a task logs after it has ended is not dropped."""

    def __init__(self) -> None:
        self.is_open = True


_REQUEST: ContextVar[_Request | None] = ContextVar("litellm_request", default=None)


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        request = _REQUEST.get()
        return request is None or not request.is_open


_FILTER = _DropOurs()
_LOCK = threading.Lock()
_filtered: list[logging.Logger] = []
_open_requests = 0


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Within it litellm logs nothing; the host program's own requests are logged as before."""
    request = _Request()
    _begin()
    before = _REQUEST.set(request)
    try:
        yield
    finally:
        request.is_open = False
        _REQUEST.reset(before)
        _end()


def _begin() -> None:
    global _open_requests
    with _LOCK:
        _open_requests += 1
        if _open_requests > 1:
            return
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and name.lower().startswith("litellm"):
                logger.addFilter(_FILTER)
                _filtered.append(logger)


def _end() -> None:
    global _open_requests
    with _LOCK:
        _open_requests -= 1
        if not _open_requests:
            for logger in _filtered:
                logger.removeFilter(_FILTER)
            _filtered.clear()
