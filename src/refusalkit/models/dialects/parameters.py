"""Which parameter of a request an endpoint says it does not take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from refusalkit.models.dialects.rows import any_of, folded, table

# The bound on an answer's length is never left out, whatever a provider says: without it an answer
# could cost any amount. The back ends try its other name instead.
NEVER_LEFT_OUT = frozenset({"max_tokens", "max_completion_tokens"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@cache
def _refusal() -> re.Pattern[str]:
    return any_of(table("parameters")["words"])


@cache
def _value() -> re.Pattern[str]:
    return any_of(table("parameters")["value"])


@cache
def _lists() -> re.Pattern[str]:
    begin = any_of(table("parameters")["lists"])
    return re.compile(rf"(?:{begin.pattern})[^.;)?\n]*", re.IGNORECASE)


@cache
def _within() -> frozenset[str]:
    return frozenset(table("parameters")["within"])


def _top_level(name: str) -> str:
    """A parameter's name without outer and inner parts: ``body.top_k.x`` is ``top_k``."""
    parts = name.split(".")
    return next((part for part in parts if part not in _within()), parts[0])


@cache
def _order() -> Mapping[str, int]:
    return {name: at for at, name in enumerate(table("parameters")["order"])}


def refused_parameter(
    complaint: str, said: str | None, sent: frozenset[str], *, in_known_words: bool = False
) -> str | None:
    """The optional parameter of those `sent` that an error's text says is not taken, if any.

    `said` is the parameter that a field of the error names. `in_known_words`: only the table's
    words count, for errors whose status says that the server failed.
    """
    optional = sent - NEVER_LEFT_OUT
    # By letters and digits alone: some name them in their own spelling (`topK`, `Top-K`).
    known = {folded(name): name for name in (*NEVER_LEFT_OUT, *sent)}
    said = _top_level(said) if said else None
    said = known.get(folded(said), said) if said else None
    if said in NEVER_LEFT_OUT:
        return None
    words = {folded(_top_level(word)) for word in _NAME.findall(_lists().sub("", complaint))}
    names = {name for spelling, name in known.items() if spelling in words}
    named = names & optional
    if names & NEVER_LEFT_OUT and said not in optional:
        return None
    if not _refusal().search(complaint):
        # In unknown words: only where one parameter alone is meant, and not for its value.
        if in_known_words or _value().search(complaint):
            return None
        if said in optional:
            return said
        return next(iter(named)) if len(named) == 1 else None
    if said in optional:
        return said
    order = _order()
    return min(named, key=lambda name: (order.get(name, len(order)), name), default=None)
