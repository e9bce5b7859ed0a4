"""Checks that what goes into a manifest holds no key: URLs, request bodies, variable names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from refusalkit.redaction import redact

# Names of fields, and parts of a URL's path, that hold a secret. `max_tokens`, `pad_token`,
# `stop_token_ids` and `author` hold none.
_SECRET_FIELD = re.compile(
    r"(?i)(api|access|account|auth|client|encryption|private|secret|service|signing|subscription)"
    r"[-_]?key"
    r"|secret|passw(or)?d|passphrase|passcode|credential|authorization|bearer|cookie|jwt"
    r"|(^|[-_])(auth|pwd)$|^key$"
    r"|^(x[-_])?((access|api|auth|bearer|csrf|hf|id|refresh|secret|security|session)[-_]?)?token$"
)
_SECRET_PART = re.compile(
    r"(?i)(^|[/;:])(api[-_]?key|key|token|secret|passw(or)?d|pwd|credentials?|auth)[=/:-][^/]{6,}"
)
_LONG_SECRET = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9_-]{32,}")

# What clients append to a base URL themselves.
_REQUEST_PATHS = ("/chat/completions", "/completions", "/messages", "/responses")


def checked_base(value: str) -> str:
    """A base URL that may be written down. Raises `ValueError`, which does not repeat it."""
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port  # checked when it is read
    except ValueError as error:
        raise ValueError("is not a URL") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be a URL such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "holds credentials or a query, and a URL is written to the manifest: give the key "
            "in an environment variable (--api-key-env)"
        )
    named = _SECRET_PART.search(parts.path)
    if named or any(map(_LONG_SECRET.fullmatch, parts.path.split("/"))) or _shows_key(parts.path):
        raise ValueError(
            "has what looks like a key in its path, and a URL is written to the manifest: give the "
            "key in an environment variable (--api-key-env)"
        )
    base = value.rstrip("/")
    for path in _REQUEST_PATHS:
        if base.endswith(path):
            raise ValueError(
                f"is the URL of one kind of request: give the base URL, without {path}"
            )
    return base


def checked_variable(value: str) -> str:
    """The name of an environment variable. Raises `ValueError`, which does not repeat it."""
    # Not shown: it may be the key itself.
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
        raise ValueError(
            "must be the name of an environment variable, such as MY_API_KEY, not the key itself"
        )
    return value


def checked_body(value: dict[str, Any]) -> dict[str, Any]:
    """Fields of a request that may be written down. Raises `ValueError`."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("must hold only JSON values") from error
    for name in _field_names(value):
        if _SECRET_FIELD.search(name):
            raise ValueError(f"{name!r} looks like a key, and the body is written to the manifest")
    if any(map(_shows_key, _texts(value))):
        raise ValueError("holds what looks like a key, and the body is written to the manifest")
    return value


def _shows_key(text: str) -> bool:
    """Whether a text holds something that looks like a provider's key."""
    return "[key]" in redact(text, len(text) + 100)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _texts(item)


def _field_names(value: Any) -> Iterator[str]:
    """The names of all fields of a JSON value, nested ones included."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _field_names(item)
