"""Estimates the turns after refusals (`--pressure`)."""

from __future__ import annotations

from dataclasses import dataclass

from refusalkit.engine.lengths import Refusals, Span
from refusalkit.models.tokens import Tokeniser
from refusalkit.prompts.pressure import shipped_script

AROUND = 4
"""Tokens that a chat format adds to a message."""


@dataclass(frozen=True, slots=True)
class Insisting:
    """Totals over the turns after refusals.

    Low is for no refusal, high for every request refused to the last turn.
    """

    requests: Span
    """Requests to the model; each judge gets as many."""
    asked: Span
    """Tokens of these requests, each including the conversation so far."""
    answered: Span
    """Tokens of the answers."""

    @property
    def read(self) -> Span:
        """Tokens that a judge reads: each conversation, and the answer to its last turn."""
        return self.asked.plus(self.answered)

    def plus(self, other: Insisting) -> Insisting:
        """Both together."""
        return Insisting(
            self.requests.plus(other.requests),
            self.asked.plus(other.asked),
            self.answered.plus(other.answered),
        )


def insisting(
    n_units: int,
    n_tokens: int,
    refused: float,
    refusals: Refusals,
    answer: Span,
    *,
    turns: int,
    counted: Tokeniser,
) -> Insisting:
    """Estimate the turns after refusals of `n_units` requests of `n_tokens` tokens in all.

    Args:
        n_units: requests on which the user insists if they are refused.
        n_tokens: the tokens of all of them.
        refused: the share of them that is expected to be refused, 0 to 1.
        refusals: how long refusals are, and how often the model goes on refusing.
        answer: the length of an answer, in tokens.
        turns: how often the user insists at most.
        counted: counts the tokens of the user's turns.
    """
    said = [counted.count(text) + AROUND for text in shipped_script().turns[:turns]]
    held = refusals.held
    written = held * refusals.output_tokens + (1 - held) * answer.expected
    expected = _turns(n_units * refused, held, n_units, n_tokens, refusals.text_tokens, said)
    most = _turns(n_units, 1.0, n_units, n_tokens, answer.high, said)
    return Insisting(
        Span(0.0, expected[0], most[0]),
        Span(0.0, expected[1], most[1]),
        Span(0.0, expected[0] * written, most[0] * answer.high),
    )


def _turns(
    asked: float, held: float, n_units: int, n_tokens: int, refusal: float, said: list[int]
) -> tuple[float, float]:
    """Requests, and the tokens in them, if `asked` conversations go on after the first refusal."""
    requests = tokens = 0.0
    length = n_tokens / n_units if n_units else 0.0
    for own in said:
        length += refusal + AROUND + own
        requests += asked
        tokens += asked * length
        asked *= held
    return requests, tokens
