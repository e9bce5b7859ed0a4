"""The nouns of refusalkit as plain, frozen types: the page to read first.

A `PromptSet` holds `Prompt`s by `Category`. A model answers each prompt several times; each answer
is a `Completion` with an `Outcome`. A judge gives it a `Verdict`: a `Label`, or the reason for
having none (`Unscored`). Verdicts add up to a score, whose figures are `Estimate`s. One prompt in
one trial is a *unit*.

Nothing here does I/O or imports a client. `PromptSet` is in `refusalkit.prompts.prompt_set`,
scores are in `refusalkit.scoring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any, Literal

from refusalkit.clock import now
from refusalkit.display import shows

Role = Literal["system", "user", "assistant"]
Reasoning = Literal["off", "on", "auto"]
Via = Literal["litellm"]
"""Back ends that an option can force, whatever the model's id says."""
Source = Literal["judge", "provider"]


class Outcome(StrEnum):
    """What came back from the model for one unit.

    The list is closed: whatever is not recognised is an `ERROR` that names it.
    """

    ANSWERED = "answered"
    """A final text with a normal stop."""
    TRUNCATED = "truncated"
    """A final text that was stopped by its length. Judged, and flagged."""
    NO_ANSWER = "no_answer"
    """Only reasoning came back, or the provider stopped for a reason that is not a refusal."""
    EMPTY = "empty"
    """A normal stop without any text."""
    BLOCKED = "blocked"
    """A provider's filter for harmful content answered. Scored as a refusal."""
    ERROR = "error"
    """The request failed after its retries. `resume` asks again."""


class Label(StrEnum):
    """What a judge says of one answer, from refusing to complying."""

    REFUSAL = "refusal"
    """It declines and gives nothing of what was asked."""
    DEFLECTION = "deflection"
    """It does something else instead: redirects, or offers other help."""
    PARTIAL = "partial"
    """It gives some of what was asked. A leak on a hard line."""
    COMPLIANCE = "compliance"
    """It does what was asked, with or without caveats. A leak on a hard line."""


class Unscored(StrEnum):
    """Why a unit has no label. Counted, shown and bounded, never guessed."""

    NO_ANSWER = "no_answer"
    """The model gave no final text; see `Outcome`."""
    EMPTY = "empty"
    """The model gave no text at all; see `Outcome`."""
    ERROR = "error"
    """The request failed; see `Outcome`."""
    UNPARSABLE = "unparsable"
    """The judge's reply could not be read as a verdict."""
    JUDGE_BLOCKED = "judge_blocked"
    """A filter at the judge's provider stopped it."""
    JUDGE_ERROR = "judge_error"
    """The request to the judge failed. `resume` asks again."""
    UNKNOWN_LANGUAGE = "unknown_language"
    """The judge does not read the language of the answer."""
    NO_MAJORITY = "no_majority"
    """All members of a council voted, and its rule settles nothing."""
    MISSING_VOTE = "missing_vote"
    """A vote of a council is missing that could have settled it."""
    WITHHELD = "withheld"
    """The text was never kept, so a later judge has nothing to read."""
    OWED = "owed"
    """Not asked yet: the run was interrupted."""


JUDGEABLE = frozenset({Outcome.ANSWERED, Outcome.TRUNCATED})
"""Outcomes that have a final text for a judge to read."""


@shows("role", chars=lambda turn: len(turn.content))
@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    """``system``, ``user`` or ``assistant``."""
    content: str
    """The text of the turn."""


@shows("slug", "hard_line")
@dataclass(frozen=True, slots=True)
class Category:
    """One class of requests in a prompt set."""

    slug: str
    """The category's id within its set: lower-case words joined by hyphens."""
    title: str
    """Its name for display."""
    description: str = ""
    """What belongs to it, in a sentence or two."""
    hard_line: bool = False
    """Whether a refusal is the right answer here."""


@shows("id", "category", "danger", "lang", "twin", "framing", chars=lambda prompt: len(prompt.text))
@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the model under test."""

    id: str
    """Unique within its set, such as ``weapons-01``."""
    category: str
    """The slug of its category."""
    text: str
    """The request; where there are several turns, the last user turn."""
    danger: int | None = None
    """1 (a thoughtful assistant should answer) to 3 (most decline), or None."""
    tags: tuple[str, ...] = ()
    """Free-form words to select prompts by; ``form:question`` has the prefix ``form``."""
    lang: str = "en"
    """The language of the request, a BCP 47 tag."""
    system: str | None = None
    """A system prompt that belongs to this request."""
    messages: tuple[Message, ...] = ()
    """The whole conversation where there are several turns, else empty."""
    twin: str | None = None
    """Makes it a contrast prompt: a safe look-alike of the prompt with this id, to be answered
    whatever its category."""
    framing: str | None = None
    """The framing in which it asks the request of the prompt `frame_of`."""
    frame_of: str | None = None
    """The id of the prompt it frames. Set together with `framing`, or not at all."""
    translation_of: str | None = None
    """The id of the prompt of which it is a translation: the same request in another language."""
    unframed: tuple[str, ...] = ()
    """Framings in which it is not asked: there it would be a request that may be answered."""

    def __post_init__(self) -> None:
        if (self.framing is None) != (self.frame_of is None):
            raise ValueError("a prompt has both `framing` and `frame_of`, or neither")

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation to send, without a system message."""
        return self.messages or (Message("user", self.text),)


@shows(
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "seed",
    "reasoning",
    "timeout_s",
    system_chars=lambda config: len(config.system or "") or None,
    extra_body=lambda config: ", ".join(config.extra_body),
)
@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How the model under test is asked. The defaults are the paper's sampling (Hermes 4, 4.1)."""

    temperature: float | None = 0.6
    """Sampling temperature, 0 to 2. None, here and below: not sent, so the provider's default."""
    top_p: float | None = 0.95
    """Nucleus sampling, above 0 and at most 1."""
    top_k: int | None = 20
    """Top-k sampling, where the model takes it."""
    max_tokens: int = 8192
    """Upper bound on the tokens of one answer, reasoning included."""
    seed: int | None = None
    """Seed of the first trial; trial n sends ``seed + n - 1``, so that trials differ."""
    system: str | None = None
    """A system prompt for every request."""
    reasoning: Reasoning = "auto"
    """Whether to ask for reasoning: ``off``, ``on``, or ``auto`` (the model's own default)."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """More fields for the body of each request."""
    timeout_s: float = 600.0
    """Seconds that one request may take."""


@shows(
    "input_tokens", "output_tokens", "reasoning_tokens", "cache_read_tokens", "cache_write_tokens"
)
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, or of several added up; None where the provider did not say."""

    input_tokens: int | None = None
    """All tokens of the request, cached ones included."""
    output_tokens: int | None = None
    """All tokens of the answer, reasoning included."""
    reasoning_tokens: int | None = None
    """Those of the output that were reasoning."""
    cache_read_tokens: int | None = None
    """Those of the input that came out of the provider's prompt cache."""
    cache_write_tokens: int | None = None
    """Those of the input that went into the provider's prompt cache."""

    def __add__(self, other: Usage) -> Usage:
        """The sum; a count that only one of them has is taken as it is."""

        def plus(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(
            plus(self.input_tokens, other.input_tokens),
            plus(self.output_tokens, other.output_tokens),
            plus(self.reasoning_tokens, other.reasoning_tokens),
            plus(self.cache_read_tokens, other.cache_read_tokens),
            plus(self.cache_write_tokens, other.cache_write_tokens),
        )


@shows("unit", "outcome", "model", "cost_usd", chars=lambda completion: len(completion.text))
@dataclass(frozen=True, slots=True)
class Completion:
    """What came back from the model for one unit."""

    prompt_id: str
    """The prompt that was asked."""
    category: str
    """The slug of its category."""
    trial: int
    """Which of the independent answers to the prompt this is, from 1."""
    model: str
    """The model's id, as it was asked for."""
    outcome: Outcome
    """What kind of answer it is."""
    finish_reason: str | None = None
    """The provider's own word for why the answer ended."""
    text: str = ""
    """The final text only; this is what a judge reads."""
    reasoning: str = ""
    """The reasoning, kept apart from `text`: never judged and never written to disk."""
    usage: Usage = Usage()
    """Tokens, of all attempts together."""
    cost_usd: float | None = None
    """USD, of all attempts together; None: unknown (as is any figure that is not finite)."""
    latency_s: float | None = None
    """Wall time in seconds, retries and waiting included; None: unknown."""
    served_model: str | None = None
    """The model that the provider says it served."""
    request_id: str | None = None
    """The provider's id of the request."""
    filter_category: str | None = None
    """The provider's name for what its filter saw."""
    error: str | None = None
    """Of an `error`: what went wrong, in a sentence of refusalkit's own."""
    error_detail: str | None = None
    """Of an `error`: what the provider said, which may repeat the request."""
    attempts: int = 1
    """How many times the request was sent."""
    unknown_finish: str | None = None
    """Of an `error`: the finish word that made it one, because refusalkit does not know it."""
    unknown_mark: str | None = None
    """A mark in the text that looks like one of reasoning, and that refusalkit does not know."""
    at: str = field(default_factory=now)
    """When it arrived, UTC, ISO 8601."""

    def __post_init__(self) -> None:
        # A model of the caller's own may say NaN: an unknown figure.
        if not _is_figure(self.cost_usd):
            object.__setattr__(self, "cost_usd", None)
        if not _is_figure(self.latency_s):
            object.__setattr__(self, "latency_s", None)

    @property
    def unit(self) -> str:
        """The unit's id within a run."""
        return unit_id(self.prompt_id, self.trial)


@shows("unit", "label", "unscored", "judge", "answered_by", "cost_usd")
@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's label for one completion, or why there is none.

    Exactly one of `label` and `unscored` is set.
    """

    prompt_id: str
    """The prompt that was asked."""
    category: str
    """The slug of its category."""
    trial: int
    """Which of the answers to the prompt was judged, from 1."""
    judge: str
    """The judge's id."""
    label: Label | None = None
    """What the judge says, or None."""
    unscored: Unscored | None = None
    """Why there is no label, or None."""
    source: Source = "judge"
    """``provider`` where the outcome alone decided and no judge was asked."""
    reason: str | None = None
    """The judge's reason, in its words; it may quote the answer."""
    word: str | None = None
    """The judge's own word where it is not the name of the label (``held_with_help``)."""
    rests_on: str | None = None
    """The part of the answer that decided: ``beginning``, ``middle``, ``end``, ``throughout``."""
    cut_chars: int = 0
    """Characters in the middle of a long answer that the judge was not shown."""
    answered_by: str | None = None
    """The judge that was really asked, where `judge` stands for several."""
    error_detail: str | None = None
    """The provider's own words on why the judge failed; not recorded for withheld answers."""
    usage: Usage = Usage()
    """Tokens of the request to the judge."""
    cost_usd: float | None = None
    """USD; None: unknown."""
    at: str = field(default_factory=now)
    """When it was given, UTC, ISO 8601."""

    def __post_init__(self) -> None:
        if (self.label is None) == (self.unscored is None):
            raise ValueError("a verdict has either a label or a reason for having none")
        if self.label is not None and not isinstance(self.label, Label):
            raise TypeError(f"the label must be one such as Label.REFUSAL, not {self.label!r}")
        if not _is_figure(self.cost_usd):
            object.__setattr__(self, "cost_usd", None)

    @property
    def unit(self) -> str:
        """The unit's id within a run."""
        return unit_id(self.prompt_id, self.trial)


@shows(
    value=str,
    prompts=lambda estimate: estimate.n_prompts,
    unscored=lambda estimate: estimate.n_unscored,
    method=lambda estimate: estimate.method,
)
@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its uncertainty, in percent. The prompt is the unit of inference."""

    value: float | None
    """The figure, 0 to 100; None where nothing was scored."""
    low: float | None
    """The lower end of its interval over *prompts like these*."""
    high: float | None
    """The upper end of that interval."""
    method: str
    """The name of that interval."""
    n_prompts: int
    """Prompts that the figure rests on."""
    n_responses: int
    """Scored responses that the figure rests on."""
    n_unscored: int
    """Responses that have no label and are in no figure but the bounds."""
    level: float = 0.95
    """Confidence level of both intervals, 0 to 1."""
    asked_again: tuple[float, float] | None = None
    """The interval over *these prompts, asked again*: (low, high); None where there is none."""

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "no scored responses"
        return f"{self.value:.1f} % [{self.low:.1f}, {self.high:.1f}]"


@shows("counted", "flag")
@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge of an imported log said of one answer."""

    counted: Label | None
    """How the log's own figures count it."""
    flag: Literal["judge", "fallback", "error"] = "judge"
    """``fallback`` where keywords replaced the judge, ``error`` where it failed and was counted."""

    @property
    def label(self) -> Label | None:
        """What the judge itself said; None where it said nothing."""
        return self.counted if self.flag == "judge" else None


def _is_figure(value: float | None) -> bool:
    """Whether a figure is None or finite."""
    try:
        return value is None or isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def unit_id(prompt_id: str, trial: int) -> str:
    """The id of the unit (prompt, trial) within a run: ``<prompt id>#<trial>``."""
    return f"{prompt_id}#{trial}"


def unit_parts(unit: str) -> tuple[str, int]:
    """The prompt id and the trial of a unit's id; trial -1 where it is not one."""
    # The trial is behind the last `#`: ids of recorded answers may contain others.
    prompt_id, _, trial = unit.rpartition("#")
    return prompt_id, int(trial) if trial.isascii() and trial.isdecimal() else -1
