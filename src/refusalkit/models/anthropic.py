"""Claude through the anthropic SDK: the only way that keeps a refusal's `stop_details`."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from refusalkit import jsonl
from refusalkit.errors import MissingKeyError
from refusalkit.models.client import MAX_BODY_BYTES, ChatClient, is_unreachable
from refusalkit.models.compressed import ENCODINGS, is_packed, new_unpacker, unpacked
from refusalkit.models.dialects.filters import filter_in_fields
from refusalkit.models.dialects.finish import Means, finish_of, reason_text
from refusalkit.models.dialects.message import answer_text, reasoning_text
from refusalkit.models.endpoints import OFFICIAL
from refusalkit.models.openai import parse_failure
from refusalkit.models.outcomes import ApiFailure, Reply, text_or_none, token_count
from refusalkit.models.pacing import Pacer
from refusalkit.models.request_form import ChatRequest, ReplyForm
from refusalkit.types import Usage
from refusalkit.untrusted import is_blank

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

    from refusalkit.models.anthropic_batches import AnthropicBatches
    from refusalkit.models.batches import BatchResult

_NO_SAMPLING = re.compile(r"^claude-[a-z]+-([5-9]|\d{2})(-|$)")
_THINKING_BUDGET = re.compile(r"^claude-(3-7-|(sonnet|opus|haiku)-4-(0|1|5|\d{8})(-|$))")
# Bytes of a whole batch's results, and seconds to send or read them.
_MAX_RESULTS_BYTES = 1024 * 1024 * 1024
_BATCH_TIMEOUT_S = 600.0
_SAMPLING = ("temperature", "top_p", "top_k")


class AnthropicClient(ChatClient):
    """A connection to one model of Anthropic's; `name` is the model's name there."""

    # Its API has no JSON without a schema.
    reply_forms = (ReplyForm.JSON_SCHEMA, ReplyForm.TEXT)

    def __init__(
        self,
        model_id: str,
        name: str,
        *,
        pacer: Pacer,
        api_base: str | None = None,
        api_key: str | None = None,
    ) -> None:
        token = os.environ.get("ANTHROPIC_AUTH_TOKEN")
        super().__init__(model_id, pacer=pacer, api_base=api_base, keys=[api_key, token])
        if not api_key and not token and not api_base:
            raise MissingKeyError(f"no API key for {model_id}: set ANTHROPIC_API_KEY")
        self._name = name
        # Always given to the SDK, which would otherwise read it from the environment.
        self._base = api_base or OFFICIAL["anthropic"]
        # An endpoint of one's own may need no key, but the SDK insists on one.
        self._api_key = api_key or (None if token else "none")
        self._sdk: AsyncAnthropic | None = None
        self.parameters.drop("seed", "the Anthropic API has no seed")
        if _NO_SAMPLING.match(name):
            for parameter in _SAMPLING:
                self.parameters.drop(parameter, f"{name} takes no sampling parameters")

    def _parameters(self, request: ChatRequest) -> dict[str, Any]:
        config = request.config
        wanted: dict[str, Any] = {"max_tokens": config.max_tokens, **request.sampling}
        if config.reasoning == "on":
            for name in _SAMPLING:
                self.parameters.drop(name, "not taken together with thinking")
            if _THINKING_BUDGET.match(self._name):
                budget = max(1024, config.max_tokens // 2)
                wanted["thinking"] = {"type": "enabled", "budget_tokens": budget}
            else:
                wanted["thinking"] = {"type": "adaptive"}
        elif config.reasoning == "off":
            wanted["thinking"] = {"type": "disabled"}
        if request.schema is not None and request.reply_form is ReplyForm.JSON_SCHEMA:
            wanted["output_config"] = {"format": {"type": "json_schema", "schema": request.schema}}
        return self._take(wanted)

    def batches(self) -> AnthropicBatches:
        """The account's batches."""
        from refusalkit.models.anthropic_batches import AnthropicBatches

        return AnthropicBatches(self)

    def _extra(self, request: ChatRequest) -> dict[str, Any]:
        """The body's fields beside the model and the messages."""
        self.parameters.sent = {**self._parameters(request), **request.config.extra_body}
        body = dict(self.parameters.sent)
        if request.system is not None:
            body["system"] = _system(request.system, kept=request.recurs == "system")
        return body

    def _body(self, request: ChatRequest) -> bytes:
        extra = self._extra(request)
        return jsonl.to_bytes({"model": self._name, "messages": request.turns, **extra})

    async def _send(self, request: ChatRequest) -> Reply:
        # As a body rather than as arguments: the SDK no longer has those for sampling.
        body = self._extra(request)
        turns: Any = request.turns
        # Raw: the JSON is read here, whatever its shape, and not by the SDK's models.
        data, headers = await self._ask(
            lambda sdk: sdk.messages.with_raw_response.create(
                model=self._name,
                max_tokens=request.config.max_tokens,
                messages=turns,
                extra_body=body,
                timeout=request.config.timeout_s,
            ),
            request.config.timeout_s,
            self._sent(request),
        )
        return self._read_answer(data, headers)

    def _sent(self, request: ChatRequest) -> frozenset[str]:
        # What the user put into the extra body is never left out.
        return frozenset(self.parameters.sent) - frozenset(request.config.extra_body)

    def _read(self, request: ChatRequest, result: BatchResult) -> Reply:
        if result.status != 200:
            failure = parse_failure(result.status, {}, result.body)
            raise self._failed(_without_general(failure), sent=self._sent(request))
        return self._read_answer(result.body, {})

    async def call(
        self, ask: Callable[[AsyncAnthropic], Awaitable[Any]], *, once: bool = False
    ) -> dict[str, Any]:
        """The JSON object that answers a call of the SDK, for batches.

        `once`: not sent again after a fault. Raises the `ProviderError` family.
        """

        async def attempt() -> dict[str, Any]:
            data, _ = await self._ask(ask, _BATCH_TIMEOUT_S, frozenset())
            if not isinstance(data, dict):
                raise self._failed(ApiFailure("the body is not a JSON object", status=200))
            return data

        return await attempt() if once else (await self._pacer.send(attempt))[0]

    async def lines(self, path: str) -> list[bytes]:
        """The lines of a file below the endpoint's address. Raises the `ProviderError` family."""
        import httpx2

        async def attempt() -> list[bytes]:
            found: Any = await self._raw(
                lambda sdk: sdk.get(path, cast_to=httpx2.Response), _BATCH_TIMEOUT_S, frozenset()
            )
            return bytes(await found.aread()).splitlines()

        return (await self._pacer.send(attempt))[0]

    async def _ask(
        self,
        ask: Callable[[AsyncAnthropic], Awaitable[Any]],
        timeout_s: float,
        sent: frozenset[str],
    ) -> tuple[Any, Mapping[str, str]]:
        """The JSON and the headers of an answer; failures as the `ProviderError` family."""
        answer = await self._raw(ask, timeout_s, sent)
        try:
            return await answer.json(), answer.headers
        except (ValueError, RecursionError) as error:
            failure = ApiFailure("the body is not a JSON object", status=200)
            raise self._failed(failure) from error

    async def _raw(
        self,
        ask: Callable[[AsyncAnthropic], Awaitable[Any]],
        timeout_s: float,
        sent: frozenset[str],
    ) -> Any:
        import anthropic

        try:
            return await ask(self._open())
        except anthropic.APIStatusError as error:
            raise self._failed(_status_failure(error), sent=sent) from error
        except anthropic.APITimeoutError as error:
            what = f"no answer within {timeout_s:g} s"
            raise self._failed(ApiFailure(what)) from error
        except (anthropic.AnthropicError, OSError) as error:
            what = f"connection failed ({type(error).__name__}: {error.__cause__ or error})"
            failure = ApiFailure(what, unreachable=is_unreachable(error))
            raise self._failed(failure) from error

    def _read_answer(self, data: Any, headers: Mapping[str, str]) -> Reply:
        """The reply in an answer with status 200."""
        request_id = headers.get("request-id")
        if (
            isinstance(data, dict)
            and isinstance(data.get("content"), list)
            and not data.get("error")
        ):
            return _reply(data, request_id)
        if isinstance(data, dict) and not data.get("error"):
            # A refusal may come without content; anything else without content is not an answer.
            finish = finish_of(reason_text(data.get("stop_reason")))
            if finish is not None and finish.means is Means.BLOCKED:
                return _reply({**data, "content": []}, request_id)
        failure = parse_failure(200, headers, data)
        failure.usage = _usage(_mapping(_mapping(data).get("usage")))
        raise self._failed(failure)

    def _open(self) -> AsyncAnthropic:
        if self._sdk is None:
            import anthropic

            self._sdk = anthropic.AsyncAnthropic(
                api_key=self._api_key,
                base_url=self._base,
                max_retries=0,
                http_client=anthropic.DefaultAioHttpClient(
                    # The SDK would send the key to wherever a redirect leads.
                    follow_redirects=False,
                    headers={"Accept-Encoding": ENCODINGS},
                    event_hooks={"response": [_bound]},
                ),
            )
        return self._sdk

    async def _close(self) -> None:
        if self._sdk is not None:
            await self._sdk.close()


def _system(text: str, *, kept: bool) -> str | list[dict[str, Any]]:
    """The system text; with `kept`, its end marks the end of what the prompt cache should hold."""
    if not kept:
        return text
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]


async def _bound(response: Any) -> None:
    """Bound the size of a body before the SDK reads it whole.

    Compressed bodies are unpacked here, piece by piece: a small one may unpack to a very large one.
    """
    import httpx2

    inner = response.stream
    limit = MAX_BODY_BYTES
    if response.request.url.path.endswith("/results"):
        limit = _MAX_RESULTS_BYTES
    try:
        packed = is_packed(response.headers.get("content-encoding", ""))
    except ValueError as error:
        raise httpx2.DecodingError(str(error)) from error

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size, unpacker = 0, new_unpacker()
            try:
                async for chunk in inner:
                    for piece in unpacked(chunk, unpacker) if packed else (chunk,):
                        size += len(piece)
                        if size > limit:
                            large = f"the body is larger than {limit >> 20} MiB"
                            raise httpx2.ReadError(large)
                        yield piece
            except zlib.error as error:
                raise httpx2.DecodingError(f"the body cannot be unpacked: {error}") from error

        async def aclose(self) -> None:
            await inner.aclose()

    response.stream = Bounded()
    for name in ("content-encoding", "content-length"):
        response.headers.pop(name, None)


def _reply(data: Mapping[str, Any], request_id: object) -> Reply:
    # Blocks by type, not by position: thinking may come before, between or alone.
    blocks = [block for block in data["content"] if isinstance(block, dict)]
    redacted = any(block.get("type") == "redacted_thinking" for block in blocks)
    details = _mapping(data.get("stop_details"))
    text = answer_text(blocks)
    return Reply(
        text=text,
        finish_reason=reason_text(data.get("stop_reason")),
        reasoning=reasoning_text({"content": _without_data(blocks)})
        or ("[redacted]" if redacted else ""),
        usage=_usage(_mapping(data.get("usage"))),
        served_model=text_or_none(data.get("model")),
        request_id=text_or_none(request_id) or text_or_none(data.get("id")),
        filter_category=text_or_none(details.get("category")),
        filtered=filter_in_fields(data) if is_blank(text) else None,
    )


def _without_data(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks without those whose reasoning is encrypted."""
    return [block for block in blocks if block.get("type") != "redacted_thinking"]


def _usage(said: Mapping[str, Any]) -> Usage:
    uncached = token_count(said.get("input_tokens"))
    read = token_count(said.get("cache_read_input_tokens"))
    written = token_count(said.get("cache_creation_input_tokens"))
    return Usage(
        # Anthropic counts input tokens without the cached ones.
        input_tokens=None if uncached is None else uncached + (read or 0) + (written or 0),
        output_tokens=token_count(said.get("output_tokens")),
        reasoning_tokens=token_count(
            _mapping(said.get("output_tokens_details")).get("thinking_tokens")
        ),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _status_failure(error: Any) -> ApiFailure:
    # A JSON string may hold half a surrogate pair, which UTF-8 cannot.
    raw = str(error.body or "").encode("utf-8", "replace")
    return _without_general(
        parse_failure(error.status_code, error.response.headers, error.body, raw)
    )


def _without_general(failure: ApiFailure) -> ApiFailure:
    # Anthropic's general names say less than the status does.
    failure.codes = tuple(code for code in failure.codes if code != "invalid_request_error")
    return failure
