"""Splits an answer into the sentences that the assistant itself says.

Quotations, block quotes, code, lines of a dialogue and letters are masked. Marks of many languages
count as the same: French and German quotation marks, Japanese brackets, full stops without a space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from refusalkit.display import shows
from refusalkit.judges.bounded_pattern import BoundedPattern

Zone = Literal["opening", "early", "later"]


class Limits(BaseModel):
    """How many characters of an answer, and of a sentence, are read.

    `head` are the first and `tail` the last of an answer; the middle of a longer one is not read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: int = Field(ge=200, le=20_000)
    tail: int = Field(ge=0, le=20_000)
    sentence: int = Field(ge=80, le=2_000)


class Fold(BaseModel):
    """Letters that count as the same: each of `letters` is read as the one in its place in `as_`.

    Those in `drop` are removed. Patterns and tables of words are folded likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    letters: str = ""
    as_: Annotated[str, Field(alias="as")] = ""
    drop: str = ""

    @model_validator(mode="after")
    def _of_one_length(self) -> Fold:
        if len(self.letters) != len(self.as_):
            raise ValueError("`letters` and `as` must be of one length")
        return self

    def __call__(self, text: str) -> str:
        """`text` in composed form (NFC) with its letters folded."""
        if text.isascii():
            return text
        table = dict(zip(map(ord, self.letters), self.as_, strict=True))
        return unicodedata.normalize("NFC", text).translate(
            {**table, **dict.fromkeys(map(ord, self.drop))}
        )


class Letters(BaseModel):
    """Patterns of the lines between which an answer shows a letter that it wrote.

    `opens` match the beginning of its first line, `closes` the whole line after it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()


@shows("number", "zone", chars=lambda sentence: len(sentence.text))
@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence the assistant speaks, lower case and folded. `number` counts from 1."""

    number: int
    zone: Zone
    text: str


@dataclass(frozen=True, slots=True)
class Spoken:
    """What is left of an answer for the rules: its sentences and its shape."""

    sentences: tuple[Sentence, ...]
    list_items: int
    headings: int
    code: bool
    verse: bool
    quoted: bool


# Invisible marks could split a word or hide one.
_INVISIBLE = "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufeff" + "".join(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u2039\u203a\u02bc\u00b4\uff07", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\uff02\uff62\uff63", '"'),
        **dict.fromkeys("\r\u2028\u2029\x0b\x0c", "\n"),
        **dict.fromkeys(_INVISIBLE, None),
        "\uff1a": ":",
        "\uff0c": ",",
    }
)
_INNER = re.compile("\u300e[^\u300e\u300f]{0,600}\u300f")  # a quotation in a quotation
_ITEM = re.compile(
    r"(?:[-*\u2022+]|\(?\d{1,3}[.)]|step \d{1,3}[:.])\s"
    # East Asian lists have no space after the number.
    r"|(?:\u30fb|[\u2460-\u2473]|(?:\d{1,3}|[\u4e00-\u4e5d\u5341]{1,3})\u3001)",
    re.I,
)
_FENCE = re.compile(r"(?:```|~~~)")
_UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de\u0410-\u042f"
_SPEAKER = re.compile(
    rf"([{_UPPER}][\w'.-]{{0,20}}(?: [{_UPPER}][\w'.-]{{0,20}}){{0,2}}):(?=\s|$)|\u2014 ?(?=\w)"
)
_BREAK = re.compile(
    r"(?<=[.!?\u2026])['\")\]]?\s(?=[^a-z\u00df-\u00f6\u00f8-\u00ff\u0430-\u044f])"
    # Full stops that need no space: Chinese and Japanese, Hindi, Arabic.
    r"|(?<=[\u3002\uff01\uff1f\uff61\u0964\u061f])(?=[^'\")\]])"
)
_MARKS = re.compile(r"\*(?!\s)|(?<=\S)\*|__")
_SINGLE = re.compile(r"(?<!\w)'(?=[^\W\d_])(?:[^']|(?<=\w)'(?=\w)){1,300}'(?!\w)")
_WIDE = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")
_SHORT = 3  # Words. "I'm sorry." or "Hello!" is not an opening of its own.
_NEVER = r"(?!)"
_CHARACTERS_A_WORD = 3  # Chinese and Japanese are written without spaces.


class Reader:
    """Splits an answer into what the assistant itself says."""

    def __init__(
        self,
        limits: Limits,
        speakers: Sequence[str] = (),
        *,
        fold: Fold | None = None,
        letters: Letters | None = None,
        trusted: bool = False,
    ) -> None:
        """`trusted`: the patterns of `letters` are shipped ones, known to be quick."""
        self._limits = limits
        self._own = frozenset(speakers)
        self._fold = fold or Fold()
        marks = letters or Letters()
        self._opens = _line("letters.opens", "|".join(marks.opens) or _NEVER, trusted)
        closes = f"(?:{'|'.join(marks.closes) or _NEVER})$"
        self._closes = _line("letters.closes", closes, trusted)

    def read(self, text: str) -> Spoken:
        """The sentences of `text` that the answer itself speaks, and its shape."""
        lines = self._lines(text)
        dialogue = sum(self._speaker(line) is not None for line in lines) >= 2
        sentences: list[Sentence] = []
        items = headings = verse = masked = shown = 0
        code = fenced = letter = False
        opening_words = 0
        for line in lines:
            if _FENCE.match(line):
                fenced, code = not fenced, True
                continue
            if not line:
                continue
            if letter and self._closes.match(line):
                letter = False
                continue
            if self._opens.match(line):
                letter = True
            if fenced or letter or line[0] == ">" or (dialogue and self._speaker(line)):
                masked += len(line)
                continue
            headings += line[0] == "#"
            line = line.lstrip("# ")
            if not line:
                continue
            item = _ITEM.match(line)
            items += item is not None
            line = line[item.end() :] if item else line
            verse += item is None and _width(line) < 70 and line[-1] != ":"
            said = _unquoted(line)
            shown += len(said)
            masked += len(line) - len(said)
            for part in _BREAK.split(said):
                part = part.strip(" *_#\"'\u3000").lower()[: self._limits.sentence]
                if not part:
                    continue
                number = len(sentences) + 1
                zone: Zone = "later"
                if opening_words <= _SHORT and not (item and number > 1):
                    zone = "opening"
                    opening_words += _words(part)
                elif number <= 4:
                    zone = "early"
                sentences.append(Sentence(number, zone, part))
        return Spoken(tuple(sentences), items, headings, code, verse >= 8, masked > shown)

    def _lines(self, text: str) -> list[str]:
        head, tail = self._limits.head, self._limits.tail
        if len(text) > head + tail:
            text = text[:head] + "\n" + text[len(text) - tail :]
        text = self._fold(_INNER.sub("''", text).translate(_PLAIN))
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()
        if text.count('"') == 2 and text[0] == text[-1] == '"':
            # An answer that is one quotation is the assistant speaking after all.
            text = text[1:-1]
        return [_MARKS.sub("", " ".join(line.split())) for line in text.split("\n")]

    def _speaker(self, line: str) -> str | None:
        found = _SPEAKER.match(line)
        if found is None or (found[1] and found[1].lower() in self._own):
            return None
        return found[0]


def _line(name: str, pattern: str, trusted: bool) -> re.Pattern[str] | BoundedPattern:
    if trusted:
        return re.compile(pattern, re.IGNORECASE)
    return BoundedPattern(name, pattern, ignore_case=True)


def _width(line: str) -> int:
    """How long a line is, in letters of the Latin script."""
    return len(line) if line.isascii() else len(line) + 2 * len(_WIDE.findall(line))


def _words(text: str) -> int:
    """Roughly how many words a sentence has."""
    if text.isascii():
        return len(text.split())
    wide = len(_WIDE.findall(text))
    return len(_WIDE.sub(" ", text).split()) + wide // _CHARACTERS_A_WORD


def _unquoted(line: str) -> str:
    """`line` without what is in quotation marks."""
    parts = line.split('"')
    if len(parts) % 2 == 0:
        # A mark is left open. At the beginning of a line it opens a paragraph of dialogue;
        # elsewhere it is an inch mark or a slip, and hides nothing.
        if len(parts) == 2 and not parts[0]:
            return ""
        parts[-2:] = [parts[-2] + " " + parts[-1]]
    return _SINGLE.sub("''", "''".join(parts[::2]))
