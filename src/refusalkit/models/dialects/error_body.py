"""What an error's body says, whatever shape an endpoint gives it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from refusalkit.display import shows
from refusalkit.models.dialects.rows import table

# Names of the fields that hold an error's texts and codes, common to JSON APIs.
_TEXTS = frozenset(
    {
        *("message", "msg", "detail", "details", "error", "errors", "description", "reason", "raw"),
        *("error_msg", "errormsg", "error_message", "errormessage", "error_description"),
        *("status_msg", "title", "cause", "innererror", "inner_error", "fault", "faultstring"),
    }
)
_CODES = frozenset(
    {
        *("code", "type", "__type", "status", "reason", "status_code", "statuscode"),
        *("error_code", "errcode", "errorcode", "error_type"),
    }
)
# What gateways in Python and Go write for nothing.
_NOTHING = frozenset({"None", "<nil>", "null"})
_MAX_DEPTH = 8
_MAX_CHARS = 20_000


@shows("codes", "parameter")
@dataclass(slots=True)
class ErrorBody:
    """An error's texts as one, its codes, the parameter that it names, and bodies within texts."""

    message: str
    codes: tuple[str, ...] = ()
    parameter: str | None = None
    bodies: tuple[object, ...] = ()


def read_error(data: object) -> ErrorBody:
    """Read an error of any shape: an object, a list, a text; nested, or JSON within a text."""
    texts: list[str] = []
    codes: list[str] = []
    parameters: list[str] = []
    bodies: list[object] = []
    of_kind: dict[str, list[Any]] = {
        "text": texts,
        "code": codes,
        "parameter": parameters,
        "body": bodies,
    }
    for kind, value in _walk(data, "", 0):
        said = of_kind[kind]
        if value not in said:
            said.append(value)
    message = "; ".join(texts)[:_MAX_CHARS]
    return ErrorBody(message, tuple(codes[:50]), next(iter(parameters), None), tuple(bodies))


def _walk(value: object, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Texts, codes, parameters and bodies in order of appearance."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list | tuple):
        for item in value[:50]:
            yield from _walk(item, name, depth + 1)
    elif isinstance(value, dict):
        for key, item in list(value.items())[:50]:
            yield from _field(str(key).casefold(), item, depth)
    elif isinstance(value, str) and value.strip():
        inner = _within(value)
        if inner is None:
            # Brackets left over around an inner object are not a text.
            if any(map(str.isalnum, value)):
                yield "text", value.strip()
        else:
            yield "body", inner[1]
            yield from _walk(inner, name, depth + 1)


def _field(key: str, item: object, depth: int) -> Iterator[tuple[str, Any]]:
    if key in _parameter_names():
        named = item[-1] if isinstance(item, list | tuple) and item else item
        if isinstance(named, str) and named and named not in _NOTHING:
            # Some endpoints write a sentence into the field (MiMo).
            yield ("text" if len(named.split()) > 2 else "parameter"), named
        return
    if key in _CODES and isinstance(item, str | int) and not isinstance(item, bool):
        code = str(item).strip()
        if code and code not in _NOTHING:
            yield "code", code
        if key != "reason":
            return
    if isinstance(item, list) and key not in _TEXTS and all(isinstance(one, str) for one in item):
        # Complaints by the name of what they are about.
        yield from (("text", f"{key}: {one}") for one in item[:50] if one.strip())
    elif key in _TEXTS or isinstance(item, dict | list | tuple):
        yield from _walk(item, key, depth + 1)


def _within(text: str) -> Any:
    """The object within a text, as JSON or as a Python literal: gateways nest errors so."""
    start, end = text.find("{"), text.rfind("}") + 1
    if start < 0 or end <= start or len(text) > _MAX_CHARS:
        return None
    found: Any = None
    try:
        found = json.loads(text[start:end])
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text[start:end])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    # Several objects separated by commas, as pydantic lists mistakes, evaluate to a tuple.
    if not isinstance(found, dict | tuple):
        return None
    # LiteLLM's proxy writes its own words before and behind the provider's body.
    return [text[:start].strip(), found, text[end:].strip()]


@cache
def _parameter_names() -> frozenset[str]:
    return frozenset(table("parameters")["fields"])
