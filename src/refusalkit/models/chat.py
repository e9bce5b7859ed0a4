"""A model under test behind a chat client: asks one prompt and reads the outcome."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from refusalkit.display import shows
from refusalkit.errors import FatalProviderError, ModerationError, ProviderError
from refusalkit.models.client import ChatClient, ParameterLog
from refusalkit.models.dialects.finish import NATIVE_LOST
from refusalkit.models.outcomes import Reply, read_reply
from refusalkit.models.prices import Price
from refusalkit.models.request_form import ChatRequest
from refusalkit.types import Completion, GenerationConfig, Message, Outcome, Prompt, Usage
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.models.batches import BatchEndpoint, BatchResult

# A Hermes model reasons when its system prompt asks for it; a template flag does the same where
# the endpoint has one. In our own words.
_HERMES_REASONING = (
    "Think the request through before you answer. Write all of your thinking between <think> and "
    "</think>, then give the answer after the closing tag."
)


@shows("id")
class ChatModel:
    """A `Model` behind any chat client."""

    def __init__(self, client: ChatClient, *, price: Price | None = None) -> None:
        self._client = client
        self._price = price
        self._batches: BatchEndpoint | None = None

    @property
    def id(self) -> str:
        """``provider/name``, as given to `open_model`."""
        return self._client.model_id

    @property
    def parameters(self) -> ParameterLog:
        """What was sent beside the messages, and what was left out and why."""
        return self._client.parameters

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        """Answer one prompt once; raises only `FatalProviderError`."""
        request = self._request(prompt, config, trial)
        return await self._completion(prompt, trial, self._client.chat(request))

    def batches(self) -> BatchEndpoint:
        """Where its requests go in batches. Raises `ConfigurationError` where it has none."""
        return self._client.batches() if self._batches is None else self._batches

    def batch_in(self, folder: Path) -> None:
        """Write batches as files into a folder, to be answered offline.

        Raises `ConfigurationError` where its requests are not of OpenAI's protocol.
        """
        self._batches = self._client.batches_in(folder)

    def batch_body(self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1) -> bytes:
        """The body of the request that `complete` would send."""
        return self._client.batch_body(self._request(prompt, config, trial))

    async def read_batched(
        self, prompt: Prompt, config: GenerationConfig, trial: int, result: BatchResult
    ) -> Completion:
        """The completion for a request in a batch, read as `complete` reads one."""
        request = self._request(prompt, config, trial)

        async def reply() -> tuple[Reply, int]:
            return self._client.read_batched(request, result)

        completion = await self._completion(prompt, trial, reply())
        return replace(completion, latency_s=None)

    def _request(self, prompt: Prompt, config: GenerationConfig, trial: int) -> ChatRequest:
        if config.seed is not None:
            # With one seed for all, five trials would be one answer five times.
            config = replace(config, seed=config.seed + trial - 1)
        return ChatRequest(self._messages(prompt, config), config)

    async def _completion(
        self, prompt: Prompt, trial: int, asked: Awaitable[tuple[Reply, int]]
    ) -> Completion:
        """The completion of a request under way, whose reply `asked` gives."""
        started = time.perf_counter()
        completion = partial(
            Completion,
            prompt_id=prompt.id,
            category=prompt.category,
            trial=trial,
            model=self.id,
        )
        try:
            reply, attempts = await asked
        except ModerationError as error:
            return completion(
                outcome=Outcome.BLOCKED,
                finish_reason=error.code,
                filter_category=error.category,
                attempts=error.attempts,
                latency_s=time.perf_counter() - started,
            )
        except FatalProviderError:
            raise
        except ProviderError as error:
            return completion(
                outcome=Outcome.ERROR,
                error=error.summary,
                error_detail=error.detail,
                attempts=error.attempts,
                usage=error.usage or Usage(),
                cost_usd=self._cost(error.usage or Usage()),
                latency_s=time.perf_counter() - started,
            )
        latency_s = time.perf_counter() - started
        reading = read_reply(reply)
        return completion(
            outcome=reading.outcome,
            finish_reason=_short(_with_loss(reading.finish_reason, lost=reply.lost)),
            text=reading.text,
            reasoning=reading.reasoning,
            usage=reply.usage,
            cost_usd=self._cost(reply.usage, batched=reply.batched),
            latency_s=latency_s,
            served_model=_short(reply.served_model),
            request_id=_short(reply.request_id),
            filter_category=_short(reply.filter_category),
            error=reading.error,
            unknown_finish=reading.unknown_finish,
            unknown_mark=_short(reading.unknown_mark),
            attempts=attempts,
        )

    def _cost(self, usage: Usage, *, batched: bool = False) -> float | None:
        return self._price.cost(usage, batched=batched) if self._price else None

    def ceiling_usd(self, prompts: Iterable[Prompt], config: GenerationConfig) -> float | None:
        """The most that one answer to any of the prompts can cost; None where that is not known."""
        if self._price is None:
            return None
        # A token has at least one byte; a chat template adds little compared with the answer.
        longest = max((self._size(prompt, config) for prompt in prompts), default=0)
        read = max(self._price.input_usd, self._price.cache_write_usd or 0.0)
        return longest * read + config.max_tokens * self._price.output_usd

    def _size(self, prompt: Prompt, config: GenerationConfig) -> int:
        messages = self._messages(prompt, config)
        return sum(len(part.content.encode("utf-8", "surrogatepass")) for part in messages)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _messages(self, prompt: Prompt, config: GenerationConfig) -> tuple[Message, ...]:
        systems = [text for text in (config.system, prompt.system) if text]
        if config.reasoning == "on" and "hermes" in self.id.casefold():
            systems.insert(0, _HERMES_REASONING)
        system = [Message("system", "\n\n".join(systems))] if systems else []
        return (*system, *prompt.turns)


def _with_loss(word: str | None, *, lost: bool) -> str | None:
    """The finish word, marked where it is a gateway's and the provider's own is not known."""
    return f"{word}{NATIVE_LOST}" if lost and word else word


def _short(text: str | None) -> str | None:
    """A provider's own word, short enough for a record."""
    return None if text is None else printable(text, 120)
