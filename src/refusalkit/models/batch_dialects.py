"""The limits of providers' batches, and how each names what OpenAI's protocol has.

Read from ``batches.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from refusalkit.models.batches import BatchLimits


@dataclass(frozen=True, slots=True)
class BatchDialect:
    """How an endpoint speaks the OpenAI protocol for batches; the defaults are OpenAI's own.

    `upload`, `files` and `batches` are paths below the base URL, `url` is the path that each line
    of the file names. An upload states its `purpose` and, with `names_file`, the file's name and
    type once more. A batch is created with the file's id in `input` (in a list where that name
    ends in s), the fields `create`, the model with `names_model`, and with `labels` our label as
    metadata. Answers are in the field `within`, where that is not None. `pages` says how the list
    of batches is paged. `ended` and `refused` are statuses; `expires`, `output` and `error` are
    fields of a batch, and `counts` maps its fields that count requests to our names, where the
    counts are not in ``request_counts``.
    """

    upload: str = "/files"
    files: str = "/files"
    batches: str = "/batches"
    url: str = "/v1/chat/completions"
    purpose: str = "batch"
    names_file: bool = False
    input: str = "input_file_id"
    create: Mapping[str, Any] = field(default_factory=lambda: {"completion_window": "24h"})
    names_model: bool = False
    labels: bool = True
    within: str | None = None
    pages: Literal["after", "number", "cursor", "none"] = "after"
    ended: tuple[str, ...] = ("completed", "failed", "expired", "cancelled")
    refused: tuple[str, ...] = ("failed",)
    expires: str = "expires_at"
    output: str = "output_file_id"
    error: str = "error_file_id"
    counts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchProvider:
    """A row of ``batches.toml``. Models whose requests go in batches are asked at its `base`."""

    name: str
    limits: BatchLimits
    dialect: BatchDialect = BatchDialect()
    hosts: tuple[str, ...] = ()
    base: str | None = None

    def is_at(self, host: str) -> bool:
        """Whether a host is this provider's."""
        return any(
            host.endswith(name) if name.startswith(".") else host == name for name in self.hosts
        )


@cache
def batch_providers() -> dict[str, BatchProvider]:
    """The providers of ``batches.toml``, by name."""
    text = Path(__file__).with_name("batches.toml").read_text(encoding="utf-8")
    return {row["provider"]: _provider(row) for row in tomllib.loads(text)["provider"]}


def batch_limits(name: str) -> BatchLimits | None:
    """The limits of a provider's batches; None where no batches of it are known."""
    found = batch_providers().get(name)
    return None if found is None else found.limits


def provider_at(base: str) -> BatchProvider:
    """The provider of the OpenAI protocol at a base URL; OpenAI's own row where it is not known."""
    providers = batch_providers()
    host = urlsplit(base).hostname or ""
    return next((one for one in providers.values() if one.is_at(host)), providers["openai"])


def _provider(row: Mapping[str, Any]) -> BatchProvider:
    speaks: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row.get("speaks", {}).items()
    }
    return BatchProvider(
        name=row["provider"],
        limits=BatchLimits(row["max_requests"], row["max_bytes"], row.get("price_factor")),
        dialect=BatchDialect(**speaks),
        hosts=tuple(row.get("hosts", ())),
        base=row.get("base"),
    )
