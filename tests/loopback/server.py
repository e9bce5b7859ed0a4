"""The HTTP server: real sockets on 127.0.0.1, a thread and an event loop of its own.

It runs on aiohttp's low-level server (no router, no middlewares, no access log), because a
benchmark of the client should not measure the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import IO, Any

from aiohttp import web

from .batches import Batches
from .exchange import Exchange, Ledger
from .provider import Provider
from .script import Script

# A dropped connection is what the script asked for: nothing to report.
_QUIET = logging.getLogger("loopback")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class LoopbackServer:
    """A scripted provider on 127.0.0.1.

        with LoopbackServer(script=Script(refusal_rate=0.5), latency_s=0.01) as server:
            client = openai.AsyncOpenAI(base_url=server.openai_base, api_key="k", max_retries=0)

    `latency_s` is waited before each answer. A defect of a script's hook is answered with 500 and
    raised again when the `with` block ends.
    """

    def __init__(
        self,
        script: Script | None = None,
        latency_s: float = 0.0,
        *,
        port: int = 0,
        keep_log: bool = True,
        log_file: IO[str] | None = None,
    ) -> None:
        self.port = port
        self.ledger = Ledger(keep_log, log_file)
        self.provider = Provider(script or Script(), latency_s, self.ledger)
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    # What a test reads.

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_base(self) -> str:
        """The base URL for OpenAI's client, litellm's ``api_base`` and the like."""
        return f"{self.url}/v1"

    @property
    def anthropic_base(self) -> str:
        """The base URL for Anthropic's client, which adds ``/v1`` itself."""
        return self.url

    @property
    def log(self) -> list[Exchange]:
        """The exchanges so far, in order of arrival (a copy of the list)."""
        return self.ledger.snapshot()

    @property
    def max_in_flight(self) -> int:
        """The most requests that were in the server at once."""
        return self.ledger.max_in_flight

    @property
    def max_in_flight_by_role(self) -> dict[str, int]:
        """The same for "target" and "judge" on their own."""
        return dict(self.ledger.max_in_flight_by_role)

    @property
    def requests(self) -> Counter[str]:
        """Requests so far, by role."""
        return Counter(self.ledger.requests)

    @property
    def faults(self) -> Counter[str]:
        """Faults so far, by kind."""
        return Counter(self.ledger.faults)

    @property
    def batches(self) -> Batches:
        """The account's batches: what was made, and how they behave (`script`)."""
        return self.provider.batches

    # What a test steers.

    @property
    def script(self) -> Script:
        """How it behaves; may be replaced while it runs."""
        return self.provider.script

    @script.setter
    def script(self, script: Script) -> None:
        self.provider.script = script

    def reset(self) -> None:
        """Forget log, counters and ask numbers, between two runs with nothing in flight."""
        self._call(self.ledger.clear)

    def wait_for(self, requests: int, timeout_s: float = 10.0) -> None:
        """Block until so many requests have arrived, e.g. before a kill. Not from async code."""
        until = time.monotonic() + timeout_s
        while self.ledger.n < requests:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.ledger.n} of {requests} requests arrived")
            time.sleep(0.002)

    def hold(self) -> None:
        """From now on requests arrive and are written down, but wait for `release`."""
        if self.provider.gate is not None:
            self._call(self.provider.gate.clear)

    def release(self) -> None:
        """Let held requests go on."""
        if self.provider.gate is not None:
            self._call(self.provider.gate.set)

    # Running it.

    def __enter__(self) -> LoopbackServer:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(started)), name="loopback", daemon=True
        )
        self._thread.start()
        if not started.wait(10) or self._failure is not None:
            raise RuntimeError("the loopback server did not start") from self._failure
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stop is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(10)
        if self.provider.bugs and exc[0] is None:
            raise self.provider.bugs[0]

    def _call(self, action: Callable[[], None]) -> None:
        """Do it in the server's thread, and wait until it is done."""
        if self._loop is None or self._loop.is_closed():
            return
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        done.wait(5)

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self.serve(started)
        except BaseException as error:
            self._failure = error
        finally:
            started.set()

    async def serve(self, started: threading.Event | None = None) -> None:
        """Serve until stopped; `started` is set once `port` is known."""
        loop = asyncio.get_running_loop()
        self._stop, self.provider.gate = asyncio.Event(), asyncio.Event()
        self.provider.gate.set()

        def unlimited(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Any:
            # A judge is shown whole answers; `huge` ones pass aiohttp's limit of 1 MiB.
            parts = (message, payload, protocol, writer, task, loop)
            return web.BaseRequest(*parts, client_max_size=0)

        low = web.Server(
            self.provider.handle,
            request_factory=unlimited,
            # A request whose client has gone is over: it counts as in flight no longer.
            handler_cancellation=True,
            access_log=None,
            logger=_QUIET,
        )
        listening = await loop.create_server(
            low, "127.0.0.1", self.port, family=socket.AF_INET, backlog=2048
        )
        self.port = listening.sockets[0].getsockname()[1]
        if started is not None:
            started.set()
        try:
            await self._stop.wait()
        finally:
            listening.close()
            await low.shutdown(0.05)
