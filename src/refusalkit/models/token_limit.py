"""Tokens per minute: what may go out now, and what is still to be counted.

A leaky bucket, such as the one that spaces requests, lets twice its size through in the first
minute. Here every request is counted from before it goes out until a minute after its answer is
complete, so the sum over any minute holds wherever within a request the provider counts it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

_MINUTE_S = 60.0
# What a chat template adds to a request, in bytes of text that would have as many tokens.
_TEMPLATE_BYTES = 100
# Bytes per token where an endpoint reports no count: cautious for English.
_BYTES_TO_A_TOKEN = 3.0
# No context window holds more: a larger count is a fault and is ignored.
_MAX_CONTEXT = 10_000_000
# Answers whose median says what an endpoint adds to a request.
_ANSWERS_ASKED = 15


@dataclass(slots=True)
class Demand:
    """What a request may cost a token limit, known before it is sent."""

    input_bytes: int
    """UTF-8 bytes of its texts."""
    max_output_tokens: int
    """The most tokens its answer may have."""


@dataclass(slots=True)
class Spent:
    """What an answer used. None: the endpoint did not say."""

    input_tokens: int | None
    """Tokens of the request."""
    output_tokens: int | None
    """Tokens of the answer, reasoning included."""
    output_bytes: int
    """UTF-8 bytes of the answer's text."""


@dataclass(slots=True)
class Booking:
    """One request that is counted, in tokens."""

    demand: Demand
    tokens: float


class TokenPace:
    """Lets requests through, in order, while the tokens of a minute stay within `tpm`.

    A request is booked with an upper bound on what it will use, and corrected by what it did use.
    Before the first answer the bound is one token per byte and the longest answer allowed; after
    that, the most tokens per byte and the longest answer seen so far. A request that exceeds the
    limit by itself goes alone. `minute_s` is another length of the minute, for tests.

    What an endpoint reports for a request is counted as reported. What is learned from it for
    others is bounded by what is possible, so that one wrong figure does not slow the rest of a run.
    A text has at most one token per byte, since tokenisers fall back to bytes at worst, and
    requests hold only text. An endpoint that truly counts more adds something of its own, such as a
    system prompt, to every request: the median of the latest answers shows it, and a single wrong
    figure does not move the median. No answer is expected to be longer than was allowed.
    """

    def __init__(self, tpm: float, *, minute_s: float | None = None) -> None:
        self._tpm = tpm
        self._minute_s = _MINUTE_S if minute_s is None else minute_s
        self._booked = 0.0
        self._open = 0  # bookings that are neither settled nor released
        self._expiring: deque[tuple[float, float]] = deque()  # (when, tokens), in that order
        self._queue: deque[asyncio.Future[None]] = deque()
        self._changed: asyncio.Future[None] | None = None
        self._per_byte: float | None = None
        self._longest: float | None = None
        # For the latest answers: the request's tokens beyond one per byte.
        self._beyond: deque[float] = deque(maxlen=_ANSWERS_ASKED)
        self._added = 0.0

    async def book(self, demand: Demand) -> Booking:
        """Wait until there is room, first come first served, and take it."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.append(turn)
        self._call_first()
        try:
            await turn
            while not self._has_room(size := self._expected(demand)):
                self._changed = loop.create_future()
                wait = self._expiring[0][0] - loop.time() if self._expiring else None
                await asyncio.wait({self._changed}, timeout=wait)
            self._booked += size
            self._open += 1
            return Booking(demand, size)
        finally:
            self._queue.remove(turn)
            self._call_first()

    def settle(self, booking: Booking, spent: Spent | None) -> None:
        """Replace a request's estimate by what it used. None: it failed on the way.

        A failed request may have been counted by the provider, so its estimate is kept.
        """
        tokens = booking.tokens
        if spent is not None:
            tokens = self._learn(booking.demand, spent)
        self._replace(booking, tokens)

    def release(self, booking: Booking) -> None:
        """Stop counting a request that never went out, or that was turned away."""
        self._replace(booking, 0.0)

    def _replace(self, booking: Booking, tokens: float) -> None:
        self._booked += tokens - booking.tokens
        self._open -= 1
        if tokens:
            until = asyncio.get_running_loop().time() + self._minute_s
            self._expiring.append((until, tokens))
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _expected(self, demand: Demand) -> float:
        if self._per_byte is None or self._longest is None:
            return demand.input_bytes + _TEMPLATE_BYTES + demand.max_output_tokens
        text = (demand.input_bytes + _TEMPLATE_BYTES) * self._per_byte
        return text + self._added + min(self._longest, demand.max_output_tokens)

    def _learn(self, demand: Demand, spent: Spent) -> float:
        size = demand.input_bytes + _TEMPLATE_BYTES
        text: float | None = _plausible(spent.input_tokens)
        if text is None:
            text = size / _BYTES_TO_A_TOKEN
        answer: float | None = _plausible(spent.output_tokens)
        if answer is None:
            answer = spent.output_bytes / _BYTES_TO_A_TOKEN
        self._per_byte = max(self._per_byte or 0.0, min(1.0, text / size))
        self._longest = max(self._longest or 0.0, min(answer, demand.max_output_tokens))
        self._beyond.append(max(0.0, text - size))
        self._added = sorted(self._beyond)[(len(self._beyond) - 1) // 2]
        return text + answer

    def _has_room(self, size: float) -> bool:
        now = asyncio.get_running_loop().time()
        while self._expiring and self._expiring[0][0] <= now:
            self._booked -= self._expiring.popleft()[1]
        if not self._open and not self._expiring:
            self._booked = 0.0  # removes rounding errors
            return True
        return self._booked + size <= self._tpm

    def _call_first(self) -> None:
        if self._queue and not self._queue[0].done():
            self._queue[0].set_result(None)


def _plausible(tokens: int | None) -> int | None:
    return None if tokens is None or tokens > _MAX_CONTEXT else tokens
