"""Batches: many requests handed to a provider at once, answered within a day at a lower price.

What a provider's batches take is in ``batches.toml``. A `BatchEndpoint` speaks one protocol; a
request's body and the reading of its reply are those of single requests (`ChatClient`).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from refusalkit.display import shows

# A provider's id of a batch or file: it becomes part of a path.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Most requests and bytes of one batch, and its price as a share of single requests'."""

    max_requests: int
    max_bytes: int
    price_factor: float


@cache
def batch_limits(provider: str) -> BatchLimits | None:
    """What a provider's batches take; None where it has none that are known here."""
    text = Path(__file__).with_name("batches.toml").read_text(encoding="utf-8")
    for row in tomllib.loads(text)["provider"]:
        if row["provider"] == provider:
            return BatchLimits(row["max_requests"], row["max_bytes"], row["price_factor"])
    return None


def custom_id(run_id: str, label: str, kind: str, unit: str) -> str:
    """The id of one request within a batch: 51 characters of ``[a-z0-9_]``.

    Both protocols take ``[a-zA-Z0-9_-]{1,64}``. It follows from the run, the batch's label, whether
    the model or the judge is asked, and the unit; so whose batch it is can be told from its
    results.
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

    `label` is ours, where the protocol carries one. `created_at` and `expires_at` are seconds since
    1970. `counts` are requests by how they ended. `files` hold the results. `failure` is why the
    provider refused the batch as a whole.
    """

    id: str
    ended: bool
    status: str
    n_requests: int | None = None
    label: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    failure: str | None = None


@shows("custom_id", "status", "unfinished")
@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of one request: the status and body of its answer.

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
        """What one batch takes."""
        ...

    async def create(
        self, requests: Sequence[BatchRequest], label: str, on_upload: Callable[[str], None]
    ) -> BatchState:
        """Make a batch. `on_upload` is told the id of the uploaded file, where there is one.

        Never sent again by itself: after a `TransientError` the batch may exist.
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
