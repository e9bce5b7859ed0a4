"""OpenAI chat completions on the wire: reading requests, wording replies and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .faults import Fault, Reply

FINISH = {
    "stop": "stop",
    "length": "length",
    "filter": "content_filter",
    "unknown": "quantum_flux",
}
# A fixed moment (2026-01-01): answers do not depend on the clock.
CREATED = 1_767_225_600


def flatten(content: Any) -> str:
    """A message's text, be it a string or a list of parts (both APIs)."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(p.get("text") or "" for p in content if isinstance(p, dict))
    return ""


def texts(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(role, text) of every message."""
    for message in body["messages"]:
        yield message.get("role", ""), flatten(message.get("content"))


def complaint(body: Mapping[str, Any]) -> str | None:
    """What is wrong with the request as such, in the provider's words."""
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        return "Missing required parameter: 'messages'."
    if not all(isinstance(message, dict) for message in body["messages"]):
        return "Invalid type for 'messages': expected an array of objects."
    if body.get("stream"):
        return "Streaming is not supported by this endpoint."
    return None


def tokens(text: str | None) -> int:
    """A deterministic token count: a token for every four characters begun."""
    return (len(text) + 3) // 4 if text else 0


def marked(body: Mapping[str, Any]) -> str:
    """What of the request is cached: all of a long one, or up to its breakpoint if it says so."""
    if body.get("prompt_cache_options") != {"mode": "explicit"}:
        whole = "".join(text for _, text in texts(body))
        return whole if tokens(whole) >= 1024 else ""
    said, kept = "", ""
    for message in body["messages"]:
        content = message.get("content")
        said += flatten(content)
        if isinstance(content, list) and any("prompt_cache_breakpoint" in p for p in content):
            kept = said
    return kept


def usage(reply: Reply, sent: int, read: int = 0, written: int = 0) -> dict[str, Any]:
    """The usage block; `sent` is how many characters the request's messages hold.

    `read` and `written` are the characters of it that came from the cache, or went there: the
    prompt's tokens have them in them.
    """
    reasoning = tokens(reply.reasoning)
    prompt, completion = (sent + 3) // 4, tokens(reply.text) + reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": (read + 3) // 4,
            "cache_write_tokens": (written + 3) // 4,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def success(reply: Reply, model: str, ident: str, used: dict[str, Any]) -> dict[str, Any]:
    """A chat.completion object."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.text,
        "refusal": reply.declined,
        "annotations": [],
    }
    if reply.reasoning is not None:
        variant = reply.fault.variant if reply.fault else None
        message["reasoning" if variant == "reasoning" else "reasoning_content"] = reply.reasoning
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": FINISH[reply.finish],
    }
    return {
        "id": f"chatcmpl-{ident}",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "usage": used,
        "service_tier": "default",
        "system_fingerprint": "fp_loopback",
    }


def error_body(
    message: str, kind: str | None, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The error envelope."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def failure(fault: Fault, model: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of an error."""
    invalid = "invalid_request_error"
    match fault.kind:
        case "rate_limit":
            text = f"Rate limit reached for {model} on requests per min (RPM): Limit 1, Used 1."
            return 429, error_body(text, "requests", "rate_limit_exceeded")
        case "server_error":
            text = "The server had an error while processing your request. Sorry about that!"
            return 500, error_body(text, "server_error")
        case "overloaded":
            text = "The engine is currently overloaded, please try again later."
            return 503, error_body(text, "server_error", "server_overloaded")
        case "timeout" if fault.variant == "409":
            return 409, error_body("The resource is locked, try again.", "conflict_error")
        case "timeout":
            return 408, error_body("The request timed out.", "timeout")
        case "auth_error":
            return 401, error_body("Incorrect API key provided.", invalid, "invalid_api_key")
        case "unknown_model":
            text = f"The model `{model}` does not exist or you do not have access to it."
            return 404, error_body(text, invalid, "model_not_found")
        case "insufficient_quota":
            text = "You exceeded your current quota, please check your plan and billing details."
            return 429, error_body(text, "insufficient_quota", "insufficient_quota")
        case "bad_param" if fault.variant == "value":
            text = (
                f"Unsupported value: '{fault.param}' does not support {body.get(fault.param)} with"
                " this model. Only the default (1) value is supported."
            )
            return 400, error_body(text, invalid, "unsupported_value", fault.param)
        case "bad_param" if fault.variant == "range":
            text = f"values of {fault.param} above 4 are not supported for this model"
            return 400, error_body(text, invalid, None, fault.param)
        case "bad_param":
            text = f"Unsupported parameter: '{fault.param}' is not supported with this model."
            if fault.param == "max_tokens":
                text += " Use 'max_completion_tokens' instead."
            return 400, error_body(text, invalid, "unsupported_parameter", fault.param)
        case "moderation_error":
            return 400, _moderation(fault)
    raise ValueError(f"{fault.kind} is no HTTP error")


def _moderation(fault: Fault) -> dict[str, Any]:
    if fault.variant == "azure":
        text = (
            "The response was filtered due to the prompt triggering Azure OpenAI's content"
            " management policy. Please modify your prompt and retry."
        )
        fine = {"filtered": False, "severity": "safe"}
        result = {
            "hate": fine,
            "self_harm": fine,
            "sexual": fine,
            "violence": {"filtered": True, "severity": "medium"},
        }
        envelope = error_body(text, None, "content_filter", "prompt")
        envelope["error"] |= {
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": result,
            },
        }
        return envelope
    if fault.variant == "invalid_prompt":
        text = "Invalid prompt: your prompt was flagged as potentially violating our usage policy."
        return error_body(text, "invalid_request_error", "invalid_prompt")
    text = "Your request was rejected as a result of our safety system."
    return error_body(text, "invalid_request_error", "content_policy_violation")


def models() -> dict[str, Any]:
    """GET /v1/models."""
    names = ("loopback-target", "loopback-judge")
    data = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "loopback"}
        for name in names
    ]
    return {"object": "list", "data": data}
