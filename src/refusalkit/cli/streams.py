"""Guards a command's standard streams: a closed reader never changes its exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from refusalkit.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def guard_streams() -> None:
    """Let the command go on, to its own exit code, even if its output is closed.

    A pipe that its reader has closed is ignored. Any other failed write to stdout raises
    `StorageError`, once; failed writes to stderr are ignored. Closed streams are replaced, because
    the next file to be opened would get their descriptor.
    """
    sys.stdout = _guarded(sys.stdout, 1, tells=True)
    sys.stderr = _guarded(sys.stderr, 2, tells=False)


def flush_streams() -> None:
    """Flush both streams. Raises `StorageError` if stdout cannot be written."""
    with contextlib.suppress(ValueError):  # closed by now
        sys.stdout.flush()
    with contextlib.suppress(ValueError, OSError):
        sys.stderr.flush()


class _Output(io.FileIO):
    """A stream's file; a failure is raised once or not at all."""

    def __init__(self, number: int, *, tells: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._tells = tells
        self._is_gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self._is_gone:
            return size
        try:
            written = super().write(data)
        except OSError as error:
            self._is_gone = True
            # On Windows a pipe without a reader raises EINVAL.
            left = (errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)
            if self._tells and error.errno not in left:
                raise StorageError(f"cannot write to stdout: {error.strerror}") from error
            return size
        return size if written is None else written


def _guarded(stream: TextIO | None, number: int, *, tells: bool) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    try:
        is_own = stream.fileno() == number and not stream.isatty()
    except (OSError, ValueError, AttributeError):
        return stream
    if not is_own or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(number, tells=tells)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
