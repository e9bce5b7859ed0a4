"""Keeps keys out of records, logs and messages.

`Keys` finds the keys that a client sends in whatever comes back, however they are encoded;
`redact` replaces anything that looks like a key.
"""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

from refusalkit.untrusted import printable

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

# Shorter values are placeholders ("EMPTY", "none"); removing them would tear words apart.
_SHORTEST_KEY = 8


def redact(text: object, limit: int = 200) -> str:
    """`printable` text with anything that looks like a credential replaced by ``[key]``."""
    # Keys are replaced before the text is cut: half a key would no longer look like one.
    return printable(_KEY.sub(r"\g<name>[key]", str(text)[: limit * 20]), limit)


class Keys:
    """The keys that a client sends, to be removed from whatever comes back.

    A key need not look like one. Each is found as it is and as URLs, JSON, HTML, Python, base64 or
    hexadecimal would write it, in upper or lower case. Values shorter than 8 characters are
    ignored.
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

    def in_traceback(self, error: BaseException | None) -> bool:
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
        # Inside longer base64 ("user:key") a key is at one of three places in the groups of
        # three bytes; its outermost digits also hold bits of its neighbours.
        encoded = base64.b64encode(bytes(shift) + raw).decode()
        inner = encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms
