"""Works through a run: requests what is missing and writes each result as it arrives.

A worker takes one unit through both steps, completion and verdict, so generation and judging
overlap from the first answer on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from refusalkit.engine.budget import Budget, RunBudget
from refusalkit.engine.early_signs import EarlySigns
from refusalkit.engine.failures import FailureStreak
from refusalkit.engine.orphans import retractions
from refusalkit.engine.panel_votes import PanelVotes
from refusalkit.engine.plan import Ended, JudgeLater, OnProgress, Plan, Progress, StopRule
from refusalkit.engine.pressure import Insistence, owed_conversations
from refusalkit.engine.tasks import Task, owed_tasks
from refusalkit.judges.council import Panel, stamped, total_cost
from refusalkit.judges.protocol import Judge
from refusalkit.models.protocol import Model
from refusalkit.runs.canaries import Canary, judge_canary, record_of
from refusalkit.runs.checkpoint import Checkpoint
from refusalkit.runs.folder import Run
from refusalkit.runs.pressure import (
    goes_on,
    is_pressed,
    pressure_record,
)
from refusalkit.runs.record_json import (
    verdict_of_outcome,
    withheld_verdict,
)
from refusalkit.runs.records import RecordWriter
from refusalkit.runs.state import CheckpointWriter, RunState, read_state
from refusalkit.types import (
    Completion,
    GenerationConfig,
    Label,
    Outcome,
    Prompt,
    Unscored,
    Verdict,
    unit_parts,
)
from refusalkit.untrusted import printable

_T = TypeVar("_T")

# Seconds to wait for requests in flight after an interruption.
GRACE_S = 5.0
# A SIGINT handler that cancels the task, as ipykernel's does, does not wake an idle event loop. So
# the loop wakes up at this interval, in seconds, and notices a stop while answers are slow.
_WAKE_S = 0.25


class Runner:
    """Does the open work of a run. Each session needs a new one.

    Without a `model` no answers are requested: `judge`, any judge of the run, judges again what is
    on disk. `texts` then has, by unit, answers that the run withheld and the caller knows from
    elsewhere. `max_cost` bounds this run, `budget` several together (USD); `ceiling_usd` is the
    most that one completion can cost, if known. `kept` is a checkpoint of the run, loaded
    beforehand. `stop_rule` ends the work early; it has already seen the records on disk. `pressure`
    is how many times a refusal is insisted on. `judge_later` says which answers get no verdict.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        model: Model | None,
        judge: Judge,
        generation: GenerationConfig,
        *,
        concurrency: int = 32,
        max_cost: float | None = None,
        on_progress: OnProgress | None = None,
        stop: asyncio.Event | None = None,
        texts: Mapping[str, str] | None = None,
        canaries: Sequence[Canary] = (),
        budget: Budget | None = None,
        ceiling_usd: float | None = None,
        kept: Checkpoint | None = None,
        stop_rule: StopRule | None = None,
        pressure: int = 0,
        judge_later: JudgeLater = "none",
    ) -> None:
        self._texts = texts or {}
        self._kept = kept
        self._judge_later = judge_later
        self._stop_rule = stop_rule
        self._pressure = 0 if model is None else pressure
        self._to_press: list[Insistence] = []
        self._run = run
        self._plan = plan
        self._model = model
        self._judge = judge
        self._panel = judge if isinstance(judge, Panel) else None
        self._generation = generation
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._stop = stop or asyncio.Event()
        self._ended = Ended.DONE
        self._left: list[Task] = []  # what the budget had no room for
        self._canaries = deque(canaries)
        self._canary_next = False
        self._checkpoint_writer: CheckpointWriter | None = None
        self._orphans: Mapping[str, tuple[str, ...]] = {}
        budgets = [*([] if max_cost is None else [Budget(max_cost)]), *filter(None, [budget])]
        self._budget = RunBudget(*budgets, ceiling_usd=ceiling_usd)
        self._failures = FailureStreak()
        self._signs = EarlySigns()
        self._progress = Progress(planned=run.manifest.n_units)

    async def work(self, writer: RecordWriter) -> Ended:
        """Do all open units.

        Raises `FatalProviderError` if no request can succeed and `StorageError` if a write fails;
        what was finished before is on disk.
        """
        if self._model is None:
            state = read_state(self._run, self._judge.id)
        else:
            state = read_state(self._run, kept=self._kept)
            self._checkpoint_writer = CheckpointWriter(self._run, writer, state)
        try:
            return await self._work(state, writer)
        finally:
            if self._checkpoint_writer is not None:
                await self._checkpoint_writer.close()

    async def _work(self, state: RunState, writer: RecordWriter) -> Ended:
        self._orphans = {} if self._model is None else state.orphans
        found = len(state.settled)
        came_back = found + len(state.to_judge)
        planned = self._run.manifest.n_units
        if self._model is None:
            came_back = planned = came_back + len(state.withheld)
        self._progress = self._progress._replace(
            planned=planned,
            completions=came_back,
            verdicts=found,
            refusals=state.refusals,
            unscored=state.unscored,
            cost_usd=state.cost_usd,
            found=found,
        )
        self._budget.go_on(state.cost_usd, state.dearest, found)
        self._started = time.monotonic()
        self._report()
        tasks = owed_tasks(
            self._run,
            self._plan,
            state,
            self._judge,
            asks=self._model is not None,
            judges=self._judge_later == "none",
            texts=self._texts,
        )
        if self._pressure and came_back:
            self._to_press = self._broken_off()
        owed = planned - found + len(self._to_press)
        workers = {
            asyncio.create_task(self._worker(tasks, writer))
            for _ in range(max(1, min(self._concurrency, owed + len(self._canaries))))
        }
        await self._supervise(workers)
        settled = None if self._stop_rule is None else self._stop_rule.met
        if settled is not None and self._ended is not Ended.INTERRUPTED:
            self._ended = settled
        elif self._left and self._ended is Ended.DONE:
            self._ended = Ended.MAX_COST
        self._report()
        return self._ended

    async def _supervise(self, workers: set[asyncio.Task[None]]) -> None:
        """Wait for the workers; once stopped or failed, only `GRACE_S` for requests in flight."""
        stopping = asyncio.create_task(self._stop.wait())
        pending: set[asyncio.Task[None]] = set(workers)
        failure: BaseException | None = None
        deadline: float | None = None
        try:
            while pending:
                timeout = _WAKE_S if deadline is None else max(0.0, deadline - time.monotonic())
                waiting: set[asyncio.Task[object]] = {*pending}
                if deadline is None:
                    waiting.add(stopping)
                done, _ = await asyncio.wait(
                    waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                finished = [worker for worker in pending if worker in done]
                pending.difference_update(finished)
                for worker in finished:
                    # Every exception is retrieved: asyncio prints those that are not.
                    error = worker.exception()
                    failure = failure or error
                if deadline is None and (failure is not None or stopping in done):
                    deadline = time.monotonic() + GRACE_S
                    if failure is None:
                        self._ended = Ended.INTERRUPTED
                    self._stop.set()
                    self._budget.wake()
                elif deadline is not None and time.monotonic() >= deadline:
                    break
        finally:
            for task in (*pending, stopping):
                task.cancel()
            await asyncio.gather(*pending, stopping, return_exceptions=True)
        if failure is not None:
            raise failure

    async def _worker(self, tasks: Iterator[Task], writer: RecordWriter) -> None:
        while not self._stop.is_set() and not self._is_settled():
            # Alternate units and canaries until no canary is left.
            self._canary_next = bool(self._canaries) and not self._canary_next
            if self._canary_next:
                await self._ask_canary(self._canaries.popleft(), writer)
                continue
            task = self._left.pop() if self._left else next(tasks, None)
            if task is None:
                if self._canaries:
                    continue
                if self._to_press:
                    await self._press(self._to_press.pop(), writer)
                    continue
                return
            if not await self._begin(completes=task.completion is None):
                self._left.append(task)
                return
            try:
                begun = await self._do(task, writer)
            finally:
                self._budget.end()
            if begun is not None:
                await self._press(begun, writer)
            if self._checkpoint_writer is not None:
                self._checkpoint_writer.maybe_save()

    def _is_settled(self) -> bool:
        """Whether the stop rule is met: units in flight are finished, no more are started."""
        return self._stop_rule is not None and self._stop_rule.met is not None

    async def _begin(self, *, completes: bool) -> bool:
        """Start a unit once the budget has room for it; False if it never will."""
        while not self._budget.begin(completes=completes):
            # Units in flight mostly turn out cheaper than their upper bound.
            if not self._budget.may_find_room(completes=completes):
                return False
            await self._budget.changed()
            if self._stop.is_set() or self._is_settled():
                return False
        return True

    async def _ask_canary(self, canary: Canary, writer: RecordWriter) -> None:
        if not await self._begin(completes=False):
            return  # resume asks it
        try:
            verdict = await judge_canary(self._judge, canary)
        finally:
            self._budget.end()
        writer.canary(record_of(canary, self._judge, verdict))
        self._budget.saw_verdict(verdict.cost_usd)
        self._count(cost=total_cost([verdict]))

    def _insist(
        self, prompt: Prompt, trial: int, answer: str | None, attempts: int = 0
    ) -> Insistence:
        assert self._model is not None, "only a model is insisted on"
        return Insistence(
            prompt,
            trial,
            answer,
            model=self._model,
            judge=self._judge,
            generation=self._generation,
            turns=self._pressure,
            attempt=attempts + 1,
        )

    def _broken_off(self) -> list[Insistence]:
        """Conversations that an earlier session did not finish.

        Each starts over: from the refusal on disk, or from the request if the refusal is withheld.
        """
        from refusalkit.runs import frames

        prompts = {p.id: p for _, part in self._plan() for p in part if is_pressed(p)}
        owed = owed_conversations(self._run, self._pressure, prompts.keys())
        kept = frames.texts(self._run, owed)
        return [
            self._insist(prompts[name], trial, kept.get(unit), attempts)
            for unit, attempts in owed.items()
            for name, trial in [unit_parts(unit)]
        ]

    async def _press(self, conversation: Insistence, writer: RecordWriter) -> None:
        """Insist turn by turn; each turn is paid for and on disk before the next."""
        while conversation.goes_on and not self._stop.is_set():
            if not await self._begin(completes=True):
                self._ended = self._ended if self._stop.is_set() else Ended.MAX_COST
                return
            try:
                turn = await conversation.ask()
            finally:
                self._budget.completed()
                self._budget.end()
            completion, verdict = turn.completion, turn.verdict
            withhold = writer.withholds(completion.category)
            writer.pressure(
                pressure_record(
                    completion,
                    verdict,
                    attempt=conversation.attempt,
                    turn=turn.number,
                    withhold_text=withhold,
                )
            )
            free = completion.outcome in (Outcome.ERROR, Outcome.BLOCKED)
            unpriced = free and completion.cost_usd is None
            self._budget.saw_completion(completion.cost_usd)
            self._budget.saw_verdict(verdict.cost_usd)
            self._count(cost=0.0 if unpriced else completion.cost_usd)
            self._count(cost=total_cost([verdict]))
            if completion.outcome is Outcome.ERROR and completion.finish_reason is None:
                self._failures.note(completion.error, None if withhold else completion.error_detail)
            elif verdict.unscored is Unscored.JUDGE_ERROR:
                self._failures.note(f"judge: {verdict.reason or 'error'}", None)
            else:
                self._failures.end()

    async def _do(self, task: Task, writer: RecordWriter) -> Insistence | None:
        """Complete and judge one unit; returns the conversation that goes on from it, if any."""
        completion = task.completion
        if completion is None:
            assert self._model is not None, "only a model's run owes answers"
            try:
                completion = _returned(
                    await self._model.complete(task.prompt, self._generation, trial=task.trial),
                    Completion,
                    self._model.id,
                )
            finally:
                self._budget.completed()
            # Set here and not by the model: the category decides whether the text is withheld.
            prompt = task.prompt
            says = (completion.prompt_id, completion.category, completion.trial)
            if says != (prompt.id, prompt.category, task.trial):
                completion = replace(
                    completion, prompt_id=prompt.id, category=prompt.category, trial=task.trial
                )
            failed = completion.outcome is Outcome.ERROR
            # A failed or filtered request is free where no price is given.
            free = failed or completion.outcome is Outcome.BLOCKED
            unpriced = free and completion.cost_usd is None
            # One without an answer may be the most expensive: all of its tokens went to reasoning.
            self._budget.saw_completion(completion.cost_usd)
            self._count(cost=0.0 if unpriced else completion.cost_usd, completions=1)
            # Written before the verdict, even if the text is withheld, so that the cost is recorded
            # whatever happens. If the verdict is lost, the model is asked again.
            for retraction in retractions(
                prompt, task.trial, self._orphans.get(completion.unit, ())
            ):
                writer.verdict(retraction)
            writer.completion(completion)
            self._signs.saw(completion)
            if failed:
                self._count(unscored=1, verdicts=1)
                if self._stop_rule is not None:
                    nothing = verdict_of_outcome(completion, self._judge.id)
                    assert nothing is not None, "an error leaves nothing to judge"
                    self._stop_rule.saw(nothing)
                if completion.unknown_finish is None:
                    withheld = writer.withholds(completion.category)
                    self._failures.note(
                        completion.error, None if withheld else completion.error_detail
                    )
                return None
        verdict = verdict_of_outcome(completion, self._judge.id)
        if verdict is None and self._is_judged_later(completion, writer):
            self._failures.end(succeeded=True)
            return None
        if verdict is None and task.withheld:
            verdict = withheld_verdict(completion, self._judge.id)
        member_error: str | None = None
        if self._panel is not None:
            votes = PanelVotes(self._panel, writer, self._count_vote)
            verdict = await votes.verdict(
                task.prompt, completion, task.earlier_verdicts, settled=verdict
            )
            self._budget.saw_verdict(votes.cost_usd(verdict))
            member_error = votes.last_error
        elif verdict is None:
            given = await self._judge.grade(task.prompt, completion)
            verdict = _returned(given, Verdict, self._judge.id)
            self._budget.saw_verdict(verdict.cost_usd)
        verdict = stamped(verdict, task.prompt, completion, self._judge.id)
        writer.verdict(verdict)
        self._count_verdict(verdict)
        if self._stop_rule is not None:
            self._stop_rule.saw(verdict)
        failed = verdict.unscored is Unscored.JUDGE_ERROR
        if failed or (verdict.unscored is Unscored.MISSING_VOTE and member_error is not None):
            why = f"judge: {(verdict.reason if failed else member_error) or 'error'}"
            withheld = writer.withholds(verdict.category)
            self._failures.note(why, None if withheld else verdict.error_detail)
            return None
        self._failures.end(succeeded=True)
        pressed = self._pressure and is_pressed(task.prompt)
        if pressed and goes_on(0, completion, verdict, self._pressure):
            return self._insist(task.prompt, task.trial, completion.text)
        return None

    def _is_judged_later(self, completion: Completion, writer: RecordWriter) -> bool:
        if self._judge_later == "kept":
            return not writer.withholds(completion.category)
        return self._judge_later == "all"

    def _count(
        self,
        *,
        cost: float | None = 0.0,
        completions: int = 0,
        verdicts: int = 0,
        refusals: int = 0,
        unscored: int = 0,
    ) -> None:
        self._budget.add(cost)
        now = self._progress
        self._progress = Progress(
            planned=now.planned,
            completions=now.completions + completions,
            verdicts=now.verdicts + verdicts,
            refusals=now.refusals + refusals,
            unscored=now.unscored + unscored,
            cost_usd=self._budget.spent_usd,
            found=now.found,
            elapsed_s=time.monotonic() - self._started,
        )
        self._report()

    def _count_vote(self, vote: Verdict) -> None:
        self._count(cost=total_cost([vote]))

    def _count_verdict(self, verdict: Verdict) -> None:
        self._count(
            cost=total_cost([verdict]),
            verdicts=1,
            refusals=int(verdict.label is Label.REFUSAL),
            unscored=int(verdict.label is None),
        )

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress)


def _returned(given: object, kind: type[_T], whose: str) -> _T:
    """What a caller's own model or judge returned, if it is what it must be."""
    if not isinstance(given, kind):
        raise TypeError(
            f"{printable(whose)} must return a {kind.__name__}, not {type(given).__name__}"
        )
    return given
