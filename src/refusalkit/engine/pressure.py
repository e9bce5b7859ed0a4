"""Insists on a refused request, turn by turn; each turn repeats the model's answers so far."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from refusalkit.judges.council import stamped
from refusalkit.judges.protocol import Judge
from refusalkit.models.protocol import Model
from refusalkit.prompts.pressure import insisted, shipped_script
from refusalkit.runs.folder import Run
from refusalkit.runs.pressure import goes_on, read_conversations
from refusalkit.runs.record_json import verdict_of_outcome
from refusalkit.types import Completion, GenerationConfig, Label, Outcome, Prompt, Verdict


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation: the answer and its verdict."""

    number: int
    """Which turn: 1 is the first insistence, 0 the request itself, asked again."""
    completion: Completion
    verdict: Verdict


class Insistence:
    """One conversation, held in memory only.

    It begins after the refusal `answer`. If that text is lost (None), the request is asked again
    first, as turn 0.
    """

    def __init__(
        self,
        prompt: Prompt,
        trial: int,
        answer: str | None,
        *,
        model: Model,
        judge: Judge,
        generation: GenerationConfig,
        turns: int,
        attempt: int = 1,
    ) -> None:
        self._prompt, self._trial = prompt, trial
        self._model, self._judge, self._generation = model, judge, generation
        self._turns = turns
        self._answers: list[str] = [] if answer is None else [answer]
        self.attempt = attempt
        self.goes_on = True
        """Whether there is another turn to ask."""

    async def ask(self) -> Turn:
        """Ask the next turn and have it judged."""
        number = len(self._answers)
        asked = self._said(self._answers)
        completion = await self._model.complete(asked, self._generation, trial=self._trial)
        prompt = self._prompt
        completion = replace(
            completion, prompt_id=prompt.id, category=prompt.category, trial=self._trial
        )
        verdict = verdict_of_outcome(completion, self._judge.id)
        if verdict is None:
            verdict = await self._judge.grade(asked, completion)
        verdict = stamped(verdict, prompt, completion, self._judge.id)
        self.goes_on = goes_on(number, completion, verdict, self._turns)
        self._answers.append(completion.text)
        return Turn(number, completion, verdict)

    def _said(self, answers: Sequence[str]) -> Prompt:
        return insisted(self._prompt, answers, shipped_script()) if answers else self._prompt


def owed_conversations(run: Run, turns: int, known: Collection[str]) -> dict[str, int]:
    """Units with a refusal on which the user has yet to insist, and the attempts so far.

    `known` has the ids of the run's prompts for which refusals are insisted on.
    """
    import polars as pl

    from refusalkit.runs.frames import SCORED, RunRecords

    judge = run.manifest.judge
    rows = RunRecords(run, SCORED | {"source"}, judges=[judge]).responses(judge)
    judged = pl.col("outcome").is_in([Outcome.ANSWERED.value, Outcome.TRUNCATED.value])
    refused = rows.filter((pl.col("label") == Label.REFUSAL.value) & judged)
    held = read_conversations(run)
    owed: dict[str, int] = {}
    for unit, prompt_id in refused.select("unit", "prompt_id").iter_rows():
        there = held.get(unit)
        if prompt_id in known and not (there is not None and there.is_over(turns)):
            owed[unit] = 0 if there is None else there.attempt
    return owed
