"""Which servers of a plan may run on this machine at the same time."""

from __future__ import annotations

import asyncio
import os

from refusalkit.errors import ConfigurationError


class Slots:
    """One server at a time, or as many as the machine's GPUs allow.

    The GPUs are those in CUDA_VISIBLE_DEVICES, as a scheduler sets it. If it names none, or if a
    server asks for no number of GPUs, that server has the machine to itself.
    """

    def __init__(self, gpus: tuple[str, ...] | None = None) -> None:
        if gpus is None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            gpus = tuple(name.strip() for name in visible.split(",") if name.strip())
        self._all = gpus
        self._free = list(gpus)
        self._running = 0
        self._alone = False
        self._changed = asyncio.Condition()

    def check(self, gpus: float) -> None:
        """Raise `ConfigurationError` if a server needs more GPUs than there are."""
        if self._all and gpus > len(self._all):
            raise ConfigurationError(
                f"gpus is {gpus:g}, but CUDA_VISIBLE_DEVICES names {len(self._all)}: give fewer"
            )

    async def take(self, gpus: float) -> tuple[str, ...]:
        """Wait for this many GPUs and return their names; empty: the server has the machine."""
        wanted = int(gpus) if self._all else 0
        async with self._changed:
            if wanted:
                await self._changed.wait_for(lambda: not self._alone and len(self._free) >= wanted)
            else:
                await self._changed.wait_for(lambda: not self._running)
            self._running += 1
            self._alone = not wanted
            taken, self._free = tuple(self._free[:wanted]), self._free[wanted:]
            return taken

    async def give_back(self, taken: tuple[str, ...]) -> None:
        """Free the GPUs that `take` returned."""
        async with self._changed:
            self._running -= 1
            self._alone = False
            self._free += taken
            self._changed.notify_all()
