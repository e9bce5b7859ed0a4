"""Makes text from outside safe to print in a terminal, a message or a log.

Answers, data sets, judge output and provider errors are untrusted: they may hold terminal
escapes, bidirectional overrides that reorder what a reader sees, or a key that an endpoint
echoed back.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import unicodedata
from urllib.parse import quote, quote_plus

# Control (Cc), format (Cf, which holds the bidi controls), surrogates (Cs), private use (Co),
# and the line and paragraph separators. Ordinary text has none of them but newline and tab.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}

_KEY = re.compile(
    r"""(?ix)
    \b(?:(?:sk|pk|rk|hf|gsk|xai|key|api|ghp|github_pat)[-_]|AIza|AKIA)[A-Za-z0-9_\-]{12,}
    | (?<=bearer\ )[^\s"',;]{6,}
    | (?P<name>api[-_]?key["']?\s*[=:]\s*["']?)[^\s"',;&]{6,}
    | (?<=key=)[^\s"',;&]{6,}
    | (?<=token=)[^\s"',;&]{6,}
    | (?<=://)[^/\s?\#]+(?=@)
    """
)


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


def redact(text: object, limit: int = 200) -> str:
    """`printable` text with anything that looks like a credential replaced by ``[key]``."""
    # Keys go before the cut: half a key at the end would no longer look like one.
    return printable(_KEY.sub(r"\g<name>[key]", str(text)[: limit * 20]), limit)


# What providers call things: `content_filter`, `req_011CSHoE...`, `meta-llama/Llama-3.3-70B`.
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_PARTS = re.compile(r"[._:/@+-]")


def identifier(text: str, limit: int = 64, *, parts: int = 8) -> str:
    """`text` if it looks like a name or an id, else its digest, ``sha256:`` and 16 digits.

    For fields that a server fills where nothing that an answer says may be kept: a name has no
    space, at most `limit` characters, and no more than `parts` parts.
    """
    if len(text) <= limit and _IDENTIFIER.fullmatch(text) and len(_PARTS.split(text)) <= parts:
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


# Shorter values are placeholders ("EMPTY", "none"); removing them would tear words apart.
_SHORTEST_KEY = 8


class Keys:
    """The keys that a client sends, to be removed from whatever comes back.

    A key need not look like one. Each is found as it is and as a URL, JSON, HTML, Python, base64 or
    hexadecimal form would have it, in any case. Values shorter than 8 characters are ignored.
    """

    def __init__(self, *values: str | None) -> None:
        forms = {form for value in values if value for form in _forms(value.strip())}
        # The longest first: a form may hold another one.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._folded = tuple({form.lower() for form in ordered})
        self._pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE)

    def __repr__(self) -> str:
        return "Keys(...)"

    def __bool__(self) -> bool:
        """Whether there is anything to remove."""
        return bool(self._folded)

    def within(self, text: str) -> bool:
        """Whether `text` holds one of them."""
        folded = text.lower()
        return any(form in folded for form in self._folded)

    def hide(self, text: str) -> str:
        """`text` with each of them replaced by ``[key]``."""
        return self._pattern.sub("[key]", text) if self.within(text) else text

    def told_by(self, error: BaseException | None) -> bool:
        """Whether a traceback of `error`, its causes included, would show one of them."""
        seen: set[int] = set()
        waiting = [error]
        while waiting:
            one = waiting.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                waiting += one.exceptions
            if self.within(" ".join([str(one), *getattr(one, "__notes__", ())])):
                return True
        return False


def _forms(key: str) -> set[str]:
    """The ways in which a key may be written."""
    if len(key) < _SHORTEST_KEY:
        return set()
    raw = key.encode("utf-8", "surrogatepass")
    forms = {key, raw.hex(), html.escape(key), repr(key)[1:-1], quote(raw, safe=""), quote(raw)}
    forms |= {quote_plus(raw), json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1]}
    forms |= {json.dumps(form)[1:-1] for form in tuple(forms)}
    for shift in range(3):
        # Inside longer base64 ("user:key") a key stands at one of three places in the groups of
        # three bytes; its outermost digits also hold bits of its neighbours.
        encoded = base64.b64encode(bytes(shift) + raw).decode()
        inner = encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms


def well_formed(text: str) -> str:
    """`text` with lone surrogates replaced: JSON can carry them, UTF-8 cannot."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text
