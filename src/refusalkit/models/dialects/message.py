"""The answer and the reasoning in a message, whichever fields and parts hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from refusalkit.models.dialects.rows import table


@cache
def _fields() -> tuple[str, ...]:
    return tuple(row["field"] for row in table("reasoning")["field"])


@cache
def _names() -> frozenset[str]:
    return frozenset(_fields())


@cache
def _parts() -> frozenset[str]:
    return frozenset(row["part"] for row in table("reasoning")["part"])


def answer_text(content: object) -> str:
    """A message's content without reasoning: a text, or the texts of its parts."""
    if isinstance(content, str):
        return content
    return "".join(
        text for part in _each(content) if not _is_reasoning(part) for text in _texts(part)
    )


def reasoning_text(message: Mapping[str, Any]) -> str:
    """A message's reasoning: the first reasoning field that has any, else its reasoning parts."""
    if not _names().isdisjoint(message):  # most messages have none
        for name in _fields():
            value = message.get(name)
            if value:
                return value if isinstance(value, str) else "\n".join(_all_texts(value))
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    parts = [part for part in _each(content) if _is_reasoning(part)]
    return "\n".join(text for part in parts for text in _all_texts(part))


def _each(content: object) -> list[Any]:
    return content if isinstance(content, list) else [] if content is None else [content]


def _is_reasoning(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return part.get("thought") is True or (isinstance(kind, str) and kind in _parts())


def _texts(part: object) -> Iterator[str]:
    """The texts of one part of an answer."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        text = part.get("text") or part.get("refusal")
        if isinstance(text, dict):
            text = text.get("value")
        if isinstance(text, str):
            yield text


def _all_texts(value: object, depth: int = 0) -> Iterator[str]:
    """Every text below a reasoning field, without ids, types and the like."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif depth < 6 and isinstance(value, list):
        for item in value:
            yield from _all_texts(item, depth + 1)
    elif depth < 6 and isinstance(value, dict):
        for name, item in value.items():
            if name not in ("type", "id", "format", "signature", "index", "status"):
                yield from _all_texts(item, depth + 1)
