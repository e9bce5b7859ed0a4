"""The form in which an endpoint takes a request: how JSON is asked for, and the system text.

Servers of one protocol differ in this. Some hold a reply to a JSON schema, some only to JSON of any
kind, some to nothing; and some chat templates have no system role. What an endpoint takes is
learned from what it refuses, once for all requests to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from refusalkit.display import shows
from refusalkit.errors import ModerationError, ProviderError, TransientError, UnsupportedParameter
from refusalkit.models.dialects.forms import refuses_reply_form, refuses_system_role
from refusalkit.types import GenerationConfig, Message
from refusalkit.untrusted import printable


class ReplyForm(StrEnum):
    """How a request asks for JSON that fits a schema, the strictest way first.

    Below `JSON_SCHEMA` the schema is written into the request's text.
    """

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"


@shows(
    turns=lambda request: len(request.messages), schema=lambda request: request.schema is not None
)
@dataclass(slots=True)
class ChatRequest:
    """One conversation to continue. `schema` asks for a reply that is JSON of that shape.

    `reply_form` says how it is asked for; with `schema_in_text` it is also written into the last
    user message, whatever the form. `recurs` says which part of the request later requests repeat,
    so that the provider's prompt cache should keep it: ``nothing``, the ``system`` messages, or
    None for not known.
    """

    messages: tuple[Message, ...]
    config: GenerationConfig
    schema: Mapping[str, Any] | None = None
    recurs: Literal["nothing", "system"] | None = None
    schema_in_text: bool = False
    reply_form: ReplyForm = ReplyForm.JSON_SCHEMA

    @property
    def system(self) -> str | None:
        """The system messages as one text."""
        return "\n\n".join([m.content for m in self.messages if m.role == "system"]) or None

    @property
    def turns(self) -> list[dict[str, str]]:
        """The messages without the system's, as providers take them."""
        return [{"role": m.role, "content": m.content} for m in self.messages if m.role != "system"]

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The messages as the OpenAI protocol has them: the system's first, and as one."""
        system = self.system
        first = [] if system is None else [{"role": "system", "content": system}]
        return first + self.turns

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling parameters by the names that all APIs share; None is not sent."""
        config = self.config
        return {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "seed": config.seed,
        }

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The request for JSON in the OpenAI protocol's words."""
        if self.schema is None or self.reply_form is ReplyForm.TEXT:
            return None
        if self.reply_form is ReplyForm.JSON_OBJECT:
            return {"type": "json_object"}
        schema = {"name": "verdict", "schema": dict(self.schema), "strict": True}
        return {"type": "json_schema", "json_schema": schema}


@dataclass
class RequestForm:
    """What one endpoint takes, as far as it is known. Clients of one endpoint share it.

    `notes` says in words what was learned, and from which error.
    """

    reply: ReplyForm = ReplyForm.JSON_SCHEMA
    schema_in_text: bool = False
    system_role: bool = True
    notes: dict[str, str] = field(default_factory=dict)
    _confirmed: bool = False
    _first: asyncio.Event | None = None

    def settle(self, reply: ReplyForm, why: str | None) -> None:
        """A reply came to a request of this form. `why` is the error that a stricter form met."""
        if reply is not self.reply and not self._confirmed:
            self.refuse(self.reply, reply, why or "it failed")
        self._confirmed = True
        self.let_others_go()

    def refuse(self, refused: ReplyForm, instead: ReplyForm, why: str) -> None:
        """The endpoint does not take `refused`."""
        if self.reply is not refused:
            return  # another request has learned it already
        self.reply = instead
        name = "response_format" if instead is ReplyForm.TEXT else str(refused)
        asked = "in plain text" if instead is ReplyForm.TEXT else f"as {instead}"
        self.notes[name] = f"{why}; the reply is asked for {asked}, the schema is in the text"

    def write_schema_out(self) -> None:
        """Replies fit the schema only where it is also in the text."""
        if self.reply is ReplyForm.JSON_SCHEMA and not self.schema_in_text:
            self.schema_in_text = True
            self.notes[str(ReplyForm.JSON_SCHEMA)] = (
                "the endpoint takes it but does not keep to it; the schema is in the text as well"
            )

    def refuse_system(self, why: str) -> None:
        """The endpoint takes no system message."""
        if self.system_role:
            self.system_role = False
            self.notes["system role"] = f"{why}; the system text is in the user's turn"

    async def wait_for_first(self) -> None:
        """Wait while the first request with a schema finds out what the endpoint takes."""
        if self._confirmed:
            return
        if self._first is None:
            self._first = asyncio.Event()
        elif not self._first.is_set():
            # With a bound: the first one may hang.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MAX_WAIT_FOR_FIRST_S):
                    await self._first.wait()

    @property
    def is_confirmed(self) -> bool:
        """Whether a reply came to a request with a schema in this form."""
        return self._confirmed

    def let_others_go(self) -> None:
        """The first request is answered, or failed for a reason of its own."""
        if self._first is not None:
            self._first.set()


class ShapedRequest:
    """One request on its way through the forms that its endpoint may take.

    `forms` are those that the client's protocol has, the strictest first.
    """

    def __init__(
        self, request: ChatRequest, form: RequestForm, forms: Sequence[ReplyForm] = tuple(ReplyForm)
    ) -> None:
        self._request = request
        self._form = form
        self._forms = forms
        self._reply = form.reply
        self._system_role = form.system_role
        self._why: str | None = None

    async def wait_for_first(self) -> None:
        """Wait while another request finds out how the endpoint takes a schema."""
        if self._request.schema is not None:
            await self._form.wait_for_first()
            self._reply, self._system_role = self._form.reply, self._form.system_role

    def current(self) -> ChatRequest:
        """The request in the form to try now."""
        request = self._request
        in_text = request.schema is not None and (
            self._reply is not ReplyForm.JSON_SCHEMA
            or request.schema_in_text
            or self._form.schema_in_text
        )
        if self._system_role and not in_text and self._reply is request.reply_form:
            return request
        messages = request.messages
        if in_text and request.schema is not None:
            messages = with_last_turn(messages, after=schema_text(request.schema))
        if not self._system_role:
            messages = without_system(messages)
        return replace(request, messages=messages, reply_form=self._reply)

    def answered(self) -> None:
        """A reply came, so the endpoint takes this form."""
        if self._request.schema is not None:
            self._form.settle(self._reply, self._why)

    def reshape(self, error: ProviderError, *, retried: bool = False) -> bool:
        """Whether the request should go again in another form, given how this one failed.

        `retried`: it failed so after all retries. A server may fail because it does not know a
        form, but also for a moment.
        """
        form = self._form
        moved = (form.reply, form.system_role) != (self._reply, self._system_role)
        if moved and self._why is None and self._learnable(error):
            self._reply, self._system_role = form.reply, form.system_role
            return True
        if self._try_without_system(error) or self._try_looser(error, retried=retried):
            return True
        if self._request.schema is not None:
            form.let_others_go()
        return False

    def end(self) -> None:
        """The request is over, whatever came of it."""
        if self._request.schema is not None:
            self._form.let_others_go()

    @staticmethod
    def _learnable(error: ProviderError) -> bool:
        # Some endpoints write their errors, with a code, into a 200.
        refused = error.status in _REFUSALS or (error.status == 200 and error.code is not None)
        return refused and not isinstance(error, ModerationError)

    def _try_without_system(self, error: ProviderError) -> bool:
        has_system = self._request.system is not None
        if not (self._system_role and has_system and self._learnable(error)):
            return False
        if not refuses_system_role(str(error)):
            return False
        self._form.refuse_system(f"the endpoint does not take it: {printable(error, 160)}")
        self._system_role = False
        return True

    def _try_looser(self, error: ProviderError, *, retried: bool) -> bool:
        """Take the next form where the error is about the form, or has no other explanation."""
        looser = self._looser()
        if self._request.schema is None or looser is None or not self._learnable(error):
            return False
        why = f"the endpoint does not take it: {printable(error, 160)}"
        parameter = error.parameter if isinstance(error, UnsupportedParameter) else None
        if refuses_reply_form(str(error), parameter):
            self._form.refuse(self._reply, looser, why)
            self._reply = looser
            return True
        if self._form.is_confirmed or error.status not in _UNEXPLAINED:
            return False
        if parameter is not None:
            return False
        if isinstance(error, TransientError) and not retried:
            return False
        self._why = self._why or why
        self._reply = looser
        return True

    def _looser(self) -> ReplyForm | None:
        later = [form for form in self._forms if _ORDER[form] > _ORDER[self._reply]]
        return later[0] if later else None


_ORDER = {form: place for place, form in enumerate(ReplyForm)}
_MAX_WAIT_FOR_FIRST_S = 30.0
# Statuses with which endpoints refuse a form, and those that have no meaning of their own.
_REFUSALS = frozenset({400, 404, 405, 415, 422, 500, 501})
_UNEXPLAINED = frozenset({400, 422, 500, 501})


def schema_text(schema: Mapping[str, Any]) -> str:
    """The request for JSON that fits a schema, in words."""
    return (
        "Reply with one JSON object that is valid against this JSON schema, and with nothing else. "
        "Do not repeat the schema: fill it in.\n\n"
        f"{json.dumps(dict(schema), ensure_ascii=False)}"
    )


def with_last_turn(messages: Sequence[Message], *, after: str) -> tuple[Message, ...]:
    """The messages, with a text after the last one's own."""
    *before, last = messages
    return (*before, replace(last, content=f"{last.content}\n\n{after}"))


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, with the system's text at the beginning of the first user message."""
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    turns = [m for m in messages if m.role != "system"]
    at = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    if not system:
        return tuple(turns)
    if at is None:
        return (Message("user", system), *turns)
    turns[at] = replace(turns[at], content=f"{system}\n\n{turns[at].content}")
    return tuple(turns)
