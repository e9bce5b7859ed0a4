"""Finish reasons and failures -> `Outcome`. A closed world: the unknown is an error, never a guess.

Every back end hands its provider's answer over as a `Reply` and its provider's failures as an
`ApiFailure`; what they mean is decided here and nowhere else, so that back ends cannot drift apart.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from refusalkit.display import shows
from refusalkit.errors import (
    FatalProviderError,
    ModerationError,
    ProviderError,
    RequestError,
    TransientError,
    UnsupportedParameter,
)
from refusalkit.types import Outcome, Usage
from refusalkit.untrusted import identifier, printable, redact, well_formed

# OpenAI's and Anthropic's documented reasons. `tool_calls`, `tool_use`, `function_call` and
# `pause_turn` are documented too, but no tools are offered: they are errors, as unknown ones are.
FINISH_REASONS: Mapping[str, Outcome] = {
    "stop": Outcome.ANSWERED,
    "end_turn": Outcome.ANSWERED,
    "stop_sequence": Outcome.ANSWERED,
    "length": Outcome.TRUNCATED,
    "max_tokens": Outcome.TRUNCATED,
    "model_context_window_exceeded": Outcome.TRUNCATED,
    "content_filter": Outcome.BLOCKED,
    "refusal": Outcome.BLOCKED,
}

MODERATION_CODES = frozenset(
    {
        "content_policy_violation",
        "content_filter",
        "content_filtered",
        "responsibleaipolicyviolation",
        "moderation_blocked",
        "invalid_prompt",
        "data_inspection_failed",
        "contentpolicyviolationerror",
    }
)
_MODERATION_TEXT = re.compile(
    r"(?i)blocked by content filtering policy|content management policy|"
    r"flagged as potentially violating|requires moderation|was flagged for"
)
_FATAL_CODES = frozenset(
    {
        "authentication_error",
        "billing_error",
        "billing_not_active",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "permission_error",
        "permission_denied",
    }
)
_NO_CREDIT_TEXT = re.compile(r"(?i)credit balance is too low")
_UNSUPPORTED_TEXT = re.compile(
    r"(?i)unsupported|not support|unrecognized|unknown (?:parameter|field|argument)|"
    r"extra inputs?|extra fields?|not permitted|not allowed|cannot both|can't both|"
    r"deprecated|not available|not accepted|only the default"
)
# What bounds an answer is never left out, whatever a provider says of it: the answers would have no
# bound, and cost what they come to. Its other name is tried by the back ends.
_NEVER_LEFT_OUT = frozenset({"max_tokens", "max_completion_tokens"})
# More is no count of tokens, and no column of 64-bit numbers could hold it.
_MOST_TOKENS = 10**15
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
_THINK_TAG = re.compile(r"<(/?)(?:think|thinking)>", re.IGNORECASE)


@shows(chars=lambda reply: len(reply.text))
@dataclass(slots=True)
class Reply:
    """A provider's answer in neutral words, before it is judged what it amounts to."""

    text: str
    finish_reason: str | None
    reasoning: str = ""
    usage: Usage = Usage()
    served_model: str | None = None
    request_id: str | None = None
    filter_category: str | None = None


@shows("status", "code", "parameter")
@dataclass(frozen=True, slots=True)
class ApiFailure:
    """A provider's failure in neutral words.

    `status` is None where no HTTP answer came. `parameter` is the request parameter that the
    provider itself named. `usage` is what an answer that cannot be read says it took.
    """

    message: str
    status: int | None = None
    code: str | None = None
    parameter: str | None = None
    retry_after: float | None = None
    filter_category: str | None = None
    usage: Usage | None = None


@shows("outcome", chars=lambda reading: len(reading.text))
@dataclass(slots=True)
class Reading:
    """What a reply amounts to: its outcome, and the final text apart from the reasoning."""

    outcome: Outcome
    text: str
    reasoning: str
    error: str | None = None


def read_reply(reply: Reply) -> Reading:
    """The outcome of a provider's answer (DESIGN: outcomes and what each does to the score)."""
    text, tagged, unclosed = split_reasoning(well_formed(reply.text))
    reasoning = "\n".join([part for part in (well_formed(reply.reasoning), tagged) if part])
    if reasoning:
        # What stood between the reasoning and the answer is neither's, whoever took them apart.
        text = text.strip()
    finish = FINISH_REASONS.get(reply.finish_reason or "")
    if finish is None:
        named = "none" if reply.finish_reason is None else repr(printable(reply.finish_reason, 60))
        error = f"finish reason {named} is not one that refusalkit knows"
        return Reading(Outcome.ERROR, text, reasoning, error)
    if finish is Outcome.BLOCKED:
        return Reading(Outcome.BLOCKED, text, reasoning)
    if unclosed:
        return Reading(Outcome.NO_ANSWER, "", reasoning)
    if text.strip():
        return Reading(finish, text, reasoning)
    # Without any text, reasoning decides; a model whose reasoning is hidden shows it in its usage,
    # and one that ran into the length limit before its first visible word was still at it.
    thought = reasoning.strip() or reply.usage.reasoning_tokens or finish is Outcome.TRUNCATED
    return Reading(Outcome.NO_ANSWER if thought else Outcome.EMPTY, "", reasoning)


def split_reasoning(text: str) -> tuple[str, str, bool]:
    """Take every `<think>...</think>` out of an answer.

    Returns (final text, reasoning, whether a block was never closed). A chat template that opens
    the block in the prompt leaves an answer with a closing tag only; what stands before that is
    reasoning too.
    """
    if "<" not in text:
        return text, "", False
    final: list[str] = []
    thoughts: list[str] = []
    at, opened = 0, False
    for tag in _THINK_TAG.finditer(text):
        closing = tag.group(1) == "/"
        if closing and (opened or not thoughts):
            if opened:
                thoughts.append(text[at : tag.start()])
            else:
                thoughts.append("".join(final) + text[at : tag.start()])
                final.clear()
            at, opened = tag.end(), False
        elif not closing and not opened:
            final.append(text[at : tag.start()])
            at, opened = tag.end(), True
    if opened:
        return "".join(final).strip(), "\n".join([*thoughts, text[at:]]), True
    rest = "".join(final) + text[at:]
    return (rest.strip() if thoughts else rest), "\n".join(thoughts), False


def failure_error(
    failure: ApiFailure, *, names: str, sent: frozenset[str] = frozenset()
) -> ProviderError:
    """The exception for a failure.

    `names` says who failed (``openai/gpt-x at host``); `sent` holds the optional parameters of the
    request, the only ones that an `UnsupportedParameter` may name.
    """
    folded = (failure.code or "").strip().casefold()
    status = failure.status
    code = identifier(failure.code.strip()) if failure.code and failure.code.strip() else None
    summary = f"{names}: HTTP {status}" if status is not None else f"{names}: no HTTP answer"
    if code:
        summary += f" ({code})"
    said = redact(failure.message) or None
    if folded in MODERATION_CODES or (
        # Without an HTTP answer it is not the provider who says so.
        status is not None and _MODERATION_TEXT.search(failure.message)
    ):
        category = failure.filter_category
        return ModerationError(summary, detail=said, status=status, code=code, category=category)
    if status == 400 and _NO_CREDIT_TEXT.search(failure.message):
        folded = "billing_error"
    if folded in _FATAL_CODES or status in (401, 402, 403, 404):
        detail = f"{said}; {_advice(status, folded)}" if said else _advice(status, folded)
        return FatalProviderError(summary, detail=detail, status=status, code=code)
    if status is None or status in _TRANSIENT_STATUS or status >= 500 or 200 <= status < 300:
        # A 2xx whose body is no answer was cut or garbled on its way: worth another try.
        return TransientError(
            summary, detail=said, status=status, code=code, retry_after=failure.retry_after
        )
    if status in (400, 422) and (parameter := _unsupported(failure, sent)):
        return UnsupportedParameter(summary, parameter, detail=said, status=status, code=code)
    return RequestError(summary, detail=said, status=status, code=code)


def _unsupported(failure: ApiFailure, sent: frozenset[str]) -> str | None:
    """The optional parameter that a provider says it does not take, if it clearly names one."""
    complaint = f"{failure.code or ''} {failure.message}"
    if not _UNSUPPORTED_TEXT.search(complaint):
        return None
    said = failure.parameter.split(".")[0] if failure.parameter else None
    if said in _NEVER_LEFT_OUT:
        return None
    optional = sent - _NEVER_LEFT_OUT
    if said in optional:
        return said
    named = {word.split(".")[0] for word in re.findall(r"[A-Za-z_][A-Za-z_.]*", failure.message)}
    # Where two cannot stand together ("temperature and top_p"), the less telling one goes.
    order = ("top_k", "top_p", "seed")
    place = {name: at for at, name in enumerate(order)}
    matching = sorted(named & optional, key=lambda name: (place.get(name, len(order)), name))
    return matching[0] if matching else None


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date).

    A date is held against the answer's own `Date`, and says nothing without one: by a wrong clock
    of this machine it would lie in the past, or so far off that the run stopped for it.
    """
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            seconds = float(value) / per_second
        except ValueError:
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    when, now = _http_date(headers.get("retry-after")), _http_date(headers.get("date"))
    return None if when is None or now is None else max(0.0, (when - now).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    try:
        when = email.utils.parsedate_to_datetime(text or "")
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def token_count(value: object) -> int | None:
    """A count of tokens as an endpoint gave it; None for what cannot be one."""
    if value is None or not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def _advice(status: int | None, code: str) -> str:
    if code in ("insufficient_quota", "billing_error", "billing_not_active") or status == 402:
        return "the account has no credit left: top it up, then resume the run"
    if code == "model_not_found" or status == 404:
        return "check the model name and --api-base"
    return "check the API key of this provider"
