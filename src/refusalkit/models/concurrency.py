"""Limits the requests in flight at one endpoint: never above a cap, fewer where it is overloaded.

Additive increase, multiplicative decrease, as in TCP (Chiu and Jain 1989). Two things cut the
limit: being turned away (429, 503, 529), and latency that has risen. Latency is taken per token of
the answer, because answers differ in length, and as the median of a window, because some requests
hang. A cut that did not bring it down is undone, because then the queue is not of our making.
"""

from __future__ import annotations

import asyncio
from collections import deque

_CUT = 0.7
# Latency that is this many times the usual, in two windows in a row, counts as risen.
_RISEN = 2.0
# Where requests queue at the server, latency falls with the requests in flight. If it stays above
# this share of what it was before a cut, it has another cause.
_HELPED = 0.9
# A wait below this many seconds may be in our own event loop rather than in the server's queue.
_QUICK_S = 0.25
_MIN_WINDOW = 64
# Weight of a new window in the usual latency.
_DRIFT = 0.1
# The time that a request takes before its first token counts as this many tokens.
_OVERHEAD_TOKENS = 20.0


class AdaptiveLimiter:
    """Lets at most `cap` requests be in flight, fewer while the endpoint suffers.

    The limit begins at the cap, so that a healthy endpoint is asked as if there were none, and
    never falls below one.
    """

    def __init__(self, cap: int) -> None:
        self._cap = float(cap)
        self._limit = float(cap)
        self._count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cut_at = float("-inf")
        self._window: list[float] = []
        self._slow = 0  # answers of the window that took `_QUICK_S` or longer
        # The first answers after a start or a cut are the quickest: not a fair sample.
        self._skip = cap
        self._usual: float | None = None
        self._risen = 0
        # The limit and the latency before a cut for latency whose effect is not known yet.
        self._before_cut: tuple[float, float] | None = None

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return max(1, int(self._limit))

    def enter_at_once(self) -> bool:
        """Take a place if one is free and nobody waits; where it returns False, use `enter`."""
        free = not self._waiting and self._count < self.limit
        self._count += free
        return free

    async def enter(self) -> None:
        """Wait for a place, first come first served."""
        if self.enter_at_once():
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()  # it was given a place that it will not use
            elif place in self._waiting:  # `_let_in` may have dropped it already
                self._waiting.remove(place)
            raise

    def leave(self) -> None:
        """Give the place back."""
        self._count -= 1
        self._let_in()

    def turned_away(self, sent_at: float, now: float) -> None:
        """A request that was sent at `sent_at` was refused for overload. Times in seconds.

        Requests that were in flight together are refused together: they count as one.
        """
        if sent_at > self._cut_at:
            self._cut(now)
            self._before_cut = None

    def answered(self, sent_at: float, now: float, tokens: float) -> None:
        """An answer of `tokens` tokens is complete. Times in seconds."""
        if sent_at <= self._cut_at:
            return  # it was sent before the cut, so it says nothing about the present limit
        if self._limit < self._cap and not self._risen:
            self._limit = min(self._cap, self._limit + 1.0 / self._limit)
            self._let_in()
        if self._skip > 0:
            self._skip -= 1
            return
        self._slow += now - sent_at >= _QUICK_S
        self._window.append((now - sent_at) / (tokens + _OVERHEAD_TOKENS))
        if len(self._window) >= max(_MIN_WINDOW, 2 * self._limit):
            self._evaluate_window(sorted(self._window)[len(self._window) // 2], now)

    def _evaluate_window(self, latency: float, now: float) -> None:
        """Adjust the limit by the median latency of a full window."""
        quick = 2 * self._slow < len(self._window)
        self._window.clear()
        self._slow = 0
        if self._before_cut is not None:
            limit, before = self._before_cut
            self._before_cut = None
            if latency > _HELPED * before:
                self._limit, self._usual, self._risen = limit, latency, 0
                self._let_in()
                return
        if self._usual is None:
            self._usual = latency
        elif quick or latency <= _RISEN * self._usual:
            self._risen = 0
            if self._limit == self._cap:
                # Only at the cap: on the way back up from a cut, latency is not the usual one.
                self._usual += _DRIFT * (latency - self._usual)
        else:
            self._risen += 1
            if self._risen >= 2 and self._limit > 1.0:
                self._before_cut = (self._limit, latency)
                self._cut(now)

    def _cut(self, now: float) -> None:
        self._limit = max(1.0, self._limit * _CUT)
        self._cut_at = now
        self._window.clear()
        self._slow = 0
        self._skip = self.limit

    def _let_in(self) -> None:
        while self._waiting and self._count < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._count += 1
                place.set_result(None)
