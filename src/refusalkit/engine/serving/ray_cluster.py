"""The Ray cluster that workers run on: the one at RAY_ADDRESS, or one on this machine.

Only this module imports Ray, and only when a cluster is used.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import os
import socket
import threading
from typing import Any

from refusalkit.config.placement import Placement
from refusalkit.errors import ConfigurationError
from refusalkit.redaction import redact
from refusalkit.untrusted import printable

# Bytes of a local cluster's object store: Ray's minimum, as hardly anything goes there.
_OBJECT_STORE = 80 * 2**20

# Seconds in which a cluster must take a connection.
_REACH_S = 10.0

# One connection for all runs of this process; a cluster that was started ends with the last.
_lock = threading.Lock()
_users = 0
_connected_here = False
# The function by which Ray prints messages about dead workers.
_PRINTER = "print_to_stdstream"


class Cluster:
    """A connection to the cluster. `wants` says in words what a worker reserves."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        parts = [(placement.cpus, "CPU"), (placement.gpus, "GPU")]
        self.wants = " and ".join(f"{n:g} {what}" for n, what in parts if n) or "nothing"
        self._joined = False
        self._actors: Any = None
        try:
            self._ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "--engine ray needs the package ray: pip install 'refusalkit[ray]'"
            ) from error
        self.errors: tuple[type[Exception], ...] = (self._ray.exceptions.RayError,)
        """The exceptions that a call to a lost worker raises."""

    async def join(self) -> None:
        """Connect. Raises `ConfigurationError`: there is no cluster, or it is too small."""
        await asyncio.to_thread(self._connect)
        self._joined = True
        if _is_local() and (lacking := self.lacks()) is not None:
            raise ConfigurationError(lacking)

    async def leave(self) -> None:
        """Disconnect; a cluster that was started here ends with its last user."""
        if self._joined:
            self._joined = False
            await asyncio.to_thread(self._disconnect)

    def place(self, worker: type) -> Any:
        """A new actor of this class, on a node that the cluster chooses."""
        if self._actors is None:
            self._actors = self._ray.remote(worker).options(
                num_cpus=self._placement.cpus,
                num_gpus=self._placement.gpus,
                max_restarts=0,
                scheduling_strategy="SPREAD",
            )
        return self._actors.remote()

    def kill(self, actor: Any) -> None:
        """End an actor at once."""
        if actor is not None and self._joined:
            self._ray.kill(actor)

    def lacks(self) -> str | None:
        """Why no node is large enough for a worker; None if one is."""
        best = {"CPU": 0.0, "GPU": 0.0}
        for node in self._ray.nodes():
            has = node.get("Resources", {})
            fits = has.get("CPU", 0) >= self._placement.cpus
            if node.get("Alive") and fits and has.get("GPU", 0) >= self._placement.gpus:
                return None
            best = {name: max(most, has.get(name, 0)) for name, most in best.items()}
        return (
            f"a worker needs {self.wants}, and no node of the cluster has that (at most "
            f"{best['CPU']:g} CPU, {best['GPU']:g} GPU): change --cpus or --gpus"
        )

    def _connect(self) -> None:
        global _users, _connected_here
        with _lock:
            if not self._ray.is_initialized():
                self._init()
                _connected_here = True
            _users += 1

    def _disconnect(self) -> None:
        global _users, _connected_here
        with _lock:
            _users -= 1
            if _users == 0 and _connected_here:
                _connected_here = False
                self._ray.shutdown()

    def _init(self) -> None:
        options: dict[str, Any] = {
            "log_to_driver": False,
            "configure_logging": False,
        }
        # It prints warnings about signal handlers and the like to the terminal.
        logging.getLogger("ray").setLevel(logging.ERROR)
        address = os.environ.get("RAY_ADDRESS", "").strip()
        if _is_local():
            # No usage statistics from a cluster that we start.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            needed = math.ceil(self._placement.workers * self._placement.cpus)
            options |= {
                "address": "local",
                "num_cpus": max(os.cpu_count() or 1, needed),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE,
            }
        else:
            _check_reachable(address)
        try:
            self._ray.init(**options)
        except Exception as error:
            where = f"the Ray cluster at {printable(address)}" if address else "a local Ray cluster"
            what = redact(str(error).strip().partition("\n")[0], 300)
            raise ConfigurationError(f"{where} cannot be reached: {what}") from error
        # Ray prints to standard output, where `--json` writes, and has no option against it. The
        # run logs lost workers itself.
        printer = getattr(getattr(self._ray, "_private", None), "worker", None)
        if hasattr(printer, _PRINTER):
            setattr(printer, _PRINTER, lambda *_, **__: None)


def _check_reachable(address: str) -> None:
    """Raise `ConfigurationError` if nothing listens there; Ray would keep trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # such as "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise ConfigurationError(
            f"nothing answers at RAY_ADDRESS {printable(address)}: start the cluster, or unset it "
            "for one on this machine"
        ) from error


def _is_local() -> bool:
    return os.environ.get("RAY_ADDRESS", "").strip() in ("", "local")
