"""Submits, finds and reads a run's batches at one endpoint; each step is in the run's journal."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from refusalkit.errors import (
    FatalProviderError,
    ProviderError,
    RequestError,
    TransientError,
)
from refusalkit.models.batch_files import is_in_files
from refusalkit.models.batches import BatchEndpoint, BatchRequest, BatchResult, BatchState
from refusalkit.runs.batch_journal import Batch, BatchJournal, Kind, new_label
from refusalkit.runs.folder import Run
from refusalkit.untrusted import printable

_LOG = logging.getLogger("refusalkit")
# Seconds for which a new batch may be missing from the provider's list.
LIST_LAG_S = 300.0
# Seconds by which our clock and the provider's may differ.
_SKEW_S = 3600.0
# How many times one session requests the same unit.
MAX_ROUNDS = 3
# Upper bound on the bytes that a batch adds to a request's body.
_AROUND = 200


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a run that goes into batches: its model or its judge."""

    kind: Kind
    asked: str
    """Id of the model or of the judge."""
    endpoint: BatchEndpoint


class Exchange:
    """The batches of one part of a run: recovers, polls, reads and creates them.

    Once `stop` is set no further batch is created.
    """

    def __init__(self, run: Run, journal: BatchJournal, part: Part, stop: asyncio.Event) -> None:
        self._run, self._journal, self._part, self._stop = run, journal, part, stop
        self._not_ours: set[str] = set()
        self._rounds: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Exchange({self._part.kind!r}, {self._part.asked!r})"

    @property
    def batches(self) -> list[Batch]:
        """All batches that were created for this part, oldest first."""
        return [batch for batch in self._journal.batches if self._is_mine(batch)]

    @property
    def open(self) -> list[Batch]:
        """Batches that are neither collected nor void."""
        return [batch for batch in self._journal.open if self._is_mine(batch)]

    @property
    def waiting(self) -> set[str]:
        """Units whose requests are in an open batch."""
        return {unit for batch in self.open for unit in batch.units}

    def _is_mine(self, batch: Batch) -> bool:
        return (batch.kind, batch.asked) == (self._part.kind, self._part.asked)

    async def recover(self) -> None:
        """Find out whether batches that were planned, and never confirmed, exist."""
        for batch in self.open:
            if batch.id is not None:
                continue
            if batch.file is None and self._part.endpoint.uploads:
                self._journal.void(batch, "its requests were not uploaded")
            elif batch.doubted_at is None:
                # It may have been sent at any moment until now.
                self._journal.doubted(batch)
        doubtful = {batch.label: batch for batch in self.open if batch.id is None}
        if not doubtful:
            return
        listed_at = time.time()
        since = min(batch.planned for batch in doubtful.values()) - _SKEW_S
        known = {batch.id for batch in self._journal.batches if batch.id is not None}
        undecided: list[BatchState] = []
        for one in await self._part.endpoint.recent(since):
            if one.id in known | self._not_ours:
                continue
            label = one.label
            if label is None and one.input_file is not None:
                files = {batch.file: batch.label for batch in doubtful.values()}
                label = files.get(one.input_file)
            elif label is None and not one.ended:
                undecided.append(one)
                continue
            elif label is None:
                label = await self._told_by_ids(one, doubtful)
            if label in doubtful:
                self._journal.created(doubtful.pop(label), one.id, _iso(one.expires_at))
            else:
                self._not_ours.add(one.id)
        for batch in doubtful.values():
            may_be = any(one.n_requests in (None, len(batch.units)) for one in undecided)
            lag = LIST_LAG_S if self._part.endpoint.list_lags else 0.0
            if not may_be and listed_at - batch.doubted >= lag:
                self._journal.void(batch, "it is not in the provider's list")

    async def _told_by_ids(self, one: BatchState, doubtful: Mapping[str, Batch]) -> str | None:
        """The label of a batch that the provider lists without one, by its results' custom ids."""
        sizes = {len(batch.units) for batch in doubtful.values()}
        if one.n_requests is not None and one.n_requests not in sizes:
            return None
        labels = {
            name: label
            for label, batch in doubtful.items()
            for name in batch.custom_ids(self._run.manifest.id)
        }
        async for result in self._part.endpoint.results(one):
            if result.custom_id in labels:
                return labels[result.custom_id]
        return None

    async def state_of(self, batch_id: str) -> BatchState:
        """The state of a batch. Raises `FatalProviderError` if the provider does not know it."""
        try:
            return await self._part.endpoint.state(batch_id)
        except (RequestError, FatalProviderError) as error:
            if error.status not in (404, 410):
                raise
            made = "use the key it was made with"
            if is_in_files(batch_id):
                made = "give --batch-to the folder it was written to"
            raise FatalProviderError(
                f"{error.summary}: the batch {printable(batch_id)} is not known there",
                detail=f"{made}, or give it up and ask again by "
                f"`refusalkit batches {printable(self._run.path)} --forget`",
                status=error.status,
            ) from error

    async def results(
        self, batch: Batch, found: BatchState, counts: Counter[str], *, again: bool = False
    ) -> list[tuple[str, BatchResult]]:
        """The batch's answered units, each with its first result.

        Unanswered ones are added to `counts`. Results for unknown or repeated custom ids are
        skipped; a log line counts them, unless the results are read `again`.
        """
        ids = batch.custom_ids(self._run.manifest.id)
        left, strange, twice = dict(ids), 0, 0
        results: list[tuple[str, BatchResult]] = []
        async for result in self._part.endpoint.results(found):
            unit = left.pop(result.custom_id, None)
            if unit is None:
                twice += result.custom_id in ids
                strange += result.custom_id not in ids
                continue
            if result.unfinished is not None:
                counts[result.unfinished] += 1
                continue
            results.append((unit, result))
        if (strange or twice) and not again:
            _LOG.log(
                logging.WARNING if is_in_files(found.id) else logging.INFO,
                f"skipped results of {printable(found.id)}: {strange} for requests that are not "
                f"in the batch, {twice} that are there twice",
            )
        return results

    async def results_again(self, batch: Batch) -> list[tuple[str, BatchResult]]:
        """The results of a batch collected earlier; empty if the provider has deleted them."""
        assert batch.id is not None, "it was collected"
        try:
            there = await self._part.endpoint.state(batch.id)
            return await self.results(batch, there, Counter(), again=True)
        except (RequestError, FatalProviderError) as error:
            if error.status not in (404, 410):
                raise
            return []

    async def send(self, owed: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
        """Submit requests, in as many batches as the provider's limits require.

        `owed` are pairs of a unit and a function that makes its request's body.
        """
        for units, bodies in self._portions(owed):
            if self._stop.is_set():
                return
            batch = self._journal.plan(self._part.kind, self._part.asked, new_label(), units)
            ids = {unit: name for name, unit in batch.custom_ids(self._run.manifest.id).items()}
            requests = [
                BatchRequest(ids[unit], body) for unit, body in zip(units, bodies, strict=True)
            ]
            if (made := await self._create(batch, requests)) is None:
                # It may have been created all the same: the provider's list will show it.
                return
            self._journal.created(batch, made.id, _iso(made.expires_at))

    async def _create(self, batch: Batch, requests: Sequence[BatchRequest]) -> BatchState | None:
        """Create a batch; None if it is unknown whether the provider created it."""

        def on_upload(file: str) -> None:
            self._journal.uploaded(batch, file)

        try:
            return await self._part.endpoint.create(requests, batch.label, on_upload)
        except TransientError as error:
            if error.unreachable or error.status == 429:
                self._journal.void(batch, "the provider did not take it")
                raise FatalProviderError(
                    error.summary, detail=f"{error.detail or 'no batch was made'}; resume later"
                ) from error
            return None
        except ProviderError as error:
            self._journal.void(batch, "the provider refused it")
            detail = error.detail
            if error.status in (404, 405, 501):
                detail = "no batches are taken at this address: leave out --batch"
            elif isinstance(error, FatalProviderError):
                raise
            raise FatalProviderError(error.summary, detail=detail, status=error.status) from error

    def _portions(
        self, owed: Iterable[tuple[str, Callable[[], bytes]]]
    ) -> Iterator[tuple[list[str], list[bytes]]]:
        limits = self._part.endpoint.limits
        units: list[str] = []
        bodies: list[bytes] = []
        size = 0
        for unit, make in owed:
            if self._rounds[unit] >= MAX_ROUNDS:
                continue  # it has failed every time: left to a later session
            self._rounds[unit] += 1
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


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
