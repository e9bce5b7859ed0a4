"""Every other provider, through litellm."""

from __future__ import annotations

import asyncio
import os
import re
import weakref
from collections.abc import Mapping
from typing import Any

from refusalkit import jsonl
from refusalkit.errors import ConfigurationError
from refusalkit.models.client import ChatClient, RetryWithChanges, is_unreachable
from refusalkit.models.dialects.filters import filter_in_fields, filtered_categories
from refusalkit.models.dialects.finish import finish_words
from refusalkit.models.litellm_calls import complete, load_litellm
from refusalkit.models.litellm_log import unlogged
from refusalkit.models.litellm_session import Exchange, Unread, close_connections, exchange_from
from refusalkit.models.openai import parse_chat_completion, parse_failure
from refusalkit.models.outcomes import ApiFailure, Reply, text_or_none, token_count
from refusalkit.models.pacing import Pacer
from refusalkit.models.provider_names import meant
from refusalkit.models.request_form import ChatRequest, ReplyForm
from refusalkit.redaction import Keys
from refusalkit.types import Usage
from refusalkit.untrusted import printable

# Parameters of the OpenAI protocol; litellm knows which of them each model takes.
_OPENAI_PARAMETERS = ("temperature", "top_p", "seed", "reasoning_effort", "response_format")

# Endings of the names of environment variables that hold a key, and words in such names.
_KEY_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")
_KEY_WORDS = ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "BEARER", "JWT")
# Keys that were sent and are remembered: some providers' keys are new each hour.
_MAX_SENT_KEYS = 16

# Headers with a request's id, under the names by which litellm passes them on.
_REQUEST_ID_HEADERS = ("request-id", "llm_provider-request-id", "llm_provider-x-request-id")


# litellm's errors where it has no key to send.
_NO_KEY = re.compile(r"(?i)missing [\w ]{0,30}api key|missing credentials|_KEY is not set")


class LiteLLMClient(ChatClient):
    """A connection through litellm; `model_id` is litellm's own name: ``groq/llama-...``."""

    # litellm gives 500 for a broken connection, and for a body that it cannot read.
    sees_status = False

    def __init__(
        self,
        model_id: str,
        *,
        pacer: Pacer,
        api_base: str | None = None,
        api_key: str | None = None,
    ) -> None:
        # litellm takes the provider's key from the environment where it is given none.
        named = [value for name, value in os.environ.items() if _holds_key(name, value)]
        super().__init__(model_id, pacer=pacer, api_base=api_base, keys=[api_key, *named])
        self._known_keys = self._keys
        self._sent_keys: tuple[str, ...] = ()
        self._api_base = api_base
        self._loop: asyncio.AbstractEventLoop | None = None
        self._max_tokens_key = "max_tokens"
        # litellm's OpenAI client insists on a key; an endpoint of one's own may need none.
        self._api_key = api_key or ("none" if api_base else None)
        litellm = load_litellm()
        try:
            _, self._provider, _, _ = litellm.get_llm_provider(model_id, api_base=api_base)
            self._takes_handler = self._provider not in (
                "openai",
                "azure",
                "azure_text",
                *litellm.openai_compatible_providers,
            )
            supported = litellm.get_supported_openai_params(
                model_id, custom_llm_provider=self._provider
            )
        except litellm.exceptions.BadRequestError as error:
            near = meant(model_id, [one.value for one in litellm.LlmProviders])
            raise ConfigurationError(
                f"litellm knows no provider for {printable(model_id)}: "
                f"{'' if near is None else f'{near} Else '}write provider/name, or give --api-base "
                "for an endpoint that speaks the OpenAI protocol"
            ) from error
        for name in _OPENAI_PARAMETERS:
            if supported is not None and name not in supported:
                why = f"litellm says {printable(model_id)} does not take it"
                if name == "response_format":
                    self.form.refuse(ReplyForm.JSON_SCHEMA, ReplyForm.TEXT, why)
                else:
                    self.parameters.drop(name, why)

    def _parameters(self, request: ChatRequest) -> dict[str, Any]:
        config = request.config
        wanted: dict[str, Any] = {
            self._max_tokens_key: config.max_tokens,
            **request.sampling,
            "response_format": request.response_format,
        }
        if config.reasoning != "auto":
            wanted["reasoning_effort"] = "medium" if config.reasoning == "on" else "none"
        return self._take(wanted)

    async def _send(self, request: ChatRequest) -> Reply:
        litellm = load_litellm()
        parameters = self._parameters(request)
        self.parameters.sent = {**parameters, **request.config.extra_body}
        call = {**parameters, **_extra(litellm, request.config.extra_body)}
        structured = request.schema is not None
        self._loop = asyncio.get_running_loop()
        _IN_USE.add(self)
        with unlogged(), exchange_from(self._loop, litellm, self._hide_key) as exchange:
            # Some of litellm's code paths take the session, others a handler around it.
            if self._takes_handler:
                call["client"] = exchange.connections.handler
            try:
                response = await complete(
                    self._provider,
                    model=self.model_id,
                    messages=request.conversation,
                    timeout=request.config.timeout_s,
                    num_retries=0,
                    max_retries=0,
                    api_base=self._api_base,
                    api_key=self._api_key,
                    shared_session=exchange.connections.session,
                    **call,
                )
            except Exception as error:
                data = _body(exchange)
                if (read := _read_whole(exchange, data, structured=structured)) is not None:
                    return read
                # Whatever litellm raised, it is one failed request.
                # What the user put into the extra body is never left out.
                sent = frozenset(parameters) - frozenset(request.config.extra_body)
                failure = _failure(litellm, error, data)
                if "max_completion_tokens" in failure.message and "max_tokens" in sent:
                    # The parameter is not refused, only its older name.
                    self._max_tokens_key = "max_completion_tokens"
                    raise RetryWithChanges(f"{self.names}: HTTP {failure.status}") from error
                raise self._failed(failure, sent=sent) from error
        data = _body(exchange)
        if (read := _read_whole(exchange, data, structured=structured)) is not None:
            read.request_id = _request_id(response) or read.request_id
            return read
        return self._reply(response, data, structured=structured)

    def _hide_key(self, key: str) -> None:
        """Remove a key that is sent, wherever litellm got it, from whatever comes back."""
        if key not in self._sent_keys and self._keys.hide(key) != "[key]":
            self._sent_keys = (*self._sent_keys, key)[-_MAX_SENT_KEYS:]
            self._keys = _MoreKeys(self._known_keys, *self._sent_keys)

    def _reply(self, response: Any, data: object, *, structured: bool) -> Reply:
        try:
            choice = response.choices[0]
            message = choice.message
            # The model's own refusal counts as text, unless JSON was asked for.
            declined = text_or_none(_own(message).get("refusal"))
            text = message.content or declined or ""
            word, lost = _finish_words(choice, data)
            finish = "refusal" if declined and structured else word
        except (AttributeError, IndexError, TypeError) as error:
            failure = ApiFailure("the body is not a chat completion", status=200)
            raise self._failed(failure) from error
        usage = getattr(response, "usage", None)
        details = getattr(usage, "completion_tokens_details", None)
        cached = getattr(usage, "prompt_tokens_details", None)
        return Reply(
            text=text if isinstance(text, str) else "",
            finish_reason=finish,
            lost=lost,
            filtered=None if text else filter_in_fields(data),
            reasoning=getattr(message, "reasoning_content", None) or "",
            usage=Usage(
                input_tokens=token_count(getattr(usage, "prompt_tokens", None)),
                output_tokens=token_count(getattr(usage, "completion_tokens", None)),
                reasoning_tokens=token_count(getattr(details, "reasoning_tokens", None)),
                # litellm includes them in the prompt's tokens, however the provider counts.
                cache_read_tokens=token_count(getattr(cached, "cached_tokens", None)),
                cache_write_tokens=token_count(getattr(cached, "cache_write_tokens", None)),
            ),
            filter_category=filtered_categories({"choices": [_own(choice)]})
            or filtered_categories(data),
            served_model=getattr(response, "model", None),
            request_id=_request_id(response) or getattr(response, "id", None),
        )

    async def _close(self) -> None:
        _IN_USE.discard(self)
        if self._loop and not any(other._loop is self._loop for other in _IN_USE):
            await close_connections(self._loop)


# All clients of an event loop share its connections: the last client closes them.
_IN_USE: weakref.WeakSet[LiteLLMClient] = weakref.WeakSet()


class _MoreKeys(Keys):
    """The keys known so far, and more."""

    def __init__(self, known: Keys, *more: str) -> None:
        super().__init__(*more)
        self._known = known

    def __bool__(self) -> bool:
        return super().__bool__() or bool(self._known)

    def within(self, text: str) -> bool:
        return super().within(text) or self._known.within(text)

    def hide(self, text: str) -> str:
        # These first: they may be longer and hold a known one.
        return self._known.hide(super().hide(text))


def _holds_key(name: str, value: str) -> bool:
    """Whether an environment variable seems to hold a key, and not a number, a path or a word."""
    name = name.upper()
    if not any(word in name for word in _KEY_WORDS):
        return False
    # Not Path.exists, which raises for a key that is too long for a file name.
    if value.replace(".", "").isdigit() or os.path.exists(value):  # noqa: PTH110
        return False
    # KEYBOARD=japanese: a plain word counts as a key only where the name ends like one.
    return name.endswith(_KEY_ENDINGS) or not value.isalpha()


def _extra(litellm: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    """The user's own fields as arguments, the only way that reaches every provider.

    Fields that litellm would take for its own options go into `extra_body`, which reaches only
    providers that speak the OpenAI protocol.
    """
    own = {"timeout", "num_retries", "max_retries", *litellm.all_litellm_params}
    kept = {name: value for name, value in body.items() if name in own}
    extra = {name: value for name, value in body.items() if name not in own}
    return {**extra, "extra_body": kept} if kept else extra


def _body(exchange: Exchange) -> Any:
    """The last answer's JSON; None where it did not come through our session, or is not JSON."""
    if not exchange.body:
        return None
    try:
        return jsonl.from_bytes(exchange.body)
    except (ValueError, RecursionError):
        return None


def _read_whole(exchange: Exchange, data: Any, *, structured: bool) -> Reply | None:
    """The provider's own answer where it is in OpenAI's protocol, read as `OpenAIClient` does."""
    if exchange.status is None or not 200 <= exchange.status < 300 or not isinstance(data, dict):
        return None
    if data.get("error") or "choices" not in data:
        return None
    try:
        return parse_chat_completion(data, structured=structured)
    except (LookupError, TypeError, AttributeError):
        return None


def _finish_words(choice: Any, data: object) -> tuple[str | None, bool]:
    """The finish word, the provider's own where it is there; and whether that one is lost.

    litellm translates finish words, and turns those it does not know into "stop".
    """
    mapped = text_or_none(choice.finish_reason)
    native = next(iter(finish_words(data)), None) or text_or_none(
        _own(choice).get("native_finish_reason")
    )
    if native is not None:
        return native, False
    return mapped, data is None


def _request_id(response: Any) -> str | None:
    """The request's id from the answer's headers, as litellm passes them on."""
    hidden = getattr(response, "_hidden_params", None)
    headers = (hidden.get("additional_headers") if isinstance(hidden, Mapping) else None) or {}
    return next(filter(None, map(headers.get, _REQUEST_ID_HEADERS)), None)


def _own(part: Any) -> Mapping[str, Any]:
    """Fields of the provider's that litellm has no name for."""
    own = getattr(part, "provider_specific_fields", None)
    return own if isinstance(own, Mapping) else {}


def _failure(litellm: Any, error: Exception, data: object) -> ApiFailure:
    exceptions = litellm.exceptions
    status = getattr(error, "status_code", None)
    headers = getattr(error, "litellm_response_headers", None)
    if headers is None:
        headers = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        headers = {}
    # The provider's own words where they are known: litellm's code may only repeat the status.
    body = data if data is not None else getattr(error, "body", None)
    said = str(getattr(error, "message", None) or error)
    failure = parse_failure(
        status if isinstance(status, int) else 0,
        headers,
        body if isinstance(body, Mapping | list) else None,
        said.encode("utf-8", "replace"),
    )
    unread = _why_unread(error)
    if unread is not None or not isinstance(body, Mapping | list):
        failure.message = unread or said
    code = getattr(error, "code", None)
    if isinstance(code, str) and not code.isdigit():
        failure.codes = (*failure.codes, code)
    if isinstance(error, exceptions.ContentPolicyViolationError):
        failure.codes = (*failure.codes, type(error).__name__)
    failure.parameter = failure.parameter or text_or_none(getattr(error, "param", None))
    failure.filter_category = failure.filter_category or filtered_categories({"error": _own(error)})
    unanswered = (exceptions.Timeout, TimeoutError, exceptions.APIConnectionError)
    if not isinstance(status, int) or isinstance(error, unanswered):
        failure.status = None  # no server sent the status that litellm gives these
    if is_unreachable(error):
        failure.status, failure.unreachable = None, True
    if data is None and _NO_KEY.search(str(error)):
        # litellm calls it a server error, but no request was sent and none will be.
        failure.status, failure.codes = None, ("authentication_error",)
    return failure


def _why_unread(error: BaseException) -> str | None:
    """Why our own guard stopped reading, which not all of litellm's errors repeat."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Unread):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else str(cause)
