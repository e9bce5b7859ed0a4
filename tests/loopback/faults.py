"""The ways in which a provider goes wrong, and what a correct client makes of each.

`Fault` is a rule (which request gets it), `Reply` is what to send, neutral between the two APIs:
the wire modules `openai_wire` and `anthropic_wire` put it into each provider's words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Where = Literal["target", "judge", "any"]
Finish = Literal["stop", "length", "filter", "unknown"]

# kind -> what `refusalkit` should record for a target's answer: an outcome, or "retry" where asking
# again may help. The closed world of faults: a kind that is not here cannot be scripted.
KINDS: dict[str, str] = {
    # transient
    "rate_limit": "retry",  # 429 with Retry-After; variant "ms": retry-after-ms; "none": no header
    "server_error": "retry",  # 500
    "overloaded": "retry",  # 529 (Anthropic), 503 (OpenAI)
    "timeout": "retry",  # 408; variant "409"
    "drop": "retry",  # the socket closes before any byte
    "drop_mid_body": "retry",  # ... after half of the announced body
    # a 200 that is not an answer; html with `status=502` and the like is "retry"
    "malformed_json": "error",
    "html": "error",
    "no_content": "error",  # the usage of an answer, without the answer
    "wrong_content_type": "answered",  # a good body labelled text/plain; a strict client may differ
    # the provider's filter
    "content_filter": "blocked",  # variant "partial": with some text
    "moderation_error": "blocked",  # a 400; OpenAI variants "azure", "invalid_prompt"
    # answers of other shapes
    "length": "truncated",
    "reasoning_field": "answered",  # OpenAI variant "reasoning"; Anthropic variant "redacted"
    "only_reasoning": "no_answer",  # variant "length": stopped by length, too
    "think_tags": "answered",
    "unclosed_think": "no_answer",  # variant "length": stopped by length, too
    "empty": "empty",  # variant "null" (OpenAI: null for "")
    "unknown_finish": "error",
    # the same in another dialect (dialects.py), OpenAI's protocol only
    "dialect": "answered",
    "dialect_filter": "blocked",
    "huge": "answered",
    "nul_and_escapes": "answered",
    "gzip": "answered",
    "slow": "answered",  # `seconds` more latency
    # nothing that asking again would fix
    "auth_error": "error",
    "unknown_model": "error",
    "bad_param": "error",  # if the request carries `param`; variants "value", "range", "pair"
    "insufficient_quota": "error",
    # judges only
    "judge_garbage": "unparsable",
    "judge_refuses": "judge_blocked",  # OpenAI variant "field": message.refusal with a normal stop
}

# The same for a judge's answer: its text is replaced or cut, so there is no verdict in it.
_AS_JUDGE = {
    "truncated": "unparsable",
    "no_answer": "unparsable",
    "empty": "unparsable",
    "blocked": "judge_blocked",
    "error": "judge_error",
}
_NO_VERDICT = {"huge", "nul_and_escapes"}

# Kinds answered with an HTTP error; the wire modules hold their status and words.
ERRORS = frozenset(
    {
        "rate_limit",
        "server_error",
        "overloaded",
        "timeout",
        "moderation_error",
        "auth_error",
        "unknown_model",
        "bad_param",
        "insufficient_quota",
    }
)

REASONING = "[demo reasoning]"
REFUSES = "I'm sorry, but I can't assist with that."
GARBAGE = "Well, it depends on how one looks at it; both readings have something for them."
# NUL, a colour and a window title for the terminal, a lone surrogate, a right-to-left override.
ESCAPES = "[demo answer]\x00 \x1b[31mred\x1b[0m \x1b]0;title\x07 \ud800 \u202edrow\u2066 \r end"


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule: which requests get which fault.

    `where` defaults to the target, for the ``judge_*`` kinds to the judge. All given conditions
    must hold: `every=N` (of N asks of one key in a row, one; across keys, one in N), `probability`
    (drawn for each ask; once for a key with `per="key"` or together with `times`), `times=k` (only
    the first k asks of a key), `match` (a part of the last user message), `model` (a part of the
    model's name).
    """

    kind: str
    where: Where | None = None
    every: int | None = None
    probability: float | None = None
    per: Literal["ask", "key"] = "ask"
    seed: int | None = None
    times: int | None = None
    match: str | None = None
    model: str | None = None
    variant: str | None = None
    seconds: float | None = None  # Retry-After (default 1), or how slow `slow` is (default 1)
    size: int = 100_000  # characters of a `huge` answer
    param: str = "temperature"
    status: int | None = None  # another HTTP status, e.g. html with 502
    category: str | None = "cyber"  # stop_details.category
    expect: str | None = None  # overrules `expected`, where a test knows better

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault is called {self.kind!r}; there are {', '.join(KINDS)}")
        only_judge = self.kind.startswith("judge_")
        if self.where is None:
            object.__setattr__(self, "where", "judge" if only_judge else "target")
        if self.where not in get_args(Where) or (only_judge and self.where != "judge"):
            raise ValueError(f"{self.kind} cannot happen to {self.where!r}")

    def expected(self, role: str) -> str:
        """What a correct client records for it, or "retry"."""
        if self.expect is not None:
            return self.expect
        if self.kind == "html" and (self.status or 200) >= 500:
            return "retry"
        if role == "judge" and self.kind in _NO_VERDICT:
            return "unparsable"
        outcome = KINDS[self.kind]
        return _AS_JUDGE.get(outcome, outcome) if role == "judge" else outcome


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send, before a wire module words it."""

    text: str | None
    fault: Fault | None = None
    finish: Finish = "stop"
    reasoning: str | None = None
    declined: str | None = None  # OpenAI's message.refusal
    expected: str = "answered"
    final: str = "answered"  # the same if no further attempt is made: "retry" becomes an error
    delay_s: float = 0.0

    @property
    def kind(self) -> str | None:
        """The fault's name, if there is one."""
        return self.fault.kind if self.fault else None


def reply_for(fault: Fault | None, role: str, text: str) -> Reply:
    """The reply for one request: its ordinary `text`, or what the fault makes of it."""
    if fault is None:
        return Reply(text)
    expected = fault.expected(role)
    final = expected
    if expected == "retry":
        final = "judge_error" if role == "judge" else "error"
    shape: dict[str, object] = {}
    match fault.kind:
        case "content_filter":
            # What had been written when the filter spoke.
            partial = text[: len(text) // 2] if fault.variant == "partial" else None
            shape = {"text": partial, "finish": "filter"}
        case "dialect_filter":
            # In Anthropic's words; in OpenAI's the whole reply is another (respond.py).
            shape = {"text": None, "finish": "filter"}
        case "judge_refuses" if fault.variant == "field":
            shape = {"text": None, "declined": REFUSES}
        case "judge_refuses":
            shape = {"text": None, "finish": "filter"}
        case "judge_garbage":
            shape = {"text": GARBAGE}
        case "length":
            # Half a JSON object is not a verdict; half an answer is an answer.
            shape = {"text": text[: max(1, len(text) // 2)], "finish": "length"}
        case "reasoning_field":
            shape = {"reasoning": REASONING}
        case "only_reasoning":
            shape = {"text": None, "reasoning": REASONING, "finish": _stop(fault)}
        case "think_tags":
            shape = {"text": f"<think>\n{REASONING}\n</think>\n\n{text}"}
        case "unclosed_think":
            shape = {"text": f"<think>\n{REASONING} {text}", "finish": _stop(fault)}
        case "empty":
            shape = {"text": None if fault.variant == "null" else ""}
        case "unknown_finish":
            shape = {"finish": "unknown"}
        case "huge":
            shape = {"text": ("[demo answer] " * (fault.size // 14 + 1))[: fault.size]}
        case "nul_and_escapes":
            shape = {"text": ESCAPES}
        case "slow":
            shape = {"delay_s": 1.0 if fault.seconds is None else fault.seconds}
    base: dict[str, object] = {"text": text, "fault": fault, "expected": expected, "final": final}
    return Reply(**(base | shape))  # type: ignore[arg-type]


def _stop(fault: Fault) -> Finish:
    return "length" if fault.variant == "length" else "stop"
