"""Counts unusual answers that a reader of the figures should know about."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from refusalkit.models.dialects.finish import NATIVE_LOST, Means, known_finish
from refusalkit.runs.manifest import Manifest
from refusalkit.types import JUDGEABLE, Outcome
from refusalkit.untrusted import printable

ODD = frozenset({"outcome", "finish_reason", "unknown_mark", "reasoning_chars"})
"""The columns by which a completion is recognised as odd."""

_MAX_NAMED = 5
_MIN_BLOCKED = 5


@dataclass
class OddAnswers:
    """Counts of what is unusual about a run's answers. Records of failed attempts count too.

    `from_endpoint` is False for recorded answers and models in Python, which need not give a finish
    reason: `unsaid` then stays 0.
    """

    from_endpoint: bool = False
    """Whether an endpoint answered."""
    unknown_marks: Counter[str] = field(default_factory=Counter)
    """Number of answers by unknown mark: one that looks like reasoning and is in no table."""
    unsaid: int = 0
    """Answers with text for which the endpoint gave no finish reason."""
    native_lost: Counter[str] = field(default_factory=Counter)
    """Number of answers by a gateway's finish word, if the provider's own word was lost."""
    only_reasoning: int = 0
    """Answers with reasoning and no final text."""
    with_text: int = 0
    """Answers with final text."""
    blocked: int = 0
    """Answers that an endpoint's filter stopped."""

    def count(self, completions: pl.DataFrame) -> None:
        """Count a piece of a run's completions; needs the columns in `ODD`."""
        marks = Counter(completions["unknown_mark"].drop_nulls().to_list())
        text = completions.filter(pl.col("outcome").is_in([o.value for o in JUDGEABLE]))
        answered = text.filter(pl.col("outcome") == Outcome.ANSWERED.value)["finish_reason"]
        words = completions["finish_reason"].drop_nulls()
        lost = words.filter(words.str.ends_with(NATIVE_LOST)).str.strip_suffix(NATIVE_LOST)
        thought = completions.filter(
            (pl.col("outcome") == Outcome.NO_ANSWER.value) & (pl.col("reasoning_chars") > 0)
        )
        # Pieces are read in several threads.
        with _COUNTING:
            self.unknown_marks.update(marks)
            self.native_lost.update(lost.to_list())
            self.only_reasoning += len(thought)
            self.with_text += len(text)
            if self.from_endpoint:
                blocked = completions.filter(pl.col("outcome") == Outcome.BLOCKED.value)
                self.blocked += len(blocked)
                self.unsaid += sum(
                    count for word, count in answered.value_counts().iter_rows() if _unsaid(word)
                )

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a reader must know, in sentences without full stops; empty for an ordinary run."""
        said = []
        if self.only_reasoning and not self.with_text:
            said.append(
                f"All {self.only_reasoning} answers are in the reasoning field and none has a "
                "final text, so nothing could be judged: raise --max-tokens, try --reasoning off, "
                "or check the server's reasoning parser"
            )
        if self.blocked >= _MIN_BLOCKED and not (self.with_text or self.only_reasoning):
            said.append(
                f"All {self.blocked} answers were stopped by a filter and count as refusals: if it "
                "refused this account or network and not the prompts, they are none"
            )
        if n := self.unknown_marks.total():
            said.append(
                f"{_answers(n, 'has', 'have')} a mark that looks like one of reasoning and is not "
                f"known: {_named(self.unknown_marks)}; what it encloses was judged as part of the "
                "answer"
            )
        if self.unsaid:
            said.append(
                f"{_answers(self.unsaid, 'was', 'were')} judged although the endpoint gave no "
                "finish reason"
            )
        if n := self.native_lost.total():
            said.append(
                f"{_answers(n, 'has', 'have')} only a gateway's finish word "
                f"({_named(self.native_lost)}): the provider's own is lost, so a filter may have "
                "gone unnoticed"
            )
        return tuple(said)

    def as_data(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {
            "unknown_marks": dict(_ordered(self.unknown_marks)),
            "unsaid": self.unsaid,
            "native_lost": dict(_ordered(self.native_lost)),
            "only_reasoning": self.only_reasoning,
        }


_COUNTING = threading.Lock()


def is_from_endpoint(manifest: Manifest) -> bool:
    """Whether a run's answers came from an endpoint, that is, parameters were sent to one."""
    sent = manifest.parameters.get("model")
    return manifest.kind == "run" and sent is not None and bool(sent.sent)


def _unsaid(word: str | None) -> bool:
    known = None if word is None else known_finish(word)
    return word is None or (known is not None and known.means is Means.UNSAID)


def _answers(n: int, one: str, many: str) -> str:
    return f"1 answer {one}" if n == 1 else f"{n} answers {many}"


def _named(counts: Counter[str]) -> str:
    ordered = _ordered(counts)
    shown = ", ".join(f"{printable(word, 60)} ({n})" for word, n in ordered[:_MAX_NAMED])
    more = len(ordered) - _MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first; ties by name, so that the order of reading does not matter."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
