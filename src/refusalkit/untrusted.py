"""Makes text from outside safe to print in a terminal, a message or a log.

Answers, data sets, judge output and provider errors are untrusted: they may hold terminal
escapes, or bidirectional overrides that reorder what a reader sees. Keys that an endpoint echoes
are taken out by `refusalkit.redaction`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

# Control (Cc), format (Cf, which holds the bidi controls), surrogates (Cs), private use (Co),
# and the line and paragraph separators. Ordinary text has none of them but newline and tab.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


_NETWORK_PATH = re.compile(r"(?:^|[,=])\s*(?:[\\/]{2}|file:)", re.IGNORECASE)


def is_network_path(text: str) -> bool:
    r"""Whether a text names a path on another machine, by its form on any platform.

    ``\\host\share``, ``//host/share``, ``\\?\UNC\...``: on Windows, checking whether such a file
    exists already sends that host the user's name and a hash of the password.
    """
    return _NETWORK_PATH.search(text) is not None


def printable(text: object, limit: int = 200) -> str:
    """`text` as one line that is safe to print, hidden characters escaped, at most `limit` long."""
    # Only the beginning is escaped: an answer may be one line of a megabyte.
    raw = str(text)[: limit + 1]
    if raw.isascii() and raw.isprintable():
        return raw if len(raw) <= limit else raw[: limit - 1] + "…"
    shown = "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in _HIDDEN else char
        for char in raw.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def visible(text: str) -> str:
    """`text` with hidden characters escaped, lines kept: for what is printed as a whole."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in _HIDDEN else f"\\u{ord(char):04x}"
        for char in text
    )


# What providers call things: `content_filter`, `req_011CSHoE...`, `meta-llama/Llama-3.3-70B`.
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_PARTS = re.compile(r"[._:/@+-]")


def identifier(text: str, limit: int = 64, *, parts: int = 8) -> str:
    """`text` if it looks like a name or an id, else its digest, ``sha256:`` and 16 digits.

    For fields that a server fills, in records that must keep no words of an answer: a name has no
    space, at most `limit` characters, and at most `parts` parts.
    """
    if len(text) <= limit and _IDENTIFIER.fullmatch(text) and len(_PARTS.split(text)) <= parts:
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def well_formed(text: str) -> str:
    """`text` with lone surrogates replaced: JSON can carry them, UTF-8 cannot."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


# What a reader does not see: zero-width marks, bidi controls, escapes.
_UNSEEN = {"Cc", "Cf"}


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, control and format characters at most."""
    bare = text.lstrip()
    if not bare or bare[0].isprintable():
        return not bare
    return all(char.isspace() or unicodedata.category(char) in _UNSEEN for char in bare)
