"""What every back end shares: one chat request, which parameters went out, and which did not."""

from __future__ import annotations

import functools
import json
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from refusalkit.errors import (
    ConfigurationError,
    ProviderError,
    RequestError,
    UnsupportedParameter,
)
from refusalkit.models.deadlines import Deadlines
from refusalkit.models.outcomes import ApiFailure, Reply, failure_error
from refusalkit.models.pacing import Pacer
from refusalkit.models.request_form import ChatRequest, ReplyForm, RequestForm, ShapedRequest
from refusalkit.models.token_limit import Demand, Spent
from refusalkit.types import Usage
from refusalkit.untrusted import Keys, printable

_Said = TypeVar("_Said", ApiFailure, Reply)
_FIELDS = {said: tuple(one.name for one in fields(said)) for said in (ApiFailure, Reply)}

# Nothing that a provider answers is larger; reading on would only fill the memory.
LARGEST_BODY = 8 * 1024 * 1024


@dataclass
class ParameterLog:
    """What was really sent beside the messages, and what was left out and why.

    `reply_form` says how a judge was asked for JSON (``json_schema``, ``json_object`` or ``text``),
    None where nobody was; `system_role` whether there was a system message of its own.
    """

    sent: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    reply_form: str | None = None
    system_role: bool = True

    def drop(self, name: str, why: str) -> None:
        """Leave `name` out from now on."""
        self.dropped.setdefault(name, why)


class Relearned(ProviderError):
    """The endpoint said how it wants to be asked: the next request will be of that kind."""


class ChatClient(ABC):
    """A connection to one model at one endpoint.

    A back end implements `_send` and `_close`; retries, pacing, the deadline and the parameters
    that a model turns out not to take are handled here, once. `form` is what its endpoint takes,
    shared by clients of one endpoint.
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
            raise ConfigurationError(f"the API base of {model_id} is no URL: mend it") from None
        if host:
            # Host only: a URL may carry credentials.
            self.names = f"{model_id} at {host}:{port}" if port else f"{model_id} at {host}"
        self._pacer = pacer
        self._deadlines = Deadlines()
        # What this client sends and nobody may write down, in the URLs of proxies, too.
        urls = (base, *map(urlsplit, urllib.request.getproxies().values()))
        of_urls = [unquote(part) for url in urls for part in (url.username, url.password) if part]
        self._keys = Keys(*keys, *of_urls)

    async def chat(self, request: ChatRequest) -> tuple[Reply, int]:
        """The reply, and how many times the request was sent.

        Its usage is that of all these times, as far as answers that could not be read said theirs.
        Raises the `ProviderError` family: `FatalProviderError` concerns the whole run, everything
        else this request.
        """
        lost: list[Usage] = []
        demand = _demand(request) if self._pacer.counts_tokens else None
        before = 0
        shaped = ShapedRequest(request, self.form, self.reply_forms)
        await shaped.wait_for_first()
        try:
            while True:
                try:
                    reply, attempts = await self._pacer.send(
                        lambda: self._send_counting(shaped, lost), demand=demand, spent=_spent
                    )
                except Relearned as error:
                    before += error.attempts  # sent again: another request, with its own turn
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

    async def aclose(self) -> None:
        """Close the connection."""
        await self._close()

    async def _send_counting(self, request: ShapedRequest, lost: list[Usage]) -> Reply:
        try:
            return await self._send_learning(request)
        except ProviderError as error:
            if isinstance(error.usage, Usage) and error.usage != Usage():
                lost.append(error.usage)
            raise

    async def _send_learning(self, shaped: ShapedRequest) -> Reply:
        known = set(self.parameters.dropped)
        request = shaped.current()
        try:
            reply = await self._send_once(request)
        except Relearned:
            raise
        except ProviderError as error:
            if shaped.reshape(error):
                raise Relearned(error.summary, status=error.status) from error
            if not isinstance(error, UnsupportedParameter) or error.parameter in known:
                raise  # what was not sent is not what the complaint is about
            why = f"the endpoint does not take it: {printable(error, 160)}"
            self.parameters.drop(error.parameter, why)
            raise Relearned(error.summary, status=error.status) from error
        shaped.answered()
        self._note_form(request)
        return reply

    def _note_form(self, request: ChatRequest) -> None:
        log, form = self.parameters, self.form
        if request.schema is not None:
            log.reply_form = str(request.reply_form)
        if form.notes:
            log.system_role = form.system_role
            log.dropped.update(form.notes)

    async def _send_once(self, request: ChatRequest) -> Reply:
        try:
            # Here and not in the back ends: one that forgets its timeout cannot hang.
            with self._deadlines.within(request.config.timeout_s):
                return await self._send(request)
        except TimeoutError as error:
            message = f"no answer within {request.config.timeout_s:g} s"
            raise self._failed(ApiFailure(message)) from error
        except Exception as error:
            if not self._keys.told_by(error):
                raise
            failed = error
        # Outside the handler, so that no traceback leads back to what repeats the key.
        if isinstance(failed, ProviderError) and not self._keys.within(str(failed)):
            failed.__cause__ = failed.__context__ = None
            raise failed
        what = f"{type(failed).__name__}, whose text repeats the key"
        raise RequestError(f"{self.names}: the request failed", detail=what)

    def _failed(self, failure: ApiFailure, *, sent: frozenset[str] = frozenset()) -> ProviderError:
        """The exception for a failure, the client's own key taken out of the provider's words."""
        error = failure_error(self._cleaned(failure), names=self.names, sent=sent)
        error.usage = failure.usage
        return error

    def _cleaned(self, said: _Said) -> _Said:
        """What a provider said, with the client's own keys taken out of every text."""
        if not self._keys:
            return said
        texts = {
            name: text
            for name in _FIELDS[type(said)]
            if isinstance(text := getattr(said, name), str)
        }
        # Once for all of them: there is hardly ever one.
        if not self._keys.within("\n".join(texts.values())):
            return said
        hidden: dict[str, Any] = {name: self._keys.hide(text) for name, text in texts.items()}
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


def _together(lost: Sequence[Usage]) -> Usage | None:
    """All of it; None where nobody said any."""
    return functools.reduce(Usage.__add__, lost) if lost else None


def _with_lost(usage: Usage, lost: Sequence[Usage]) -> Usage:
    """Of a reply that does not say its own the sum would be a guess that is too low."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return usage
    return functools.reduce(Usage.__add__, lost, usage)


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
