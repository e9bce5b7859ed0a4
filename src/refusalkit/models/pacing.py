"""When a request may go out: rates, requests in flight, retries, one pause for all workers.

A 429 is about every request of the run, not only the one that met it: the pause that it asks for
holds back all of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from aiolimiter import AsyncLimiter

from refusalkit.errors import FatalProviderError, ProviderError, TransientError
from refusalkit.models.concurrency import AdaptiveLimiter
from refusalkit.models.token_limit import Booking, Demand, Spent, TokenPace

_T = TypeVar("_T")

_BACKOFF_CAP_S = 60.0
_MAX_RATE_LIMITS = 30
# At the start, an endpoint where nothing listens is given up after this long.
_MAX_UNREACHABLE_S = 3.0
# Shorter waits for a rate limit are not logged.
_TOLD_FROM_S = 2.0
MAX_WAIT_S = 600.0
"""The longest that a rate limit may hold a run back at a stretch, unless another is given."""

_log = logging.getLogger("refusalkit")
_log.addHandler(logging.NullHandler())  # a library prints nothing
# Statuses of an overloaded endpoint.
_OVERLOADED = frozenset({429, 503, 529})


class Pacer:
    """Sends requests to one endpoint at the pace it allows, and retries where that may help.

    `rpm` holds exactly: requests are spaced evenly, without a burst at the start. `max_retries`
    bounds how often one request is sent again after a fault; rate limits are counted apart, with a
    bound of their own. `tpm` bounds tokens, see `TokenPace`; `concurrency` caps the requests in
    flight, see `AdaptiveLimiter`. `max_wait_s` bounds how long the endpoint's rate limit may hold
    all of them back at a stretch. The first such wait of two seconds or more is logged as a warning
    of the logger ``refusalkit``.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        concurrency: int | None = None,
        max_retries: int = 5,
        backoff_s: float = 0.5,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        self._limiter = AsyncLimiter(1, 60.0 / rpm) if rpm else None
        self._tokens = TokenPace(tpm) if tpm else None
        self._in_flight = AdaptiveLimiter(concurrency) if concurrency else None
        self._max_retries = max_retries
        self._backoff_s = backoff_s
        self._max_wait_s = max_wait_s
        self._resume_at = 0.0
        self._answered = False
        self._held_since: float | None = None  # the first 429 since the last answer
        self._told = False
        self._random = random.Random()

    @property
    def counts_tokens(self) -> bool:
        """Whether `send` needs the `demand` of a request."""
        return self._tokens is not None

    async def send(
        self,
        request: Callable[[], Awaitable[_T]],
        *,
        demand: Demand | None = None,
        spent: Callable[[_T], Spent] | None = None,
    ) -> tuple[_T, int]:
        """The request's result and how many times it was sent.

        `demand` is what the request may use, `spent` returns what a result used.

        Raises the last `TransientError` when the retries are used up, and `FatalProviderError`
        where the provider's rate limit holds it back for longer than `max_wait_s`, or where nothing
        has ever listened at its address.
        """
        faults = limits = 0
        began = monotonic()
        while True:
            try:
                return await self._once(request, demand, spent), faults + limits + 1
            except ProviderError as error:
                error.attempts = faults + limits + 1
                if not isinstance(error, TransientError):
                    raise
                limited = error.status == 429
                limits, faults = limits + limited, faults + (not limited)
                if faults > self._max_retries or limits > _MAX_RATE_LIMITS:
                    raise
                asked = error.retry_after or 0.0
                # At least a wait of our own, which grows: an endpoint may ask for 0 s, or for too
                # little, again and again.
                own = self._backoff(limits if limited else faults)
                _log.debug("%s: asked again in %.1f s", error.summary, max(asked, own))
                if error.unreachable and not self._answered:
                    self._give_up(error, monotonic() - began + own)
                if limited:
                    self._hold(error, max(asked, own))
                else:
                    self._hold(error, asked)
                    await asyncio.sleep(own)

    async def _once(
        self,
        request: Callable[[], Awaitable[_T]],
        demand: Demand | None,
        spent: Callable[[_T], Spent] | None,
    ) -> _T:
        in_flight, tokens = self._in_flight, self._tokens
        booking: Booking | None = None
        sent_at: float | None = None
        used: Spent | None = None
        # Requests per minute come last, so that a request that has its turn goes out at once.
        if in_flight is not None and not in_flight.enter_at_once():
            await in_flight.enter()
        try:
            if tokens is not None and demand is not None:
                booking = await tokens.book(demand)
            if self._limiter is not None or self._resume_at > monotonic():
                await self._turn()
            sent_at = monotonic()
            result = await request()
            self._answered, self._held_since = True, None
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

    def _hold(self, error: TransientError, seconds: float) -> None:
        """Hold all requests back for `seconds`, as the endpoint asks.

        Raises `FatalProviderError` where that is longer than `max_wait_s`.
        """
        now = monotonic()
        if error.status == 429 and self._held_since is None:
            self._held_since = now
        held = seconds + (now - self._held_since if self._held_since is not None else 0.0)
        if held > self._max_wait_s:
            longer = f"longer than --max-wait {self._max_wait_s:g}"
            raise FatalProviderError(
                f"{error.summary}: asks to wait {seconds:.0f} s, {longer}; resume the run then"
                if seconds > self._max_wait_s
                else f"{error.summary}: has held this run back for {held:.0f} s, {longer}; resume "
                "it later, or ask less at once (--rpm, --tpm, --concurrency)",
                status=error.status,
                code=error.code,
            ) from error
        self._resume_at = max(self._resume_at, now + seconds)
        if error.status == 429 and held >= _TOLD_FROM_S and not self._told:
            self._told = True
            limit = f", its limit of {error.limit} being used up" if error.limit else ""
            _log.warning(
                "%s: a rate limit holds this run back%s; waiting %.0f s, and again as it asks "
                "(--rpm, --tpm and --concurrency ask less, --max-wait bounds the wait)",
                error.summary,
                limit,
                seconds,
            )

    @staticmethod
    def _give_up(error: TransientError, elapsed_s: float) -> None:
        """Raise if nothing has listened at the address for long enough."""
        if elapsed_s >= _MAX_UNREACHABLE_S:
            what = "nothing listens there: start the server, or check --api-base"
            if "CERTIFICATE" in str(error):
                what = "its certificate is not trusted: check --api-base"
            elif "SSL" in str(error):
                what = "the server does not speak TLS: write http:// in --api-base"
            detail = f"{error.detail}; {what}" if error.detail else what
            raise FatalProviderError(error.summary, detail=detail) from error

    async def _turn(self) -> None:
        while True:
            while (wait := self._resume_at - monotonic()) > 0:
                # Spread the restart: workers that wake together would all meet the limit again.
                await asyncio.sleep(wait + self._random.uniform(0.0, 0.1 * wait))
            if self._limiter is None:
                return
            await self._limiter.acquire()
            # A turn that falls into a pause begun meanwhile is given up: used after the pause, it
            # would come right beside the next turn.
            if self._resume_at <= monotonic():
                return


def _turned_away(status: int | None) -> bool:
    """Whether an answer of this status says that nothing was generated for the request.

    An endpoint refuses before it generates (3xx, 4xx), or has no room to begin (503, 529). Other
    5xx, and perhaps 408, come from a gateway that gave up waiting or a server that failed while it
    generated; a 200 whose body cannot be read was a generated answer.
    """
    if status is None or status == 408:
        return False
    return 300 <= status < 500 or status in _OVERLOADED
