"""What a session sets up before it asks, and takes down when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, Protocol

from refusalkit.config.placement import Placement
from refusalkit.config.run_config import RunConfig
from refusalkit.engine.serving.log import SERVER_LOG, ServerLog, known_variables
from refusalkit.engine.serving.server import OwnServer
from refusalkit.engine.serving.slots import Slots
from refusalkit.errors import ConfigurationError, FatalProviderError, Interrupted
from refusalkit.models.client import ParameterLog
from refusalkit.models.open import open_model, served_name
from refusalkit.models.pacing import Pacer
from refusalkit.models.protocol import Model
from refusalkit.redaction import Keys
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt
from refusalkit.untrusted import printable

# Seconds after a failure in which a server that is about to end does so.
_DYING_S = 1.0


class Workplace(Protocol):
    """Where the model of a session runs, if that is not there already."""

    @property
    def placement(self) -> Placement:
        """What was asked for."""

    @property
    def api_base(self) -> str | None:
        """Where the model is asked; None: at its provider."""

    def open_model(self, config: RunConfig, pacer: Pacer) -> Model:
        """The model, to be asked once the place is set up. Errors as `open_model`."""

    async def reserve(self) -> None:
        """Wait for a place. Raises `ConfigurationError`: there is none."""

    async def start(self, folder: Path, *, keeps_all: bool) -> None:
        """Set up; logs go to the run's folder. Raises `ConfigurationError`.

        `keeps_all`: nothing that the model answers is withheld from the disk.
        """

    def watched(self, model: Model) -> Model:
        """The model, which fails at once for all requests where the place is gone."""

    async def aclose(self) -> None:
        """Take down."""


class OneServer:
    """A server on this machine, for one run."""

    def __init__(self, placement: Placement, config: RunConfig, slots: Slots) -> None:
        assert placement.serve is not None
        self.placement = placement
        self._config = config
        self._slots = slots
        self._taken: tuple[str, ...] | None = None
        self._server = OwnServer(
            placement.serve,
            served_name(config.model),
            base=config.api_base,
            wait_s=placement.serve_wait_s,
        )
        self.api_base: str | None = self._server.base

    def open_model(self, config: RunConfig, pacer: Pacer) -> Model:
        """The model at the server."""
        return open_model_at(config, pacer)

    async def reserve(self) -> None:
        """Wait until no other server of this call needs the machine."""
        self._taken = await self._slots.take(self.placement.gpus)
        if self._taken:
            self._server.set_variable("CUDA_VISIBLE_DEVICES", ",".join(self._taken))

    async def start(self, folder: Path, *, keeps_all: bool) -> None:
        """Start the server and wait until it answers."""
        path = folder / SERVER_LOG
        try:
            keys = Keys(*(os.environ.get(name) for name in known_variables(self._config)))
            log = ServerLog(path, keys, keeps_all=keeps_all)
        except OSError as error:
            raise ConfigurationError(
                f"{printable(path)} cannot be written: {error.strerror}"
            ) from error
        try:
            await self._server.start(log)
        except ConfigurationError as error:
            error.add_note(f"its log: {printable(path, 400)}")
            raise

    def watched(self, model: Model) -> Model:
        """The model, which fails once the server has ended."""
        return _Watched(model, self._server)

    async def aclose(self) -> None:
        """End the server."""
        try:
            await self._server.aclose()
        finally:
            if self._taken is not None:
                taken, self._taken = self._taken, None
                await self._slots.give_back(taken)


class _Watched:
    """A model whose server may end: then every request does."""

    def __init__(self, model: Model, server: OwnServer) -> None:
        self._model = model
        self._server = server

    @property
    def id(self) -> str:
        return self._model.id

    @property
    def parameters(self) -> ParameterLog:
        return self._model.parameters

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        ended = self._server.ended
        asked = asyncio.ensure_future(self._model.complete(prompt, config, trial=trial))
        try:
            first: set[asyncio.Future[Any]] = {asked, ended}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                try:
                    completion = asked.result()
                    if completion.outcome is not Outcome.ERROR:
                        return completion
                except FatalProviderError:
                    await asyncio.wait({ended}, timeout=_DYING_S)
                    if not ended.done():
                        raise
                else:
                    await asyncio.wait({ended}, timeout=_DYING_S)
                    if not ended.done():
                        return completion
            raise self._server.failure()
        finally:
            asked.cancel()

    async def aclose(self) -> None:
        await self._model.aclose()


def open_model_at(config: RunConfig, pacer: Pacer) -> Model:
    """The model that a configuration names, where it says. Errors as `open_model`."""
    return open_model(
        config.model,
        api_base=config.api_base,
        api_key_env=config.api_key_env,
        via=config.via,
        pacer=pacer,
        connections=config.concurrency,
        finish_words=config.finish_word,
        batched=config.batch in ("model", "both"),
    )


def at_workplace(config: RunConfig, workplace: Workplace | None) -> RunConfig:
    """The configuration with the address of the place."""
    if workplace is None:
        return config
    return config.model_copy(update={"api_base": workplace.api_base})


def open_workplace(
    config: RunConfig, placement: Placement, own: Model | None, *, slots: Slots | None = None
) -> Workplace | None:
    """The place that was asked for; None where the model is there already.

    `own` is a model that is the caller's object. Raises `ConfigurationError`: it cannot be, or the
    package for it is missing.
    """
    if not placement:
        return None
    if own is not None:
        raise ConfigurationError("a model of your own is where it is: leave serve and engine out")
    named = "serve" if placement.engine is None else "engine"
    if config.model.startswith("demo/"):
        raise ConfigurationError(
            f"{printable(config.model)} answers in this process: leave out --{named}"
        )
    if config.batch is not None:
        raise ConfigurationError(
            f"batches are a provider's, and --{named} is for a model that is asked one by one: "
            "leave out one of them"
        )
    if placement.engine == "ray":
        from refusalkit.engine.serving.ray_workers import RayWorkers

        return RayWorkers(placement, config)
    if placement.gpus != int(placement.gpus):
        raise ConfigurationError("gpus: a server on this machine takes whole GPUs")
    slots = slots or Slots()
    slots.check(placement.gpus)
    return OneServer(placement, config, slots)


@contextlib.asynccontextmanager
async def reserved(workplace: Workplace | None, stop: asyncio.Event | None) -> AsyncIterator[None]:
    """Have the place for the `with` block. Raises `Interrupted` where `stop` is set before."""
    if workplace is None:
        yield
        return
    try:
        if not await unless(stop, workplace.reserve()):
            raise Interrupted("stopped before the model had a place to run")
        yield
    finally:
        await workplace.aclose()


async def unless(stop: asyncio.Event | None, setting_up: Coroutine[Any, Any, None]) -> bool:
    """Whether something was set up before `stop` was set, which gives it up."""
    task = asyncio.ensure_future(setting_up)
    if stop is None:
        await task
        return True
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        for one in (task, stopping):
            one.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
