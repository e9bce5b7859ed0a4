"""One request after another: read, decide, write down, answer.

Every request is written to the ledger before anything is sent, so nothing that was asked can be
missing there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import traceback
from typing import Any

from aiohttp import web

from . import anthropic_wire, openai_wire
from .batches import Batches
from .exchange import Exchange, Ledger
from .respond import as_json, hang_up, key_digest, word
from .script import Api, Asked, Role, Script, digest

PATHS: dict[str, Api] = {"/v1/chat/completions": "openai", "/v1/messages": "anthropic"}


class Provider:
    """A script, a ledger, and the handler that brings them together. Lives in one event loop."""

    def __init__(self, script: Script, latency_s: float, ledger: Ledger) -> None:
        self.script = script
        self.latency_s = latency_s
        self.ledger = ledger
        self.gate: asyncio.Event | None = None  # unset: requests wait before their answer
        self.bugs: list[BaseException] = []  # exceptions of a script's hooks
        self.batches = Batches(self._batched)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        if self.batches.takes(request.path):
            return await self._of_batches(request)
        api = PATHS.get(request.path)
        if api is None or request.method != "POST":
            if request.path == "/v1/models" and request.method == "GET":
                return as_json(200, openai_wire.models())
            text = f"Invalid URL ({request.method} {request.path})"
            return as_json(404, openai_wire.error_body(text, "invalid_request_error"))
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return self._refuse(api, request, {}, "We could not parse the JSON body.")
        if api == "openai":
            wrong = openai_wire.complaint(body)
        else:
            wrong = anthropic_wire.complaint(body, request.headers)
        if wrong:
            return self._refuse(api, request, body, wrong)
        return await self._answer(api, request, body)

    async def _of_batches(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self.batches.handle(request)
        except Exception as bug:
            self.bugs.append(bug)
            traceback.print_exc()
            return as_json(500, {"error": {"message": repr(bug)}})
        if answer is None:
            return hang_up(request, "dropped", b"")
        status, body = answer
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, content_type="application/jsonl")
        return as_json(status, body)

    async def _batched(self, api: Api, body: dict[str, Any]) -> tuple[int, Any]:
        """The answer to one request of a batch, which is in the ledger like any other."""
        script, ledger = self.script, self.ledger
        model = str(body.get("model", ""))
        wire = openai_wire if api == "openai" else anthropic_wire
        if api == "openai":
            wrong = openai_wire.complaint(body)
        else:
            wrong = anthropic_wire.complaint(body, {"anthropic-version": ""})
        if wrong:
            return 400, {"error": {"message": wrong, "type": "invalid_request_error"}}
        role, text, system, length = script.role(model), "", None, 0
        for speaker, said in wire.texts(body):
            length += len(said)
            if speaker == "user":
                text = said
            else:
                system = said
        key = digest(text)
        asked = Asked(api, role, model, text, key, ledger.ask_number(role, model, key), body)
        place = ledger.arrive(role)
        ledger.leave(role)
        reply = script.decide(asked)
        ident = hashlib.sha256(f"{role}/{model}/{key}/{asked.ask}".encode()).hexdigest()[:24]
        status, _, sent, used = word(reply, asked, script, ident, length, {})
        if ledger.in_use:
            exchange = Exchange(
                n=place[0],
                at=time.monotonic(),
                api=api,
                role=role,
                model=model,
                key=key,
                ask=asked.ask,
                params={k: v for k, v in body.items() if k not in ("messages", "system")},
                fault=reply.kind,
                expected=reply.expected,
                final=reply.final,
                status=status,
                in_flight=1,
                in_flight_role=1,
                usage=used,
                request_id=f"req_{ident}",
                key_digest="batch",
                text=text,
                system=system,
                sent="full",
            )
            ledger.write(exchange)
        try:
            return status, json.loads(sent)
        except ValueError:
            return status, sent.decode("utf-8", "replace")

    async def _answer(
        self, api: Api, request: web.BaseRequest, body: dict[str, Any]
    ) -> web.StreamResponse:
        script, ledger = self.script, self.ledger
        model = str(body.get("model", ""))
        role, text, system, length = script.role(model), "", None, 0
        texts = openai_wire.texts if api == "openai" else anthropic_wire.texts
        for speaker, said in texts(body):
            length += len(said)
            if speaker == "user":
                text = said
            elif speaker in ("system", "developer"):
                system = said
        key = digest(text)
        ask = ledger.ask_number(role, model, key)
        asked = Asked(api, role, model, text, key, ask, body)
        place = ledger.arrive(role)
        exchange: Exchange | None = None
        ended, inside = "gone", True
        try:
            try:
                reply = script.decide(asked)
            except Exception as bug:
                self.bugs.append(bug)
                traceback.print_exc()
                why = f"a defect of the script: {bug!r}"
                return as_json(500, openai_wire.error_body(why, "server_error"))
            ident = hashlib.sha256(f"{role}/{model}/{key}/{ask}".encode()).hexdigest()[:24]
            wire = openai_wire if api == "openai" else anthropic_wire
            cache = ledger.cache(model, wire.marked(body))
            status, headers, sent, used = word(reply, asked, script, ident, length, cache)
            if reply.kind:
                ledger.faults[reply.kind] += 1
            if ledger.in_use:
                exchange = _exchange(
                    api,
                    role,
                    place,
                    request,
                    body,
                    key=key,
                    ask=ask,
                    fault=reply.kind,
                    expected=reply.expected,
                    final=reply.final,
                    status=None if reply.kind == "drop" else status,
                    usage=used,
                    request_id=f"req_{ident}",
                    text=text,
                    system=system,
                )
                ledger.write(exchange)
            if self.latency_s or reply.delay_s:
                await asyncio.sleep(self.latency_s + reply.delay_s)
            if self.gate is not None and not self.gate.is_set():
                await self.gate.wait()
            # Counted out before the answer is sent: a client that asks again at once on receiving
            # it must not be seen as having two in flight.
            ledger.leave(role)
            inside = False
            ended = {"drop": "dropped", "drop_mid_body": "half"}.get(reply.kind or "", "full")
            if exchange is not None:
                exchange.sent = ended
            if ended != "full":
                return hang_up(request, ended, sent)
            return await _send(request, web.Response(status=status, headers=headers, body=sent))
        except (asyncio.CancelledError, ConnectionError):
            ended = "gone" if ended == "full" else ended
            raise
        finally:
            if inside:
                ledger.leave(role)
            if exchange is not None:
                exchange.sent = ended

    def _refuse(
        self, api: Api, request: web.BaseRequest, body: dict[str, Any], why: str
    ) -> web.Response:
        """400 for a request that no provider would take; it is in the log as `bad_request`."""
        ledger = self.ledger
        role = self.script.role(str(body.get("model", "")))
        place = ledger.arrive(role)
        ledger.leave(role)
        ledger.faults["bad_request"] += 1
        final = "judge_error" if role == "judge" else "error"
        ident = f"req_bad{place[0]}"
        if ledger.in_use:
            exchange = _exchange(
                api,
                role,
                place,
                request,
                body,
                key="",
                ask=0,
                fault="bad_request",
                expected=final,
                final=final,
                status=400,
                usage=None,
                request_id=ident,
                sent="full",
            )
            ledger.write(exchange)
        if api == "anthropic":
            return as_json(400, anthropic_wire.error_body(why, "invalid_request_error", ident))
        return as_json(400, openai_wire.error_body(why, "invalid_request_error"))


def _exchange(
    api: Api,
    role: Role,
    place: tuple[int, int, int],
    request: web.BaseRequest,
    body: dict[str, Any],
    **rest: Any,
) -> Exchange:
    number, everyone, mine = place
    return Exchange(
        n=number,
        at=time.monotonic(),
        api=api,
        role=role,
        model=str(body.get("model", "")),
        params={k: v for k, v in body.items() if k not in ("messages", "system")},
        in_flight=everyone,
        in_flight_role=mine,
        key_digest=key_digest(request),
        **rest,
    )


async def _send(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Send it now rather than on return, to know whether the client was still there."""
    await response.prepare(request)
    await response.write_eof()
    return response
