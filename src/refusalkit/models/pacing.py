"""When a request may go out: rates, requests in flight, retries, one pause for all workers.

A provider that answers 429 means every request of this run, not the one that met it: the pause it
asks for holds back all of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from aiolimiter import AsyncLimiter

from refusalkit.errors import FatalProviderError, ProviderError, TransientError
from refusalkit.models.concurrency import InFlight
from refusalkit.models.token_limit import Booking, Demand, Spent, TokenPace

_T = TypeVar("_T")

_BACKOFF_CAP_S = 60.0
_LONGEST_PAUSE_S = 600.0
_MOST_RATE_LIMITS = 30
# Statuses that say that the endpoint has too much to do.
_OVERLOADED = frozenset({429, 503, 529})


class Pacer:
    """Sends requests to one endpoint at the pace it allows, and again where that may help.

    `rpm` holds exactly: requests are spaced evenly, without a burst at the start. `max_retries`
    bounds how often one request is sent again after a fault; a rate limit is not a fault of the
    request and has a bound of its own. `tpm` bounds tokens, see `TokenPace`; `concurrency` caps the
    requests in flight, see `InFlight`.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        concurrency: int | None = None,
        max_retries: int = 5,
        backoff_s: float = 0.5,
    ) -> None:
        self._limiter = AsyncLimiter(1, 60.0 / rpm) if rpm else None
        self._tokens = TokenPace(tpm) if tpm else None
        self._in_flight = InFlight(concurrency) if concurrency else None
        self._max_retries = max_retries
        self._backoff_s = backoff_s
        self._resume_at = 0.0
        self._random = random.Random()

    @property
    def counts_tokens(self) -> bool:
        """Whether `send` needs to know what a request demands."""
        return self._tokens is not None

    async def send(
        self,
        request: Callable[[], Awaitable[_T]],
        *,
        demand: Demand | None = None,
        spent: Callable[[_T], Spent] | None = None,
    ) -> tuple[_T, int]:
        """The request's result and how many times it was sent.

        `demand` says what it may use, `spent` what a result did.

        Raises the last `TransientError` when the retries are used up, and `FatalProviderError`
        where the provider asks for a pause longer than ten minutes.
        """
        faults = limits = 0
        while True:
            try:
                return await self._send_once(request, demand, spent), faults + limits + 1
            except ProviderError as error:
                error.attempts = faults + limits + 1
                if not isinstance(error, TransientError):
                    raise
                limited = error.status == 429
                limits, faults = limits + limited, faults + (not limited)
                if faults > self._max_retries or limits > _MOST_RATE_LIMITS:
                    raise
                asked = _asked_pause(error)
                # Never less than a wait of our own, which grows: an endpoint may ask for 0 s, or
                # for less than it means, again and again.
                own = self._backoff(limits if limited else faults)
                if limited:
                    self._pause(max(asked, own))
                else:
                    self._pause(asked)
                    await asyncio.sleep(own)

    async def _send_once(
        self,
        request: Callable[[], Awaitable[_T]],
        demand: Demand | None,
        spent: Callable[[_T], Spent] | None,
    ) -> _T:
        in_flight, tokens = self._in_flight, self._tokens
        booking: Booking | None = None
        sent_at: float | None = None
        used: Spent | None = None
        # Requests per minute come last: whoever has that turn goes out at once.
        if in_flight is not None and not in_flight.enter_at_once():
            await in_flight.enter()
        try:
            if tokens is not None and demand is not None:
                booking = await tokens.book(demand)
            if self._limiter is not None or self._resume_at > monotonic():
                await self._turn()
            sent_at = monotonic()
            result = await request()
            if spent is not None and (in_flight is not None or tokens is not None):
                used = spent(result)
            if in_flight is not None:
                size = 0.0 if used is None else (used.output_tokens or used.output_bytes / 4)
                in_flight.answered(sent_at, monotonic(), size)
        except ProviderError as error:
            if in_flight is not None and error.status in _OVERLOADED and sent_at is not None:
                in_flight.turned_away(sent_at, monotonic())
            if tokens is not None and booking is not None and _turned_away(error.status):
                tokens.release(booking)
                booking = None
            raise
        finally:
            if in_flight is not None:
                in_flight.leave()
            if tokens is not None and booking is not None:
                if sent_at is None:
                    tokens.release(booking)
                else:
                    tokens.settle(booking, used)
        return result

    def _backoff(self, attempt: int) -> float:
        ceiling = min(_BACKOFF_CAP_S, self._backoff_s * 2 ** (attempt - 1))
        return float(ceiling * self._random.uniform(0.5, 1.0))

    def _pause(self, seconds: float) -> None:
        self._resume_at = max(self._resume_at, monotonic() + seconds)

    async def _turn(self) -> None:
        while True:
            while (wait := self._resume_at - monotonic()) > 0:
                # Spread the restart: workers that wake together would meet the limit together
                # again.
                await asyncio.sleep(wait + self._random.uniform(0.0, 0.1 * wait))
            if self._limiter is None:
                return
            await self._limiter.acquire()
            # A turn that comes in a pause begun meanwhile is lost. Kept for later, it would go out
            # right before or after the first turn that comes then.
            if self._resume_at <= monotonic():
                return


def _asked_pause(error: TransientError) -> float:
    """The pause that the provider asks for, in seconds."""
    asked = error.retry_after or 0.0
    if asked > _LONGEST_PAUSE_S:
        raise FatalProviderError(
            f"{error.summary}: asks to wait {asked:.0f} s; resume the run then",
            status=error.status,
            code=error.code,
        ) from error
    return asked


def _turned_away(status: int | None) -> bool:
    """Whether an answer of this status says that nothing was generated for the request.

    An endpoint refuses before it generates (3xx, 4xx), or has no room to begin (503, 529). Other
    5xx are a gateway's that gave up waiting or a server's that broke at work, and so may 408 be; a
    200 whose body cannot be read was an answer once.
    """
    if status is None or status == 408:
        return False
    return 300 <= status < 500 or status in _OVERLOADED
