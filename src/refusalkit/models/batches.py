"""Batches: many requests handed to a provider at once, answered within a day at a lower price.

A `BatchEndpoint` speaks one protocol; a request's body and the reading of its reply are those of
single requests (`ChatClient`). What providers' batches take is in ``batches.toml``
(`refusalkit.models.batch_dialects`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from refusalkit.display import shows

# A provider's id of a batch or file: it becomes part of a path.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold, and what it costs."""

    max_requests: int
    """The most requests."""
    max_bytes: int
    """The most bytes of all requests together."""
    price_factor: float | None
    """Its price as a share of single requests', 0 to 1; None: that differs between models."""


def custom_id(run_id: str, label: str, kind: str, unit: str) -> str:
    """The id of one request within a batch: 51 characters of ``[a-z0-9_]``.

    Both protocols take ``[a-zA-Z0-9_-]{1,64}``. The id depends on the run, the batch's label,
    whether the model or the judge is asked, and the unit, so that a batch's results show whose
    they are.
    """
    text = f"{run_id}\x1f{label}\x1f{kind}\x1f{unit}"
    digest = hashlib.sha256(text.encode("utf-8", "replace"))
    return f"rk_{digest.hexdigest()[:48]}"


def is_provider_id(value: object) -> bool:
    """Whether a value may stand in a path as the id of a batch or a file."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and ".." not in value


@shows("custom_id", size=lambda request: len(request.body))
@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of a batch; `body` is the JSON that a single request would send."""

    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class BatchState:
    """How a batch is doing at its provider.

    `label` is ours, where the protocol carries one, `input_file` the uploaded file of the requests.
    `created_at` and `expires_at` are seconds since 1970. `counts` are requests by how they ended.
    `files` hold the results. `failure` is why the provider refused the batch as a whole.
    """

    id: str
    ended: bool
    status: str
    n_requests: int | None = None
    label: str | None = None
    input_file: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    failure: str | None = None


@shows("custom_id", "status", "unfinished")
@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one request: the HTTP status and the body of its answer.

    `unfinished`: it was not answered (``expired``, ``cancelled``), and nothing was paid for it.
    """

    custom_id: str
    status: int = 200
    body: Any = None
    request_id: str | None = None
    unfinished: str | None = None


class BatchEndpoint(Protocol):
    """Where batches are made. All methods raise the `ProviderError` family."""

    @property
    def limits(self) -> BatchLimits:
        """What one batch may hold."""
        ...

    @property
    def uploads(self) -> bool:
        """Whether requests are uploaded as a file before a batch is made of it."""
        ...

    @property
    def list_lags(self) -> bool:
        """Whether a new batch may be missing from the list for a moment."""
        ...

    async def create(
        self, requests: Sequence[BatchRequest], label: str, on_upload: Callable[[str], None]
    ) -> BatchState:
        """Make a batch. `on_upload` is told the id of the uploaded file, where there is one.

        Not retried: after a `TransientError` the batch may exist.
        """
        ...

    async def recent(self, since: float) -> list[BatchState]:
        """The account's batches that were created since then (seconds since 1970)."""
        ...

    async def state(self, batch_id: str) -> BatchState:
        """How a batch is doing."""
        ...

    def results(self, state: BatchState) -> AsyncIterator[BatchResult]:
        """The results of a batch that has ended, in any order."""
        ...

    async def cancel(self, batch_id: str) -> BatchState:
        """Ask the provider to stop; what was answered by then is kept, and paid for."""
        ...


# Batches on one page of a provider's list.
PAGE = 100


# A list that never ends is read no further.
_MAX_PAGES = 1000


async def read_pages(
    page: Callable[[int, str], Awaitable[tuple[list[BatchState], bool]]],
    since: float,
    *,
    newest_first: bool = True,
) -> list[BatchState]:
    """The batches of a list that were created since then (seconds since 1970).

    `page` is given the number of the page, from 0, and the id of the last batch before it; it
    returns the page's batches and whether there are more. With `newest_first` reading stops at the
    first page that has an older batch.
    """
    found: list[BatchState] = []
    number, after = 0, ""
    while True:
        states, more = await page(number, after)
        found += [one for one in states if one.created_at is None or one.created_at >= since]
        older = any(one.created_at is not None and one.created_at < since for one in states)
        ended = (older and newest_first) or not more or not states or states[-1].id == after
        if ended or number + 1 == _MAX_PAGES:
            return found
        number, after = number + 1, states[-1].id


def seconds(value: object) -> float | None:
    """A time in a provider's answer, as seconds since 1970: such a number, or ISO 8601."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
