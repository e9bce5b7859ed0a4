"""Anthropic's Message Batches, through the anthropic SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from refusalkit import jsonl
from refusalkit.errors import RequestError
from refusalkit.models.batch_dialects import batch_providers
from refusalkit.models.batches import (
    PAGE,
    BatchLimits,
    BatchRequest,
    BatchResult,
    BatchState,
    is_provider_id,
    read_pages,
    seconds,
)

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

# The type of an error inside a result, as the status of a single request.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class Calls(Protocol):
    """What batches need of the client (`AnthropicClient`)."""

    names: str

    async def call(
        self, ask: Callable[[AsyncAnthropic], Awaitable[Any]], *, once: bool = False
    ) -> dict[str, Any]:
        """The JSON object that answers a call of the SDK."""
        ...

    async def lines(self, path: str) -> list[bytes]:
        """The lines of a file below the endpoint's address."""
        ...


class AnthropicBatches:
    """The batches of an account at Anthropic, which carry no label."""

    uploads = False
    list_lags = True

    def __init__(self, client: Calls) -> None:
        self._client = client
        self.limits: BatchLimits = batch_providers()["anthropic"].limits

    def __repr__(self) -> str:
        return f"AnthropicBatches({self._client.names!r})"

    async def create(
        self, requests: Sequence[BatchRequest], label: str, on_upload: Callable[[str], None]
    ) -> BatchState:
        """Make a batch; it is recognised by its custom ids."""
        del label, on_upload  # the protocol has neither
        rows: Any = [
            {"custom_id": one.custom_id, "params": jsonl.from_bytes(one.body)} for one in requests
        ]
        made = await self._client.call(
            lambda sdk: sdk.messages.batches.with_raw_response.create(requests=rows), once=True
        )
        return self._state(made)

    async def recent(self, since: float) -> list[BatchState]:
        """The account's batches that were created since then."""

        async def page(number: int, after: str) -> tuple[list[BatchState], bool]:
            options: dict[str, Any] = {"limit": PAGE, **({"after_id": after} if after else {})}
            answer = await self._client.call(
                lambda sdk: sdk.messages.batches.with_raw_response.list(**options)
            )
            listed = answer.get("data")
            rows = listed if isinstance(listed, list) else []
            states = [self._state(row) for row in rows if isinstance(row, dict)]
            return states, bool(answer.get("has_more"))

        return await read_pages(page, since)

    async def state(self, batch_id: str) -> BatchState:
        """How a batch is doing."""
        found = await self._client.call(
            lambda sdk: sdk.messages.batches.with_raw_response.retrieve(batch_id)
        )
        return self._state(found)

    async def results(self, state: BatchState) -> AsyncIterator[BatchResult]:
        """The lines of its results.

        They are read below the endpoint's own address: `results_url` of the batch may lead
        anywhere, and the key would be sent there.
        """
        for line in await self._client.lines(f"/v1/messages/batches/{state.id}/results"):
            if (result := _result(line)) is not None:
                yield result

    async def cancel(self, batch_id: str) -> BatchState:
        """Ask the provider to stop."""
        found = await self._client.call(
            lambda sdk: sdk.messages.batches.with_raw_response.cancel(batch_id)
        )
        return self._state(found)

    def _state(self, data: Mapping[str, Any]) -> BatchState:
        name, status = data.get("id"), data.get("processing_status")
        if not is_provider_id(name):
            raise RequestError(f"{self._client.names}: the answer names no batch")
        said = data.get("request_counts")
        counts = {
            str(key): value
            for key, value in (said.items() if isinstance(said, dict) else ())
            if isinstance(value, int)
        }
        return BatchState(
            id=str(name),
            ended=status == "ended",
            status=status if isinstance(status, str) else "unknown",
            n_requests=sum(counts.values()) if counts else None,
            created_at=seconds(data.get("created_at")),
            expires_at=seconds(data.get("expires_at")),
            counts=counts,
        )


def _result(line: bytes) -> BatchResult | None:
    """One line of the results; None where it is not one."""
    try:
        data = jsonl.from_bytes(line)
        name, result = data["custom_id"], data["result"]
        kind = result["type"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    if not isinstance(name, str):
        return None
    if kind == "succeeded":
        return BatchResult(name, body=result.get("message"))
    if kind in ("expired", "canceled"):
        return BatchResult(name, unfinished="cancelled" if kind == "canceled" else "expired")
    body = result.get("error")
    # The body of an error response, as a single request would have got it.
    inner = body.get("error") if isinstance(body, dict) else None
    code = inner.get("type") if isinstance(inner, dict) else None
    request_id = body.get("request_id") if isinstance(body, dict) else None
    return BatchResult(
        name,
        status=_STATUS.get(str(code), 500),
        body=body,
        request_id=request_id if isinstance(request_id, str) else None,
    )
