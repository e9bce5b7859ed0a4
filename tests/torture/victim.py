"""The real command under an operating system that fails: ``python -m torture.victim run ...``.

``TORTURE_DISK=28:40``: after 40 writes the disk answers with errno 28 (ENOSPC), half a record in.
``TORTURE_CLOCK=1``: the wall clock jumps, mostly backwards, at every look.
``TORTURE_CHECKPOINT=20``: a checkpoint is made after 20 records, as of a run of many thousands.
"""

from __future__ import annotations

import os
import random
from datetime import datetime, timedelta, tzinfo
from typing import Any


def break_disk(number: int, after: int) -> None:
    """From the so-manieth write on, `os.write` writes a part and then fails."""
    real, left = os.write, after

    def write(file: int, data: Any) -> int:
        nonlocal left
        left -= 1
        if left > 0:
            return real(file, data)
        if left == 0 and len(data) > 1:
            return real(file, data[: len(data) // 2])
        raise OSError(number, os.strerror(number))

    os.write = write


def break_clock() -> None:
    """Every look at the wall clock finds it elsewhere; the monotonic clock is left alone."""
    from refusalkit import types
    from refusalkit.engine import session
    from refusalkit.models import outcomes

    dice = random.Random(0)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) - timedelta(seconds=dice.uniform(-60, 7200))

    for module in (outcomes, session, types):
        module.datetime = Jumping  # type: ignore[attr-defined]


if __name__ == "__main__":
    if disk := os.environ.get("TORTURE_DISK"):
        break_disk(*map(int, disk.split(":")))
    if os.environ.get("TORTURE_CLOCK"):
        break_clock()
    if every := os.environ.get("TORTURE_CHECKPOINT"):
        from refusalkit.runs import state

        state.EVERY = int(every)
    from refusalkit.cli import script

    script()
