"""The HTTP session that litellm sends with: answers are bounded and lead nowhere else."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from refusalkit.models.bodies import ENCODINGS, is_packed, new_unpacker, unpacked
from refusalkit.models.client import LARGEST_BODY

# One for each event loop, and one handler around it: litellm keeps clients that hold on to them, so
# they, too, are closed by the last that used them.
_SESSIONS: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
_HANDLERS: dict[aiohttp.ClientSession, Any] = {}


def session_of(loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
    """The session of a loop, whose answers are bounded and lead nowhere else."""
    if loop not in _SESSIONS:
        _SESSIONS[loop] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_guard,),
        )
    return _SESSIONS[loop]


def handler_of(session: aiohttp.ClientSession) -> Any:
    """The handler of litellm's around a session, which some ways through it take instead."""
    if session not in _HANDLERS:
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

        _HANDLERS[session] = AsyncHTTPHandler(shared_session=session, follow_redirects=False)
    return _HANDLERS[session]


async def close_session(loop: asyncio.AbstractEventLoop) -> None:
    """Close the session of a loop, if it has one."""
    session = _SESSIONS.pop(loop, None)
    if session is not None:
        _HANDLERS.pop(session, None)
        await session.close()


async def _guard(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    request.headers["Accept-Encoding"] = ENCODINGS
    response = await send(request)
    if 300 <= response.status < 400:
        # litellm would send the prompt along to wherever it points.
        response.close()
        raise Unread(f"HTTP {response.status}, a redirect: it is not followed")
    # All that litellm's transport reads of an answer's body is this.
    response.content = _Bounded(response)  # type: ignore[assignment]
    return response


class _Bounded:
    """An answer's body, read so far as it is no larger than an answer can be.

    It is handed on as it came. Compressed, it is unpacked piece by piece beside that, to see how
    large it becomes.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response, self._content = response, response.content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)  # aiohttp asks its reader for its state

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        try:
            packed = is_packed(self._response.headers.get("Content-Encoding", ""))
            unpacker = new_unpacker()
            length = 0
            async for chunk in self._content.iter_chunked(size):
                for piece in unpacked(chunk, unpacker) if packed else (chunk,):
                    length += len(piece)
                    if length > LARGEST_BODY:
                        raise ValueError(f"the body is larger than {LARGEST_BODY >> 20} MiB")
                yield chunk
        except (ValueError, zlib.error) as error:
            self._response.close()  # nor is the rest waited for
            raise Unread(str(error)) from error


class Unread(aiohttp.ClientPayloadError):
    """An answer that is not read on; litellm takes it for a connection that broke."""
