"""How other providers speak OpenAI's files and batches: paths, fields, statuses, lists.

Written from their documentation and SDKs, not from refusalkit's own table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Speech = Literal["openai", "azure", "groq", "together", "mistral"]
Data = dict[str, Any]


@dataclass(frozen=True)
class Spoken:
    """What a provider calls things.

    `needs` are the fields of a creation and the values that some must have, `refuses` those that it
    does not know. `page` makes the answer of a list from all batches and the query.
    """

    upload: str = "/v1/files"
    batches: str = "/v1/batches"
    purpose: str = "batch"
    names_file: bool = False
    file_status: str | None = None
    needs: Mapping[str, Any] | None = None
    refuses: tuple[str, ...] = ()
    page: Callable[[list[Data], Mapping[str, str]], Any] = lambda rows, _: {"data": rows}

    def wrong_with(self, body: Data) -> str | None:
        """Why a creation is refused; None: it is not."""
        needs = {"input_file_id": None, "endpoint": None, "completion_window": "24h"}
        for name, value in (self.needs or needs).items():
            if name not in body or value not in (None, body[name]):
                return f"{name} is missing or wrong"
        unknown = [name for name in self.refuses if name in body]
        return f"{unknown[0]} is not a field" if unknown else None


def _numbered(rows: list[Data], query: Mapping[str, str]) -> Data:
    size = int(query["page_size"])
    start = int(query["page"]) * size
    return {"object": "list", "total": len(rows), "data": rows[start : start + size]}


def _with_cursor(rows: list[Data], query: Mapping[str, str]) -> Data:
    """One batch a page, the oldest first: a client must turn all of them."""
    start = int(query.get("cursor", "at=0").removeprefix("at="))
    turned = {"next_cursor": f"at={start + 1}"} if start + 1 < len(rows) else {}
    return {"object": "list", "data": rows[::-1][start : start + 1], "paging": turned}


_SPOKEN: dict[Speech, Spoken] = {
    "openai": Spoken(),
    "azure": Spoken(
        file_status="pending",
        needs={
            "input_file_id": None,
            "endpoint": "/chat/completions",
            "completion_window": "24h",
        },
        page=lambda rows, _: {"data": rows, "has_more": False},
    ),
    "groq": Spoken(page=_with_cursor),
    "together": Spoken(
        upload="/v1/files/upload",
        purpose="batch-api",
        names_file=True,
        refuses=("metadata",),
        page=lambda rows, _: rows,
    ),
    "mistral": Spoken(
        batches="/v1/batch/jobs",
        needs={"input_files": None, "endpoint": "/v1/chat/completions", "model": None},
        refuses=("input_file_id", "completion_window"),
        page=_numbered,
    ),
}


def speech_of(name: Speech) -> Spoken:
    """What a provider calls things."""
    return _SPOKEN[name]


def in_its_words(name: Speech, state: Data, *, created: bool = False) -> Data:
    """A batch as OpenAI shows it, as another provider would; `created`: by its creation."""
    if state.get("object") != "batch":
        return state
    if name == "together":
        job = {
            "id": state["id"],
            "user_id": "user-1",
            "input_file_id": state["input_file_id"],
            "file_size_bytes": 1,
            "status": state["status"].upper(),
            "job_deadline": _time(state["expires_at"]),
            "created_at": _time(state["created_at"]),
            "endpoint": "/v1/chat/completions",
            "progress": 0.0,
            "output_file_id": state["output_file_id"],
            "error_file_id": state["error_file_id"],
        }
        return {"job": job, "warning": None} if created else job
    if name == "mistral":
        counts = state["request_counts"]
        statuses = {
            "completed": "SUCCESS",
            "expired": "TIMEOUT_EXCEEDED",
            "cancelled": "CANCELLED",
            "in_progress": "RUNNING",
        }
        return {
            "id": state["id"],
            "object": "batch",
            "input_files": [state["input_file_id"]],
            "endpoint": "/v1/chat/completions",
            "metadata": state["metadata"],
            "errors": [],
            "status": statuses[state["status"]],
            "created_at": state["created_at"],
            "total_requests": counts["total"],
            "completed_requests": counts["completed"] + counts["failed"],
            "succeeded_requests": counts["completed"],
            "failed_requests": counts["failed"],
            "output_file": state["output_file_id"],
            "error_file": state["error_file_id"],
        }
    return state


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
