"""Workers on a Ray cluster: places them, sends them requests, replaces lost ones.

The driver (this process) handles rate limits, retries, budget and the run folder, so limits hold
over all workers together; a worker only sends single requests (`refusalkit.engine.serving.worker`).
Requests and answers travel in groups: each worker has one call of each kind in flight, and what
accumulates meanwhile goes with the next. With many workers each call also waits a little, so that
the driver has a bounded number of calls a second to handle.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import itertools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refusalkit import files
from refusalkit.config.placement import Placement
from refusalkit.config.run_config import RunConfig
from refusalkit.engine.serving.log import SERVER_LOG, known_variables
from refusalkit.engine.serving.ray_cluster import Cluster
from refusalkit.engine.serving.server import GRACE_S, command_words
from refusalkit.engine.serving.worker import Answer, Asked, Worker, WorkerTask, as_error
from refusalkit.errors import ConfigurationError, FatalProviderError, ProviderError
from refusalkit.models.chat import ChatModel
from refusalkit.models.client import ChatClient, RetryWithChanges
from refusalkit.models.dialects.finish import parse_finish_word
from refusalkit.models.endpoints import own_base, price_at
from refusalkit.models.open import named_key
from refusalkit.models.outcomes import Reply
from refusalkit.models.pacing import Pacer
from refusalkit.models.prices import check_retired
from refusalkit.models.protocol import Model
from refusalkit.models.request_form import ChatRequest
from refusalkit.redaction import redact
from refusalkit.untrusted import printable

_LOG = logging.getLogger("refusalkit")
# Most requests in one call, and most characters in them.
_MAX_BATCH = 64
_MAX_TEXT = 50_000
# Most calls a second of each kind, over all workers; up to _FEW_WORKERS need no such bound.
_MAX_CALLS = 200
_FEW_WORKERS = 8
# Losses in a row, for each worker, after which a lost worker is not replaced.
_MAX_LOSSES = 3
_SLOW_S = 15.0


@dataclass(eq=False)
class _Slot:
    """The place of one worker, and of those that replace it."""

    number: int
    actor: Any = None
    node: str = ""
    ready: bool = False
    asked: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)
    outbox: list[Asked] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class RayWorkers:
    """The workers of one run."""

    def __init__(self, placement: Placement, config: RunConfig) -> None:
        self.placement = placement
        if placement.serve is not None:
            if not any("{port}" in word for word in command_words(placement.serve)):
                raise ConfigurationError(
                    "serve: write {port} in the command, because workers on one node need "
                    "different ports"
                )
            if config.api_base is not None:
                raise ConfigurationError(
                    "serve starts a server beside each worker: leave out --api-base"
                )
        self.api_base: str | None = config.api_base
        if placement.serve is not None:
            # On the machine of whichever worker sends the request.
            self.api_base = "http://127.0.0.1/v1"
        self._config = config
        self._gather_s = max(0, placement.workers - _FEW_WORKERS) / _MAX_CALLS
        self._cluster = Cluster(placement)
        self._slots: list[_Slot] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._losses = 0
        self._failure: BaseException | None = None
        self._folder: Path | None = None
        self._closed = False

    def open_model(self, config: RunConfig, pacer: Pacer) -> Model:
        """The model, asked by the workers."""
        key = named_key(config.model, config.api_key_env)
        check_retired(config.model)
        client = _RayClient(self, config.model, pacer=pacer, api_base=self.api_base, keys=[key])
        client.finish_words = dict(map(parse_finish_word, config.finish_word))
        return ChatModel(client, price=price_at(config.model, config.api_base, config.via))

    async def reserve(self) -> None:
        """Wait until the cluster has placed one worker; the others join later."""
        self._changed = asyncio.Condition()
        self._started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._cluster.join()
        for number in range(1, self.placement.workers + 1):
            self._slots.append(slot := _Slot(number))
            self._keep(self._bring_up(slot))
        began = asyncio.get_running_loop().time()
        told = False
        async with self._changed:
            while not any(slot.node for slot in self._slots):
                self._raise_failure()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SLOW_S):
                        await self._changed.wait()
                        continue
                waited = asyncio.get_running_loop().time() - began
                lacking = self._cluster.lacks()
                if lacking is not None and waited > self.placement.serve_wait_s:
                    raise ConfigurationError(lacking)
                if not told:
                    told = True
                    _LOG.warning(
                        "waiting for the cluster to place a worker (%s)",
                        lacking or self._cluster.wants,
                    )

    async def start(self, folder: Path, *, keeps_all: bool) -> None:
        """Prepare the workers, and wait until one is ready."""
        self._folder = folder
        self._started.set_result(keeps_all)
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or self._ready())
        self._raise_failure()
        where = ", ".join(sorted({slot.node for slot in self._slots if slot.node}))
        _LOG.info(f"workers on {printable(where, 400)}")

    def watched(self, model: Model) -> Model:
        """The model itself: its client already fails if no worker is left."""
        return model

    async def aclose(self) -> None:
        """End the workers, and the cluster if it was started for this."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await asyncio.gather(*(self._end(slot) for slot in self._slots))
        finally:
            for slot in self._slots:
                self._cluster.kill(slot.actor)
            await self._cluster.leave()

    async def ask(
        self, request: ChatRequest, dropped: Mapping[str, str], *, answered: bool
    ) -> Answer:
        """Have a worker send a request.

        Raises `RetryWithChanges` if the worker is lost, `FatalProviderError` if all are.
        """
        slot = await self._least_busy()
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        slot.asked[number] = future
        slot.outbox.append(Asked(number, request, dict(dropped), answered))
        slot.wake.set()
        try:
            return await future
        finally:
            slot.asked.pop(number, None)

    async def _least_busy(self) -> _Slot:
        ready = self._ready()
        while not ready:
            self._raise_failure()
            async with self._changed:
                await self._changed.wait_for(lambda: self._failure or self._ready())
            ready = self._ready()
        return min(ready, key=lambda slot: len(slot.asked))

    def _ready(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.ready]

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _bring_up(self, slot: _Slot) -> None:
        """Place a worker, prepare it, and start the tasks that exchange requests with it."""
        try:
            slot.actor = self._cluster.place(Worker)
            said = await slot.actor.describe.remote()
            ours = importlib.metadata.version("refusalkit")
            if said["refusalkit"] != ours:
                raise ConfigurationError(
                    f"refusalkit is {printable(said['refusalkit'])} on {printable(said['node'])} "
                    f"and {ours} here: install the same on every node"
                )
            slot.node = said["node"]
            await self._tell()
            keeps_all = await asyncio.shield(self._started)
            failed = await slot.actor.open.remote(self._task(keeps_all))
            if failed is not None:
                raise as_error(failed)
        except ConfigurationError as error:
            await self._keep_log(slot)
            if slot.node and self.placement.serve is not None and self._folder is not None:
                error.add_note(f"its log: {printable(self._folder / SERVER_LOG, 400)}")
            await self._give_up(slot, error)
            return
        except self._cluster.errors as error:
            await self._lose(slot, error)
            return
        slot.ready = True
        await self._tell()
        self._keep(self._deliver(slot, slot.actor))
        self._keep(self._collect(slot, slot.actor))

    async def _deliver(self, slot: _Slot, actor: Any) -> None:
        while slot.actor is actor:
            await slot.wake.wait()
            slot.wake.clear()
            if self._gather_s:
                await asyncio.sleep(self._gather_s)
            while slot.outbox and slot.actor is actor:
                batch: list[Asked] = []
                size = 0
                while slot.outbox and len(batch) < _MAX_BATCH and size < _MAX_TEXT:
                    asked = slot.outbox.pop(0)
                    size += sum(len(message.content) for message in asked.request.messages)
                    batch.append(asked)
                # One call in flight: what accumulates meanwhile goes with the next.
                with contextlib.suppress(*self._cluster.errors):  # `_collect` sees it too
                    await actor.ask.remote(batch)

    async def _collect(self, slot: _Slot, actor: Any) -> None:
        while slot.actor is actor:
            try:
                answers: list[Answer] = await actor.answers.remote(self._gather_s)
            except self._cluster.errors as error:
                await self._lose(slot, error)
                return
            for answer in answers:
                if answer.number < 0:
                    assert answer.error is not None
                    await self._keep_log(slot)
                    await self._lose(slot, as_error(answer.error))
                    return
                self._losses = 0
                waiting = slot.asked.get(answer.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)

    async def _lose(self, slot: _Slot, error: BaseException) -> None:
        """Handle a lost worker: its requests go to other workers, and a new one replaces it."""
        if self._closed:
            return
        lost = list(slot.asked.values())
        actor, slot.actor, slot.ready = slot.actor, None, False
        slot.outbox.clear()
        self._cluster.kill(actor)
        self._losses += 1
        why = _why(error)
        if self._losses > _MAX_LOSSES * self.placement.workers:
            failed = FatalProviderError(f"the workers are lost, the last: {why}; fix the cause")
            await self._give_up(slot, failed)
        else:
            _LOG.warning(
                "worker %d%s is lost (%s): %d requests are asked again, another takes its place",
                slot.number,
                f" on {printable(slot.node)}" if slot.node else "",
                why,
                len(lost),
            )
            slot.wake = asyncio.Event()
            self._keep(self._bring_up(slot))
        for waiting in lost:
            if not waiting.done():
                waiting.set_exception(RetryWithChanges(f"a worker was lost: {why}"))

    async def _give_up(self, slot: _Slot, error: BaseException) -> None:
        """Stop replacing a worker that cannot start; the run fails if it was the last one."""
        self._slots.remove(slot)
        self._cluster.kill(slot.actor)
        if not self._slots:
            self._failure = error
        else:
            _LOG.warning("worker %d is given up: %s", slot.number, redact(error, 400))
        await self._tell()

    async def _end(self, slot: _Slot) -> None:
        if slot.actor is None or not slot.node:
            return
        with contextlib.suppress(TimeoutError, *self._cluster.errors):
            async with asyncio.timeout(GRACE_S + 4.0):
                await slot.actor.aclose.remote()
        await self._keep_log(slot)

    async def _keep_log(self, slot: _Slot) -> None:
        """Add what a worker's server wrote to the run's own log."""
        if self.placement.serve is None or self._folder is None or slot.actor is None:
            return
        with contextlib.suppress(TimeoutError, OSError, *self._cluster.errors):
            async with asyncio.timeout(5.0):
                text: bytes = await slot.actor.log.remote()
            file = files.open_for_appending(self._folder / SERVER_LOG, create=True)
            try:
                os.lseek(file, 0, os.SEEK_END)
                os.write(file, f"== worker {slot.number} on {slot.node}\n".encode() + text)
            finally:
                os.close(file)

    def _task(self, keeps_all: bool) -> WorkerTask:
        config = self._config
        names = known_variables(config)
        base = own_base(config.model, config.api_base, config.via)
        return WorkerTask(
            model=config.model,
            api_base=base,
            api_key_env=config.api_key_env,
            via=config.via,
            connections=config.concurrency,
            variables={name: os.environ[name] for name in names if os.environ.get(name)},
            serve=self.placement.serve,
            serve_wait_s=self.placement.serve_wait_s,
            keeps_all=keeps_all,
        )

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _RayClient(ChatClient):
    """A connection to a model by way of the workers."""

    def __init__(self, workers: RayWorkers, model_id: str, **options: Any) -> None:
        super().__init__(model_id, **options)
        self._workers = workers

    async def _send(self, request: ChatRequest) -> Reply:
        answer = await self._workers.ask(request, self.parameters.dropped, answered=self._answered)
        self.parameters.sent = dict(answer.sent)
        for name, why in answer.dropped.items():
            self.parameters.drop(name, why)
        if answer.reply is not None:
            return answer.reply
        assert answer.error is not None
        error = as_error(answer.error)
        assert isinstance(error, ProviderError)
        raise error

    async def _close(self) -> None:
        """Nothing to close: the workers end with the session."""


def _why(error: BaseException) -> str:
    """Why a worker was lost: the first line of the error."""
    lines = str(error).strip().splitlines()
    return redact(lines[0] if lines else type(error).__name__, 160)
