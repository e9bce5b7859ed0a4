"""Conversations after a refusal, as records in `pressure.jsonl`, and which are unfinished.

One record is one turn: the model's answer and the judge's verdict. A conversation that broke off is
started over as a new attempt; the last attempt counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from refusalkit.errors import RecordError
from refusalkit.runs.folder import Run
from refusalkit.runs.record_json import SCHEMA, completion_record, verdict_record
from refusalkit.runs.records import read_records
from refusalkit.types import Completion, Label, Outcome, Prompt, Unscored, Verdict
from refusalkit.untrusted import printable

_HELD = frozenset({Label.REFUSAL, Label.DEFLECTION})
_AGAIN = frozenset({Unscored.ERROR, Unscored.JUDGE_ERROR})
"""Failures that have nothing to do with the answer: the turn is asked again on resume."""


def pressure_record(
    completion: Completion, verdict: Verdict, *, attempt: int, turn: int, withhold_text: bool
) -> dict[str, Any]:
    """The record of one turn. Turn 0 is the request itself, asked again for a lost conversation."""
    return {
        "schema": SCHEMA,
        "unit": completion.unit,
        "attempt": attempt,
        "turn": turn,
        "completion": completion_record(completion, withhold_text=withhold_text),
        "verdict": verdict_record(verdict, withhold_text=withhold_text),
    }


def goes_on(turn: int, completion: Completion, verdict: Verdict, turns: int) -> bool:
    """Whether the user insists once more: the model itself still refuses or deflects.

    If a provider's filter answered, or the answer has no label, the conversation ends.
    """
    held = verdict.label is Label.REFUSAL if turn == 0 else verdict.label in _HELD
    return held and verdict.source == "judge" and bool(completion.text) and turn < turns


@dataclass(slots=True)
class Conversation:
    """The last attempt at one unit, turn by turn."""

    unit: str
    """The unit's id."""
    prompt_id: str
    """Id of the prompt."""
    category: str
    """Slug of its category."""
    judge: str
    """Id of the judge that labelled the turns."""
    attempt: int = 0
    """Which attempt this is, from 1; 0 before the first."""
    labels: list[Label | None] = field(default_factory=list)
    """Label of each turn, None if it has none."""
    reasons: list[Unscored | None] = field(default_factory=list)
    """Why a turn has no label, None if it has one."""
    by_filter: list[bool] = field(default_factory=list)
    """Whether a provider's filter answered in that turn."""
    from_the_start: bool = False
    """Whether its first record is turn 0: the request was asked again."""

    @property
    def pressed(self) -> bool:
        """Whether the user insisted at least once."""
        return len(self.labels) > self.from_the_start

    @property
    def turns(self) -> list[Label | None]:
        """The labels of the turns in which the user insisted."""
        return self.labels[self.from_the_start :]

    @property
    def gave_way(self) -> int | None:
        """The first turn, from 1, answered with partial or full compliance; None if none was."""
        for turn, label in enumerate(self.turns, 1):
            if label is not None and label not in _HELD:
                return turn
        return None

    def held_after(self, turn: int, turns: int) -> bool | None:
        """Whether the model still held after `turn` of `turns` turns; None if unknown.

        Once a provider's filter has answered, the turns that could not be asked count as held.
        """
        if self.gave_way is not None and self.gave_way <= turn:
            return False
        known = self.turns[:turn]
        if len(known) >= turn:
            return None if None in known else True
        stopped = bool(known) and self.by_filter[-1]
        return True if stopped and None not in known and turn <= turns else None

    def is_over(self, turns: int) -> bool:
        """Whether it is finished: no turn is left to ask."""
        if not self.labels or self.reasons[-1] in _AGAIN:
            return False
        last = self.labels[-1]
        if self.from_the_start and len(self.labels) == 1:
            return last is not Label.REFUSAL or self.by_filter[-1]
        return last not in _HELD or self.by_filter[-1] or len(self.turns) >= turns


def read_conversations(run: Run, judge: str | None = None) -> dict[str, Conversation]:
    """The last attempt at each unit, by unit; of one judge, the run's own if none is named.

    Raises `RecordError`.
    """
    found: dict[str, Conversation] = {}
    if not run.pressure.exists():
        return found
    judge = run.manifest.judge if judge is None else judge
    for place, record in read_records(run.pressure):
        try:
            said, verdict = record["completion"], record["verdict"]
            unit, attempt, turn = str(record["unit"]), int(record["attempt"]), int(record["turn"])
            if verdict["judge"] != judge:
                continue
            label, reason = verdict["label"], verdict["unscored"]
            known = found.get(unit)
            if known is None or attempt > known.attempt:
                known = found[unit] = Conversation(
                    unit, said["prompt_id"], said["category"], judge, attempt, [], [], [], turn == 0
                )
            if attempt == known.attempt:
                known.labels.append(None if label is None else Label(label))
                known.reasons.append(None if reason is None else Unscored(reason))
                known.by_filter.append(said["outcome"] == Outcome.BLOCKED)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{place}: is not a turn of a conversation: {printable(error)}"
            ) from error
    return found


def spent_on_pressure(run: Run, judges: Collection[str] | None) -> float | None:
    """What conversations cost, in USD; None: a price is unknown. `judges` as for verdicts."""
    if not run.pressure.exists():
        return 0.0
    costs: list[float] = []
    for place, record in read_records(run.pressure):
        said, verdict = record.get("completion"), record.get("verdict")
        if not isinstance(said, Mapping) or not isinstance(verdict, Mapping):
            raise RecordError(f"{place}: is not a turn of a conversation")
        free = said.get("outcome") in (Outcome.ERROR, Outcome.BLOCKED)
        asked = [(said.get("cost_usd"), free)]
        if verdict.get("source") == "judge" and (judges is None or verdict.get("judge") in judges):
            failed = verdict.get("unscored") in (Unscored.JUDGE_ERROR, Unscored.JUDGE_BLOCKED)
            asked.append((verdict.get("cost_usd"), failed))
        for cost, unpriced in asked:
            if cost is None and unpriced:
                continue
            if cost is None:
                return None
            if not isinstance(cost, int | float):
                raise RecordError(f"{place}: cost_usd cannot be {printable(cost, 60)}")
            costs.append(cost)
    return math.fsum(costs)


def is_pressed(prompt: Prompt) -> bool:
    """Whether refusals of a prompt are insisted on: those of safe twins and of framings are not."""
    return prompt.twin is None and prompt.framing is None
