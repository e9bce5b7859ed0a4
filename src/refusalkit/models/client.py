"""What every back end shares: one chat request, which parameters went out, and which did not."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from refusalkit.errors import TransientError, UnsupportedParameter
from refusalkit.models.pacing import Pacer
from refusalkit.models.token_pace import Demand, Spent
from refusalkit.outcomes import Reply
from refusalkit.types import GenerationConfig, Message
from refusalkit.untrusted import printable

# A deadline of our own stands behind the client's: a back end that forgets its timeout cannot hang.
_GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One conversation to continue. `schema` asks for a reply that is JSON of that shape."""

    messages: tuple[Message, ...]
    config: GenerationConfig
    schema: Mapping[str, Any] | None = None

    @property
    def system(self) -> str | None:
        """The system messages as one text."""
        parts = [m.content for m in self.messages if m.role == "system"]
        return "\n\n".join(parts) or None

    @property
    def turns(self) -> list[dict[str, str]]:
        """The messages without the system's, as providers take them."""
        return [{"role": m.role, "content": m.content} for m in self.messages if m.role != "system"]

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The messages as the OpenAI protocol has them: the system's first, and as one."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return first + self.turns

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling parameters by the names that all APIs share; None is not to be sent."""
        names = ("temperature", "top_p", "top_k", "seed")
        return {name: getattr(self.config, name) for name in names}

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The schema as the OpenAI protocol asks for it."""
        if self.schema is None:
            return None
        schema = {"name": "verdict", "schema": dict(self.schema), "strict": True}
        return {"type": "json_schema", "json_schema": schema}


@dataclass
class ParameterLog:
    """What was really sent beside the messages, and what was left out and why."""

    sent: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def drop(self, name: str, why: str) -> None:
        """Leave `name` out from now on."""
        self.dropped.setdefault(name, why)


class ChatClient(ABC):
    """A connection to one model at one endpoint.

    A back end implements `_send` and `_close`; retries, pacing, the deadline and the parameters
    that a model turns out not to take are handled here, once.
    """

    def __init__(self, model_id: str, *, pacer: Pacer, api_base: str | None = None) -> None:
        self.model_id = model_id
        self.parameters = ParameterLog()
        self.names = model_id
        if api_base and (host := urlsplit(api_base).hostname):
            # Host only: a URL may carry credentials.
            port = urlsplit(api_base).port
            self.names = f"{model_id} at {host}:{port}" if port else f"{model_id} at {host}"
        self._pacer = pacer

    async def chat(self, request: ChatRequest) -> tuple[Reply, int]:
        """The reply, and how many times the request was sent.

        Raises the `ProviderError` family: `FatalProviderError` concerns the whole run, everything
        else this request.
        """
        demand = _demand(request) if self._pacer.counts_tokens else None
        return await self._pacer.send(
            lambda: self._send_learning(request), demand=demand, spent=_spent
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._close()

    async def _send_learning(self, request: ChatRequest) -> Reply:
        while True:
            known = set(self.parameters.dropped)
            try:
                async with asyncio.timeout(request.config.timeout_s + _GRACE_S):
                    return await self._send(request)
            except TimeoutError as error:
                raise TransientError(f"{self.names}: no answer in time") from error
            except UnsupportedParameter as error:
                if error.parameter in known:
                    raise  # it was not sent: the complaint is about something else
                why = f"the endpoint does not take it: {printable(error, 160)}"
                self.parameters.drop(error.parameter, why)

    def _take(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of `wanted` that are set and not known to be refused."""
        return {
            name: value
            for name, value in wanted.items()
            if value is not None and name not in self.parameters.dropped
        }

    @abstractmethod
    async def _send(self, request: ChatRequest) -> Reply: ...

    @abstractmethod
    async def _close(self) -> None: ...


def _demand(request: ChatRequest) -> Demand:
    texts = [message.content for message in request.messages]
    if request.schema is not None:
        texts.append(json.dumps(dict(request.schema)))
    # A lone surrogate, which UTF-8 does not know, counts like any other character of its length.
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return Demand(size, request.config.max_tokens)


def _spent(reply: Reply) -> Spent:
    usage = reply.usage
    size = len(reply.text or "") + len(reply.reasoning or "")
    return Spent(usage.input_tokens, usage.output_tokens, size)
