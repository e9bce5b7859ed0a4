"""Records the results of batches that have ended: answers and verdicts."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from refusalkit.engine.batch_exchange import Exchange
from refusalkit.engine.batch_owed import AnswerReader, Owed, is_of
from refusalkit.engine.orphans import retractions
from refusalkit.errors import FatalProviderError
from refusalkit.judges.council import stamped
from refusalkit.judges.llm import LLMJudge
from refusalkit.models.batches import BatchState
from refusalkit.models.chat import ChatModel
from refusalkit.runs.batch_journal import Batch, BatchJournal
from refusalkit.runs.folder import Run
from refusalkit.runs.record_json import verdict_of_outcome
from refusalkit.runs.records import RecordWriter, read_records
from refusalkit.types import Completion, GenerationConfig, Outcome, Unscored
from refusalkit.untrusted import printable

# A batch with at least this many failures and no answer: the next one would fail as well.
_GIVE_UP = 5


class _Collector(ABC):
    """Records the results of a batch, and their counts in the journal."""

    def __init__(
        self, run: Run, exchange: Exchange, journal: BatchJournal, writer: RecordWriter
    ) -> None:
        self._run, self._exchange, self._journal, self._writer = run, exchange, journal, writer
        self._failures: list[str] = []

    async def collect(self, batch: Batch, found: BatchState, owed: Owed) -> None:
        """Record the results of a batch that has ended.

        Raises `FatalProviderError` if every request failed and those of a next batch would too.
        """
        self._failures.clear()
        counts = await self._read(batch, found, owed)
        counts["missing"] = len(batch.units) - counts.total()
        self._journal.collected(batch, +counts)
        if found.failure is not None:
            raise FatalProviderError(
                f"the provider refused the batch {printable(found.id)}: "
                f"{printable(found.failure, 300)}; fix the cause"
            )
        if self._failures and counts["errored"] >= _GIVE_UP and not counts["answered"]:
            raise FatalProviderError(
                f"every request of the batch {printable(found.id)} failed, the last with: "
                f"{self._failures[-1]}; fix the cause"
            )

    @abstractmethod
    async def _read(self, batch: Batch, found: BatchState, owed: Owed) -> Counter[str]:
        """Write the results; returns how many requests were answered, failed and so on."""


class AnswerCollector(_Collector):
    """Records the answers of the model's batches.

    `judge` is the id of the run's judge: outcomes that need no judge get its verdict at once.
    """

    def __init__(
        self,
        run: Run,
        exchange: Exchange,
        journal: BatchJournal,
        writer: RecordWriter,
        *,
        target: ChatModel,
        generation: GenerationConfig,
        judge: str,
    ) -> None:
        super().__init__(run, exchange, journal, writer)
        self._target, self._generation, self._judge = target, generation, judge

    async def _read(self, batch: Batch, found: BatchState, owed: Owed) -> Counter[str]:
        again = self._not_judged(batch, owed)
        failed_before = self._failures_on_record(set(batch.units))
        counts: Counter[str] = Counter()
        for unit, result in await self._exchange.results(batch, found, counts):
            if unit not in owed.answers and unit not in again:
                counts["answered"] += 1  # recorded before a session was killed
                continue
            prompt, trial = (owed.verdicts if unit in again else owed.answers)[unit]
            completion = await self._target.read_batched(prompt, self._generation, trial, result)
            failed = completion.outcome is Outcome.ERROR
            if unit in again and (failed or is_of(again[unit], completion)):
                counts["answered"] += 1
                continue
            counts["errored" if failed else "answered"] += 1
            if failed:
                self._note_failure(completion)
                if (unit, completion.request_id) in failed_before:
                    continue
            for retraction in retractions(prompt, trial, owed.state.orphans.get(unit, ())):
                self._writer.verdict(retraction)
            self._writer.completion(completion)
            verdict = verdict_of_outcome(completion, self._judge)
            if verdict is not None and not failed:
                self._writer.verdict(verdict)
        return counts

    def _note_failure(self, completion: Completion) -> None:
        withheld = self._writer.withholds(completion.category)
        detail = None if withheld else completion.error_detail
        why = ": ".join(filter(None, (completion.error, detail)))
        self._failures.append(why or "error")

    def _not_judged(self, batch: Batch, owed: Owed) -> dict[str, Mapping[str, object]]:
        """Records of withheld answers in this batch that have no verdict, by unit."""
        units = owed.state.withheld.intersection(batch.units) & owed.verdicts.keys()
        places = [owed.state.answers[unit] for unit in units]
        return {
            str(record["unit"]): record
            for _, record in read_records(self._run.completions, sorted(places))
        }

    def _failures_on_record(self, units: set[str]) -> set[tuple[str, str]]:
        """Failed requests of these units that are on record: pairs of unit and request id."""
        return {
            (str(record["unit"]), str(record["request_id"]))
            for _, record in read_records(self._run.completions)
            if record.get("outcome") == Outcome.ERROR.value
            and record.get("unit") in units
            and record.get("request_id") is not None
        }


class VerdictCollector(_Collector):
    """Records the verdicts of the judge's batches.

    Replies that cannot be read are requested again, at most `at_once` at a time.
    """

    def __init__(
        self,
        run: Run,
        exchange: Exchange,
        journal: BatchJournal,
        writer: RecordWriter,
        *,
        grader: LLMJudge,
        answers: AnswerReader,
        at_once: int,
    ) -> None:
        super().__init__(run, exchange, journal, writer)
        self._grader, self._answers, self._at_once = grader, answers, at_once

    async def _read(self, batch: Batch, found: BatchState, owed: Owed) -> Counter[str]:
        grader = self._grader
        counts: Counter[str] = Counter()
        results = dict(await self._exchange.results(batch, found, counts))
        wanted = {unit: what for unit, what in owed.verdicts.items() if unit in results}
        answers = await self._answers.read(wanted, owed.state)
        # The others were recorded before a session was killed, or their answer is lost: then the
        # model is asked again, and the new answer is judged.
        counts["answered"] += len(results) - len(answers)

        async def read(unit: str, completion: Completion) -> None:
            prompt, _ = wanted[unit]
            verdict = await grader.read_batched(prompt, completion, results[unit])
            self._writer.verdict(stamped(verdict, prompt, completion, grader.id))
            failed = verdict.unscored is Unscored.JUDGE_ERROR
            counts["errored" if failed else "answered"] += 1
            if failed:
                self._failures.append(f"judge: {verdict.reason or 'error'}")

        await _side_by_side(
            (partial(read, unit, answer) for unit, answer in answers.items()), self._at_once
        )
        return counts


async def _side_by_side(work: Iterable[Callable[[], Awaitable[None]]], at_once: int) -> None:
    """Run coroutines, at most `at_once` at a time; the first failure cancels the others."""
    left = iter(work)

    async def worker() -> None:
        for start in left:
            await start()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, at_once)):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
