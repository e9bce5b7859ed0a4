"""How far a record file was read, and whether it still begins with what was read of it."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from refusalkit.files import open_file

# Large pieces, because each read acquires the GIL again, which is slow beside busy threads.
_PIECE = 2**25


@dataclass(frozen=True, slots=True)
class Extent:
    """The beginning of a record file."""

    size: int = 0
    """Its length in bytes."""
    lines: int = 0
    """Its length in lines."""
    crc32: int = 0
    """CRC-32 of these bytes."""

    def followed_by(self, data: bytes, lines: int) -> Extent:
        """This beginning, extended by `data`, which has this many whole lines."""
        crc32 = zlib.crc32(data, self.crc32)
        return Extent(self.size + len(data), self.lines + lines, crc32)

    def begins(self, path: Path) -> bool:
        """Whether the file begins with these bytes, by their CRC-32. Raises `OSError`."""
        crc32, left = 0, self.size
        piece = memoryview(bytearray(min(left, _PIECE)))
        with open_file(path, follow=False) as file:
            if os.fstat(file.fileno()).st_size < left:
                return False
            while left and (n := file.readinto(piece[:left])):
                crc32 = zlib.crc32(piece[:n], crc32)
                left -= n
        return not left and crc32 == self.crc32


START = Extent()


@dataclass
class Cursor:
    """A place in a record file that reading moves forward, at most to byte `until`."""

    extent: Extent = START
    until: int | None = None
