"""The provider's batches: OpenAI's files and batches, Anthropic's Message Batches.

Each request of a batch is answered through the same script as a single one, when the batch ends:
with its own line in the ledger, so that what was paid for can be counted there. On purpose results
come shuffled, one twice, one under an id that nobody asked for; a list of batches lags behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import BodyPartReader, web

from .batch_speech import Speech, in_its_words, speech_of
from .script import Api

# Answers one request of a batch: (status, body).
Answer = Callable[[Api, dict[str, Any]], Awaitable[tuple[int, Any]]]


@dataclass
class BatchScript:
    """How batches behave.

    A batch ends `delay_s` after it was made; the list of batches leaves out those that are younger
    than `list_lag_s`. Of the `expires`-th batch of all (from 0) a share of `unfinished` requests,
    rounded up, expires; of the `errors`-th that share fails. `mess` adds shuffled order, duplicates
    and unknown ids. `lose` names the steps (``upload``, ``create``) whose first answer is lost on
    its way.
    `speaks` is the provider whose words for OpenAI's protocol are spoken.
    """

    speaks: Speech = "openai"

    delay_s: float = 0.0
    list_lag_s: float = 0.0
    expires: frozenset[int] = frozenset()
    errors: frozenset[int] = frozenset()
    unfinished: float = 0.3
    mess: bool = True
    refuse: str | None = None
    lose: set[str] = field(default_factory=set)


@dataclass
class Made:
    """One batch."""

    id: str
    api: Api
    number: int
    requests: list[dict[str, Any]]
    metadata: Any
    created: float
    at: float
    file: str | None = None
    cancelled: bool = False
    results: list[dict[str, Any]] | None = None
    counts: Counter[str] = field(default_factory=Counter)


class Batches:
    """The batches of the account."""

    def __init__(self, answer: Answer) -> None:
        self.script = BatchScript()
        self.made: dict[str, Made] = {}
        self.files: dict[str, bytes] = {}
        self.paid: Counter[str] = Counter()
        """Requests that were answered, by custom id."""
        self.gone: set[str] = set()
        """Ids of batches whose results are no longer kept."""
        self._answer = answer
        self._working = asyncio.Lock()

    def takes(self, path: str) -> bool:
        """Whether a path is one of batches."""
        return re.match(r"/v1/(files|batches|batch/jobs|messages/batches)\b", path) is not None

    async def handle(self, request: web.BaseRequest) -> tuple[int, Any] | None:
        """(status, JSON value or bytes); None: the answer is lost."""
        path, method = request.path, request.method
        speech = speech_of(self.script.speaks)
        if path == speech.upload and method == "POST":
            return await self._upload(request)
        if match := re.fullmatch(r"/v1/files/([\w-]+)", path):
            return 200, {"id": match[1], "object": "file", "status": "processed"}
        if match := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            return await self._content(match[1])
        path = re.sub(rf"^{speech.batches}\b", "/v1/batches", path)
        parts = re.fullmatch(r"/v1/(messages/)?batches(?:/([\w-]+))?(?:/(cancel|results))?", path)
        if parts is None:
            return 404, _error("no such path")
        api: Api = "anthropic" if parts[1] else "openai"
        name, action = parts[2], parts[3]
        if name is None:
            if method == "GET":
                return await self._list(api, request)
            return await self._create(api, await request.json())
        batch = self.made.get(name)
        if batch is None or batch.api != api:
            return 404, _error("no such batch")
        await self._work(batch)
        if action == "cancel" and batch.results is None:
            batch.cancelled = True
            await self._work(batch)
        if action == "results":
            if batch.results is None or name in self.gone:
                return 404, _error("no results")
            return 200, _lines(batch.results)
        return 200, in_its_words(self.script.speaks, self._state(batch))

    async def _upload(self, request: web.BaseRequest) -> tuple[int, Any] | None:
        # Not `request.post()`, which leaves a temporary file open where the client is killed.
        form: dict[str, bytes] = {}
        filename = ""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            data = bytearray()
            while chunk := await part.read_chunk():
                data += chunk
            form[str(part.name)] = bytes(data)
            filename = part.filename or filename
        speech = speech_of(self.script.speaks)
        assert form["purpose"].decode() == speech.purpose
        named = (form.get("file_name", b"").decode(), form.get("file_type", b"").decode())
        assert not speech.names_file or named == (filename, "jsonl")
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"]
        if self._loses("upload"):
            return None
        made = {"id": name, "object": "file", "purpose": "batch", "filename": filename}
        return 200, made | ({"status": speech.file_status} if speech.file_status else {})

    async def _create(self, api: Api, body: dict[str, Any]) -> tuple[int, Any] | None:
        if self.script.refuse is not None:
            return 400, _error(self.script.refuse)
        if api == "openai":
            if (wrong := speech_of(self.script.speaks).wrong_with(body)) is not None:
                return 400, _error(wrong)
            file = body.get("input_file_id") or body["input_files"][0]
            raw = self.files.get(file)
            if raw is None:
                return 400, _error("no such file")
            rows = [json.loads(line) for line in raw.splitlines()]
            assert all(row["method"] == "POST" and row["url"] == body["endpoint"] for row in rows)
            requests = [{"id": row["custom_id"], "body": row["body"]} for row in rows]
        else:
            file = None
            requests = [{"id": row["custom_id"], "body": row["params"]} for row in body["requests"]]
        ids = [one["id"] for one in requests]
        if len(set(ids)) != len(ids) or not all(map(_ID.fullmatch, ids)):
            return 400, _error("custom_id: not unique, or of other than 1 to 64 of [a-zA-Z0-9_-]")
        number = len(self.made)
        name = f"batch_{number}" if api == "openai" else f"msgbatch_{number}"
        now = time.time()
        self.made[name] = Made(name, api, number, requests, body.get("metadata"), now, now, file)
        if self._loses("create"):
            return None
        return 200, in_its_words(self.script.speaks, self._state(self.made[name]), created=True)

    def _loses(self, step: str) -> bool:
        found = step in self.script.lose
        self.script.lose.discard(step)
        return found

    async def _list(self, api: Api, request: web.BaseRequest) -> tuple[int, Any]:
        now = time.time()
        for batch in list(self.made.values()):
            await self._work(batch)
        seen = [
            batch
            for batch in reversed(self.made.values())
            if batch.api == api and now - batch.created >= self.script.list_lag_s
        ]
        if api == "openai" and self.script.speaks != "openai":
            return 200, speech_of(self.script.speaks).page(
                [in_its_words(self.script.speaks, self._state(batch)) for batch in seen],
                request.query,
            )
        after = request.query.get("after" if api == "openai" else "after_id")
        ids = [batch.id for batch in seen]
        start = ids.index(after) + 1 if after in ids else 0
        page = seen[start : start + 2]  # short pages: a client must turn them
        return 200, {
            "data": [self._state(batch) for batch in page],
            "has_more": start + 2 < len(seen),
            "last_id": page[-1].id if page else None,
        }

    async def _work(self, batch: Made) -> None:
        """Answer the requests of a batch whose time has come."""
        async with self._working:
            due = time.time() - batch.created >= self.script.delay_s
            if batch.results is not None or not (due or batch.cancelled):
                return
            results = []
            unfinished = self._unfinished(batch)
            for one in batch.requests:
                results.append(await self._one(batch, one, one["id"] in unfinished))
            if self.script.mess:
                random.Random(batch.id).shuffle(results)
                results.append(results[0])
                results.append({**results[0], "custom_id": "rk_nobody_asked_for_this"})
            batch.results = results

    def _unfinished(self, batch: Made) -> set[str]:
        """The requests that expire or fail where this batch is to leave some: always that share."""
        drawn = sorted(
            (hashlib.sha256(f"{batch.number}/{one['id']}".encode()).digest(), one["id"])
            for one in batch.requests
        )
        return {name for _, name in drawn[: math.ceil(self.script.unfinished * len(drawn))]}

    async def _one(self, batch: Made, one: dict[str, Any], hit: bool) -> dict[str, Any]:
        name = {"custom_id": one["id"]}
        openai = batch.api == "openai"
        if batch.cancelled or (batch.number in self.script.expires and hit):
            kind = "canceled" if batch.cancelled else "expired"
            batch.counts[kind] += 1
            code = "batch_cancelled" if batch.cancelled else "batch_expired"
            if openai:
                return {**name, "response": None, "error": {"code": code, "message": "."}}
            return {**name, "result": {"type": kind}}
        if batch.number in self.script.errors and hit:
            batch.counts["errored"] += 1
            if openai:
                body = {"error": {"message": "the server had an error", "type": "server_error"}}
                return {**name, "response": {"status_code": 500, "body": body}, "error": None}
            inner = {"type": "api_error", "message": "Internal server error"}
            return {
                **name,
                "result": {"type": "errored", "error": {"type": "error", "error": inner}},
            }
        self.paid[one["id"]] += 1
        status, body = await self._answer(batch.api, one["body"])
        batch.counts["succeeded" if status == 200 else "errored"] += 1
        if openai:
            response = {"status_code": status, "request_id": f"req-{one['id']}", "body": body}
            return {**name, "response": response, "error": None}
        if status == 200:
            return {**name, "result": {"type": "succeeded", "message": body}}
        return {**name, "result": {"type": "errored", "error": body}}

    async def _content(self, name: str) -> tuple[int, Any]:
        kind, _, batch_id = name.partition("-")
        batch = self.made.get(batch_id)
        if batch is None or batch.results is None or batch_id in self.gone:
            return 404, _error("no such file")
        good = [
            row for row in batch.results if (row.get("response") or {}).get("status_code") == 200
        ]
        return 200, _lines(good if kind == "out" else [r for r in batch.results if r not in good])

    def _state(self, batch: Made) -> dict[str, Any]:
        ended = batch.results is not None
        n = len(batch.requests)
        if batch.api == "anthropic":
            counts = {"succeeded": 0, "errored": 0, "canceled": 0, "expired": 0, **batch.counts}
            return {
                "id": batch.id,
                "type": "message_batch",
                "processing_status": "ended" if ended else "in_progress",
                "request_counts": {"processing": 0 if ended else n, **(counts if ended else {})},
                "created_at": datetime.fromtimestamp(batch.created, UTC).isoformat(),
                "expires_at": datetime.fromtimestamp(batch.created + 86400, UTC).isoformat(),
                # A trap: whoever follows this sends the key elsewhere.
                "results_url": "http://127.0.0.1:9/elsewhere" if ended else None,
            }
        status = "completed" if ended else "in_progress"
        if ended and batch.cancelled:
            status = "cancelled"
        elif ended and batch.counts["expired"]:
            status = "expired"
        done = batch.counts["succeeded"]
        return {
            "id": batch.id,
            "object": "batch",
            "status": status,
            "request_counts": {"total": n, "completed": done, "failed": batch.counts["errored"]},
            "metadata": batch.metadata,
            "input_file_id": batch.file,
            "created_at": int(batch.created),
            "expires_at": int(batch.created) + 86400,
            "output_file_id": f"out-{batch.id}" if ended else None,
            "error_file_id": f"err-{batch.id}" if ended else None,
            "errors": None,
        }


_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
