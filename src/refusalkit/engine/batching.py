"""Works through a run in batches: submits requests, and collects the results later.

What is not batched (the judge with ``--batch model``, the model with ``--batch judge``, canaries)
goes through the ordinary `Runner`. A batch keeps no more of an answer than any run does: where a
judge needs a withheld answer, it is read again from the provider's results or from the recorded
answers that are graded.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from refusalkit.engine.batch_checks import check_batch
from refusalkit.engine.batch_exchange import MAX_ROUNDS, Exchange, Part
from refusalkit.engine.batch_owed import AnswerReader, Owed
from refusalkit.engine.batch_results import AnswerCollector, VerdictCollector
from refusalkit.engine.plan import Ended, Plan, Progress
from refusalkit.errors import ConfigurationError
from refusalkit.judges.llm import LLMJudge
from refusalkit.models.chat import ChatModel
from refusalkit.models.recorded_answers import RecordedModel
from refusalkit.runs.batch_journal import BatchJournal, Kind
from refusalkit.runs.folder import Run
from refusalkit.runs.record_json import verdict_of_outcome
from refusalkit.runs.records import RecordWriter
from refusalkit.runs.state import read_state
from refusalkit.types import Prompt
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config.run_config import RunConfig
    from refusalkit.engine.plan import OnProgress
    from refusalkit.engine.runner import Runner
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model
    from refusalkit.runs.canaries import Canary

# Seconds between two polls of the batches that `wait` waits for.
POLL_S = 30.0

_Start = Callable[..., "Runner"]


class BatchWork:
    """Does the open work of a run in batches. Each session needs a new one.

    Without a `model` the run is judged again; `texts` then has, by unit, answers that the run
    withheld and the caller knows from elsewhere. `start` makes a `Runner` for requests outside
    batches, given its plan, its model, and further arguments. With ``config.wait`` it polls until
    everything is collected.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        model: Model | None,
        judge: Judge,
        config: RunConfig,
        start: _Start,
        *,
        texts: Mapping[str, str] | None = None,
        canaries: Sequence[Canary] = (),
        on_progress: OnProgress | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        check_batch(config, model, judge)
        self._run, self._plan, self._model, self._judge = run, plan, model, judge
        self._config, self._start = config, start
        self._on_progress, self._stop = on_progress, stop or asyncio.Event()
        self._target = model if isinstance(model, ChatModel) else None
        self._recorded = model if isinstance(model, RecordedModel) else None
        self._texts = texts or {}
        self._grader = judge if isinstance(judge, LLMJudge) else None
        self._canaries = canaries
        self._asked_alone = False
        self._judged_alone: Counter[str] = Counter()
        self._began = time.monotonic()
        self._found: int | None = None
        self._writer: RecordWriter
        self._journal: BatchJournal
        self._answers: AnswerReader
        self._of_model: Exchange | None = None
        self._of_judge: Exchange | None = None

    async def work(self, writer: RecordWriter) -> Ended:
        """Collect finished batches, submit open units, and poll if the configuration says so.

        Raises `FatalProviderError` if no request can succeed and `StorageError` if a write fails;
        what was collected before is on disk.
        """
        self._writer, self._journal = writer, BatchJournal(self._run, writer)
        self._open()
        while True:
            for exchange in self._exchanges:
                await exchange.recover()
            ended = await self._ask_alone(await self._collect())
            if ended is not None and ended is not Ended.DONE:
                return ended
            owed = self._read()
            if not self._stop.is_set():
                await self._submit(owed)
            if self._stop.is_set():
                return Ended.INTERRUPTED
            if not any(exchange.open for exchange in self._exchanges):
                return Ended.DONE
            if not self._config.wait:
                return Ended.BATCHES
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._stop.wait()
            if self._stop.is_set():
                return Ended.INTERRUPTED

    @property
    def _exchanges(self) -> list[Exchange]:
        return [one for one in (self._of_model, self._of_judge) if one is not None]

    def _open(self) -> None:
        """Set up an exchange for each part that is batched.

        Raises `ConfigurationError` if a batch is open for a part that this session calls without
        batches. Batches of another judge are left to that judge's own session.
        """
        batch, parts = self._config.batch, dict[Kind, Part]()
        if batch in ("model", "both") and self._target is not None:
            parts["model"] = Part("model", self._target.id, self._target.batches())
        if batch in ("judge", "both") and self._grader is not None:
            parts["judge"] = Part("judge", self._grader.id, self._grader.batches())
        here = {("judge", self._judge.id)}
        if self._model is not None:
            here.add(("model", self._model.id))
        for one in self._journal.open:
            if (one.kind, one.asked) in here and one.kind not in parts:
                raise ConfigurationError(
                    f"a batch for {printable(one.asked)} is open: go on with --batch both, or "
                    f"cancel it by `refusalkit batches {printable(self._run.path)} --cancel`"
                )
        opened = {
            kind: Exchange(self._run, self._journal, part, self._stop)
            for kind, part in parts.items()
        }
        self._of_model, self._of_judge = opened.get("model"), opened.get("judge")
        self._answers = AnswerReader(
            self._run,
            self._config.generation,
            in_batches=None if self._target is None else self._of_model,
            target=self._target,
            recorded=self._recorded,
            texts=self._texts,
        )

    def _read(self) -> Owed:
        state = read_state(self._run, None if self._model is not None else self._judge.id)
        done = len(state.settled)
        planned = self._run.manifest.n_units
        if self._model is None:
            planned = done + len(state.to_judge) + len(state.withheld)
        if self._found is None:
            self._found = done
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    planned=planned,
                    completions=done + len(state.to_judge) + len(state.withheld),
                    verdicts=done,
                    refusals=state.refusals,
                    unscored=state.unscored,
                    cost_usd=state.cost_usd,
                    found=self._found,
                    elapsed_s=time.monotonic() - self._began,
                )
            )
        return Owed.of(state, self._plan)

    async def _collect(self) -> Owed:
        """Record the results of batches that have ended; returns what is still to be done."""
        owed = self._read()
        collectors: list[tuple[Exchange, AnswerCollector | VerdictCollector]] = []
        if self._of_model is not None and self._target is not None:
            of_model = AnswerCollector(
                self._run,
                self._of_model,
                self._journal,
                self._writer,
                target=self._target,
                generation=self._config.generation,
                judge=self._judge.id,
            )
            collectors.append((self._of_model, of_model))
        if self._of_judge is not None and self._grader is not None:
            of_judge = VerdictCollector(
                self._run,
                self._of_judge,
                self._journal,
                self._writer,
                grader=self._grader,
                answers=self._answers,
                at_once=self._config.judge_concurrency or self._config.concurrency,
            )
            collectors.append((self._of_judge, of_judge))
        for exchange, collector in collectors:
            for batch in exchange.open:
                if batch.id is None:
                    continue
                found = await exchange.state_of(batch.id)
                if found.ended:
                    await collector.collect(batch, found, owed)
                    owed = self._read()
        return owed

    async def _ask_alone(self, owed: Owed) -> Ended | None:
        """Do what is not batched with the ordinary runner."""
        if self._stop.is_set():
            return Ended.INTERRUPTED
        first, self._asked_alone = not self._asked_alone, True
        canaries = self._canaries if first else ()
        if self._of_model is None:
            # What failed is left to a later session.
            return await self._answer_alone(owed, canaries) if first else None
        units: list[tuple[Prompt, int]] = []
        texts: dict[str, str] = {}
        if self._of_judge is None:
            left = {u: w for u, w in owed.verdicts.items() if self._judged_alone[u] < MAX_ROUNDS}
            answers = await self._answers.read(left, owed.state)
            self._judged_alone.update(answers.keys())
            units = [left[unit] for unit in answers]
            texts = {unit: answer.text for unit, answer in answers.items()}
        if not units and not canaries:
            return None
        runner = self._start(_plan_of(units), None, texts=texts, canaries=canaries)
        return await runner.work(self._writer)

    async def _answer_alone(self, owed: Owed, canaries: Sequence[Canary]) -> Ended:
        """Get answers for a batch of the judge, and verdicts that such a batch cannot give."""
        if self._recorded is not None:
            # Every answer can be read again, the withheld ones too.
            runner = self._start(
                _plan_of(owed.answers.values()),
                self._model,
                canaries=canaries,
                judge_later="all",
            )
        elif self._model is not None:
            runner = self._start(self._plan, self._model, canaries=canaries, judge_later="kept")
        else:
            # Answers that were not kept and cannot be read again: their verdict is `withheld`.
            known = self._texts.keys()
            gone = [owed.verdicts[u] for u in owed.state.withheld & owed.verdicts.keys() - known]
            runner = self._start(_plan_of(gone), None, canaries=canaries)
        return await runner.work(self._writer)

    async def _submit(self, owed: Owed) -> None:
        """Submit what is still to be done and in no open batch."""
        lost: set[str] = set()
        if self._of_judge is not None:
            lost = await self._submit_verdicts(self._of_judge, owed)
        if self._of_model is None or self._target is None:
            return
        if self._of_judge is None:
            answers = await self._answers.read(owed.verdicts, owed.state)
            lost = owed.verdicts.keys() - answers.keys()
        target, generation, waiting = self._target, self._config.generation, self._of_model.waiting
        units = {**owed.answers, **{unit: owed.verdicts[unit] for unit in sorted(lost)}}
        await self._of_model.send(
            (unit, partial(target.batch_body, prompt, generation, trial=trial))
            for unit, (prompt, trial) in units.items()
            if unit not in waiting
        )

    async def _submit_verdicts(self, exchange: Exchange, owed: Owed) -> set[str]:
        """Submit answers to be judged; returns the units whose answers are lost."""
        assert self._grader is not None, "a judge in batches is one"
        waiting, grader = exchange.waiting, self._grader
        units = {u: w for u, w in owed.verdicts.items() if u not in waiting}
        if self._of_model is None and self._recorded is None and not self._texts:
            # Withheld answers were judged at once, as they are not kept.
            units = {u: w for u, w in units.items() if u in owed.state.to_judge}
        answers = await self._answers.read(units, owed.state)
        lost = units.keys() - answers.keys()
        for unit, answer in list(answers.items()):
            # A session was killed after this answer and before its verdict, which needs no judge.
            if (verdict := verdict_of_outcome(answer, self._judge.id)) is not None:
                self._writer.verdict(verdict)
                del answers[unit]
        await exchange.send(
            (unit, partial(grader.batch_body, units[unit][0], answer))
            for unit, answer in answers.items()
        )
        return lost


def _plan_of(units: Iterable[tuple[Prompt, int]]) -> Plan:
    """A plan with only these units."""
    by_trial: dict[int, list[Prompt]] = {}
    for prompt, trial in units:
        by_trial.setdefault(trial, []).append(prompt)
    return lambda: sorted(by_trial.items())
