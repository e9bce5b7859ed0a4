"""Detects records that were edited or lost after refusalkit wrote them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

CHECK = "check"
"""The last field of a record: the first 16 hex digits of the SHA-256 of the line before it."""

_CHECK_DIGITS = 16
_CHECK_MARK = b',"check":"'


@dataclass(frozen=True, slots=True)
class Edits:
    """Contradictions within a run's files."""

    texts: int = 0
    """Answers whose text does not match the digest in the record."""
    verdicts: int = 0
    """Units with a verdict, and no answer."""
    checkpoint: bool = False
    """Whether the checkpoint disagrees with the records."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.texts or self.verdicts or self.checkpoint)

    @property
    def warning(self) -> str | None:
        """One sentence for a reader; None where nothing was found."""
        found = []
        if self.texts:
            found.append(f"{self.texts} with a text that does not match its digest")
        if self.verdicts:
            found.append(f"{self.verdicts} with a verdict on an answer that is not there")
        if self.checkpoint:
            found.append("a checkpoint of other records")
        if not found:
            return None
        return f"records were edited or lost ({'; '.join(found)}): do not rely on these figures"


def is_text_of(text: str, digest: str | None) -> bool:
    """Whether a text has this SHA-256 (hex)."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() == digest


def wrong_digests(pairs: Iterable[tuple[str, str | None]]) -> int:
    """How many of these pairs of a text and a SHA-256 (hex) do not match."""
    return sum(not is_text_of(text, digest) for text, digest in pairs)


def with_check(line: bytes) -> bytes:
    """A record's line of JSON with a digest of the line appended as its last field.

    It reveals accidents and careless edits, not forgery: anyone can compute the digest again.
    """
    body = line.rstrip()[:-1]
    return b'%b,"%b":"%b"}\n' % (body, CHECK.encode(), _check_of(body))


def has_wrong_check(line: bytes) -> bool | None:
    """Whether a line's digest does not match it; None if it has none, as in older runs."""
    body, mark, check = line.rstrip().rpartition(_CHECK_MARK)
    if not mark:
        return None
    return check != _check_of(body) + b'"}'


def _check_of(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_CHECK_DIGITS].encode()
