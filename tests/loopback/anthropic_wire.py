"""Anthropic messages on the wire: reading requests, wording replies and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .faults import Fault, Reply
from .openai_wire import flatten, tokens

STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "filter": "refusal",
    "unknown": "quantum_flux",
}


def texts(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(role, text) of the system prompt and of every message."""
    if body.get("system"):
        yield "system", flatten(body["system"])
    for message in body["messages"]:
        yield message.get("role", ""), flatten(message.get("content"))


def complaint(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """What is wrong with the request as such, in the provider's words."""
    if "anthropic-version" not in headers:
        return "anthropic-version: header is required"
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return "messages: at least one message is required"
    if not all(isinstance(message, dict) for message in body["messages"]):
        return "messages: Input should be an object"
    if "max_tokens" not in body:
        return "max_tokens: Field required"
    if body.get("stream"):
        return "stream: Streaming is not supported by this endpoint."
    for message in body["messages"]:
        if message.get("role") not in ("user", "assistant"):
            return 'messages: Unexpected role. Use the top-level "system" parameter.'
    return None


def marked(body: Mapping[str, Any]) -> str:
    """What the request asks to be cached: here only a system prompt can be."""
    system = body.get("system")
    parts = system if isinstance(system, list) else []
    return flatten(system) if any("cache_control" in part for part in parts) else ""


def usage(reply: Reply, sent: int, read: int = 0, written: int = 0) -> dict[str, Any]:
    """The usage block; `sent` is how many characters the request holds.

    `read` and `written` are the characters of it that came from the cache, or went there: the
    input tokens leave them out.
    """
    thinking = tokens(reply.reasoning)
    return {
        "input_tokens": (sent - read - written + 3) // 4,
        "output_tokens": tokens(reply.text) + thinking,
        "output_tokens_details": {"thinking_tokens": thinking},
        "cache_creation_input_tokens": (written + 3) // 4,
        "cache_read_input_tokens": (read + 3) // 4,
        "service_tier": "standard",
    }


def success(reply: Reply, model: str, ident: str, used: dict[str, Any]) -> dict[str, Any]:
    """A message object. No text is an empty list of blocks, as the API does it."""
    content: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        if reply.fault is not None and reply.fault.variant == "redacted":
            content.append({"type": "redacted_thinking", "data": "bG9vcGJhY2s="})
        else:
            block = {"type": "thinking", "thinking": reply.reasoning, "signature": "bG9vcGJhY2s="}
            content.append(block)
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    details = None
    if reply.finish == "filter" or reply.declined:
        details = {
            "type": "refusal",
            "category": reply.fault.category if reply.fault else None,
            "explanation": "[demo explanation]",
        }
    return {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": STOP["filter" if details else reply.finish],
        "stop_sequence": None,
        "stop_details": details,
        "usage": used,
    }


def error_body(message: str, kind: str, request_id: str) -> dict[str, Any]:
    """The error envelope."""
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id,
    }


def failure(fault: Fault, model: str, request_id: str) -> tuple[int, dict[str, Any]]:
    """Status and body of an error."""
    status, kind, text = _failure(fault, model)
    return status, error_body(text, kind, request_id)


def _failure(fault: Fault, model: str) -> tuple[int, str, str]:
    invalid = "invalid_request_error"
    match fault.kind:
        case "rate_limit":
            text = "This request would exceed your organization's rate limit of 1 request a minute."
            return 429, "rate_limit_error", text
        case "server_error":
            return 500, "api_error", "Internal server error"
        case "overloaded":
            return 529, "overloaded_error", "Overloaded"
        case "timeout" if fault.variant == "409":
            return 409, "conflict_error", "The resource is locked, try again."
        case "timeout":
            return 408, "timeout_error", "Request timed out."
        case "auth_error":
            return 401, "authentication_error", "invalid x-api-key"
        case "unknown_model":
            return 404, "not_found_error", f"model: {model}"
        case "insufficient_quota" if fault.variant == "402":
            return 402, "billing_error", "There is an issue with your billing."
        case "insufficient_quota":
            text = "Your credit balance is too low to access the Anthropic API."
            return 400, invalid, text
        case "bad_param" if fault.variant == "pair":
            text = "`temperature` and `top_p` cannot both be specified for this model."
            return 400, invalid, text
        case "bad_param" if fault.variant == "value":
            return 400, invalid, f"{fault.param}: Input should be 1 for this model."
        case "bad_param" if fault.variant == "range":
            return 400, invalid, f"{fault.param}: values above 4 are not supported for this model."
        case "bad_param":
            return 400, invalid, f"{fault.param}: This parameter is not supported for this model."
        case "moderation_error":
            return 400, invalid, "Output blocked by content filtering policy"
    raise ValueError(f"{fault.kind} is no HTTP error")
