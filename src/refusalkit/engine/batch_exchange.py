"""What passes between a run and the batches of one endpoint, each step in the run's journal."""

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
# A new batch may be missing from the provider's list for so long.
LIST_LAG_S = 300.0
# Clocks may differ by so much.
_SKEW_S = 3600.0
# So often one session asks for the same unit.
MAX_ROUNDS = 3
# Bytes that a batch adds to a request's body, and a little more.
_AROUND = 200


@dataclass(frozen=True, slots=True)
class Part:
    """The model or the judge of a run, as batches are made for it."""

    kind: Kind
    asked: str
    endpoint: BatchEndpoint


class Exchange:
    """The batches of one part of a run: found again, looked at, read, made.

    `stop`, once set, has no further batch made.
    """

    def __init__(self, run: Run, journal: BatchJournal, part: Part, stop: asyncio.Event) -> None:
        self._run, self._journal, self._part, self._stop = run, journal, part, stop
        self._not_ours: set[str] = set()
        self._rounds: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Exchange({self._part.kind!r}, {self._part.asked!r})"

    @property
    def batches(self) -> list[Batch]:
        """All batches that were made for this part, the first first."""
        return [batch for batch in self._journal.batches if self._is_mine(batch)]

    @property
    def open(self) -> list[Batch]:
        """Those of which something is still to come."""
        return [batch for batch in self._journal.open if self._is_mine(batch)]

    @property
    def waiting(self) -> set[str]:
        """Units whose requests are in an open batch."""
        return {unit for batch in self.open for unit in batch.units}

    def _is_mine(self, batch: Batch) -> bool:
        return (batch.kind, batch.asked) == (self._part.kind, self._part.asked)

    async def recover(self) -> None:
        """Find out what became of batches of which only the intention is on record."""
        for batch in self.open:
            if batch.id is not None:
                continue
            if batch.file is None and self._part.endpoint.uploads:
                self._journal.void(batch, "its requests were not uploaded")
            elif batch.doubted_at is None:
                # It may have been sent up to now.
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
        """Which of ours a batch without a label is, by the custom ids of its results."""
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
        """How a batch is doing. Raises `FatalProviderError` where it is not known there."""
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
                detail=f"{made}, or give it up and ask anew by "
                f"`refusalkit batches {printable(self._run.path)} --forget`",
                status=error.status,
            ) from error

    async def results(
        self, batch: Batch, found: BatchState, counts: Counter[str], *, again: bool = False
    ) -> list[tuple[str, BatchResult]]:
        """The results of units of the batch that were answered: the first of each.

        Those that were not are added to `counts`. What nobody asked for, or is there twice, is told
        in the log, unless they are read `again`.
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
                f"of the results of {printable(found.id)} were passed over: {strange} that nobody "
                f"asked for, {twice} that are there twice",
            )
        return results

    async def results_again(self, batch: Batch) -> list[tuple[str, BatchResult]]:
        """The results of a batch that was collected before; none where they are no longer kept."""
        assert batch.id is not None, "it was collected"
        try:
            there = await self._part.endpoint.state(batch.id)
            return await self.results(batch, there, Counter(), again=True)
        except (RequestError, FatalProviderError) as error:
            if error.status not in (404, 410):
                raise
            return []

    async def send(self, owed: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
        """Hand requests over, in as many batches as the provider's limits make of them.

        `owed` are units and what makes the bodies of their requests.
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
                # It may have been made all the same: the list of batches will say.
                return
            self._journal.created(batch, made.id, _iso(made.expires_at))

    async def _create(self, batch: Batch, requests: Sequence[BatchRequest]) -> BatchState | None:
        """Make a batch; None where it is not known whether it was made."""

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
                continue  # what failed so often is left to a later session
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
