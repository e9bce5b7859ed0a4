"""What finish words mean: the words by which endpoints say why an answer ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache

from refusalkit.models.dialects.filters import is_filter_code
from refusalkit.models.dialects.rows import folded, table, values_at


class Means(StrEnum):
    """What a finish word means; `finish.toml` describes each."""

    ANSWERED = "answered"
    TRUNCATED = "truncated"
    BLOCKED = "blocked"
    NO_ANSWER = "no_answer"
    TOOLS = "tools"
    FAULT = "fault"
    UNSAID = "unsaid"


@dataclass(frozen=True, slots=True)
class Finish:
    """How an answer ended.

    `word` is the endpoint's own; `means` counts where no text came, `with_text` where some did.
    """

    word: str | None
    means: Means
    with_text: Means


NATIVE_LOST = ":native_lost"
"""Appended to a recorded finish word that is a gateway's, the provider's own being unknown."""

UNSAID = Finish(None, Means.UNSAID, Means.UNSAID)
# Where a gateway's word and its upstream's differ, the upstream's counts, unless it means this.
_MILD = frozenset({Means.ANSWERED, Means.UNSAID})
_FILTERED = (Means.BLOCKED, Means.BLOCKED)
_PARTS = re.compile(r"\s*[:;]\s*")


@cache
def _words() -> Mapping[str, tuple[Means, Means]]:
    rows = table("finish")["word"]
    return {
        folded(row["word"]): (Means(row["means"]), Means(row.get("with_text", row["means"])))
        for row in rows
    }


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(map(folded, table("finish")["names"]), key=len, reverse=True))


@cache
def _fields() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(path.split(".")) for path in table("finish")["fields"])


def _known(word: str) -> tuple[Means, Means] | None:
    known = _words()
    key = folded(word)
    for name in _names():
        if key.startswith(name) and len(key) > len(name):
            key = key.removeprefix(name)
            break
    # An error's code in place of a word.
    return known.get(key) or (_FILTERED if is_filter_code(key) else None)


@lru_cache(maxsize=512)
def known_finish(word: str) -> Finish | None:
    """What one word means; None where no table has it."""
    whole = _known(word)
    if whole is None:
        # `content_filter: RECITATION`: the last part that is known is the most specific.
        parts = [part for part in _PARTS.split(word) if part]
        whole = next(filter(None, map(_known, reversed(parts))), None) if len(parts) > 1 else None
    return None if whole is None else Finish(word, *whole)


def finish_of(
    word: str | None, native: str | None = None, own: Mapping[str, Means] | None = None
) -> Finish | None:
    """How an answer ended by its finish word; None if the word is unknown.

    `native` is the word of the provider behind a gateway, `own` the meanings given by the user.
    """
    said = _one(word, own)
    if native is None or native == word:
        return said
    upstream = _one(native, own)
    if upstream is None:
        return said
    if said is None:
        return upstream
    milder = upstream.means in _MILD or (
        upstream.means is Means.TRUNCATED and said.means is Means.BLOCKED
    )
    return said if milder else upstream


def _one(word: str | None, own: Mapping[str, Means] | None) -> Finish | None:
    if word is None:
        return UNSAID
    if own and (means := own.get(folded(word))) is not None:
        return Finish(word, means, means)
    return known_finish(word)


def finish_words(data: object) -> list[str]:
    """Every finish word in a body of any protocol, the most specific first."""
    found = (_text(value) for path in _fields() for value in values_at(data, path))
    return [word for word in found if word is not None]


def blocked_word(data: object) -> str | None:
    """The finish word in a body that says a filter stopped the answer; None where none does."""
    for word in finish_words(data):
        known = known_finish(word)
        if known is not None and known.means is Means.BLOCKED:
            return word
    return None


def _text(value: object) -> str | None:
    """A reason as text; some servers send an object, ``{"type": "stop"}``."""
    if isinstance(value, dict):
        value = value.get("type") or value.get("reason")
    return value if isinstance(value, str) else None


def reason_text(value: object) -> str | None:
    """A finish reason as a field has it; a number is an unknown word."""
    if value is None or isinstance(value, str):
        return value
    return _text(value) or str(value)


def parse_finish_word(text: str) -> tuple[str, Means]:
    """A user's ``WORD=OUTCOME``: the word, folded as in the tables, and what it means.

    Raises `ValueError` where there is no such outcome, or the word is known to mean another.
    """
    word, equals, outcome = text.rpartition("=")
    allowed = (Means.ANSWERED, Means.TRUNCATED, Means.BLOCKED, Means.NO_ANSWER)
    if not equals or not folded(word) or outcome not in allowed:
        raise ValueError(f"{text!r} is not WORD=OUTCOME with one of {', '.join(allowed)}")
    known = known_finish(word)
    if known is not None and known.means is not Means(outcome):
        raise ValueError(f"the finish word {word!r} is known: it means {known.means}")
    return folded(word), Means(outcome)
