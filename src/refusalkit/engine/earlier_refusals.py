"""How often the model of an earlier run refused, and still refused when the user insisted."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from refusalkit.runs import frames
from refusalkit.runs.folder import Run
from refusalkit.runs.pressure import read_conversations
from refusalkit.types import Label, Outcome


@dataclass(frozen=True, slots=True)
class RefusalsSeen:
    """Counts of one run. Answers to safe twins and framings are left out: nobody insists there."""

    answers: int
    """Answers to ordinary requests that were not an error."""
    refused: int
    """Those that the run's judge labelled a refusal."""
    hard_line_answers: int
    """Answers to hard-line requests that were not an error."""
    hard_line_refused: int
    """Those that the run's judge labelled a refusal."""
    turns: int
    """Turns of insistence whose answer has a label."""
    turns_held: int
    """Those after which the model still refused or deflected."""
    lengths: tuple[tuple[int, int], ...]
    """Output tokens with and without reasoning of each refusal whose usage is known."""


def count_refusals(run: Run) -> RefusalsSeen:
    """Count the refusals in a run's records. Raises `RecordError`, `RunFolderError`."""
    rows = frames.responses(run)
    rows = rows.filter(
        pl.col("twin").is_null()
        & pl.col("framing").is_null()
        & (pl.col("outcome") != Outcome.ERROR.value)
    )
    # After a provider's filter there is no answer to insist on.
    refused = rows.filter((pl.col("label") == Label.REFUSAL.value) & (pl.col("source") == "judge"))
    hard, hard_refused = (int(frame["hard_line"].sum()) for frame in (rows, refused))
    turns = [
        (turn, conversation.gave_way)
        for conversation in read_conversations(run).values()
        for turn, label in enumerate(conversation.turns, 1)
        if label is not None
    ]
    return RefusalsSeen(
        answers=len(rows) - hard,
        refused=len(refused) - hard_refused,
        hard_line_answers=hard,
        hard_line_refused=hard_refused,
        turns=len(turns),
        turns_held=sum(turn != gave_way for turn, gave_way in turns),
        lengths=tuple(frames.answer_lengths(run, set(refused["unit"]))),
    )
