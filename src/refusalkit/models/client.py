"""What every back end shares: sending a chat request, and which parameters went out or not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import socket
import ssl
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from refusalkit.errors import (
    ConfigurationError,
    FatalProviderError,
    ProviderError,
    RequestError,
    TransientError,
    UnsupportedParameter,
)
from refusalkit.models.dialects.finish import Means
from refusalkit.models.outcomes import ApiFailure, Reply, failure_error
from refusalkit.models.pacing import Pacer
from refusalkit.models.request_form import ChatRequest, ReplyForm, RequestForm, ShapedRequest
from refusalkit.models.token_limit import Demand, Spent
from refusalkit.redaction import Keys
from refusalkit.types import Usage
from refusalkit.untrusted import is_blank, printable

if TYPE_CHECKING:
    from refusalkit.models.batches import BatchEndpoint, BatchResult

_Said = TypeVar("_Said", ApiFailure, Reply)
_FIELDS = {said: tuple(one.name for one in fields(said)) for said in (ApiFailure, Reply)}

# No real answer is larger; reading on would only fill the memory.
MAX_BODY_BYTES = 8 * 1024 * 1024
# A 403 at the start waits this long for an answer to another request under way.
_MAX_DOUBT_S = 3.0
# A version in a base URL, as endpoints of OpenAI's protocol usually have it: v1, v4, v1beta.
_VERSION = re.compile(r"/v\d+\w*(/|$)")


@dataclass
class ParameterLog:
    """What was really sent beside the messages, and what was left out and why."""

    sent: dict[str, Any] = field(default_factory=dict)
    """Parameters of the last request, under the names that the endpoint was sent."""
    dropped: dict[str, str] = field(default_factory=dict)
    """The parameters that were left out: why, by name."""
    reply_form: str | None = None
    """How a judge was asked for JSON: ``json_schema``, ``json_object`` or ``text``; None if it was
    not."""
    system_role: bool = True
    """False where the endpoint takes no system message, so its text goes into the user's turn."""

    def drop(self, name: str, why: str) -> None:
        """Leave `name` out from now on."""
        self.dropped.setdefault(name, why)


class RetryWithChanges(ProviderError):
    """The endpoint wants another form of request: it is sent again in that form."""


class _Doubts:
    """Failed requests that wait to see whether the failure concerns them or the whole run."""

    def __init__(self) -> None:
        self._waiting = 0
        self._woken: asyncio.Event

    async def wait(self, enough: Callable[[int], bool], was_answered: Callable[[], bool]) -> bool:
        """Wait until `enough` of the number waiting is true, at most `_MAX_DOUBT_S` seconds.

        Returns what `was_answered` returns then.
        """
        if not self._waiting:
            self._woken = asyncio.Event()  # this event loop's
        self._waiting += 1
        self.wake()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MAX_DOUBT_S):
                    while not enough(self._waiting):
                        self._woken.clear()
                        await self._woken.wait()
        finally:
            self._waiting -= 1
        return was_answered()

    def wake(self) -> None:
        """Have those that wait look again."""
        if self._waiting:
            self._woken.set()


class ChatClient(ABC):
    """A connection to one model at one endpoint.

    A back end implements `_send` and `_close`; retries, pacing, the deadline and parameters that a
    model turns out not to take are handled here, once. `form` is the form of request that the
    endpoint takes, shared by clients of one endpoint. `finish_words` are the meanings that the user
    gave to finish words. `names` says which model failed, and where, in errors.
    """

    reply_forms: ClassVar[Sequence[ReplyForm]] = tuple(ReplyForm)
    # Whether an error's status is the endpoint's own.
    sees_status: ClassVar[bool] = True

    def __init__(
        self,
        model_id: str,
        *,
        pacer: Pacer,
        api_base: str | None = None,
        keys: Iterable[str | None] = (),
    ) -> None:
        self.model_id = model_id
        self.parameters = ParameterLog()
        self.form = RequestForm()
        self.names = model_id
        try:
            base = urlsplit(api_base or "")
            host, port = base.hostname, base.port
        except ValueError:
            raise ConfigurationError(f"the API base of {model_id} is not a URL: fix it") from None
        if host:
            # Host only: a URL may carry credentials.
            self.names = f"{model_id} at {host}:{port}" if port else f"{model_id} at {host}"
        self.finish_words: Mapping[str, Means] = {}
        self._base_advice = _base_advice(api_base)
        self._pacer = pacer
        self._answered = False
        self._asking = 0  # requests under way, retries and waiting included
        self._doubts = _Doubts()
        # Secrets that this client sends and that must not be written down, also in proxies' URLs.
        urls = (base, *map(urlsplit, urllib.request.getproxies().values()))
        of_urls = [unquote(part) for url in urls for part in (url.username, url.password) if part]
        self._keys = Keys(*keys, *of_urls)

    async def chat(self, request: ChatRequest) -> tuple[Reply, int]:
        """The reply, and how many times the request was sent.

        The reply's usage includes that which unreadable answers reported. Raises the
        `ProviderError` family: `FatalProviderError` concerns the whole run, everything else this
        request.
        """
        lost: list[Usage] = []
        demand = _demand(request) if self._pacer.counts_tokens else None
        before = 0
        shaped = ShapedRequest(request, self.form, self.reply_forms)
        await shaped.wait_for_first()
        self._asking += 1
        try:
            while True:
                try:
                    reply, attempts = await self._pacer.send(
                        lambda: self._attempt(shaped, lost), demand=demand, spent=_spent
                    )
                except RetryWithChanges as error:
                    before += error.attempts  # sent again as another request, paced as such
                except ProviderError as error:
                    error.attempts += before
                    if self.sees_status and shaped.reshape(error, retried=True):
                        before = error.attempts
                        continue
                    error.usage = _together(lost)
                    raise
                else:
                    if lost:
                        reply.usage = _with_lost(reply.usage, lost)
                    return self._cleaned(reply), before + attempts
        finally:
            shaped.end()
            self._asking -= 1
            self._doubts.wake()

    def batches(self) -> BatchEndpoint:
        """Where this client's requests can be submitted in batches.

        Raises `ConfigurationError` where there is no such place.
        """
        raise ConfigurationError(
            f"{self.model_id} is asked through a back end without batches (OpenAI's protocol and "
            "Anthropic's have them): leave out --batch"
        )

    def batches_in(self, folder: Path) -> BatchEndpoint:
        """Batches as files in a folder. Raises `ConfigurationError` where there are none such."""
        raise ConfigurationError(
            f"{self.model_id} is not asked through OpenAI's protocol, as files of requests are: "
            "leave out --batch-to"
        )

    def batch_body(self, request: ChatRequest) -> bytes:
        """The body that a single request would have, in the form that the endpoint takes."""
        shaped = ShapedRequest(request, self.form, self.reply_forms).current()
        body = self._body(shaped)
        self._note_form(shaped)
        return body

    def read_batched(self, request: ChatRequest, result: BatchResult) -> tuple[Reply, int]:
        """The reply to a request in a batch, and 1: it was sent once.

        It is read like a single request's. What a failure says about the form that the endpoint
        takes is kept for the next batch. Raises the `ProviderError` family, but never
        `FatalProviderError`.
        """
        shaped = ShapedRequest(request, self.form, self.reply_forms)
        try:
            reply = self._read(shaped.current(), result)
            reply.finish_words = self.finish_words
            reply = self._checked(reply)
        except FatalProviderError as error:
            # Others of the batch may have been answered.
            raise RequestError(error.summary, detail=error.detail, status=error.status) from error
        except ProviderError as error:
            shaped.reshape(error)
            if isinstance(error, UnsupportedParameter):
                why = f"the endpoint does not take it: {printable(error, 160)}"
                self.parameters.drop(error.parameter, why)
            raise
        shaped.answered()
        reply.batched = True
        return self._cleaned(reply), 1

    def _body(self, request: ChatRequest) -> bytes:
        """The body of a single request, as JSON."""
        raise NotImplementedError

    def _read(self, request: ChatRequest, result: BatchResult) -> Reply:
        """The reply in a batch's result."""
        raise NotImplementedError

    async def send_once(
        self, request: ChatRequest, *, dropped: Mapping[str, str], answered: bool
    ) -> Reply:
        """Send a request once, as it is, for a client in another process that does the pacing.

        `dropped` is what that client left out and why, `answered` whether it was ever answered.
        Raises the `ProviderError` family, `RetryWithChanges` and `UnsupportedParameter` included.
        """
        for name, why in dropped.items():
            self.parameters.drop(name, why)
        self._answered |= answered
        reply = await self._answer(request)
        self._answered = True
        self._note_form(request)
        return reply

    async def aclose(self) -> None:
        """Close the connection."""
        await self._close()

    async def _attempt(self, shaped: ShapedRequest, lost: list[Usage]) -> Reply:
        """Send a request once, and learn from its failure which form the endpoint takes.

        Raises `RetryWithChanges` where the request should go again in another form.
        """
        known = set(self.parameters.dropped)
        request = shaped.current()
        try:
            reply = await self._answer(request)
        except RetryWithChanges:
            raise
        except ProviderError as error:
            if isinstance(error.usage, Usage) and error.usage != Usage():
                lost.append(error.usage)
            if shaped.reshape(error):
                raise RetryWithChanges(error.summary, status=error.status) from error
            if isinstance(error, FatalProviderError):
                await self._doubt(error)
            if not isinstance(error, UnsupportedParameter) or error.parameter in known:
                raise  # it was not sent, so the complaint is about something else
            why = f"the endpoint does not take it: {printable(error, 160)}"
            self.parameters.drop(error.parameter, why)
            raise RetryWithChanges(error.summary, status=error.status) from error
        self._answered = True
        self._doubts.wake()
        shaped.answered()
        self._note_form(request)
        return reply

    async def _doubt(self, error: FatalProviderError) -> None:
        """Before a 403 ends the run, wait whether the endpoint answers another request under way.

        At the start a filter's 403 in unknown words looks like a wrong key. Raises
        `TransientError` where another request was answered meanwhile.
        """
        if error.status != 403 or error.code is not None or self._answered:
            return
        answered = await self._doubts.wait(
            lambda waiting: self._answered or waiting >= self._asking, lambda: self._answered
        )
        if answered:
            again = TransientError(error.summary, detail=error.detail, status=error.status)
            raise again from error

    def _note_form(self, request: ChatRequest) -> None:
        log, form = self.parameters, self.form
        if request.schema is not None:
            log.reply_form = str(request.reply_form)
        if form.notes:
            log.system_role = form.system_role
            log.dropped.update(form.notes)

    async def _answer(self, request: ChatRequest) -> Reply:
        """The back end's reply to one request, within the deadline; no error repeats the key."""
        try:
            # Here, so that no back end can hang because it forgot its timeout.
            async with asyncio.timeout(request.config.timeout_s):
                reply = await self._send(request)
            reply.finish_words = self.finish_words
            return self._checked(reply)
        except TimeoutError as error:
            message = f"no answer within {request.config.timeout_s:g} s"
            raise self._failed(ApiFailure(message)) from error
        except Exception as error:
            if not self._keys.in_traceback(error):
                raise
            failed = error
        # Outside the handler, so that no traceback leads back to the error that repeats the key.
        if isinstance(failed, ProviderError) and not self._keys.within(str(failed)):
            failed.__cause__ = failed.__context__ = None
            raise failed
        what = f"{type(failed).__name__}, whose text repeats the key"
        raise RequestError(f"{self.names}: the request failed", detail=what)

    def _checked(self, reply: Reply) -> Reply:
        """The reply, unless it says that the endpoint failed while it answered."""
        finish = reply.finish
        if finish is not None and finish.means is Means.FAULT:
            failure = reply.failure or ApiFailure("no cause given", status=200)
            failure.message = f"finish reason {finish.word!r}: {failure.message}"
        elif reply.failure is not None and is_blank(reply.text) and reply.filtered is None:
            failure = reply.failure
        else:
            return reply
        failure.usage = reply.usage
        # It had begun to answer, so a 403 in its answer is about this request, not about the key.
        raise self._failed(failure, begun=True)

    def _failed(
        self, failure: ApiFailure, *, sent: frozenset[str] = frozenset(), begun: bool = False
    ) -> ProviderError:
        """The exception for a failure, with the client's own keys removed from its texts."""
        failure = self._cleaned(failure)
        error = failure_error(
            failure,
            names=self.names,
            sent=sent,
            answered=self._answered or begun,
            base_advice=self._base_advice,
        )
        error.usage = failure.usage
        return error

    def _cleaned(self, said: _Said) -> _Said:
        """A failure or reply with the client's own keys removed from every text."""
        if not self._keys:
            return said
        texts = {
            name: text
            for name in _FIELDS[type(said)]
            if isinstance(text := getattr(said, name), str)
        }
        if isinstance(said, ApiFailure):
            texts["codes"] = " ".join(said.codes)
        # All texts at once: hardly any holds a key.
        if not self._keys.within("\n".join(texts.values())):
            return said
        texts.pop("codes", None)
        hidden: dict[str, Any] = {name: self._keys.hide(text) for name, text in texts.items()}
        if isinstance(said, ApiFailure):
            hidden["codes"] = tuple(map(self._keys.hide, said.codes))
        return replace(said, **hidden)

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


def _base_advice(api_base: str | None) -> str | None:
    """Advice for where nothing answers at the base URL's path; None where there is none to give."""
    if not api_base:
        return None
    base = api_base.rstrip("/")
    if _VERSION.search(urlsplit(base).path):
        return None
    return f"check the model name, and the base URL: most servers answer below {printable(base)}/v1"


def is_unreachable(error: BaseException) -> bool:
    """Whether an exception says that no connection can be made to the address.

    That includes a server that does not speak TLS, or whose certificate is not trusted.
    """
    cause: BaseException | None = error
    seen = 0
    while cause is not None and seen < 20:
        if isinstance(cause, ConnectionRefusedError | socket.gaierror | ssl.SSLError):
            return True
        # aiohttp and httpx wrap the system's error, and not always as its cause.
        inner = getattr(cause, "os_error", None)
        if isinstance(inner, ConnectionRefusedError | socket.gaierror | ssl.SSLError):
            return True
        cause, seen = cause.__cause__ or cause.__context__, seen + 1
    return False


def _together(lost: Sequence[Usage]) -> Usage | None:
    """The sum; None if no usage was reported."""
    return functools.reduce(Usage.__add__, lost) if lost else None


def _with_lost(usage: Usage, lost: Sequence[Usage]) -> Usage:
    """The sum; a reply's usage as it is where that is unknown, as a sum would be too low."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return usage
    return functools.reduce(Usage.__add__, lost, usage)


def _demand(request: ChatRequest) -> Demand:
    texts = [message.content for message in request.messages]
    if request.schema is not None:
        texts.append(json.dumps(dict(request.schema)))
    # "surrogatepass": a lone surrogate counts like any other character of three bytes.
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return Demand(size, request.config.max_tokens)


def _spent(reply: Reply) -> Spent:
    usage = reply.usage
    size = len(reply.text or "") + len(reply.reasoning or "")
    return Spent(usage.input_tokens, usage.output_tokens, size)
