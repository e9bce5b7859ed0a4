"""Writes a file as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_BINARY = getattr(os, "O_BINARY", 0)


def replace_file(path: Path, data: bytes, *, lasting: bool) -> None:
    """Put a private file in the place of what was at `path`, in one step. Raises `OSError`.

    One that is `lasting` stands after a loss of power, too.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
        with os.fdopen(file, "wb") as handle:
            handle.write(data)
            handle.flush()
            if lasting:
                os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
