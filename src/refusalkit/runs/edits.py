"""Whether a run's records fit together as this program wrote them, or were edited since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


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


def wrong_digests(pairs: Iterable[tuple[str, str | None]]) -> int:
    """How many of (text, SHA-256 in hex) do not fit together."""
    sha256 = hashlib.sha256
    return sum(sha256(text.encode()).hexdigest() != digest for text, digest in pairs)
