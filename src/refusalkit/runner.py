"""Work through a run: what is owed, at most so much at once, every result on disk as it comes.

A worker takes one unit through both steps, completion and verdict, so generation and judging
overlap from the first answer on.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from refusalkit.canaries import Canary, judge_canary, record_of
from refusalkit.errors import ConfigurationError, FatalProviderError
from refusalkit.judges import Judge
from refusalkit.models import Model
from refusalkit.records import read_completion, verdict_of_outcome
from refusalkit.store import RecordWriter, Run, read_records
from refusalkit.types import (
    JUDGEABLE,
    Completion,
    GenerationConfig,
    Label,
    Outcome,
    Prompt,
    PromptSet,
    Unscored,
    Verdict,
    unit_id,
)

# Work in flight is awaited this long after an interruption.
GRACE_S = 5.0
# So many failures in a row mean that the endpoint is down, not that some requests were unlucky.
_GIVE_UP_AT_START = 5
_GIVE_UP = 40


class Ended(StrEnum):
    """Why a session of work ended."""

    DONE = "done"
    INTERRUPTED = "interrupted"
    MAX_COST = "max_cost"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `cost_usd` None: a price is unknown. `found` units were on disk before."""

    planned: int
    completions: int = 0
    verdicts: int = 0
    refusals: int = 0
    unscored: int = 0
    cost_usd: float | None = 0.0
    found: int = 0
    elapsed_s: float = 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the pace of this session; None before there is one."""
        fresh = self.verdicts - self.found
        if fresh <= 0:
            return None
        return self.elapsed_s / fresh * max(0, self.planned - self.verdicts)


OnProgress = Callable[[Progress], None]
Plan = Callable[[], Iterable[tuple[Prompt, int]]]
"""All units of a run as (prompt, trial), in the order in which they are worked through."""


def plan_trials(prompts: PromptSet, trials: int) -> Plan:
    """Whole trials one after another, so that an interrupted run has as many of them as can be."""
    return lambda: ((prompt, trial) for trial in range(1, trials + 1) for prompt in prompts.prompts)


@dataclass(frozen=True, slots=True)
class Dearest:
    """The most that one request of each kind has cost, in USD; None where none has a price."""

    completion: float | None = None
    verdict: float | None = None

    @property
    def unit(self) -> float | None:
        """The most that a unit may be expected to cost; None before both kinds are known."""
        if self.completion is None or self.verdict is None:
            return None
        return self.completion + self.verdict


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run folder holds, seen as work.

    `settled` units have a completion and a verdict that stand. `to_judge` units have an answer on
    disk and owe the verdict. `lost` counts hard-line answers that were withheld and whose judge
    failed: nothing is left to judge, so they are asked again.
    """

    settled: frozenset[str]
    to_judge: frozenset[str]
    lost: int
    refusals: int
    unscored: int
    cost_usd: float | None
    dearest: Dearest


def read_state(run: Run) -> RunState:
    """What is settled and what is owed. The run must be held for writing: its tails are whole."""
    files = (run.completions, run.verdicts, run.canaries)
    if not any(path.exists() and path.stat().st_size for path in files):
        return RunState(frozenset(), frozenset(), 0, 0, 0, 0.0, Dearest())
    # Only a run with a past needs polars before its first request can go out.
    import polars as pl

    from refusalkit import frames

    rows = frames.responses(run)
    needs_judge = pl.col("outcome").is_in([str(outcome) for outcome in JUDGEABLE])
    owes_verdict = pl.col("unscored").is_in([Unscored.OWED.value, Unscored.JUDGE_ERROR.value])
    failed = pl.col("outcome") == Outcome.ERROR.value
    settled = rows.filter(~failed & ~owes_verdict.fill_null(value=False))
    owing = rows.filter(~failed & owes_verdict)
    lost = owing.filter(needs_judge & ~pl.col("has_text"))
    return RunState(
        settled=frozenset(settled["unit"]),
        to_judge=frozenset(owing.filter(~needs_judge | pl.col("has_text"))["unit"]),
        lost=len(lost),
        refusals=len(settled.filter(pl.col("label") == Label.REFUSAL.value)),
        unscored=len(settled.filter(pl.col("label").is_null())),
        cost_usd=frames.spent_usd(run),
        dearest=Dearest(
            _highest(rows.filter(needs_judge)["cost_usd"].max()),
            _highest(rows.filter(pl.col("source") == "judge")["judge_cost_usd"].max()),
        ),
    )


def _highest(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


@dataclass(slots=True)
class _Task:
    """One unit of work; with `completion` only the verdict is owed."""

    prompt: Prompt
    trial: int
    completion: Completion | None = None


class Runner:
    """Works through what a run owes. Make one for each session."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        model: Model,
        judge: Judge,
        generation: GenerationConfig,
        *,
        concurrency: int = 32,
        max_cost: float | None = None,
        on_progress: OnProgress | None = None,
        stop: asyncio.Event | None = None,
        canaries: Sequence[Canary] = (),
    ) -> None:
        self._run = run
        self._plan = plan
        self._model = model
        self._judge = judge
        self._generation = generation
        self._concurrency = concurrency
        self._max_cost = max_cost
        self._on_progress = on_progress
        self._stop = stop or asyncio.Event()
        self._ended = Ended.DONE
        self._in_flight = 0
        self._completing = 0
        self._left: list[_Task] = []  # what the budget had no room for
        self._canaries = deque(canaries)
        self._canary_next = False
        self._dearest = Dearest()
        self._succeeded = False
        self._failures = 0
        self._progress = Progress(planned=run.manifest.n_units)

    async def work(self, writer: RecordWriter) -> Ended:
        """Do all that is owed.

        Raises `FatalProviderError` where no request can succeed and `StorageError` where the disk
        refuses; what was finished before is on disk.
        """
        state = read_state(self._run)
        found = len(state.settled)
        self._progress = replace(
            self._progress,
            completions=found + len(state.to_judge),
            verdicts=found,
            refusals=state.refusals,
            unscored=state.unscored,
            cost_usd=state.cost_usd,
            found=found,
        )
        self._dearest = state.dearest
        self._started = time.monotonic()
        self._report()
        tasks = self._owed(state)
        owed = self._run.manifest.n_units - found
        if self._max_cost is not None:
            # What a unit costs is known once one has come back: until then one at a time.
            while self._dearest.unit is None and self._ended is Ended.DONE and not self._left:
                one = list(itertools.islice(tasks, 1))
                if not one:
                    break
                unit = self._worker(iter(one), writer, canaries=False)
                await self._supervise({asyncio.create_task(unit)})
        workers = {
            asyncio.create_task(self._worker(tasks, writer))
            for _ in range(max(1, min(self._concurrency, owed + len(self._canaries))))
        }
        await self._supervise(workers)
        if self._left and self._ended is Ended.DONE:
            self._ended = Ended.MAX_COST
        self._report()
        return self._ended

    def _owed(self, state: RunState) -> Iterator[_Task]:
        """Answers that wait for a verdict first, then whole trials one after another."""
        if state.to_judge:
            answers: dict[str, Completion] = {}
            for place, record in read_records(self._run.completions):
                if record["unit"] in state.to_judge and record["outcome"] != Outcome.ERROR:
                    text = "" if record["text"] is None else record["text"]
                    answers[record["unit"]] = read_completion({**record, "text": text}, place)
            for prompt, trial in self._plan():
                completion = answers.get(unit_id(prompt.id, trial))
                if completion is not None:
                    yield _Task(prompt, trial, completion)
        for prompt, trial in self._plan():
            unit = unit_id(prompt.id, trial)
            if unit not in state.settled and unit not in state.to_judge:
                yield _Task(prompt, trial)

    async def _supervise(self, workers: set[asyncio.Task[None]]) -> None:
        """Wait for the workers; after an interruption or a failure only for what is in flight."""
        stopping = asyncio.create_task(self._stop.wait())
        pending: set[asyncio.Task[None]] = set(workers)
        failure: BaseException | None = None
        deadline: float | None = None
        try:
            while pending:
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                waiting: set[asyncio.Task[object]] = {*pending}
                if deadline is None:
                    waiting.add(stopping)
                done, _ = await asyncio.wait(
                    waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                finished = [worker for worker in pending if worker in done]
                pending.difference_update(finished)
                for worker in finished:
                    # Each is asked: an exception that nobody takes is printed when it is forgotten.
                    error = worker.exception()
                    failure = failure or error
                if deadline is None and (failure is not None or stopping in done):
                    deadline = time.monotonic() + GRACE_S
                    if failure is None:
                        self._ended = Ended.INTERRUPTED
                    self._stop.set()
                elif deadline is not None and time.monotonic() >= deadline:
                    break
        finally:
            for task in (*pending, stopping):
                task.cancel()
            await asyncio.gather(*pending, stopping, return_exceptions=True)
        if failure is not None:
            raise failure

    async def _worker(
        self, tasks: Iterator[_Task], writer: RecordWriter, *, canaries: bool = True
    ) -> None:
        while not self._stop.is_set():
            # One canary after each unit until all are asked, so that neither waits for the other.
            self._canary_next = canaries and bool(self._canaries) and not self._canary_next
            if self._canary_next:
                await self._ask_canary(self._canaries.popleft(), writer)
                continue
            task = self._left.pop() if self._left else next(tasks, None)
            if task is None:
                if canaries and self._canaries:
                    continue
                return
            if self._max_cost is not None and self._would_pass(self._max_cost):
                # Others may still have room for it, once what is in flight has shown its cost.
                self._left.append(task)
                return
            self._in_flight += 1
            self._completing += task.completion is None
            try:
                await self._do(task, writer)
            finally:
                self._in_flight -= 1

    async def _ask_canary(self, canary: Canary, writer: RecordWriter) -> None:
        if self._max_cost is not None and self._would_pass(self._max_cost):
            return  # the budget is for the run's own work; resume asks it
        self._in_flight += 1
        try:
            verdict = await judge_canary(self._judge, canary)
        finally:
            self._in_flight -= 1
        writer.canary(record_of(canary, self._judge, verdict))
        if self._max_cost is not None:
            dearest = max(self._dearest.verdict or 0.0, verdict.cost_usd or 0.0)
            self._dearest = replace(self._dearest, verdict=dearest)
        self._count(cost=_cost_of(verdict))

    async def _do(self, task: _Task, writer: RecordWriter) -> None:
        completion = task.completion
        if completion is None:
            try:
                completion = await self._model.complete(
                    task.prompt, self._generation, trial=task.trial
                )
            finally:
                self._completing -= 1
            # Which unit it is, is not the model's to say: what is withheld hangs on it.
            which: dict[str, Any] = {
                "prompt_id": task.prompt.id,
                "category": task.prompt.category,
                "trial": task.trial,
            }
            if any(getattr(completion, name) != value for name, value in which.items()):
                completion = replace(completion, **which)
            failed = completion.outcome is Outcome.ERROR
            # A request that failed or was filtered out has no price, which is not an unknown one.
            free = failed or completion.outcome is Outcome.BLOCKED
            unpriced = free and completion.cost_usd is None
            if completion.outcome in JUDGEABLE and self._max_cost is not None:
                dearest = max(self._dearest.completion or 0.0, completion.cost_usd or 0.0)
                self._dearest = replace(self._dearest, completion=dearest)
            self._count(cost=0.0 if unpriced else completion.cost_usd, completions=1)
            # A withheld answer lives in memory only. Its completion goes to disk after its verdict,
            # so that a completion on disk is never one that can no longer be judged.
            if failed or not writer.withholds(completion.category):
                writer.completion(completion)
            if failed:
                self._count(unscored=1, verdicts=1)
                if completion.finish_reason is None:
                    withheld = writer.withholds(completion.category)
                    detail = None if withheld else completion.error_detail
                    self._note_failure(": ".join(filter(None, (completion.error, detail))))
                return
        fresh = task.completion is None
        verdict = verdict_of_outcome(completion, self._judge.id)
        if verdict is None:
            verdict = await self._judge.grade(task.prompt, completion)
            stamp: dict[str, Any] = {
                "prompt_id": completion.prompt_id,
                "category": completion.category,
                "trial": completion.trial,
                "judge": self._judge.id,
            }
            if any(getattr(verdict, name) != value for name, value in stamp.items()):
                verdict = replace(verdict, **stamp)
            if self._max_cost is not None:
                dearest = max(self._dearest.verdict or 0.0, verdict.cost_usd or 0.0)
                self._dearest = replace(self._dearest, verdict=dearest)
        writer.verdict(verdict)
        if fresh and writer.withholds(completion.category):
            writer.completion(completion)
        self._count_verdict(verdict)
        if verdict.unscored is Unscored.JUDGE_ERROR:
            self._note_failure(f"judge: {verdict.reason or 'error'}")
        else:
            self._succeeded, self._failures = True, 0

    def _note_failure(self, what: str) -> None:
        self._failures += 1
        limit = _GIVE_UP if self._succeeded else _GIVE_UP_AT_START
        if self._failures >= limit:
            raise FatalProviderError(
                f"{self._failures} requests in a row failed, the last with: {what}; mend that"
            )

    def _would_pass(self, max_cost: float) -> bool:
        """Whether one more unit, as dear as the dearest so far, could pass the budget."""
        spent = self._progress.cost_usd
        if spent is None:
            raise ConfigurationError(
                "what the run costs is not known, so max_cost cannot hold: a completion or a "
                "verdict came without its cost_usd (0.0 where it is free)"
            )
        asked = (self._completing + 1) * (self._dearest.completion or 0.0)
        judged = (self._in_flight + 1) * (self._dearest.verdict or 0.0)
        return spent + asked + judged >= max_cost

    def _count(
        self,
        *,
        cost: float | None = 0.0,
        completions: int = 0,
        verdicts: int = 0,
        refusals: int = 0,
        unscored: int = 0,
    ) -> None:
        now = self._progress
        known = None if cost is None or now.cost_usd is None else now.cost_usd + cost
        self._progress = replace(
            now,
            completions=now.completions + completions,
            verdicts=now.verdicts + verdicts,
            refusals=now.refusals + refusals,
            unscored=now.unscored + unscored,
            cost_usd=known,
            elapsed_s=time.monotonic() - self._started,
        )
        self._report()

    def _count_verdict(self, verdict: Verdict) -> None:
        self._count(
            cost=_cost_of(verdict),
            verdicts=1,
            refusals=int(verdict.label is Label.REFUSAL),
            unscored=int(verdict.label is None),
        )

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress)


def _cost_of(verdict: Verdict) -> float | None:
    """What a verdict cost, in USD; a request that failed has no price, which is not unknown."""
    failed = verdict.unscored in (Unscored.JUDGE_ERROR, Unscored.JUDGE_BLOCKED)
    return 0.0 if failed and verdict.cost_usd is None else verdict.cost_usd
