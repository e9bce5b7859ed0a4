"""From a `Reply` to bytes: status, headers and body as they go over the wire."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from . import anthropic_wire, dialects, openai_wire
from .faults import ERRORS, Fault, Reply
from .script import Asked, Script, chance

HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>oops</body></html>"
Worded = tuple[int, dict[str, str], bytes, dict[str, Any] | None]


def word(
    reply: Reply, asked: Asked, script: Script, ident: str, length: int, cache: dict[str, int]
) -> Worded:
    """Status, headers, body and usage for one reply.

    `ident` goes into the answer's id and its request-id header; `length` is how many characters the
    request's messages hold, `cache` how many were `read` from and `written` to the prompt cache.
    """
    request_id = f"req_{ident}"
    openai = asked.api == "openai"
    headers = {"x-request-id" if openai else "request-id": request_id}
    fault = reply.fault
    if fault is not None and fault.kind in ERRORS:
        if openai:
            status, envelope = openai_wire.failure(fault, asked.model, asked.body)
        else:
            status, envelope = anthropic_wire.failure(fault, asked.model, request_id)
        headers |= _retry_after(fault)
        headers["Content-Type"] = "application/json"
        return fault.status or status, headers, json.dumps(envelope).encode(), None
    served = asked.model + script.served_suffix
    used: dict[str, Any]
    if openai:
        used = openai_wire.usage(reply, length, **cache)
        answer = openai_wire.success(reply, served, ident, used)
    else:
        used = anthropic_wire.usage(reply, length, **cache)
        answer = anthropic_wire.success(reply, served, ident, used)
    if openai and reply.kind == "dialect":
        dialects.dress(answer, chance(script.seed, "dialect", asked.role, asked.key))
    if openai and reply.kind == "dialect_filter":
        kinds = dialects.blocked()
        status, body = kinds[int(chance(script.seed, "filter", asked.key) * len(kinds))]
        return status, {**headers, "Content-Type": "application/json"}, body, None
    if reply.kind == "no_content":
        answer.update({"choices": []} if openai else {"content": None})
    # ASCII JSON: a lone surrogate travels as its escape, which is how a real one would.
    body = json.dumps(answer).encode()
    status, content_type = 200, "application/json"
    match reply.kind:
        case "html":
            body, content_type = HTML, "text/html; charset=utf-8"
        case "wrong_content_type":
            content_type = "text/plain; charset=utf-8"
        case "malformed_json":
            body = body[: len(body) * 2 // 3] + b"\n<<"
        case "gzip":
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
    if fault is not None and fault.status is not None:
        status = fault.status
    headers["Content-Type"] = content_type
    return status, headers, body, used


def _retry_after(fault: Fault) -> dict[str, str]:
    seconds = fault.seconds
    if fault.kind != "rate_limit" and seconds is None:
        return {}
    if fault.variant == "none":
        return {}
    seconds = 1.0 if seconds is None else seconds
    if fault.variant == "ms":
        return {"retry-after-ms": f"{seconds * 1000:g}"}
    return {"retry-after": f"{seconds:g}"}


def hang_up(request: web.BaseRequest, ended: str, body: bytes) -> web.Response:
    """Close the connection: before any byte ("dropped"), or in the middle of the body ("half")."""
    transport = request.transport
    if transport is not None and ended == "dropped":
        transport.abort()
    elif transport is not None:
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        transport.write(head.encode() + body[: len(body) // 2])
        transport.close()
    # aiohttp wants a response all the same; with the connection closing it goes nowhere.
    return web.Response()


def as_json(status: int, value: Mapping[str, Any]) -> web.Response:
    """A JSON response outside any script."""
    return web.Response(
        status=status, body=json.dumps(value).encode(), content_type="application/json"
    )


def key_digest(request: web.BaseRequest) -> str | None:
    """The first 16 hex digits of the API key's sha256, whichever header it came in."""
    key = request.headers.get("x-api-key") or request.headers.get("Authorization")
    if not key:
        return None
    return hashlib.sha256(key.removeprefix("Bearer ").encode()).hexdigest()[:16]
