"""The Ray cluster that workers are placed on: the one of RAY_ADDRESS, or one on this machine.

Ray is imported here and nowhere else, once somebody asks for it.
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

# Bytes of a local cluster's object store, the least that Ray takes: hardly anything goes there.
_OBJECT_STORE = 80 * 2**20

# Seconds in which a cluster must take a connection.
_REACH_S = 10.0

# One connection for all runs of this process; a cluster that was started ends with the last.
_lock = threading.Lock()
_users = 0
_connected_here = False
# How Ray prints what it has to say of dead workers.
_PRINTER = "print_to_stdstream"


class Cluster:
    """A connection to the cluster. `wants` is what a worker reserves, in words."""

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
        """What a call of a worker raises where the worker is gone."""

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
        """A new actor of this class; the cluster says where."""
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
        """Why no node could ever hold a worker; None if one could."""
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
        # It prints its warnings on the terminal, about signal handlers and the like.
        logging.getLogger("ray").setLevel(logging.ERROR)
        address = os.environ.get("RAY_ADDRESS", "").strip()
        if _is_local():
            # A cluster of ours reports to nobody.
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
        # On standard output, where a program reads our JSON, and there is no option against it. A
        # run says in its own words that a worker is lost.
        printer = getattr(getattr(self._ray, "_private", None), "worker", None)
        if hasattr(printer, _PRINTER):
            setattr(printer, _PRINTER, lambda *_, **__: None)


def _check_reachable(address: str) -> None:
    """Raise `ConfigurationError` where nothing listens: Ray would try for minutes."""
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
