"""A place to run the model, set up before a session's first request and taken down at its end."""

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

# Seconds to wait after a failed request, to see whether the server is ending.
_DYING_S = 1.0


class Workplace(Protocol):
    """Where a session's model runs, if refusalkit has to start it."""

    @property
    def placement(self) -> Placement:
        """The user's options for it."""

    @property
    def api_base(self) -> str | None:
        """The model's base URL; None: its provider's."""

    def open_model(self, config: RunConfig, pacer: Pacer) -> Model:
        """The model, usable after `start`. Raises the errors of `open_model`."""

    async def reserve(self) -> None:
        """Wait until there is room. Raises `ConfigurationError` if there never will be."""

    async def start(self, folder: Path, *, keeps_all: bool) -> None:
        """Start the model; logs go to the run's folder. Raises `ConfigurationError`.

        `keeps_all`: the run withholds no answer, so the log may hold answers too.
        """

    def watched(self, model: Model) -> Model:
        """The model, whose requests all fail at once if the workplace is lost."""

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
    """A model whose requests fail as soon as its server has ended."""

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
    """The model that a configuration names, at its address. Raises the errors of `open_model`."""
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
    """The configuration with the base URL of the workplace."""
    if workplace is None:
        return config
    return config.model_copy(update={"api_base": workplace.api_base})


def open_workplace(
    config: RunConfig, placement: Placement, own: Model | None, *, slots: Slots | None = None
) -> Workplace | None:
    """The workplace that the options describe; None if the model needs none.

    `own` is a model object of the caller's. Raises `ConfigurationError` if the options do not fit
    the model, or if a package is missing.
    """
    if not placement:
        return None
    if own is not None:
        raise ConfigurationError(
            "a model object runs where you made it: leave out serve and engine"
        )
    named = "serve" if placement.engine is None else "engine"
    if config.model.startswith("demo/"):
        raise ConfigurationError(
            f"{printable(config.model)} answers in this process: leave out --{named}"
        )
    if config.batch is not None:
        raise ConfigurationError(
            f"batches go to a provider in one upload, and --{named} is for single requests: leave "
            "out one of them"
        )
    if placement.engine == "ray":
        from refusalkit.engine.serving.ray_workers import RayWorkers

        return RayWorkers(placement, config)
    if placement.gpus != int(placement.gpus):
        raise ConfigurationError("gpus: a server on this machine needs a whole number of GPUs")
    slots = slots or Slots()
    slots.check(placement.gpus)
    return OneServer(placement, config, slots)


@contextlib.asynccontextmanager
async def reserved(workplace: Workplace | None, stop: asyncio.Event | None) -> AsyncIterator[None]:
    """Reserve the workplace for the `with` block. Raises `Interrupted` if `stop` is set first."""
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
    """Run `setting_up`; returns False, with it cancelled, if `stop` is set first."""
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
