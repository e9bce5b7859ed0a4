"""The OpenAI chat-completions protocol, spoken by a plain aiohttp client.

There is no SDK in between: requests and answers are seen exactly as sent, and a call costs a
fraction of a millisecond.
"""

from __future__ import annotations

import contextlib
import io
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from refusalkit import jsonl
from refusalkit.display import shows
from refusalkit.errors import ConfigurationError, MissingKeyError
from refusalkit.models.client import (
    MAX_BODY_BYTES,
    ChatClient,
    RetryWithChanges,
    is_unreachable,
)
from refusalkit.models.dialects.error_body import ErrorBody, read_error
from refusalkit.models.dialects.filters import (
    filter_in_fields,
    filter_in_page,
    filtered_categories,
    flag_fields,
    guards,
)
from refusalkit.models.dialects.finish import blocked_word, reason_text
from refusalkit.models.dialects.message import answer_text, reasoning_text
from refusalkit.models.endpoints import OFFICIAL, is_loopback
from refusalkit.models.outcomes import (
    ApiFailure,
    Reply,
    exhausted_limit,
    parse_retry_after,
    text_or_none,
    token_count,
)
from refusalkit.models.pacing import Pacer
from refusalkit.models.request_form import ChatRequest, ReplyForm
from refusalkit.types import GenerationConfig, Usage
from refusalkit.untrusted import is_blank

if TYPE_CHECKING:
    from pathlib import Path

    from refusalkit.models.batch_files import BatchFiles
    from refusalkit.models.batches import BatchResult
    from refusalkit.models.openai_batches import OpenAIBatches

# Bytes of an error in plain text that are read.
_MAX_PLAIN_ERROR = 2000
_NO_SAMPLING = ("o1", "o3", "o4", "gpt-5", "gpt-6")
# Models that charge more for tokens written to their prompt cache and let a request mark those.
_CACHE_BREAKPOINTS = ("gpt-5.6", "gpt-6")


@shows("reply_form", "parameters")
@dataclass(slots=True)
class _Form:
    """The part that requests share which differ only in their turns, encoded once for all.

    `head` is the body's beginning, up to the messages, `first` the system message if there is one;
    both are JSON. The fields before them are what they were made from.
    """

    config: GenerationConfig
    schema: Mapping[str, Any] | None
    reply_form: ReplyForm
    system: str | None
    recurs: str | None
    learned: tuple[str, int]
    parameters: dict[str, Any]
    head: bytes
    first: tuple[bytes, ...]


class OpenAIClient(ChatClient):
    """A connection to one model: `model_id` is the user's, `name` the endpoint's name for it."""

    def __init__(
        self,
        model_id: str,
        name: str,
        *,
        pacer: Pacer,
        api_base: str | None = None,
        api_key: str | None = None,
        connections: int = 0,
    ) -> None:
        base = api_base or OFFICIAL["openai"]
        super().__init__(model_id, pacer=pacer, api_base=base, keys=[api_key])
        if not base.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"the API base of {model_id} must begin with http:// or https://"
            )
        self._official = base.rstrip("/") == OFFICIAL["openai"]
        if self._official and not api_key:
            raise MissingKeyError(
                f"no API key for {model_id}: set OPENAI_API_KEY, or give --api-base for an "
                "endpoint of your own"
            )
        self._base = base.rstrip("/")
        self._url = self._base + "/chat/completions"
        self._name = name
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._form: _Form | None = None
        self._max_tokens_key = "max_completion_tokens" if self._official else "max_tokens"
        self._breakpoints = self._official and name.startswith(_CACHE_BREAKPOINTS)
        if self._official:
            self.parameters.drop("top_k", "the OpenAI API has no top_k")
            if name.startswith(_NO_SAMPLING):
                for parameter in ("temperature", "top_p"):
                    self.parameters.drop(parameter, f"{name} takes no sampling parameters")

    def _form_of(self, request: ChatRequest) -> _Form:
        form, system, recurs = self._form, request.system, request.recurs
        # `dropped` only grows, so its size shows whether anything was learned.
        learned = (self._max_tokens_key, len(self.parameters.dropped))
        if (
            form is None
            # By identity: values equal in Python (1 and True) may differ in JSON.
            or form.config is not request.config
            or form.schema is not request.schema
            or form.reply_form is not request.reply_form
            or (form.system, form.recurs, form.learned) != (system, recurs, learned)
        ):
            parameters = self._parameters(request)
            whole = jsonl.to_bytes({"model": self._name, **parameters})
            form = self._form = _Form(
                config=request.config,
                schema=request.schema,
                reply_form=request.reply_form,
                system=system,
                recurs=recurs,
                learned=learned,
                parameters=parameters,
                head=whole[:-1] + b',"messages":[',
                first=() if system is None else (self._system_message(system, recurs),),
            )
        return form

    def _parameters(self, request: ChatRequest) -> dict[str, Any]:
        config = request.config
        optional: dict[str, Any] = {
            self._max_tokens_key: config.max_tokens,
            **request.sampling,
            "response_format": request.response_format,
        }
        if config.reasoning != "auto":
            on = config.reasoning == "on"
            if self._official:
                optional["reasoning_effort"] = "medium" if on else "none"
            else:
                # vLLM and SGLang pass these to the model's chat template; those of Hermes, Qwen and
                # DeepSeek read one or the other.
                optional["chat_template_kwargs"] = {"thinking": on, "enable_thinking": on}
        if self._breakpoints and request.recurs is not None:
            # By default the cache would take every whole request, never to be read again.
            optional["prompt_cache_options"] = {"mode": "explicit"}
        return {**self._take(optional), **config.extra_body}

    def _system_message(self, text: str, recurs: str | None) -> bytes:
        content: str | list[dict[str, Any]] = text
        if self._breakpoints and recurs == "system":
            end = {"mode": "explicit"}
            content = [{"type": "text", "text": text, "prompt_cache_breakpoint": end}]
        return jsonl.to_bytes({"role": "system", "content": content})

    def batches(self) -> OpenAIBatches:
        """The endpoint's batches."""
        from refusalkit.models.batch_dialects import provider_at
        from refusalkit.models.openai_batches import OpenAIBatches

        return OpenAIBatches(self, provider_at(self._base), self._name)

    def batches_in(self, folder: Path) -> BatchFiles:
        """Batches as files in a folder."""
        from refusalkit.models.batch_files import BatchFiles

        return BatchFiles(folder)

    def _body(self, request: ChatRequest) -> bytes:
        form = self._form_of(request)
        self.parameters.sent = form.parameters
        messages = (*form.first, *map(jsonl.to_bytes, request.turns))
        return form.head + b",".join(messages) + b"]}"

    async def _send(self, request: ChatRequest) -> Reply:
        body = self._body(request)
        try:
            response = await self._open().post(
                self._url,
                # As a stream: aiohttp warns of a body of more than 1 MiB sent whole.
                data=io.BytesIO(body) if len(body) > 1024 * 1024 else body,
                allow_redirects=False,
            )
            raw = await _read(response)
            status, headers = response.status, response.headers
        except (aiohttp.ClientError, OSError, ValueError) as error:
            message = f"connection failed ({type(error).__name__}: {error})"
            failure = ApiFailure(message, unreachable=is_unreachable(error))
            raise self._failed(failure) from error
        return self._read_answer(request, status, headers, _json(raw), raw)

    def _read(self, request: ChatRequest, result: BatchResult) -> Reply:
        reply = self._read_answer(request, result.status, {}, result.body, b"")
        reply.request_id = reply.request_id or result.request_id
        return reply

    def _read_answer(
        self, request: ChatRequest, status: int, headers: Mapping[str, str], data: Any, raw: bytes
    ) -> Reply:
        """The reply in an answer; `data` is its JSON, None where it has none."""
        if not 200 <= status < 300 or not isinstance(data, dict) or _is_error(data.get("error")):
            failure = parse_failure(status, headers, data, raw)
            # What the user put into the extra body is never left out.
            sent = frozenset(self.parameters.sent) - frozenset(request.config.extra_body)
            if "max_completion_tokens" in failure.message and "max_tokens" in sent:
                # The parameter is not refused, only its older name.
                self._max_tokens_key = "max_completion_tokens"
                raise RetryWithChanges(f"{self.names}: HTTP {status}", status=status)
            raise self._failed(failure, sent=sent)
        try:
            reply = parse_chat_completion(data, structured=request.schema is not None)
        except (LookupError, TypeError, AttributeError) as error:
            failure = parse_failure(status, headers, data, raw)
            failure.usage = _usage(data.get("usage"))
            raise self._failed(failure) from error
        reply.request_id = text_or_none(headers.get("x-request-id")) or reply.request_id
        return reply

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        form: aiohttp.FormData | None = None,
        once: bool = False,
    ) -> Any:
        """The JSON object or array that a path below the base URL answers with, for batches.

        `once`: not sent again after a fault; a form never is. Raises the `ProviderError` family.
        """

        async def attempt() -> Any:
            async with self._request(method, path, json, form) as response:
                raw = await _read(response)
                data = _json(raw)
                # A refused batch has an id, and its `error` says why: not a failed request.
                failed = isinstance(data, dict) and data.get("error") and "id" not in data
                if 200 <= response.status < 300 and isinstance(data, dict | list) and not failed:
                    return data
                raise self._failed(parse_failure(response.status, response.headers, data, raw))

        if once or form is not None:
            return await attempt()
        return (await self._pacer.send(attempt))[0]

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """The lines of a file below the endpoint's base URL. Raises the `ProviderError` family."""
        async with self._request("GET", path, None, None) as response:
            if response.status != 200:
                raw = await _read(response)
                failure = parse_failure(response.status, response.headers, _json(raw), raw)
                raise self._failed(failure)
            rest = b""
            async for chunk in response.content.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line
                if len(rest) > MAX_BODY_BYTES:
                    raise self._failed(
                        ApiFailure(f"a line is larger than {MAX_BODY_BYTES >> 20} MiB", status=200)
                    )
            if rest:
                yield rest

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        json: Mapping[str, Any] | None,
        form: aiohttp.FormData | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        body: Any = None if json is None else jsonl.to_bytes(json)
        headers = {}
        if form is not None:
            body = form()
            headers["Content-Type"] = body.headers["Content-Type"]
        try:
            async with self._open().request(
                method, self._base + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError, ValueError) as error:
            message = f"connection failed ({type(error).__name__}: {error})"
            failure = ApiFailure(message, unreachable=is_unreachable(error))
            raise self._failed(failure) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=self._connections),
                # The caller sets the deadline, for the whole request.
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=bool(urllib.request.getproxies()) and not is_loopback(self._base),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; the connection is closed where its end is not reached."""
    body = response.content
    chunks: list[bytes] = []
    size = 0
    try:
        while not body.at_eof():
            chunk = await body.readany()
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise ValueError(f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
            chunks.append(chunk)
    except BaseException:
        response.close()  # without waiting for the rest
        raise
    return b"".join(chunks)


def _json(raw: bytes) -> Any:
    """The JSON of a body; None where it has none."""
    try:
        return jsonl.from_bytes(raw)
    except (ValueError, RecursionError):
        return None


def parse_failure(
    status: int, headers: Mapping[str, str], data: object, raw: bytes = b""
) -> ApiFailure:
    """What an error says, whatever shape its body has. `data` is its JSON, None if it has none."""
    filtered: str | None = None
    if data is None:
        kind = headers.get("Content-Type", "no content type").split(";")[0]
        # Plain text says what is wrong; a web page does not.
        text = raw[:_MAX_PLAIN_ERROR].decode("utf-8", "replace").strip()
        is_page = not text or text[:1] == "<" or 200 <= status < 300
        message = f"the body is not JSON ({kind})" if is_page else text
        found = ErrorBody(message) if is_page else read_error(text)
        if is_page and status >= 400:
            filtered = filter_in_page(text)
    else:
        found = read_error(data)
    codes: list[str] = []
    for code in found.codes:
        if code.isdigit() and 400 <= int(code) < 600:
            # Gateways answer 200 and put the real status into the body.
            status = int(code) if 200 <= status < 300 else status
        elif code != "error":
            codes.append(code)
    return ApiFailure(
        message=found.message or "no message",
        status=status,
        codes=tuple(codes),
        parameter=found.parameter,
        retry_after=parse_retry_after(headers),
        filter_category=filtered_categories(data),
        filtered=filtered
        or next(
            (
                word
                for body in (data, *found.bodies)
                if (word := filter_in_fields(body) or blocked_word(body)) is not None
            ),
            None,
        ),
        limit=exhausted_limit(headers) if status == 429 else None,
    )


def parse_chat_completion(data: Mapping[str, Any], *, structured: bool) -> Reply:
    """A chat completion of the OpenAI protocol.

    Raises `LookupError`, `TypeError` or `AttributeError` where it is not one.
    """
    try:
        choice = data["choices"][0]
        message = choice.get("message") or choice.get("delta")
        if message is None and "text" in choice:
            message = {"content": choice["text"]}
        if message is None and choice.get("finish_reason") is not None:
            message = {}  # stopped before the first word
        # The model's own refusal counts as text, unless JSON was asked for.
        declined = answer_text(message.get("refusal"))
        text = answer_text(message.get("content")) or declined
    except (LookupError, TypeError, AttributeError):
        filtered = filter_in_fields(data) or blocked_word(data)
        if filtered is None:
            raise
        return _filtered_reply(data, filtered)
    native = choice.get("native_finish_reason")
    filtered = None
    if is_blank(text):
        filtered = filter_in_fields(data)
    else:
        of_body, of_choice = flag_fields()
        if not (of_body.isdisjoint(data) and of_choice.isdisjoint(choice)):
            filtered = filter_in_fields(data, beside_text=True)
    model = text_or_none(data.get("model"))
    if model in guards():
        filtered = model
    said = choice.get("error")
    results = choice.get("content_filter_results")
    return Reply(
        text=text,
        finish_reason=(
            "refusal" if declined and structured else reason_text(choice.get("finish_reason"))
        ),
        native_reason=None if native is None else reason_text(native),
        reasoning=reasoning_text(message),
        usage=_usage(data.get("usage")),
        served_model=model,
        request_id=text_or_none(data.get("id")),
        filter_category=None if results is None else filtered_categories(data),
        filtered=filtered,
        failure=parse_failure(200, {}, {"error": said}) if said else None,
    )


def _filtered_reply(data: Mapping[str, Any], filtered: str) -> Reply:
    return Reply(
        text="",
        finish_reason=None,
        usage=_usage(data.get("usage")),
        served_model=text_or_none(data.get("model")),
        request_id=text_or_none(data.get("id")),
        filter_category=filtered_categories(data),
        filtered=filtered,
    )


def _is_error(value: object) -> bool:
    """Whether an answer's error field reports an error: some gateways fill it with zeros."""
    if isinstance(value, dict):
        return any(one and one != "0" for one in value.values()) and value.get("code") not in (
            0,
            "0",
        )
    return bool(value)


def _usage(data: object) -> Usage:
    if not isinstance(data, dict):
        return Usage()
    details = data.get("completion_tokens_details")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
    cached = data.get("prompt_tokens_details")
    if not isinstance(cached, dict):
        cached = {}
    return Usage(
        input_tokens=token_count(data.get("prompt_tokens")),
        output_tokens=token_count(data.get("completion_tokens")),
        reasoning_tokens=token_count(reasoning),
        # Included in the prompt's tokens.
        cache_read_tokens=token_count(cached.get("cached_tokens")),
        cache_write_tokens=token_count(cached.get("cache_write_tokens")),
    )
