"""A regular expression from a judge file that may be a stranger's, searched with a time limit.

Python's own engine cannot be interrupted: nested repetition could hold a run up for hours, during
which no signal is handled.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator

from refusalkit.errors import JudgeFileError
from refusalkit.untrusted import printable

MAX_SECONDS = 2.0
"""Seconds that a search of a sentence or a line may take."""

MAX_LENGTH = 100_000
"""Characters of a pattern with its terms put in and its least repetitions written out."""

_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
# Comments, or the white space that the flag x ignores, would separate a repetition from its item.
_APART = re.compile(r"\(\?(?:#|[a-zA-Z-]*x)")
_LEAST = re.compile(r"\{(\d{1,20})")
_TOKEN = re.compile(r"\{(\d{1,20})(?:,\d*)?\}|.", re.DOTALL)


class BoundedPattern:
    """A pattern whose search raises `JudgeFileError` where it takes too long."""

    def __init__(self, name: str, pattern: str, *, ignore_case: bool = False) -> None:
        import regex

        self.pattern = pattern
        self._name = name
        self._compiled = regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)

    def search(self, text: str) -> object:
        with self._in_time():
            return self._compiled.search(text, timeout=MAX_SECONDS)

    def match(self, text: str) -> object:
        with self._in_time():
            return self._compiled.match(text, timeout=MAX_SECONDS)

    def sub(self, by: str, text: str) -> str:
        with self._in_time():
            replaced: str = self._compiled.sub(by, text, timeout=MAX_SECONDS)
            return replaced

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise JudgeFileError(
                f"the rule {printable(self._name)} takes more than {MAX_SECONDS:g} s to read a "
                "sentence: leave out repetition within repetition"
            ) from None


def without_classes(pattern: str) -> str:
    """The pattern with a letter for each escape and class: the signs left are operators."""
    return _CLASS.sub("x", pattern)


def check_length(name: str, pattern: str) -> None:
    """Raise `ValueError` where a pattern would take much memory to compile."""
    if len(pattern) > MAX_LENGTH:
        raise too_long(name)
    if _APART.search(pattern):
        raise ValueError("a pattern has neither comments nor the flag x")
    # Quick, and true of nearly all: not too long even if each repetition were within the others.
    times = math.prod(max(int(least), 1) for least in _LEAST.findall(pattern))
    if len(pattern) * times > MAX_LENGTH and _written_out(pattern) > MAX_LENGTH:
        raise too_long(name)


def too_long(name: str) -> ValueError:
    """The error for a pattern that is too long."""
    return ValueError(
        f"{name}: more than {MAX_LENGTH:,} characters with its terms put in and its repetitions "
        "written out"
    )


def _written_out(pattern: str) -> int:
    """How long a pattern is with ``a{3}`` as ``aaa``, which is how it is compiled."""
    sizes, last = [0], 0
    for token in _TOKEN.finditer(without_classes(pattern)):
        if token[1]:
            last *= max(int(token[1]), 1)
            sizes[-1] += last
        elif token[0] == "(":
            sizes.append(0)
        elif token[0] == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)
