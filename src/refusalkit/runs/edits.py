"""Whether a run's records fit together as this program wrote them, or were edited since."""

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
    """What in a run's files contradicts something else in them.

    `texts` counts answers whose text does not have the digest beside it, `verdicts` those on an
    answer that is not there. `checkpoint`: it speaks of other records than there are.
    """

    texts: int = 0
    verdicts: int = 0
    checkpoint: bool = False

    def __bool__(self) -> bool:
        """Whether anything does."""
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
    """How many of (text, SHA-256 in hex) do not fit together."""
    return sum(not is_text_of(text, digest) for text, digest in pairs)


def with_check(line: bytes) -> bytes:
    """A record's line of JSON with a last field that is the digest of all before it.

    It finds accidents and careless edits: whoever changes a record can compute it anew.
    """
    body = line.rstrip()[:-1]
    return b'%b,"%b":"%b"}\n' % (body, CHECK.encode(), _check_of(body))


def has_wrong_check(line: bytes) -> bool | None:
    """Whether a line is not what was written; None where it has no digest of its own.

    Records of older runs have none.
    """
    body, mark, check = line.rstrip().rpartition(_CHECK_MARK)
    if not mark:
        return None
    return check != _check_of(body) + b'"}'


def _check_of(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_CHECK_DIGITS].encode()
