"""A wire that spoils what passes: a TCP server in front of the loopback provider.

The provider's own faults are well-formed HTTP. These are not: resets, half bodies, bytes that drip,
gzip bombs, endless headers, what a proxy in between says.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import random
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence

MIB = 1024 * 1024
HTML = b"<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>"

# Before the provider is asked: nothing was paid. Behind it: an answer was lost on its way.
BEFORE = (
    "reset",
    "garbage",
    "html",
    "html_502",
    "empty",
    "array",
    "deep_json",
    "invalid_utf8",
    "gzip_bomb",
    "no_gzip",
    "enormous",
    "endless_headers",
    "slow_loris",
    "rate_limit_past",
    "rate_limit_soon",
    "redirect",
)
BEHIND = ("half_body", "reset_behind", "wrong_content_type")
KINDS = (*BEFORE, *BEHIND)


@functools.cache
def bomb(mib: int = 10_000) -> bytes:
    """A gzip stream of so many MiB of blanks, a thousandth as large itself."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    blanks = b" " * MIB
    first = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing depends on what came before: one block serves for all.
    again = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (mib - 1)


def _http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class FaultyWire:
    """A wire to the provider at `port` on which a `share` of the requests meets a fault of `kinds`.

    Which one is drawn by `seed` and the request's number. `faults` counts what happened.
    """

    def __init__(
        self,
        port: int,
        *,
        seed: object = 0,
        share: float = 0.15,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self.upstream = port
        self.port = 0
        self.share = share
        self.kinds = tuple(kinds)
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self._seed = seed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_base(self) -> str:
        """The base URL for the OpenAI protocol."""
        return f"{self.url}/v1"

    def __enter__(self) -> FaultyWire:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="wire", daemon=True
        )
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError("the wire did not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(10)

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        open_ones: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            open_ones.add(task)
            try:
                await self._connection(reader, writer)
            finally:
                open_ones.discard(task)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()
        for task in tuple(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)
        with contextlib.suppress(*gone, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        with contextlib.suppress(*gone):
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; returns whether the connection can go on."""
        request = await _message(reader)
        number, self.requests = self.requests, self.requests + 1
        dice = random.Random(f"{self._seed} {number}")
        kind = dice.choice(self.kinds) if dice.random() < self.share else None
        if kind is not None:
            self.faults[kind] += 1
        if kind in BEFORE:
            await _spoil(kind, writer)
            return False
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            up_writer.write(request)
            await up_writer.drain()
            answer = await _message(up_reader)
        finally:
            up_writer.close()
        match kind:
            case "half_body":
                writer.write(answer[: len(answer) - max(1, len(answer) // 4)])
                await writer.drain()
                return False
            case "reset_behind":
                _reset(writer)
                return False
            case "wrong_content_type":
                answer = answer.replace(b"application/json", b"application/tiff", 1)
        writer.write(answer)
        await writer.drain()
        return True


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer, its head and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a machine does that lost the connection."""
    where = writer.get_extra_info("socket")
    where.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _spoil(kind: str, writer: asyncio.StreamWriter) -> None:
    json_type = "Content-Type: application/json"
    match kind:
        case "reset":
            _reset(writer)
            return
        case "garbage":
            writer.write(b"\x16\x03\x01 220 mail ready\r\n\r\n")
        case "html":
            writer.write(_http("200 OK", HTML, "Content-Type: text/html"))
        case "html_502":
            writer.write(_http("502 Bad Gateway", HTML, "Content-Type: text/html"))
        case "empty":
            writer.write(_http("200 OK", b"", json_type))
        case "array":
            writer.write(_http("200 OK", b'[{"choices": []}]', json_type))
        case "deep_json":
            writer.write(_http("200 OK", b'{"choices":' + b"[" * 200_000, json_type))
        case "invalid_utf8":
            body = (
                b'{"choices":[{"message":{"content":"\xff\xfe\xc3\x28"},"finish_reason":"stop"}]}'
            )
            writer.write(_http("200 OK", body, json_type))
        case "gzip_bomb":
            writer.write(_http("200 OK", bomb(), json_type, "Content-Encoding: gzip"))
        case "no_gzip":
            writer.write(_http("200 OK", b"{}", json_type, "Content-Encoding: gzip"))
        case "enormous":
            writer.write(
                f"HTTP/1.1 200 OK\r\n{json_type}\r\nContent-Length: {64 * MIB}\r\n\r\n".encode()
            )
            writer.write(b'{"choices":[{"message":{"content":"')
            for _ in range(64):
                writer.write(b"x" * MIB)
                await writer.drain()
        case "endless_headers":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(20_000):
                writer.write(b"X-More-%d: %s\r\n" % (number, b"x" * 100))
                await writer.drain()
        case "slow_loris":
            writer.write(_http("200 OK", b"", json_type).replace(b"Length: 0", b"Length: 1000000"))
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        case "rate_limit_past" | "rate_limit_soon":
            # A date by the wall clock, which may be wrong at either end.
            shift = -3600.0 if kind == "rate_limit_past" else 1.0
            when = email.utils.formatdate(time.time() + shift, usegmt=True)
            date = f"Date: {email.utils.formatdate(usegmt=True)}"
            body = b'{"error": {"message": "slow down"}}'
            writer.write(_http("429 Too Many", body, json_type, f"Retry-After: {when}", date))
        case "redirect":
            where = "Location: http://127.0.0.1:9/v1/chat/completions"
            writer.write(_http("307 Temporary Redirect", b"", where))
    await writer.drain()
