"""The HTTP session that litellm sends with: it bounds answers, follows no redirect, and is ours.

litellm caches the clients that it makes, by provider and address, for the whole process. A host
program that also uses litellm would send through ours and lose them when they are closed, and we
would send through the host's, which have no bounds. So our requests do not use that cache: their
clients are kept here, one set for each event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp

from refusalkit.display import shows
from refusalkit.models.client import MAX_BODY_BYTES
from refusalkit.models.compressed import ENCODINGS, is_packed, new_unpacker, unpacked

# Headers in which providers' keys are sent.
_KEY_HEADERS = ("Authorization", "x-api-key", "api-key", "x-goog-api-key")


class Connections:
    """What the requests from one event loop are sent with."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_guard,),
        )
        # What litellm makes around the session, by its own names.
        self.clients: dict[str, Any] = {}
        self.closed = False
        self._handler: Any = None

    @property
    def handler(self) -> Any:
        """The handler around the session that some of litellm's code paths take instead."""
        if self._handler is None:
            from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

            self._handler = AsyncHTTPHandler(shared_session=self.session, follow_redirects=False)
        return self._handler

    async def close(self) -> None:
        """Close the session and the clients made around it."""
        self.closed = True
        clients = [*self.clients.values(), self._handler]
        self.clients.clear()
        self._handler = None
        for client in clients:
            close = getattr(client, "aclose", None) or getattr(client, "close", None)
            # Each is closed, even if closing another fails.
            with contextlib.suppress(Exception):
                ending = close() if close else None
                if inspect.isawaitable(ending):
                    await ending
        await self.session.close()


@shows("status", bytes=lambda exchange: len(exchange.body))
@dataclass(slots=True)
class Exchange:
    """One request of ours, as far as it went through our session.

    `on_key` is called with each key that is sent, before the answer comes. `status` and `body` are
    the last answer's, unpacked.
    """

    connections: Connections
    on_key: Callable[[str], None]
    status: int | None = None
    body: bytes = b""


_CONNECTIONS: dict[asyncio.AbstractEventLoop, Connections] = {}
_EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
_KEPT_APART: weakref.WeakSet[Any] = weakref.WeakSet()


@contextlib.contextmanager
def exchange_from(
    loop: asyncio.AbstractEventLoop, litellm: Any, on_key: Callable[[str], None]
) -> Iterator[Exchange]:
    """What litellm sends within it is our request, through the connections of this loop."""
    _keep_apart(litellm.in_memory_llm_clients_cache)
    if loop not in _CONNECTIONS:
        _CONNECTIONS[loop] = Connections()
    exchange = Exchange(_CONNECTIONS[loop], on_key)
    before = _EXCHANGE.set(exchange)
    try:
        yield exchange
    finally:
        _EXCHANGE.reset(before)


async def close_connections(loop: asyncio.AbstractEventLoop) -> None:
    """Close the connections of a loop, if it has any."""
    connections = _CONNECTIONS.pop(loop, None)
    if connections is not None:
        await connections.close()


def _keep_apart(cache: Any) -> None:
    """Keep our requests out of litellm's cache of clients; all others find it as it was."""
    if cache in _KEPT_APART:
        return
    get: Callable[..., Any] = cache.get_cache
    put: Callable[..., Any] = cache.set_cache

    def get_cache(key: str, **options: Any) -> Any:
        clients = _own_clients()
        return get(key, **options) if clients is None else clients.get(key)

    def set_cache(key: str, value: Any, **options: Any) -> Any:
        clients = _own_clients()
        if clients is None:
            return put(key, value, **options)
        clients[key] = value
        return None

    cache.get_cache, cache.set_cache = get_cache, set_cache
    _KEPT_APART.add(cache)


def _own_clients() -> dict[str, Any] | None:
    """The clients for our own requests; None within any other."""
    exchange = _EXCHANGE.get()
    # A task that outlives our request, and the connections, is no longer ours.
    return None if exchange is None or exchange.connections.closed else exchange.connections.clients


async def _guard(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    request.headers["Accept-Encoding"] = ENCODINGS
    exchange = _EXCHANGE.get()
    if exchange is not None:
        for name in _KEY_HEADERS:
            if key := _key_in(request.headers.get(name)):
                exchange.on_key(key)
    response = await send(request)
    if 300 <= response.status < 400:
        # litellm would send the prompt to wherever the redirect leads.
        response.close()
        raise Unread(f"HTTP {response.status}, a redirect: it is not followed")
    # litellm's transport reads an answer's body through `content` only.
    response.content = _Bounded(response, exchange)  # type: ignore[assignment]
    return response


def _key_in(header: str | None) -> str | None:
    """The key in a header's value; None for a signature of many words, which is not reusable."""
    words = (header or "").split()
    return words[-1] if 1 <= len(words) <= 2 else None


class _Bounded:
    """An answer's body, read up to the size that an answer can have.

    It is passed on as it came. A compressed one is also unpacked, piece by piece, to see how large
    it becomes.
    """

    def __init__(self, response: aiohttp.ClientResponse, exchange: Exchange | None) -> None:
        self._response, self._content = response, response.content
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)  # aiohttp asks its reader for its state

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        try:
            packed = is_packed(self._response.headers.get("Content-Encoding", ""))
            unpacker = new_unpacker()
            length, whole = 0, []
            async for chunk in self._content.iter_chunked(size):
                for piece in unpacked(chunk, unpacker) if packed else (chunk,):
                    length += len(piece)
                    if length > MAX_BODY_BYTES:
                        raise ValueError(f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
                    whole.append(piece)
                yield chunk
            if self._exchange is not None:
                self._exchange.status, self._exchange.body = self._response.status, b"".join(whole)
        except (ValueError, zlib.error) as error:
            self._response.close()  # without waiting for the rest
            raise Unread(str(error)) from error


class Unread(aiohttp.ClientPayloadError):
    """Raised to stop reading an answer; litellm takes it for a broken connection."""
