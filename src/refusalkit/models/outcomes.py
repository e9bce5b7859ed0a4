"""What an endpoint's answers and failures amount to: an `Outcome`, or an exception.

Every back end returns its provider's answer as a `Reply` and its failures as an `ApiFailure`; what
they mean is decided here only, so that back ends cannot drift apart. The vocabulary is in
`refusalkit.models.dialects`; a word that no table has is an error, never a guess.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from refusalkit.display import shows
from refusalkit.errors import (
    FatalProviderError,
    ModerationError,
    ProviderError,
    RequestError,
    TransientError,
    UnsupportedParameter,
)
from refusalkit.models.dialects.filters import filter_in_error
from refusalkit.models.dialects.finish import Finish, Means, finish_of
from refusalkit.models.dialects.parameters import refused_parameter
from refusalkit.models.dialects.reasoning import split_reasoning
from refusalkit.models.dialects.rows import any_of, folded, table
from refusalkit.redaction import redact
from refusalkit.types import Outcome, Usage
from refusalkit.untrusted import identifier, is_blank, printable, well_formed

# A larger number is not a count of tokens.
_MAX_TOKENS = 10**15
# Answers in a row with an unknown finish word after which a run ends.
MAX_UNKNOWN_FINISHES = 5
_TRANSIENT_STATUS = frozenset({408, 409, 424, 425, 429})
_ADVICE = {
    "key": "check the API key of this provider",
    "model": "check the model name and --api-base",
    "credit": "the account has no credit left: top it up, then resume the run",
    "path": "check --api-base",
    "day": "the account's quota is used up until it is renewed: resume the run then",
}
_OF_STATUS = {401: "key", 402: "credit", 403: "key", 404: "model", 410: "model"}


@shows("status", "code", "codes", "parameter")
@dataclass(slots=True)
class ApiFailure:
    """A provider's failure in neutral words.

    `status` is None where no HTTP answer came; `unreachable` then says whether even the connection
    failed. `codes` are the error's codes and types, `parameter` is the request parameter that a
    field of it names. `filtered` is a filter's word where a field of the body says that one
    answered. `usage` is what an unreadable answer reported. `retry_after` is in seconds.
    """

    message: str
    status: int | None = None
    code: str | None = None
    parameter: str | None = None
    retry_after: float | None = None
    filter_category: str | None = None
    usage: Usage | None = None
    codes: tuple[str, ...] = ()
    filtered: str | None = None
    unreachable: bool = False
    limit: str | None = None


@shows("finish_reason", chars=lambda reply: len(reply.text))
@dataclass(slots=True)
class Reply:
    """A provider's answer in neutral words, before its outcome is decided.

    `native_reason` is the finish word of the provider behind a gateway. `filtered` is a filter's
    word where a field of the body, and no finish word, says that one answered. `failure` is an
    error inside the answer. `finish_words` are the meanings that the user gave to words, as
    `parse_finish_word` returns them. `lost`: the provider's own finish word is not known.
    `batched`: it came in a batch and is priced so.
    """

    text: str
    finish_reason: str | None
    reasoning: str = ""
    usage: Usage = Usage()
    served_model: str | None = None
    request_id: str | None = None
    filter_category: str | None = None
    native_reason: str | None = None
    filtered: str | None = None
    failure: ApiFailure | None = None
    finish_words: Mapping[str, Means] = field(default_factory=dict)
    lost: bool = False
    batched: bool = False

    @property
    def finish(self) -> Finish | None:
        """How the answer ended; None if its finish word is unknown."""
        return finish_of(self.finish_reason, self.native_reason, self.finish_words)


@shows("outcome", chars=lambda reading: len(reading.text))
@dataclass(slots=True)
class Reading:
    """A reply's outcome, and its final text apart from the reasoning.

    `finish_reason` is the word that decided, as the endpoint wrote it. `unknown_finish` is the word
    that made it an error because no table has it. `unknown_mark` is a mark in the text that looks
    like a reasoning mark and is in no table.
    """

    outcome: Outcome
    text: str
    reasoning: str
    error: str | None = None
    finish_reason: str | None = None
    unknown_finish: str | None = None
    unknown_mark: str | None = None


def read_reply(reply: Reply) -> Reading:
    """The outcome of a provider's answer; docs/score.md says what each does to the score."""
    finish = reply.finish
    apart = well_formed(reply.reasoning)
    split = split_reasoning(
        well_formed(reply.text),
        apart=bool(apart.strip()),
        cut=finish is not None and finish.means is Means.TRUNCATED,
    )
    reasoning = "\n".join([part for part in (apart, split.reasoning) if part])
    # White space between the reasoning and the answer belongs to neither.
    text = split.final.strip() if reasoning else split.final
    reading = Reading(
        Outcome.ERROR,
        text,
        reasoning,
        finish_reason=reply.finish_reason,
        unknown_mark=split.unknown,
    )
    if reply.filtered is not None and (finish is None or finish.means is not Means.BLOCKED):
        reading.outcome, reading.finish_reason = Outcome.BLOCKED, reply.filtered
        return reading
    if finish is None:
        word = printable(reply.finish_reason, 60)
        reading.unknown_finish = word
        reading.error = f"unknown finish reason {word!r}"
        return reading
    reading.finish_reason = finish.word
    has_text = not is_blank(text) and not split.unclosed
    means = finish.with_text if has_text else finish.means
    if means is Means.BLOCKED:
        reading.outcome = Outcome.BLOCKED
        return reading
    if means is Means.FAULT:
        reading.error = f"the endpoint failed: finish reason {printable(finish.word, 60)!r}"
        return reading
    if not has_text:
        reading.text = ""
    if means is Means.NO_ANSWER or split.unclosed:
        reading.outcome = Outcome.NO_ANSWER
    elif has_text:
        reading.outcome = Outcome.TRUNCATED if means is Means.TRUNCATED else Outcome.ANSWERED
    else:
        # Without text it is `no_answer` if the model reasoned: hidden reasoning shows in the usage,
        # and a model that met the length limit before its first visible word was still reasoning.
        # A call of a tool, though none was offered, is not an answer either.
        thought = (
            reasoning.strip()
            or reply.usage.reasoning_tokens
            or means in (Means.TRUNCATED, Means.TOOLS)
        )
        reading.outcome = Outcome.NO_ANSWER if thought else Outcome.EMPTY
    return reading


def unknown_finishes(who: str, word: str) -> FatalProviderError:
    """The error that ends a run whose answers keep ending with an unknown finish word."""
    return FatalProviderError(
        f"{who}: {MAX_UNKNOWN_FINISHES} answers in a row ended with the finish reason {word!r}, "
        f"which refusalkit does not know: say what it means with --finish-word {word}=answered "
        "(or =truncated, =blocked, =no_answer)"
    )


@cache
def _failure_codes() -> Mapping[str, str]:
    return {folded(row["code"]): row["means"] for row in table("failures")["code"]}


@cache
def _failure_words() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((any_of([row]), row["means"]) for row in table("failures")["words"])


def failure_error(
    failure: ApiFailure,
    *,
    names: str,
    sent: frozenset[str] = frozenset(),
    answered: bool = False,
    base_advice: str | None = None,
) -> ProviderError:
    """The exception for a failure.

    `names` says what failed (``openai/gpt-x at host``); `sent` holds the optional parameters of the
    request, the only ones that an `UnsupportedParameter` may name. `answered`: this endpoint has
    answered before, so a 403 or 404 is about one request. `base_advice` is what to do where nothing
    answers at the path.
    """
    status = failure.status
    code = failure.code or next(iter(failure.codes), None)
    code = identifier(code.strip()) if code and code.strip() else None
    summary = f"{names}: HTTP {status}" if status is not None else f"{names}: no HTTP answer"
    if code:
        summary += f" ({code})"
    said = redact(failure.message) or None
    codes = [one for one in (failure.code, *failure.codes) if one]
    word = failure.filtered
    # Without an HTTP answer the message is not the provider's.
    if word is None and (status is not None or codes):
        word = filter_in_error(status or 0, codes, failure.message if status else "", None)
    if word is not None:
        return ModerationError(
            summary,
            detail=said,
            status=status,
            code=identifier(word),
            category=failure.filter_category,
        )
    about = _about(failure, codes)
    gone = status in (403, 404, 410) or (about in ("key", "model", "path") and status != 401)
    if about in _ADVICE and not (answered and gone and about not in ("credit", "day")):
        advice = base_advice if about in ("model", "path") and base_advice else _ADVICE[about]
        detail = f"{said}; {advice}" if said else advice
        return FatalProviderError(summary, detail=detail, status=status, code=code)
    if status in (200, 400, 422, 500, 501):
        complaint = " ".join([*codes, failure.message])
        parameter = refused_parameter(
            complaint, failure.parameter, sent, in_known_words=status not in (400, 422)
        )
        if parameter and about is None:
            return UnsupportedParameter(summary, parameter, detail=said, status=status, code=code)
    if (
        status is None
        or about is not None
        or status in _TRANSIENT_STATUS
        or status >= 500
        or 200 <= status < 300
    ):
        # A 2xx whose body is not an answer was cut or garbled in transit: it is sent again.
        error = TransientError(
            summary, detail=said, status=status, code=code, retry_after=failure.retry_after
        )
        error.unreachable = failure.unreachable
        error.limit = failure.limit
        return error
    return RequestError(summary, detail=said, status=status, code=code)


def _about(failure: ApiFailure, codes: list[str]) -> str | None:
    """What would make every request fail: key, model, credit or path; None for other failures."""
    known = _failure_codes()
    for code in codes:
        if (means := known.get(folded(code))) is not None:
            return means
    status = failure.status
    if status is None:
        return None
    if status == 200 or (status >= 400 and status not in (401, 422)):
        for words, means in _failure_words():
            # A failing endpoint's words count where they are about the account alone.
            if (status < 500 or means == "credit") and words.search(failure.message):
                return None if means == "request" else means
    return _OF_STATUS.get(status)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date).

    A date is compared with the answer's own `Date` header and ignored without one: this machine's
    clock may be wrong, and then the wait would be nothing, or long enough to stop the run.
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


def exhausted_limit(headers: Mapping[str, str]) -> str | None:
    """Which limits are used up, such as ``requests``: headers ``...ratelimit-remaining-...``."""
    found: list[str] = []
    for name, value in headers.items():
        _, marker, limit = name.casefold().partition("ratelimit-")
        words = limit.split("-")
        if marker and "remaining" in words and value.strip() in ("0", "0.0"):
            of = "-".join(word for word in words if word != "remaining") or "requests"
            found.append(printable(of, 40))
    return " and ".join(sorted(set(found))) or None


def token_count(value: object) -> int | None:
    """A count of tokens as an endpoint gave it; None for what cannot be one."""
    if value is None or not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MAX_TOKENS else None


def text_or_none(value: object) -> str | None:
    """A text as an endpoint gave it; None for an empty one, and for anything else."""
    return value if isinstance(value, str) and value else None
