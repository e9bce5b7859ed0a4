"""The words of refusalkit as types: frozen, free of I/O and of third-party clients.

Data flows PromptSet -> Completion -> Verdict -> Score -> Report. The types of the first three
steps stand here; scores are made in `refusalkit.scoring`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import repeat
from json.encoder import encode_basestring_ascii
from math import isfinite
from operator import attrgetter
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Reasoning = Literal["off", "on", "auto"]
Source = Literal["judge", "provider"]


class Outcome(StrEnum):
    """What came back for one unit. A closed world: anything else is `error`, which names it."""

    ANSWERED = "answered"
    TRUNCATED = "truncated"
    NO_ANSWER = "no_answer"
    EMPTY = "empty"
    BLOCKED = "blocked"
    ERROR = "error"


class Label(StrEnum):
    """A judge's word on one answer."""

    REFUSAL = "refusal"
    DEFLECTION = "deflection"
    PARTIAL = "partial"
    COMPLIANCE = "compliance"


class Unscored(StrEnum):
    """Why a unit has no label. Counted, shown and bounded, never guessed."""

    # The model gave nothing to judge.
    NO_ANSWER = "no_answer"
    EMPTY = "empty"
    ERROR = "error"
    # The judge gave nothing to score.
    UNPARSABLE = "unparsable"
    JUDGE_BLOCKED = "judge_blocked"
    JUDGE_ERROR = "judge_error"
    UNKNOWN_LANGUAGE = "unknown_language"
    # A council's members did not settle it.
    NO_MAJORITY = "no_majority"
    MISSING_VOTE = "missing_vote"
    # The text was never kept, so a later judge has nothing to read.
    WITHHELD = "withheld"
    # Not asked yet: the run was interrupted.
    OWED = "owed"


JUDGEABLE = frozenset({Outcome.ANSWERED, Outcome.TRUNCATED})
"""Outcomes that have a final text for a judge to read."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Category:
    """One class of a prompt set. `hard_line`: here a refusal is the right answer."""

    slug: str
    title: str
    description: str = ""
    hard_line: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the model under test.

    `text` is the user's request; for several turns it is the last user turn and `messages` holds
    the whole conversation. `danger` runs from 1 (a thoughtful assistant should answer) to 3
    (most decline). `lang` is a BCP 47 tag. `twin` makes it a contrast prompt: a safe look-alike of
    the prompt with that id, to be answered, whatever its category. `framing` names the framing of a
    framed prompt: the request of the prompt with the id `frame_of`, asked in another way; both are
    set or neither is.
    """

    id: str
    category: str
    text: str
    danger: int | None = None
    tags: tuple[str, ...] = ()
    lang: str = "en"
    system: str | None = None
    messages: tuple[Message, ...] = ()
    twin: str | None = None
    framing: str | None = None
    frame_of: str | None = None

    def __post_init__(self) -> None:
        if (self.framing is None) != (self.frame_of is None):
            raise ValueError("a prompt has both `framing` and `frame_of`, or neither")

    @property
    def digest(self) -> str:
        """SHA-256 of the prompt, ``sha256:`` and 64 hex digits."""
        return f"sha256:{hashlib.sha256(_prompt_record(self)).hexdigest()}"

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation to send, without a system message."""
        return self.messages or (Message("user", self.text),)


def plain_prompts(
    ids: Sequence[str], categories: Sequence[str], texts: Sequence[str]
) -> list[Prompt]:
    """Prompts with nothing but a text, a million of them: all else is as `Prompt` has it."""
    # Column by column: called for each, `Prompt` takes three times as long.
    columns: dict[str, Iterable[object]] = {"id": ids, "category": categories, "text": texts}
    prompts = list(map(object.__new__, repeat(Prompt, len(ids))))
    for column in fields(Prompt):
        values = columns.get(column.name, repeat(column.default))
        deque(map(getattr(Prompt, column.name).__set__, prompts, values), maxlen=0)
    return prompts


@dataclass(frozen=True, slots=True)
class SetPart:
    """One of several sets that were combined, as it was loaded."""

    name: str
    version: str
    digest: str
    n_prompts: int


@dataclass(frozen=True)
class PromptSet:
    """A named, versioned, hashed collection of prompts by category.

    `source` is what `load_prompts` was given (a shipped name or a path), None for a set that was
    built in Python. `selection` describes filters that were applied, for the manifest. `parts` are
    the sets that this one was combined from, if it was.
    """

    name: str
    version: str
    categories: tuple[Category, ...]
    prompts: tuple[Prompt, ...]
    licence: str = ""
    description: str = ""
    source: str | None = None
    selection: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[SetPart, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def by_slug(self) -> Mapping[str, Category]:
        """Categories by slug."""
        return {category.slug: category for category in self.categories}

    @cached_property
    def hard_lines(self) -> frozenset[str]:
        """Slugs of the hard-line categories."""
        return frozenset(c.slug for c in self.categories if c.hard_line)

    @cached_property
    def twins(self) -> Mapping[str, str]:
        """The contrast prompts: each one's id, and the id of the prompt that it stands beside."""
        return {prompt.id: prompt.twin for prompt in self.prompts if prompt.twin is not None}

    @cached_property
    def framed(self) -> Mapping[str, tuple[str, str]]:
        """The framed prompts: each one's id, its framing, and the id of the prompt it frames."""
        return {
            prompt.id: (prompt.framing, prompt.frame_of)
            for prompt in self.prompts
            if prompt.framing is not None and prompt.frame_of is not None
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, ``sha256:`` and 64 hex digits.

        It covers every prompt and which categories are hard lines, and neither the order of files
        and lines nor line endings, titles, descriptions or the set's name and version.
        """
        sha = hashlib.sha256()
        for category in sorted(self.categories, key=lambda c: c.slug):
            sha.update(_canonical([category.slug, category.hard_line]))
        for prompt in sorted(self.prompts, key=attrgetter("id")):
            sha.update(_prompt_record(prompt))
        return f"sha256:{sha.hexdigest()}"


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How the model under test is asked. The defaults are the paper's sampling (Hermes 4, 4.1).

    None means "do not send": the provider's default holds. `seed` is the seed of the first trial;
    trial n sends ``seed + n - 1``, so that five trials stay five answers.
    """

    temperature: float | None = 0.6
    top_p: float | None = 0.95
    top_k: int | None = 20
    max_tokens: int = 8192
    seed: int | None = None
    system: str | None = None
    reasoning: Reasoning = "auto"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; None where the provider did not say.

    `input_tokens` are all that the request held. Of them `cache_read_tokens` came out of the
    provider's prompt cache, and `cache_write_tokens` went into it, each at a price of its own.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Both together; what only one of them says counts as it is."""

        def plus(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(
            plus(self.input_tokens, other.input_tokens),
            plus(self.output_tokens, other.output_tokens),
            plus(self.reasoning_tokens, other.reasoning_tokens),
            plus(self.cache_read_tokens, other.cache_read_tokens),
            plus(self.cache_write_tokens, other.cache_write_tokens),
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back from the model for one unit.

    `text` is the final text only; reasoning is kept apart in `reasoning` and never judged or
    written. `filter_category` is the provider's name for what its filter saw. `error` is one
    sentence of ours, `error_detail` what the provider said. `latency_s` is wall time in seconds,
    retries and waiting included; `cost_usd` None is unknown, and so is any that is not finite.
    """

    prompt_id: str
    category: str
    trial: int
    model: str
    outcome: Outcome
    finish_reason: str | None = None
    text: str = ""
    reasoning: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None
    latency_s: float | None = None
    served_model: str | None = None
    request_id: str | None = None
    filter_category: str | None = None
    error: str | None = None
    error_detail: str | None = None
    attempts: int = 1
    at: str = field(default_factory=lambda: now())

    def __post_init__(self) -> None:
        # A model of the caller's may say NaN: that is a figure nobody knows.
        if not _is_figure(self.cost_usd):
            object.__setattr__(self, "cost_usd", None)
        if not _is_figure(self.latency_s):
            object.__setattr__(self, "latency_s", None)

    @property
    def unit(self) -> str:
        """The unit's id within a run."""
        return unit_id(self.prompt_id, self.trial)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's label for one completion, or why there is none.

    Exactly one of `label` and `unscored` is set. `source` is ``provider`` where the outcome alone
    decided (a provider's filter, an answer that never came) and no judge was asked.

    `word` is the judge's own word where it is not its label's name (``held_with_help``),
    `rests_on` where in the answer the deciding part stands (``beginning``, ``middle``, ``end`` or
    ``throughout``). `cut_chars` counts the characters in the middle of a long answer that the judge
    was not shown. `answered_by` names the judge that was really asked, where `judge` stands for
    several: a fallback, the judge of the hard lines.
    """

    prompt_id: str
    category: str
    trial: int
    judge: str
    label: Label | None = None
    unscored: Unscored | None = None
    source: Source = "judge"
    reason: str | None = None
    word: str | None = None
    rests_on: str | None = None
    cut_chars: int = 0
    answered_by: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    at: str = field(default_factory=lambda: now())

    def __post_init__(self) -> None:
        if (self.label is None) == (self.unscored is None):
            raise ValueError("a verdict has either a label or a reason for having none")
        if not _is_figure(self.cost_usd):
            object.__setattr__(self, "cost_usd", None)

    @property
    def unit(self) -> str:
        """The unit's id within a run."""
        return unit_id(self.prompt_id, self.trial)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its uncertainty. `value`, `low` and `high` are in percent.

    `value` is None where nothing was scored. `method` names the interval; `level` is its
    confidence. The prompt is the unit of inference.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str
    n_prompts: int
    n_responses: int
    n_unscored: int
    level: float = 0.95

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "no scored responses"
        return f"{self.value:.1f} % [{self.low:.1f}, {self.high:.1f}]"


def _is_figure(value: float | None) -> bool:
    """Whether a figure is known and finite, or said to be unknown already."""
    try:
        return value is None or isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def unit_id(prompt_id: str, trial: int) -> str:
    """The id of the unit (prompt, trial) within a run: ``<prompt id>#<trial>``."""
    return f"{prompt_id}#{trial}"


def unit_parts(unit: str) -> tuple[str, int]:
    """Prompt id and trial of a unit's id; trial -1 where it is none."""
    # The trial stands behind the last `#`: an id of recorded answers may hold others.
    prompt_id, _, trial = unit.rpartition("#")
    return prompt_id, int(trial) if trial.isascii() and trial.isdecimal() else -1


def now() -> str:
    """The current time, UTC, as ISO 8601 with milliseconds."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=1)
def _second(since_1970: int) -> str:
    """A second of UTC as ISO 8601; kept, as a run asks hundreds of times within one."""
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


# Made once: a digest may go over a million prompts.
_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def _prompt_record(prompt: Prompt) -> bytes:
    """What a digest covers of a prompt.

    A twin or a framing only where there is one: older digests stand.
    """
    rare = prompt.system is not None or prompt.twin is not None or prompt.framing
    if not (rare or prompt.messages or prompt.tags):
        # Most prompts of a large set: the same bytes, without a walk through nested lists.
        said = encode_basestring_ascii
        danger = "null" if prompt.danger is None else prompt.danger
        return (
            f"[{said(prompt.id)},{said(prompt.category)},null,"
            f'[["user",{said(prompt.text)}]],{danger},[],{said(prompt.lang)}]\n'
        ).encode()
    turns = [[m.role, m.content] for m in prompt.messages] or [["user", prompt.text]]
    twin: tuple[object, ...] = () if prompt.twin is None else (prompt.twin,)
    if prompt.framing is not None:
        twin = (*twin, {"framing": prompt.framing, "frame_of": prompt.frame_of})
    return _canonical(
        [
            prompt.id,
            prompt.category,
            prompt.system,
            turns,
            prompt.danger,
            sorted(prompt.tags),
            prompt.lang,
            *twin,
        ]
    )


def _canonical(value: object) -> bytes:
    return _ENCODER.encode(value).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge of a log said of one answer.

    `counted` is how the log's own figures count it; `label` is what the judge itself said, None
    where it said nothing: `flag` is ``fallback`` where keywords stood in for it and ``error``
    where it failed and was counted all the same.
    """

    counted: Label | None
    flag: Literal["judge", "fallback", "error"] = "judge"

    @property
    def label(self) -> Label | None:
        """The judge's own word."""
        return self.counted if self.flag == "judge" else None
