"""Unpacks compressed bodies piece by piece: a small one may unpack to a very large one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

ENCODINGS = "gzip, deflate"
_PIECE = 64 * 1024  # bytes that are unpacked at once


class Unpacker(Protocol):
    """What `zlib.decompressobj` gives."""

    @property
    def eof(self) -> bool: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...


def new_unpacker() -> Unpacker:
    """For one body in any of `ENCODINGS`."""
    # 32 added to the window's size: gzip or zlib, as the first bytes say.
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


def is_packed(encoding: str) -> bool:
    """Whether a ``Content-Encoding`` is one of `ENCODINGS`, or none. Raises `ValueError`."""
    name = encoding.strip().casefold()
    if name in ("", "identity"):
        return False
    if name in ("gzip", "x-gzip", "deflate"):
        return True
    raise ValueError("a content encoding that was not asked for")


def unpacked(chunk: bytes, unpacker: Unpacker) -> Iterator[bytes]:
    """The pieces that one chunk of a body unpacks to. Raises `zlib.error`."""
    rest = chunk
    while rest and not unpacker.eof:
        piece = unpacker.decompress(rest, _PIECE)
        rest = unpacker.unconsumed_tail
        yield piece
