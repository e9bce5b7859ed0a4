"""A function as a model under test."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from refusalkit.display import shows
from refusalkit.errors import FatalProviderError, UsageError
from refusalkit.models.client import ParameterLog
from refusalkit.models.outcomes import Reply, read_reply
from refusalkit.redaction import redact
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt
from refusalkit.untrusted import printable

Answer = Callable[..., str | Awaitable[str]]


def from_callable(function: Answer, *, name: str) -> CallableModel:
    """A model whose answers a function gives, to pass to `benchmark`.

    The function takes the request as a string and returns the answer's text. If it has a parameter
    named ``messages``, it takes the whole conversation instead: a list of
    ``{"role": ..., "content": ...}``, the system message first. It may be async; any other function
    runs in a thread and must allow several calls at once (or use ``concurrency=1``). An exception
    is the outcome ``error`` of that unit, which `resume` asks again. Temperature and other
    generation parameters are not passed on, and the cost is unknown.

    Args:
        function: asks the model.
        name: names the model in records and reports.

    Raises:
        UsageError: `function` cannot be called, or `name` is empty.

    Examples:
        >>> import refusalkit as rk
        >>> def ask(text: str) -> str:
        ...     return "I can't help with that."
        >>> model = rk.from_callable(ask, name="mine/refuser")
        >>> run = rk.benchmark(model, "starter", trials=1, judge="lexical", out="runs/refuser")
        >>> rk.score(run).answer_rate.value
        0.0
    """
    if not callable(function):
        raise UsageError(f"{printable(repr(function), 80)} cannot be called")
    if not name.strip():
        raise UsageError("name: say what the model is called in records")
    return CallableModel(function, name)


@shows("id")
class CallableModel:
    """A `Model` whose answers a function gives; made by `from_callable`."""

    def __init__(self, function: Answer, name: str) -> None:
        self._function = function
        self._id = name
        self._takes_messages = _takes_messages(function)
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
        )
        self._parameters = ParameterLog()

    @property
    def id(self) -> str:
        """The name given."""
        return self._id

    @property
    def parameters(self) -> ParameterLog:
        """No parameter reaches the function."""
        return self._parameters

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        """The function's answer. Raises `FatalProviderError` where it is not a text."""
        unit = (prompt.id, prompt.category, trial, self._id)
        begun = time.monotonic()
        try:
            given = self._given(prompt, config)
            async with asyncio.timeout(config.timeout_s):
                text = await self._call(given)
        except FatalProviderError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a user's function raises
            what = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
            return Completion(
                *unit,
                Outcome.ERROR,
                error=printable(what, 80),
                error_detail=redact(error, 300),
                latency_s=time.monotonic() - begun,
            )
        if not isinstance(text, str):
            raise FatalProviderError(
                f"the function of {printable(self._id)} returned {type(text).__name__}: return the "
                "answer's text"
            )
        reading = read_reply(Reply(text, "stop"))
        return Completion(
            *unit,
            reading.outcome,
            text=reading.text,
            reasoning=reading.reasoning,
            finish_reason="stop",
            error=reading.error,
            unknown_mark=reading.unknown_mark,
            latency_s=time.monotonic() - begun,
        )

    async def aclose(self) -> None:
        """Nothing to close."""

    def _given(self, prompt: Prompt, config: GenerationConfig) -> str | list[dict[str, str]]:
        systems = [text for text in (config.system, prompt.system) if text]
        turns = [{"role": turn.role, "content": turn.content} for turn in prompt.turns]
        if self._takes_messages:
            system = [{"role": "system", "content": "\n\n".join(systems)}] if systems else []
            return [*system, *turns]
        if systems or len(turns) > 1:
            raise FatalProviderError(
                f"{printable(prompt.id)} has a system message or several turns: give the function "
                f"of {printable(self._id)} a parameter named messages"
            )
        return turns[0]["content"]

    async def _call(self, given: str | list[dict[str, str]]) -> Any:
        how = {"messages": given} if self._takes_messages else {}
        values = () if self._takes_messages else (given,)
        if self._is_async:
            found = self._function(*values, **how)
        else:
            found = await asyncio.to_thread(self._function, *values, **how)
        return await found if inspect.isawaitable(found) else found


def _takes_messages(function: Answer) -> bool:
    try:
        return "messages" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
