"""The worker on a node of a cluster: sends requests to an endpoint for a driver elsewhere.

A worker decides nothing. The driver (`refusalkit.engine.serving.ray_workers`) handles rate limits,
retries, the budget and the records; a worker has the connections and, with --serve, the server.
Nothing here imports Ray, which turns the class into an actor.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from refusalkit import errors
from refusalkit.engine.serving.log import ServerLog
from refusalkit.engine.serving.server import OwnServer
from refusalkit.errors import ConfigurationError, ProviderError, RefusalkitError
from refusalkit.models.client import ChatClient, RetryWithChanges
from refusalkit.models.open import open_client, served_name
from refusalkit.models.outcomes import Reply
from refusalkit.models.pacing import Pacer
from refusalkit.models.request_form import ChatRequest
from refusalkit.redaction import Keys
from refusalkit.types import Via

# Larger results would go through Ray's object store, which may spill them to a disk.
_MAX_TEXT = 50_000
# Seconds after which a worker without answers returns an empty list to the driver.
_QUIET_S = 5.0


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """What a worker needs to open its client. Sent in a call, which Ray does not write to a disk.

    `variables` are environment variables with the keys that it needs.
    """

    model: str
    api_base: str | None
    api_key_env: str | None
    via: Via | None
    connections: int
    variables: Mapping[str, str]
    serve: str | None
    serve_wait_s: float
    keeps_all: bool


class Asked(NamedTuple):
    """One request, with what the driver knows: refused parameters, whether any was answered."""

    number: int
    request: ChatRequest
    dropped: Mapping[str, str]
    answered: bool


class Answer(NamedTuple):
    """The reply to a request, or its error, and the parameters that were sent."""

    number: int
    reply: Reply | None
    error: Mapping[str, Any] | None
    sent: Mapping[str, Any]
    dropped: Mapping[str, str]


class Worker:
    """Sends requests to one endpoint. The driver calls its methods, also concurrently."""

    def __init__(self) -> None:
        self._client: ChatClient | None = None
        self._server: OwnServer | None = None
        self._log: ServerLog | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: deque[Answer] = deque()
        self._news = asyncio.Event()

    async def describe(self) -> dict[str, Any]:
        """Its node and process id, and its version of refusalkit."""
        version = importlib.metadata.version("refusalkit")
        return {"node": socket.gethostname(), "pid": os.getpid(), "refusalkit": version}

    async def open(self, task: WorkerTask) -> Mapping[str, Any] | None:
        """Open the client, and first start a server if there is a command for one.

        Returns the error as data, None if there is none.
        """
        os.environ.update(task.variables)
        base = task.api_base
        try:
            if task.serve is not None:
                self._log = ServerLog(
                    None, Keys(*task.variables.values()), keeps_all=task.keeps_all
                )
                name = served_name(task.model)
                self._server = OwnServer(task.serve, name, wait_s=task.serve_wait_s)
                await self._server.start(self._log)
                base = self._server.base
                self._keep(self._watch(self._server))
            self._client = open_client(
                task.model,
                pacer=Pacer(),
                api_base=base,
                api_key_env=task.api_key_env,
                via=task.via,
                connections=task.connections,
            )
        except RefusalkitError as error:
            return as_data(error)
        return None

    async def ask(self, batch: Sequence[Asked]) -> None:
        """Start these requests; `answers` returns their results."""
        for asked in batch:
            self._keep(self._ask(asked))

    async def answers(self, gather_s: float) -> list[Answer]:
        """Results since the last call: waits for the first, then `gather_s` seconds for more."""
        if not self._answers:
            self._news.clear()
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._news.wait()
            except TimeoutError:
                return []
        if gather_s:
            await asyncio.sleep(gather_s)
        found: list[Answer] = []
        size = 0
        while self._answers and size < _MAX_TEXT:
            answer = self._answers.popleft()
            found.append(answer)
            if answer.reply is not None:
                size += 1000 + len(answer.reply.text) + len(answer.reply.reasoning)
        return found

    async def log(self) -> bytes:
        """The kept part of its server's output."""
        return b"" if self._log is None else self._log.text

    async def aclose(self) -> None:
        """Close the connections and end the server."""
        for task in self._tasks:
            task.cancel()
        if self._client is not None:
            await self._client.aclose()
        if self._server is not None:
            await self._server.aclose()

    async def _ask(self, asked: Asked) -> None:
        client = self._client
        assert client is not None, "opened before it asks"
        reply: Reply | None = None
        failed: Mapping[str, Any] | None = None
        try:
            reply = await client.send_once(
                asked.request, dropped=asked.dropped, answered=asked.answered
            )
        except ProviderError as error:
            failed = as_data(error)
        except Exception as error:  # noqa: BLE001 - a request that is never answered would hang
            # Without its text, which may repeat the request: the cluster would log it.
            what = f"{client.names}: the request failed"
            failed = as_data(errors.RequestError(what, detail=type(error).__name__))
        log = client.parameters
        self._tell(Answer(asked.number, reply, failed, log.sent, log.dropped))

    async def _watch(self, server: OwnServer) -> None:
        await asyncio.wait({server.ended})
        self._tell(Answer(-1, None, as_data(server.failure()), {}, {}))

    def _tell(self, answer: Answer) -> None:
        self._answers.append(answer)
        self._news.set()

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_KINDS = {
    kind.__name__: kind
    for kind in (
        *(value for value in vars(errors).values() if isinstance(value, type)),
        RetryWithChanges,
    )
    if issubclass(kind, RefusalkitError)
}


def as_data(error: RefusalkitError) -> dict[str, Any]:
    """An exception of refusalkit as plain values, to be sent to the driver."""
    return {"kind": type(error).__name__, "text": str(error), "fields": dict(vars(error))}


def as_error(data: Mapping[str, Any]) -> RefusalkitError:
    """The exception that `as_data` turned into plain values."""
    kind = _KINDS.get(str(data["kind"]), ConfigurationError)
    error: RefusalkitError = kind.__new__(kind, data["text"])
    Exception.__init__(error, data["text"])
    vars(error).update(data["fields"])
    return error
