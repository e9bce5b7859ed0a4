"""The units of a run in batches that still need an answer or a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from refusalkit.engine.batch_exchange import Exchange
from refusalkit.engine.plan import Plan
from refusalkit.models.chat import ChatModel
from refusalkit.models.recorded_answers import RecordedModel
from refusalkit.runs.folder import Run
from refusalkit.runs.record_json import completion_from_record, completion_record
from refusalkit.runs.records import read_records
from refusalkit.runs.state import RunState
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt, unit_id

_READABLE = frozenset({Outcome.ANSWERED.value, Outcome.TRUNCATED.value})


@dataclass(frozen=True, slots=True)
class Owed:
    """What is still to be done: units without an answer, and units whose answer has no verdict."""

    state: RunState
    answers: Mapping[str, tuple[Prompt, int]]
    """Prompt and trial of each unit without an answer, by unit."""
    verdicts: Mapping[str, tuple[Prompt, int]]
    """Prompt and trial of each unit whose answer has no verdict, by unit."""

    @classmethod
    def of(cls, state: RunState, plan: Plan) -> Owed:
        """The units of the plan that are not settled."""
        there = state.to_judge | state.withheld
        answers: dict[str, tuple[Prompt, int]] = {}
        verdicts: dict[str, tuple[Prompt, int]] = {}
        for prompt, trial in state.settled.leave(plan()):
            unit = unit_id(prompt.id, trial)
            (verdicts if unit in there else answers)[unit] = (prompt, trial)
        return cls(state, answers, verdicts)


class AnswerReader:
    """Reads answers that need a verdict, from disk or from their source.

    An answer whose text was not kept is read again from the results of the model's batches
    (`in_batches`, `target`), from the `recorded` answers that are graded, or from `texts` by unit.
    Each of these sources may be missing.
    """

    def __init__(
        self,
        run: Run,
        generation: GenerationConfig,
        *,
        in_batches: Exchange | None,
        target: ChatModel | None,
        recorded: RecordedModel | None,
        texts: Mapping[str, str],
    ) -> None:
        self._run, self._generation = run, generation
        self._in_batches, self._target = in_batches, target
        self._recorded, self._texts = recorded, texts

    def __repr__(self) -> str:
        return f"AnswerReader({str(self._run.path)!r})"

    async def read(
        self, units: Mapping[str, tuple[Prompt, int]], state: RunState
    ) -> dict[str, Completion]:
        """The answers to `units`; those whose text is lost are left out."""
        found: dict[str, Completion] = {}
        gone: dict[str, Mapping[str, object]] = {}
        places = {state.answers[unit]: unit for unit in units}
        for place, record in read_records(self._run.completions, sorted(places)):
            unit = str(record.get("unit"))
            text = record.get("text")
            if text is None and record.get("outcome") in _READABLE:
                text = self._texts.get(unit)
                if text is None:
                    gone[unit] = record
                    continue
            found[unit] = completion_from_record({**record, "text": text or ""}, place)
        found.update(await self._read_recorded(gone, units))
        found.update(await self._read_batches(gone, units))
        return found

    async def _read_recorded(
        self,
        gone: Mapping[str, Mapping[str, object]],
        units: Mapping[str, tuple[Prompt, int]],
    ) -> dict[str, Completion]:
        """Answers whose text was not kept, from the recorded answers that are graded."""
        found: dict[str, Completion] = {}
        if self._recorded is None:
            return found
        for unit, record in gone.items():
            prompt, trial = units[unit]
            answer = await self._recorded.complete(prompt, self._generation, trial=trial)
            if is_of(record, answer):
                found[unit] = answer
        return found

    async def _read_batches(
        self,
        gone: Mapping[str, Mapping[str, object]],
        units: Mapping[str, tuple[Prompt, int]],
    ) -> dict[str, Completion]:
        """Answers whose text was not kept, from the model's batches, the latest first.

        Only an answer with the digest on record is taken.
        """
        found: dict[str, Completion] = {}
        if not gone or self._in_batches is None or self._target is None:
            return found
        for batch in reversed(self._in_batches.batches):
            left = set(batch.units) & gone.keys() - found.keys()
            if batch.id is None or not left:
                continue
            for unit, result in await self._in_batches.results_again(batch):
                if unit not in left:
                    continue
                prompt, trial = units[unit]
                answer = await self._target.read_batched(prompt, self._generation, trial, result)
                if is_of(gone[unit], answer):
                    found[unit] = answer
        return found


def is_of(record: Mapping[str, object], completion: Completion) -> bool:
    """Whether a withheld answer's record belongs to this completion."""
    written = completion_record(completion, withhold_text=True)
    fields = ("text_sha256", "request_id")
    return all(record.get(name) == written[name] for name in fields)
