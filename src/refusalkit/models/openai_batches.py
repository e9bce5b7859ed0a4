"""Batches of the OpenAI protocol: an uploaded file of requests, a batch, files of results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import aiohttp

from refusalkit import jsonl
from refusalkit.errors import RequestError
from refusalkit.models.batches import (
    BatchLimits,
    BatchRequest,
    BatchResult,
    BatchState,
    batch_limits,
    is_provider_id,
)

_PATH = "/v1/chat/completions"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_PAGE = 100
# Codes of the error file for requests that were never answered.
_UNFINISHED = {"batch_expired": "expired", "batch_cancelled": "cancelled"}


class Calls(Protocol):
    """What is asked of the client (`OpenAIClient`)."""

    names: str

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        form: aiohttp.FormData | None = None,
        once: bool = False,
    ) -> dict[str, Any]:
        """A JSON object below the base URL."""
        ...

    def lines(self, path: str) -> AsyncIterator[bytes]:
        """The lines of a file below the base URL."""
        ...


class OpenAIBatches:
    """The batches of an endpoint that speaks the OpenAI protocol."""

    def __init__(self, client: Calls) -> None:
        self._client = client
        limits = batch_limits("openai")
        assert limits is not None, "batches.toml has a row for openai"
        self.limits: BatchLimits = limits

    def __repr__(self) -> str:
        return f"OpenAIBatches({self._client.names!r})"

    async def create(
        self, requests: Sequence[BatchRequest], label: str, on_upload: Callable[[str], None]
    ) -> BatchState:
        """Upload the requests and make a batch of them, labelled in its metadata."""
        head = b'{"custom_id":"%s","method":"POST","url":"' + _PATH.encode() + b'","body":'
        lines = [head % one.custom_id.encode() + one.body + b"}\n" for one in requests]
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field(
            "file",
            b"".join(lines),
            filename=f"{label}.jsonl",
            content_type="application/jsonl",
        )
        uploaded = await self._client.call("POST", "/files", form=form)
        file = self._id(uploaded)
        on_upload(file)
        made = await self._client.call(
            "POST",
            "/batches",
            json={
                "input_file_id": file,
                "endpoint": _PATH,
                "completion_window": "24h",
                "metadata": {"refusalkit": label},
            },
            once=True,
        )
        return self._state(made)

    async def recent(self, since: float) -> list[BatchState]:
        """The account's batches that were created since then."""
        found: list[BatchState] = []
        after = ""
        while True:
            query = f"/batches?limit={_PAGE}" + (f"&after={after}" if after else "")
            page = await self._client.call("GET", query)
            listed = page.get("data")
            rows = listed if isinstance(listed, list) else []
            states = [self._state(row) for row in rows if isinstance(row, dict)]
            found += [one for one in states if one.created_at is None or one.created_at >= since]
            older = any(one.created_at is not None and one.created_at < since for one in states)
            if older or not states or not page.get("has_more") or states[-1].id == after:
                return found
            after = states[-1].id

    async def state(self, batch_id: str) -> BatchState:
        """How a batch is doing."""
        return self._state(await self._client.call("GET", f"/batches/{batch_id}"))

    async def results(self, state: BatchState) -> AsyncIterator[BatchResult]:
        """The lines of its output file, then of its error file."""
        for file in state.files:
            async for line in self._client.lines(f"/files/{file}/content"):
                if (result := _result(line)) is not None:
                    yield result

    async def cancel(self, batch_id: str) -> BatchState:
        """Ask the provider to stop."""
        return self._state(await self._client.call("POST", f"/batches/{batch_id}/cancel", json={}))

    def _id(self, data: Mapping[str, Any]) -> str:
        found = data.get("id")
        if not is_provider_id(found):
            raise RequestError(f"{self._client.names}: the answer names no file or batch")
        return str(found)

    def _state(self, data: Mapping[str, Any]) -> BatchState:
        status = data.get("status")
        status = status if isinstance(status, str) else "unknown"
        counts = _numbers(data.get("request_counts"))
        metadata = data.get("metadata")
        label = metadata.get("refusalkit") if isinstance(metadata, dict) else None
        files = (data.get("output_file_id"), data.get("error_file_id"))
        total = counts.pop("total", None)
        return BatchState(
            id=self._id(data),
            ended=status in _ENDED,
            status=status,
            n_requests=total,
            label=label if isinstance(label, str) else None,
            created_at=_number(data.get("created_at")),
            expires_at=_number(data.get("expires_at")),
            counts=counts,
            files=tuple(str(file) for file in files if is_provider_id(file)),
            failure=_failure(data.get("errors")) if status == "failed" else None,
        )


def _result(line: bytes) -> BatchResult | None:
    """One line of a results file; None where it is not one."""
    try:
        data = jsonl.from_bytes(line)
        name = data["custom_id"]
        response, error = data.get("response"), data.get("error")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(name, str):
        return None
    if isinstance(response, dict) and response.get("status_code") is not None:
        status = response["status_code"]
        request_id = response.get("request_id")
        return BatchResult(
            name,
            status=status if isinstance(status, int) else 200,
            body=response.get("body"),
            request_id=request_id if isinstance(request_id, str) else None,
        )
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code in _UNFINISHED:
        return BatchResult(name, unfinished=_UNFINISHED[code])
    return BatchResult(name, status=500, body={"error": error})


def _failure(errors: object) -> str:
    rows = errors.get("data") if isinstance(errors, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, str) else "no reason given"


def _numbers(data: object) -> dict[str, int]:
    if not isinstance(data, dict):
        return {}
    return {str(k): v for k, v in data.items() if isinstance(v, int) and not isinstance(v, bool)}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
