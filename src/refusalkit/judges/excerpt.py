"""A very long answer, shown without its middle: head, a line that says so, tail."""

from __future__ import annotations

import unicodedata

from refusalkit.judges.rubrics import AnswerLimits

_JOINER = "\u200d"
# A cut gives way to a sign that belongs to the one before it, but not to any number of them.
_LONGEST_CLUSTER = 64


def excerpt(text: str, limits: AnswerLimits | None, nonce: str) -> tuple[str, int]:
    """What a judge is shown of an answer, and how many characters (code points) of it are left out.

    The line in place of the middle carries `nonce`: an answer cannot know it, so it cannot pretend
    to have been cut. No more than `limits` allow is shown, and no cut falls into a combined sign.
    """
    if limits is None or len(text) <= limits.answer_chars:
        return text, 0
    head = _retreat(text, limits.head_chars)
    tail = _advance(text, len(text) - limits.tail_chars)
    missing = tail - head
    line = f"CUT {nonce}: {missing} characters of the answer are not shown here"
    return f"{text[:head]}\n{line}\n{text[tail:]}", missing


def _retreat(text: str, at: int) -> int:
    """The nearest place for a cut at `at` or before it."""
    for place in range(at, max(at - _LONGEST_CLUSTER, 0), -1):
        if not _belongs(text, place):
            return place
    return at


def _advance(text: str, at: int) -> int:
    """The nearest place for a cut at `at` or after it."""
    for place in range(at, min(at + _LONGEST_CLUSTER, len(text))):
        if not _belongs(text, place):
            return place
    return at


def _belongs(text: str, at: int) -> bool:
    """Whether the character at `at` is drawn together with the one before it."""
    if not 0 < at < len(text):
        return False
    before, here = text[at - 1], text[at]
    return (
        unicodedata.category(here).startswith("M")
        or _JOINER in (before, here)
        # The skin tones of emoji are signs of their own, and so are the halves of a flag.
        or "\U0001f3fb" <= here <= "\U0001f3ff"
        or (_is_flag_half(before) and _is_flag_half(here))
        or (before, here) == ("\r", "\n")
    )


def _is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
