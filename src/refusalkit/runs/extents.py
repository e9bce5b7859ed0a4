"""How far a record file was read, and whether it still begins with what was read of it."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from refusalkit.files import open_file

# Few large pieces: between two of them the interpreter is waited for, if others are at work.
_PIECE = 2**25


@dataclass(frozen=True, slots=True)
class Extent:
    """The beginning of a record file: so many bytes, the lines they are, and their CRC-32."""

    size: int = 0
    lines: int = 0
    crc32: int = 0

    def followed_by(self, data: bytes, lines: int) -> Extent:
        """This beginning and so many whole lines behind it."""
        crc32 = zlib.crc32(data, self.crc32)
        return Extent(self.size + len(data), self.lines + lines, crc32)

    def begins(self, path: Path) -> bool:
        """Whether the file begins with these very bytes. Raises `OSError`."""
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
    """A place in a record file, moved on by what is read behind it, as far as `until` in bytes."""

    extent: Extent = START
    until: int | None = None
