"""Batches of the OpenAI protocol: an uploaded file of requests, a batch, files of results.

Names that differ between the providers that speak it are in ``batches.toml`` (`BatchDialect`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp

from refusalkit import jsonl
from refusalkit.errors import RequestError
from refusalkit.models.batch_dialects import BatchProvider
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

# Statuses of a file that cannot be used yet, and the most seconds to wait for it.
_PREPARING = frozenset({"pending", "running"})
_PREPARING_S = 120.0
# Codes of the error file for requests that were never answered.
_UNFINISHED = {"batch_expired": "expired", "batch_cancelled": "cancelled"}


class Calls(Protocol):
    """What batches need of the client (`OpenAIClient`)."""

    names: str

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        form: aiohttp.FormData | None = None,
        once: bool = False,
    ) -> Any: ...

    def lines(self, path: str) -> AsyncIterator[bytes]: ...


class OpenAIBatches:
    """The batches of an endpoint that speaks the OpenAI protocol, as `provider` speaks it.

    `model` is the model's name there.
    """

    uploads = True
    list_lags = True

    def __init__(self, client: Calls, provider: BatchProvider, model: str) -> None:
        self._client, self._speaks, self._model = client, provider.dialect, model
        self.limits: BatchLimits = provider.limits

    def __repr__(self) -> str:
        return f"OpenAIBatches({self._client.names!r})"

    async def create(
        self, requests: Sequence[BatchRequest], label: str, on_upload: Callable[[str], None]
    ) -> BatchState:
        """Upload the requests and make a batch of them, labelled in its metadata."""
        speaks = self._speaks
        name = f"{label}.jsonl"
        form = aiohttp.FormData()
        form.add_field("purpose", speaks.purpose)
        if speaks.names_file:
            form.add_field("file_name", name)
            form.add_field("file_type", "jsonl")
        form.add_field(
            "file",
            b"".join(request_lines(requests, speaks.url)),
            filename=name,
            content_type="application/jsonl",
        )
        uploaded = await self._client.call("POST", speaks.upload, form=form)
        file = self._id(uploaded)
        on_upload(file)
        await self._prepared(file, uploaded)
        asked: dict[str, Any] = {
            speaks.input: [file] if speaks.input.endswith("s") else file,
            "endpoint": speaks.url,
            **speaks.create,
        }
        if speaks.names_model:
            asked["model"] = self._model
        if speaks.labels:
            asked["metadata"] = {"refusalkit": label}
        return self._state(await self._client.call("POST", speaks.batches, json=asked, once=True))

    async def _prepared(self, file: str, uploaded: Mapping[str, Any]) -> None:
        """Wait until an uploaded file can be used: some endpoints check it first (Azure)."""
        with contextlib.suppress(TimeoutError):  # creating the batch will say what is wrong
            async with asyncio.timeout(_PREPARING_S):
                while uploaded.get("status") in _PREPARING:
                    await asyncio.sleep(_PREPARING_S / 60)
                    uploaded = await self._client.call("GET", f"{self._speaks.files}/{file}")

    async def recent(self, since: float) -> list[BatchState]:
        """The account's batches that were created since then."""
        pages = self._speaks.pages
        cursor = ""

        async def page(number: int, after: str) -> tuple[list[BatchState], bool]:
            nonlocal cursor
            query = {
                "none": "",
                "number": f"?page={number}&page_size={PAGE}",
                "cursor": f"?cursor={quote(cursor, safe='')}" if cursor else "",
            }.get(pages, f"?limit={PAGE}" + (f"&after={after}" if after else ""))
            answer = await self._client.call("GET", self._speaks.batches + query)
            listed = answer.get("data") if isinstance(answer, dict) else answer
            rows = listed if isinstance(listed, list) else []
            states = [self._state(row) for row in rows if isinstance(row, dict)]
            if pages == "number":
                return states, len(rows) >= PAGE
            if pages == "cursor":
                turned = answer.get("paging") if isinstance(answer, dict) else None
                found = turned.get("next_cursor") if isinstance(turned, dict) else None
                before, cursor = cursor, found if isinstance(found, str) else ""
                return states, bool(cursor) and cursor != before
            more = pages == "after" and isinstance(answer, dict) and answer.get("has_more")
            return states, bool(more)

        # The order of a list with cursors is not documented.
        return await read_pages(page, since, newest_first=pages != "cursor")

    async def state(self, batch_id: str) -> BatchState:
        """How a batch is doing."""
        path = f"{self._speaks.batches}/{batch_id}"
        return self._state(await self._client.call("GET", path))

    async def results(self, state: BatchState) -> AsyncIterator[BatchResult]:
        """The lines of its output file, then of its error file."""
        for file in state.files:
            async for line in self._client.lines(f"{self._speaks.files}/{file}/content"):
                if (result := read_result(line)) is not None:
                    yield result

    async def cancel(self, batch_id: str) -> BatchState:
        """Ask the provider to stop."""
        path = f"{self._speaks.batches}/{batch_id}/cancel"
        return self._state(await self._client.call("POST", path, json={}))

    def _id(self, data: object) -> str:
        found = data.get("id") if isinstance(data, dict) else None
        if not is_provider_id(found):
            raise RequestError(f"{self._client.names}: the answer names no file or batch")
        return str(found)

    def _state(self, answer: Mapping[str, Any]) -> BatchState:
        speaks = self._speaks
        data = answer.get(speaks.within, answer) if speaks.within is not None else answer
        name = self._id(data)
        status = data.get("status")
        status = status if isinstance(status, str) else "unknown"
        counts = _numbers(data.get("request_counts"))
        if speaks.counts:
            there = _numbers(data)
            counts = {ours: there[own] for own, ours in speaks.counts.items() if own in there}
        total = counts.pop("total", None)
        metadata = data.get("metadata")
        label = metadata.get("refusalkit") if isinstance(metadata, dict) else None
        inputs = data.get(speaks.input)
        first = inputs[0] if isinstance(inputs, list) and inputs else inputs
        files = (data.get(speaks.output), data.get(speaks.error))
        return BatchState(
            id=name,
            ended=status in speaks.ended,
            status=status,
            n_requests=total or None,
            label=label if isinstance(label, str) else None,
            input_file=first if isinstance(first, str) else None,
            created_at=seconds(data.get("created_at")),
            expires_at=seconds(data.get(speaks.expires)),
            counts=counts,
            files=tuple(str(file) for file in files if is_provider_id(file)),
            failure=_failure(data) if status in speaks.refused else None,
        )


def request_lines(requests: Iterable[BatchRequest], url: str) -> list[bytes]:
    """The lines of a file of requests."""
    head = b'{"custom_id":"%s","method":"POST","url":"' + url.encode() + b'","body":'
    return [head % one.custom_id.encode() + one.body + b"}\n" for one in requests]


def read_result(line: bytes) -> BatchResult | None:
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
        body = response.get("body")
        if body is None and error is not None:  # vLLM says why it failed beside the response
            body = error if isinstance(error, dict) else {"error": {"message": error}}
        return BatchResult(
            name,
            status=status if isinstance(status, int) else 200,
            body=body,
            request_id=request_id if isinstance(request_id, str) else None,
        )
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code in _UNFINISHED:
        return BatchResult(name, unfinished=_UNFINISHED[code])
    return BatchResult(name, status=500, body={"error": error})


def _failure(data: Mapping[str, Any]) -> str:
    """Why a batch was refused: in ``errors``, in its ``data`` (OpenAI), or in ``error``."""
    errors = data.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else errors
    first = rows[0] if isinstance(rows, list) and rows else data.get("error")
    message = first.get("message") if isinstance(first, dict) else first
    return message if isinstance(message, str) and message else "no reason given"


def _numbers(data: object) -> dict[str, int]:
    if not isinstance(data, dict):
        return {}
    return {str(k): v for k, v in data.items() if isinstance(v, int) and not isinstance(v, bool)}
