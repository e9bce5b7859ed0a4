"""Works through a run in batches: hands requests over, comes back for the results.

What is not batched (the judge with ``--batch model``, the model with ``--batch judge``, canaries)
is asked by the ordinary `Runner`. Nothing of a batch's answers is kept but what a run keeps: a
hard-line answer is read from the provider's results again where a judge needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from refusalkit.engine.orphans import retractions
from refusalkit.engine.plan import Ended, Plan, Progress
from refusalkit.errors import (
    ConfigurationError,
    FatalProviderError,
    ProviderError,
    RequestError,
    TransientError,
)
from refusalkit.judges.council import stamped
from refusalkit.judges.llm import LLMJudge
from refusalkit.models.batches import BatchEndpoint, BatchRequest, BatchResult, BatchState
from refusalkit.models.chat import ChatModel
from refusalkit.runs.batch_journal import Batch, BatchJournal, Kind, new_label
from refusalkit.runs.folder import Run
from refusalkit.runs.judge_entries import rubrics_of
from refusalkit.runs.record_json import (
    completion_from_record,
    completion_record,
    verdict_of_outcome,
)
from refusalkit.runs.records import RecordWriter, read_records
from refusalkit.runs.state import RunState, read_state
from refusalkit.types import Completion, Outcome, Prompt, Unscored, unit_id
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config.run_config import RunConfig
    from refusalkit.engine.plan import OnProgress
    from refusalkit.engine.runner import Runner
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model
    from refusalkit.runs.canaries import Canary

# Seconds between two looks at batches that are waited for.
POLL_S = 30.0
# A new batch may be missing from the provider's list for so long.
LIST_LAG_S = 300.0
# Clocks may differ by so much.
_SKEW_S = 3600.0
# So often one session asks for the same unit.
_MAX_ROUNDS = 3
# So many failures and nothing else in a batch mean that the next one would fail as well.
_GIVE_UP = 5

_Start = Callable[..., "Runner"]


def check_batch(config: RunConfig, model: Model | None, judge: Judge) -> None:
    """Raise `ConfigurationError` where a run cannot be worked through in batches as asked."""
    if config.batch is None:
        if config.wait:
            raise ConfigurationError("wait is for batches: give batch too")
        return
    for name, value in (("pressure", config.pressure), ("stop_when", config.stop_when)):
        if value:
            raise ConfigurationError(
                f"{name} needs one answer before the next request: leave out it or batch"
            )
    if config.max_cost is not None:
        raise ConfigurationError(
            "max_cost cannot hold over a batch, which is paid for once it is handed over: bound "
            "the run with limit, and see what `refusalkit estimate` says"
        )
    if config.batch in ("model", "both"):
        if not isinstance(model, ChatModel):
            raise ConfigurationError(
                f"{printable(config.model)} is not asked through a provider, which batches need: "
                "leave out --batch"
            )
        model.batches()
    if config.batch in ("judge", "both") and _asks(judge):
        if not isinstance(judge, LLMJudge):
            raise ConfigurationError(
                f"the judge {printable(judge.id)} asks several in turn, and a batch only one: "
                "give --batch model"
            )
        judge.batches()
    if config.batch == "judge" and not _asks(judge):
        raise ConfigurationError(f"the judge {printable(judge.id)} asks no model: nothing to batch")


def _asks(judge: Judge) -> bool:
    """Whether a judge asks a model."""
    return any(rubric.asks_model for rubric in rubrics_of(judge)) or isinstance(judge, LLMJudge)


@dataclass(frozen=True, slots=True)
class _Part:
    """The model or the judge, as batches are made for it."""

    kind: Kind
    asked: str
    endpoint: BatchEndpoint


class BatchWork:
    """Does what a run owes in batches. Each session needs a new one.

    `start` makes a `Runner` for what is asked alone, given its plan, its model, and further
    arguments. With `wait` it stays until everything is collected.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        model: Model,
        judge: Judge,
        config: RunConfig,
        start: _Start,
        *,
        canaries: Sequence[Canary] = (),
        on_progress: OnProgress | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        check_batch(config, model, judge)
        self._run, self._plan, self._model, self._judge = run, plan, model, judge
        self._config, self._start = config, start
        self._on_progress, self._stop = on_progress, stop or asyncio.Event()
        self._target = model if isinstance(model, ChatModel) else None
        self._grader = judge if isinstance(judge, LLMJudge) else None
        self._parts: dict[Kind, _Part] = {}
        if config.batch in ("model", "both") and self._target is not None:
            self._parts["model"] = _Part("model", model.id, self._target.batches())
        if config.batch in ("judge", "both") and self._grader is not None:
            self._parts["judge"] = _Part("judge", judge.id, self._grader.batches())
        self._rounds: Counter[tuple[Kind, str]] = Counter()
        self._canaries = canaries
        self._asked_alone = False
        self._not_ours: set[str] = set()
        self._failures: list[str] = []
        self._began = time.monotonic()
        self._found = 0
        self._writer: RecordWriter
        self._journal: BatchJournal

    async def work(self, writer: RecordWriter) -> Ended:
        """Collect what is there, hand over what is owed, and wait where that is wanted.

        Raises `FatalProviderError` where no request can succeed and `StorageError` where the disk
        refuses; what was collected before is on disk.
        """
        self._writer, self._journal = writer, BatchJournal(self._run, writer)
        self._check_known()
        first = True
        while True:
            for part in self._parts.values():
                await self._recover(part)
            state = self._read(first=first)
            first = False
            for kind in ("model", "judge"):
                if await self._collect_all(kind, state):
                    state = self._read()
            ended = await self._ask_alone(state)
            if ended is not None and ended is not Ended.DONE:
                return ended
            state = self._read()
            if not self._stop.is_set():
                await self._submit(state)
            if self._stop.is_set():
                return Ended.INTERRUPTED
            if not self._journal.open:
                return Ended.DONE
            if not self._config.wait:
                return Ended.BATCHES
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._stop.wait()
            if self._stop.is_set():
                return Ended.INTERRUPTED

    def _check_known(self) -> None:
        """Raise where an open batch is of a part that this session does not batch."""
        for batch in self._journal.open:
            part = self._parts.get(batch.kind)
            if part is None or part.asked != batch.asked:
                raise ConfigurationError(
                    f"a batch for {printable(batch.asked)} is open: go on with --batch both, or "
                    f"cancel it by `refusalkit batches {printable(self._run.path)} --cancel`"
                )

    def _read(self, *, first: bool = False) -> RunState:
        state = read_state(self._run)
        if first:
            self._found = len(state.settled)
        if self._on_progress is not None:
            done = len(state.settled)
            self._on_progress(
                Progress(
                    planned=self._run.manifest.n_units,
                    completions=done + len(state.to_judge) + len(state.withheld),
                    verdicts=done,
                    refusals=state.refusals,
                    unscored=state.unscored,
                    cost_usd=state.cost_usd,
                    found=self._found,
                    elapsed_s=time.monotonic() - self._began,
                )
            )
        return state

    # What became of batches of which only the intention is on record.

    async def _recover(self, part: _Part) -> None:
        for batch in self._journal.open:
            if batch.id is None and batch.doubted_at is None:
                # It may have been sent up to now.
                self._journal.doubted(batch)
        doubtful = [
            batch for batch in self._journal.open if batch.kind == part.kind and batch.id is None
        ]
        if not doubtful:
            return
        listed_at = time.time()
        since = min(batch.planned for batch in doubtful) - _SKEW_S
        listed = await part.endpoint.recent(since)
        known = {batch.id for batch in self._journal.batches if batch.id is not None}
        listed = [one for one in listed if one.id not in known | self._not_ours]
        for batch in doubtful:
            found, undecided = await self._identify(part, batch, listed)
            if found is not None:
                self._journal.created(batch, found.id, _iso(found.expires_at))
                listed.remove(found)
            elif not undecided and listed_at - batch.doubted > LIST_LAG_S:
                self._journal.void(batch, "it is not in the provider's list")

    async def _identify(
        self, part: _Part, batch: Batch, listed: Sequence[BatchState]
    ) -> tuple[BatchState | None, bool]:
        """The state of a batch in the provider's list; else whether it may be one without a label.

        One without a label can be told by its custom ids, once it has ended.
        """
        for one in listed:
            if one.label == batch.label:
                return one, False
        undecided = False
        ids = batch.custom_ids(self._run.manifest.id)
        for one in listed:
            if one.label is not None or one.n_requests not in (None, len(batch.units)):
                continue
            if not one.ended:
                undecided = True
                continue
            async for result in part.endpoint.results(one):
                if result.custom_id in ids:
                    return one, False
        return None, undecided

    # Results.

    async def _collect_all(self, kind: Kind, state: RunState) -> bool:
        """Write down the results of batches that have ended; whether there were any."""
        part = self._parts.get(kind)
        if part is None:
            return False
        any_ended = False
        for batch in self._journal.open:
            if batch.kind != kind or batch.id is None:
                continue
            if any_ended:
                state = self._read()
            found = await self._state_of(part, batch.id)
            if not found.ended:
                continue
            any_ended = True
            await self._collect(part, batch, found, state)
        return any_ended

    async def _state_of(self, part: _Part, batch_id: str) -> BatchState:
        try:
            return await part.endpoint.state(batch_id)
        except (RequestError, FatalProviderError) as error:
            if error.status not in (404, 410):
                raise
            raise FatalProviderError(
                f"{error.summary}: the batch {printable(batch_id)} is not known there",
                detail="use the key it was made with, or give it up and ask anew by "
                f"`refusalkit batches {printable(self._run.path)} --forget`",
                status=error.status,
            ) from error

    async def _collect(self, part: _Part, batch: Batch, found: BatchState, state: RunState) -> None:
        self._failures.clear()
        if part.kind == "model":
            counts = await self._collect_answers(part, batch, found, state)
        else:
            counts = await self._collect_verdicts(part, batch, found, state)
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

    async def _results(
        self, part: _Part, batch: Batch, found: BatchState, counts: Counter[str]
    ) -> list[tuple[str, BatchResult]]:
        """The results of units of the batch that were answered: the first of each."""
        ids = batch.custom_ids(self._run.manifest.id)
        results: list[tuple[str, BatchResult]] = []
        async for result in part.endpoint.results(found):
            unit = ids.pop(result.custom_id, None)
            if unit is None:
                continue  # nobody asked for it, or it is there twice
            if result.unfinished is not None:
                counts[result.unfinished] += 1
                continue
            results.append((unit, result))
        return results

    async def _collect_answers(
        self, part: _Part, batch: Batch, found: BatchState, state: RunState
    ) -> Counter[str]:
        assert self._target is not None
        everything = self._owed_units(state)
        owed = self._owed_answers(state)
        again = self._not_judged(batch, state)
        failed_before = self._failures_on_record(set(batch.units))
        counts: Counter[str] = Counter()
        for unit, result in await self._results(part, batch, found, counts):
            if unit not in owed and unit not in again:
                counts["answered"] += 1  # on record since before a kill
                continue
            prompt, trial = everything[unit]
            completion = await self._target.read_batched(
                prompt, self._config.generation, trial, result
            )
            failed = completion.outcome is Outcome.ERROR
            if unit in again and (failed or _is_of(again[unit], completion)):
                counts["answered"] += 1
                continue
            counts["errored" if failed else "answered"] += 1
            if failed:
                withheld = self._writer.withholds(prompt.category)
                detail = None if withheld else completion.error_detail
                why = ": ".join(filter(None, (completion.error, detail)))
                self._failures.append(why or "error")
                name = completion.request_id
                if name is not None and (unit, name) in failed_before:
                    continue
            for retraction in retractions(prompt, trial, state.orphans.get(unit, ())):
                self._writer.verdict(retraction)
            self._writer.completion(completion)
            # What needs no judge is settled at once.
            verdict = verdict_of_outcome(completion, self._judge.id)
            if verdict is not None and not failed:
                self._writer.verdict(verdict)
        return counts

    async def _collect_verdicts(
        self, part: _Part, batch: Batch, found: BatchState, state: RunState
    ) -> Counter[str]:
        assert self._grader is not None
        grader = self._grader
        counts: Counter[str] = Counter()
        results = dict(await self._results(part, batch, found, counts))
        owed = self._owed_verdicts(state)
        counts["answered"] += len(results.keys() - owed.keys())
        answers = await self._answers(owed.keys() & results.keys(), state)
        # An answer that is gone is asked for again, and its verdict then.
        counts["answered"] += len((owed.keys() & results.keys()) - answers.keys())

        async def read(unit: str, completion: Completion) -> None:
            prompt, _ = owed[unit]
            verdict = await grader.read_batched(prompt, completion, results[unit])
            self._writer.verdict(stamped(verdict, prompt, completion, grader.id))
            failed = verdict.unscored is Unscored.JUDGE_ERROR
            counts["errored" if failed else "answered"] += 1
            if failed:
                self._failures.append(f"judge: {verdict.reason or 'error'}")

        await _side_by_side(
            (partial(read, unit, answer) for unit, answer in answers.items()),
            self._config.judge_concurrency or self._config.concurrency,
        )
        return counts

    def _not_judged(self, batch: Batch, state: RunState) -> dict[str, Mapping[str, object]]:
        """The records of withheld answers to this batch's units that are not judged, by unit."""
        places = [state.answers[unit] for unit in state.withheld.intersection(batch.units)]
        return {
            str(record["unit"]): record
            for _, record in read_records(self._run.completions, sorted(places))
        }

    def _failures_on_record(self, units: set[str]) -> set[tuple[str, str]]:
        """The failed requests of some units that are on record, by unit and request id."""
        return {
            (str(record["unit"]), str(record["request_id"]))
            for _, record in read_records(self._run.completions)
            if record.get("outcome") == Outcome.ERROR.value and record.get("unit") in units
        }

    # What is owed.

    def _owed_units(self, state: RunState) -> dict[str, tuple[Prompt, int]]:
        return {
            unit_id(prompt.id, trial): (prompt, trial)
            for prompt, trial in state.settled.leave(self._plan())
        }

    def _owed_answers(self, state: RunState) -> dict[str, tuple[Prompt, int]]:
        there = state.to_judge | state.withheld
        return {u: what for u, what in self._owed_units(state).items() if u not in there}

    def _owed_verdicts(self, state: RunState) -> dict[str, tuple[Prompt, int]]:
        there = state.to_judge | state.withheld
        return {u: what for u, what in self._owed_units(state).items() if u in there}

    async def _answers(self, units: Iterable[str], state: RunState) -> dict[str, Completion]:
        """Answers to be judged: from disk, and from the provider where they are not kept."""
        found: dict[str, Completion] = {}
        gone: dict[str, Mapping[str, object]] = {}
        places = {state.answers[unit]: unit for unit in units}
        for place, record in read_records(self._run.completions, sorted(places)):
            unit = str(record.get("unit"))
            if record.get("text") is None and record.get("outcome") in _READABLE:
                gone[unit] = record
            else:
                text = record.get("text") or ""
                found[unit] = completion_from_record({**record, "text": text}, place)
        found.update(await self._read_again(gone, state))
        return found

    async def _read_again(
        self, units: Mapping[str, Mapping[str, object]], state: RunState
    ) -> dict[str, Completion]:
        """Answers that were not kept, from the results of the model's batches, the last first.

        Each is the one on record: its digest says so.
        """
        part = self._parts.get("model")
        found: dict[str, Completion] = {}
        if not units or part is None or self._target is None:
            return found
        owed = self._owed_units(state)
        for batch in reversed(self._journal.batches):
            left = set(batch.units) & units.keys() - found.keys()
            if batch.kind != "model" or batch.id is None or not left:
                continue
            try:
                there = await part.endpoint.state(batch.id)
                results = await self._results(part, batch, there, Counter())
            except (RequestError, FatalProviderError) as error:
                if error.status not in (404, 410):
                    raise
                continue  # no longer kept: it is asked for again
            for unit, result in results:
                if unit not in left:
                    continue
                prompt, trial = owed[unit]
                answer = await self._target.read_batched(
                    prompt, self._config.generation, trial, result
                )
                if _is_of(units[unit], answer):
                    found[unit] = answer
        return found

    # Requests alone.

    async def _ask_alone(self, state: RunState) -> Ended | None:
        """What is not batched, by the ordinary runner."""
        if self._stop.is_set():
            return Ended.INTERRUPTED
        first, self._asked_alone = not self._asked_alone, True
        canaries = self._canaries if first else ()
        if "model" not in self._parts:
            if not first:
                return None  # what failed is left to a later session
            runner = self._start(self._plan, self._model, canaries=canaries, judge_later=True)
            return await runner.work(self._writer)
        owed: dict[str, tuple[Prompt, int]] = {}
        texts: dict[str, str] = {}
        if "judge" not in self._parts:
            everything = {
                unit: what
                for unit, what in self._owed_verdicts(state).items()
                if self._rounds["judge", unit] < _MAX_ROUNDS
            }
            answers = await self._answers(everything, state)
            self._rounds.update(("judge", unit) for unit in answers)
            owed = {unit: everything[unit] for unit in answers}
            texts = {unit: answer.text for unit, answer in answers.items()}
        if not owed and not canaries:
            return None
        runner = self._start(_plan_of(owed.values()), None, texts=texts, canaries=canaries)
        return await runner.work(self._writer)

    # Requests in batches.

    async def _submit(self, state: RunState) -> None:
        lost: set[str] = set()
        if (part := self._parts.get("judge")) is not None and self._grader is not None:
            waiting = self._journal.waiting("judge")
            owed = {u: w for u, w in self._owed_verdicts(state).items() if u not in waiting}
            if "model" not in self._parts:
                # Judged at once, as they are not kept.
                owed = {u: w for u, w in owed.items() if u in state.to_judge}
            answers = await self._answers(owed, state)
            lost = owed.keys() - answers.keys()
            for unit, answer in list(answers.items()):
                # Killed between an answer that needs no judge and its verdict.
                if (verdict := verdict_of_outcome(answer, self._judge.id)) is not None:
                    self._writer.verdict(verdict)
                    del answers[unit]
            grader = self._grader
            await self._send(
                part,
                (
                    (unit, partial(grader.batch_body, owed[unit][0], answer))
                    for unit, answer in answers.items()
                ),
            )
        if (part := self._parts.get("model")) is not None and self._target is not None:
            if "judge" not in self._parts:
                everything = self._owed_verdicts(state)
                lost = everything.keys() - (await self._answers(everything, state)).keys()
            waiting = self._journal.waiting("model")
            target, generation = self._target, self._config.generation
            owed = self._owed_answers(state)
            owed |= {u: w for u, w in self._owed_verdicts(state).items() if u in lost}
            await self._send(
                part,
                (
                    (unit, partial(target.batch_body, prompt, generation, trial=trial))
                    for unit, (prompt, trial) in owed.items()
                    if unit not in waiting
                ),
            )

    async def _send(self, part: _Part, owed: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
        """Hand requests over, in as many batches as the provider's limits make of them."""
        for units, bodies in self._portions(part, owed):
            if self._stop.is_set():
                return
            label = new_label()
            batch = self._journal.plan(part.kind, part.asked, label, units)
            ids = {unit: name for name, unit in batch.custom_ids(self._run.manifest.id).items()}
            requests = [
                BatchRequest(ids[unit], body) for unit, body in zip(units, bodies, strict=True)
            ]

            def on_upload(file: str, batch: Batch = batch) -> None:
                self._journal.uploaded(batch, file)

            try:
                made = await part.endpoint.create(requests, label, on_upload)
            except TransientError as error:
                if error.unreachable or error.status == 429:
                    self._journal.void(batch, "the provider did not take it")
                    raise FatalProviderError(
                        error.summary, detail=f"{error.detail or 'no batch was made'}; resume later"
                    ) from error
                # It may have been made all the same: the list of batches will say.
                return
            except ProviderError as error:
                self._journal.void(batch, "the provider refused it")
                detail = error.detail
                if error.status in (404, 405, 501):
                    detail = "no batches are taken at this address: leave out --batch"
                elif isinstance(error, FatalProviderError):
                    raise
                raise FatalProviderError(
                    error.summary, detail=detail, status=error.status
                ) from error
            self._journal.created(batch, made.id, _iso(made.expires_at))

    def _portions(
        self, part: _Part, owed: Iterable[tuple[str, Callable[[], bytes]]]
    ) -> Iterator[tuple[list[str], list[bytes]]]:
        limits = part.endpoint.limits
        units: list[str] = []
        bodies: list[bytes] = []
        size = 0
        for unit, make in owed:
            if self._rounds[part.kind, unit] >= _MAX_ROUNDS:
                continue  # what failed so often is left to a later session
            self._rounds[part.kind, unit] += 1
            body = make()
            more = len(body) + _AROUND
            if units and (len(units) >= limits.max_requests or size + more > limits.max_bytes):
                yield units, bodies
                units, bodies, size = [], [], 0
            units.append(unit)
            bodies.append(body)
            size += more
        if units:
            yield units, bodies


_READABLE = frozenset({Outcome.ANSWERED.value, Outcome.TRUNCATED.value})
# Bytes that a batch adds to a request's body, and a little more.
_AROUND = 200


def _is_of(record: Mapping[str, object], completion: Completion) -> bool:
    """Whether the record of a withheld answer is this very answer's."""
    written = completion_record(completion, withhold_text=True)
    fields = ("text_sha256", "request_id")
    return all(record.get(name) == written[name] for name in fields)


def _plan_of(units: Iterable[tuple[Prompt, int]]) -> Plan:
    """A plan of these units alone."""
    by_trial: dict[int, list[Prompt]] = {}
    for prompt, trial in units:
        by_trial.setdefault(trial, []).append(prompt)
    return lambda: sorted(by_trial.items())


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


async def _side_by_side(work: Iterable[Callable[[], Awaitable[None]]], at_once: int) -> None:
    """Run coroutines, so many at once; the first that fails ends the others."""
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
