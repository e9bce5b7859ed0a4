"""Takes a model's reasoning and leaked special tokens out of the text of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from refusalkit.display import shows
from refusalkit.models.dialects.rows import table

_QUOTES = frozenset("`'\"“”„«»‘’")
_FENCE = "```"
# Characters on both sides in which a quotation of a mark is looked for.
_NEAR = 200
_NEVER = "(?!)"  # matches nothing
# Characters at an answer's end in which special tokens are looked for.
_TAIL = 400
# Closing marks that are examined for one that no table has.
_MAX_PLACES = 20


@shows("unclosed", chars=lambda split: len(split.final))
@dataclass(slots=True)
class Split:
    """A text split into final answer and reasoning.

    `unclosed`: reasoning began and never ended. `unknown` is a mark that looks like a reasoning
    mark and is in no table.
    """

    final: str
    reasoning: str = ""
    unclosed: bool = False
    unknown: str | None = None


@dataclass(frozen=True)
class _Mark:
    """A mark as regular expressions, compiled when an answer first needs them."""

    open: str
    close: str
    nests: bool
    only_closed: bool
    opening_always: bool

    @cached_property
    def opening(self) -> re.Pattern[str]:
        return re.compile(self.open, re.IGNORECASE)

    @cached_property
    def ends(self) -> re.Pattern[str]:
        """A closing; group `o` where it is a further opening instead."""
        further = self.open if self.nests else _NEVER
        return re.compile(f"(?P<o>{further})|(?:{self.close})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Wrapper:
    opening: str
    closing: str
    always: bool


class _Tables:
    """The tables as patterns, each made when it is first needed."""

    def __init__(self) -> None:
        self._rows, self._tokens = table("reasoning"), table("tokens")
        self._leading: dict[str, tuple[re.Pattern[str], tuple[int, ...]]] = {}

    @cached_property
    def marks(self) -> tuple[_Mark, ...]:
        found: list[_Mark] = []
        for row in self._rows["tag"]:
            name = re.escape(row["tag"])
            tag = (rf"<\s*{name}(?:\s[^<>]*)?/?>", rf"</\s*{name}\s*>")
            found.append(_Mark(*tag, True, False, row.get("opening_always", False)))
        for row in self._rows["pair"]:
            pair = (re.escape(row["open"]), re.escape(row["close"]))
            found.append(_Mark(*pair, True, False, row.get("opening_always", False)))
        found.extend(
            _Mark(row["open"], row["close"], False, row.get("only_closed", False), True)
            for row in self._rows["pattern"]
        )
        return tuple(found)

    def leading(self, text: str, at: int) -> tuple[int, re.Match[str]] | None:
        """The opening mark at position `at`: its number among `marks`, and the match."""
        char = text[at : at + 1]
        if char not in self.begins:
            return None
        if char not in self._leading:
            # Only those that can match: compiling all takes longer than reading most runs.
            numbers = tuple(
                number
                for number, mark in enumerate(self.marks)
                if _first_char(mark.open).lower() == char.lower()
            )
            any_of = "|".join(f"({self.marks[number].open})" for number in numbers) or _NEVER
            self._leading[char] = re.compile(any_of, re.IGNORECASE), numbers
        pattern, numbers = self._leading[char]
        found = pattern.match(text, at)
        return None if found is None else (numbers[(found.lastindex or 1) - 1], found)

    @cached_property
    def stray(self) -> re.Pattern[str]:
        """Any closing that may come without its opening; the group's number is its mark's."""
        closings = (_NEVER if mark.opening_always else mark.close for mark in self.marks)
        return re.compile("|".join(f"({closing})" for closing in closings), re.IGNORECASE)

    @cached_property
    def stray_signs(self) -> frozenset[str]:
        """What such a closing begins with."""
        pairs = (row["close"] for row in self._rows["pair"] if not row.get("opening_always"))
        return frozenset({"</", *(closing[:2] for closing in pairs)})

    @cached_property
    def begins(self) -> frozenset[str]:
        """The characters that a leading mark or token may begin with."""
        patterns = (*(mark.open for mark in self.marks), *self._firsts)
        chars = map(_first_char, patterns)
        return frozenset(char for one in chars for char in (one.lower(), one.upper()))

    @cached_property
    def signs(self) -> frozenset[str]:
        """Every text that has a closing mark, a last token or a wrapper contains one of these."""
        wrappers = (wrapper.opening for wrapper in self.wrappers)
        found = ("[/", *self.stray_signs, *self._lasts, *wrappers)
        # Two characters for brackets: one alone is in many answers' lists and links.
        return frozenset(sign[:2] if sign[0] == "[" else sign[0] for sign in found)

    @cached_property
    def first(self) -> re.Pattern[str]:
        firsts = "|".join(f"(?:{first})" for first in self._firsts)
        return re.compile(rf"(?:\s|{firsts})*", re.IGNORECASE)

    @cached_property
    def last(self) -> re.Pattern[str]:
        return re.compile(rf"(?:\s*(?:{self._any_last}))+\s*\Z")

    @cached_property
    def last_signs(self) -> frozenset[str]:
        """What such a token begins with."""
        return frozenset(last[:2] for last in self._lasts)

    @cached_property
    def last_chars(self) -> frozenset[str]:
        return frozenset(last[-1] for last in self._lasts)

    @cached_property
    def ran_on(self) -> re.Pattern[str]:
        return re.compile(rf"(?:{self._any_last})\s*(?={'|'.join(self._tokens['turn'])})")

    @cached_property
    def wrappers(self) -> tuple[_Wrapper, ...]:
        return tuple(
            _Wrapper(row["open"], row["close"], row.get("always", False))
            for row in self._rows["wrapper"]
        )

    @cached_property
    def unknown(self) -> re.Pattern[str]:
        hints = "|".join(map(re.escape, self._rows["hints"]))
        name = rf"[\w:.-]{{0,24}}(?:{hints})[\w:.-]{{0,24}}"
        return re.compile(
            rf"<\|?/?\s*(?P<a>{name})(?:\s[^<>]{{0,80}})?\|?>|\[/?(?P<b>{name})\]", re.IGNORECASE
        )

    @cached_property
    def _firsts(self) -> tuple[str, ...]:
        return tuple(row["first"] for row in self._tokens["first"])

    @cached_property
    def _lasts(self) -> tuple[str, ...]:
        return tuple(row["last"] for row in self._tokens["last"])

    @property
    def _any_last(self) -> str:
        return "|".join(map(re.escape, self._lasts))


@cache
def _tables() -> _Tables:
    return _Tables()


def split_reasoning(text: str, *, apart: bool = False, cut: bool = False) -> Split:
    """Split off the reasoning that leads an answer, and remove leaked special tokens.

    `apart`: reasoning came in a field of its own, so a closing mark without an opening one is text.
    `cut`: the answer was stopped before its end.
    """
    tables = _tables()
    if not any(sign in text for sign in tables.signs):
        # No mark is closed in it, so only one that leads it can matter.
        if text[:_NEAR].lstrip()[:1] not in tables.begins:
            return Split(text)
        start = _after_tokens(tables, text, 0)
        if not text[:start].strip() and tables.leading(text, start) is None:
            return Split(text, unknown=_unknown(tables, text))
    thoughts: list[str] = []
    used: set[int] = set()
    at = 0
    while True:
        start = _after_tokens(tables, text, at)
        leading = tables.leading(text, start)
        if leading is not None:
            number, opening = leading
            mark = tables.marks[number]
            if opening.group().endswith("/>"):
                used.add(number)
                at = opening.end()
                continue
            end = _end(mark, text, opening.end())
            if end is not None:
                used.add(number)
                thoughts.append(text[opening.end() : end[0]])
                at = end[1]
                continue
            if cut or not mark.only_closed:
                thoughts.append(text[opening.end() :])
                return Split("", _joined(thoughts), unclosed=True)
        # Beside a field of reasoning a closing mark is text, but for one that begins the answer.
        if used or not apart or tables.stray.match(text, start):
            stray = _stray(tables, text, start)
            if stray is not None:
                number, end = stray
                used.add(number)
                thoughts.append(text[start : end[0]])
                at = end[1]
                continue
        break
    rest = text[at:] if at else text
    if used:
        rest, later, unclosed = _later(tables, rest, used)
        thoughts.extend(later)
        if unclosed:
            return Split("", _joined(thoughts), unclosed=True)
    final = _bare(tables, rest, reasoned=bool(used) or apart)
    # Where nothing was removed the text stays as it is, white space included.
    final = text if final is text else final.strip()
    return Split(final, _joined(thoughts), unknown=_unknown(tables, final))


def _first_char(pattern: str) -> str:
    """The character that every match of a table's expression begins with."""
    return pattern.removeprefix("(?:").removeprefix("(?:").lstrip("\\")[:1]


def _joined(thoughts: list[str]) -> str:
    return "\n".join(part.strip() for part in thoughts if part.strip())


def _after_tokens(tables: _Tables, text: str, at: int) -> int:
    """Where an answer begins, after white space and leading special tokens."""
    lead = text[at : at + _NEAR].lstrip()[:1]
    if lead and lead not in tables.begins:
        return at
    found = tables.first.match(text, at)
    return at if found is None else found.end()


def _end(mark: _Mark, text: str, at: int) -> tuple[int, int] | None:
    """Where a block that was opened before `at` ends, and where the text goes on.

    Blocks may be nested. Where there are fewer closings than openings, an opening was only
    mentioned: the last closing counts.
    """
    depth = 1
    last: re.Match[str] | None = None
    quoted: re.Match[str] | None = None
    for found in mark.ends.finditer(text, at):
        opens = found.group("o") is not None
        if _is_quoted(text, *found.span()):
            quoted = quoted if opens else found
        elif opens:
            depth += not found.group().endswith("/>")
        else:
            depth -= 1
            last = found
            if not depth:
                break
    ended = last or quoted
    return None if ended is None else ended.span()


def _stray(tables: _Tables, text: str, at: int) -> tuple[int, tuple[int, int]] | None:
    """The last closing mark that was never opened: what comes before it is reasoning."""
    opened: dict[int, int] = {}
    counted, fences = at, 0
    ended: tuple[int, tuple[int, int]] | None = None
    for place in _places(text, tables.stray_signs, at):
        found = tables.stray.match(text, place)
        if found is None:
            continue
        number = (found.lastindex or 1) - 1
        start, end = found.span()
        if number not in opened:
            opening = tables.marks[number].opening.search(text, at)
            opened[number] = len(text) if opening is None else opening.start()
        fences += text.count(_FENCE, counted, start)
        counted = start
        spaced = text[start - 1 : start] in (" ", "\t") and text[end : end + 1] in (" ", "\t")
        if opened[number] > start and not (spaced or fences % 2 or _is_quoted(text, start, end)):
            ended = number, (start, end)
    return ended


def _places(text: str, signs: Iterable[str], at: int) -> list[int]:
    """Where any of the signs is, in order."""
    found: list[int] = []
    for sign in signs:
        # Searching for one character is much faster than for two.
        place = text.find(sign, at) if sign[0] in text else -1
        while place >= 0:
            found.append(place)
            place = text.find(sign, place + 1)
    found.sort()
    return found


def _is_quoted(text: str, start: int, end: int) -> bool:
    """Whether a mark is mentioned, not used: between quotation marks or in inline code."""
    if text[start - 1 : start] in _QUOTES and text[end : end + 1] in _QUOTES:
        return True
    before = text[max(0, start - _NEAR) : start].rpartition("\n")[2]
    return before.count("`") % 2 == 1 and "`" in text[end : end + _NEAR].partition("\n")[0]


def _later(tables: _Tables, text: str, used: set[int]) -> tuple[str, list[str], bool]:
    """Split off later blocks of the marks that led the answer, where they begin a line.

    Returns the text without them, what they held, and whether the last was never closed.
    """
    thoughts: list[str] = []
    for number in sorted(used):
        mark = tables.marks[number]
        kept: list[str] = []
        done, fences, counted, at = 0, 0, 0, 0
        while (opening := mark.opening.search(text, at)) is not None:
            start, at = opening.span()
            fences += text.count(_FENCE, counted, start)
            counted = start
            line = text[max(0, start - _NEAR) : start].rpartition("\n")[2]
            if line.strip() or fences % 2 or opening.group().endswith("/>"):
                continue
            end = _end(mark, text, at)
            if end is None:
                return "".join(kept) + text[done:start], [*thoughts, text[at:]], True
            kept.append(text[done:start])
            thoughts.append(text[at : end[0]])
            done = at = counted = end[1]
        text = "".join([*kept, text[done:]]) if kept else text
    return text, thoughts, False


def _bare(tables: _Tables, text: str, *, reasoned: bool) -> str:
    """A text without special tokens around it, and without the wrappers that some models add."""
    rest = text
    if any(sign in rest for sign in tables.last_signs):
        ran_on = tables.ran_on.search(rest)
        if ran_on is not None and ran_on.start():
            rest = rest[: ran_on.start()]
        if rest.rstrip()[-1:] in tables.last_chars:
            last = tables.last.search(rest, max(0, len(rest) - _TAIL))
            rest = rest if last is None else rest[: last.start()]
    start = _after_tokens(tables, rest, 0)
    if rest[:start].strip():
        rest = rest[start:]
    for wrapper in tables.wrappers:
        if wrapper.opening not in rest or not (reasoned or wrapper.always):
            continue
        inner = rest.strip()
        if inner.startswith(wrapper.opening):
            rest = inner.removeprefix(wrapper.opening).removesuffix(wrapper.closing)
        elif wrapper.always and inner.endswith(wrapper.closing):
            rest = inner.removesuffix(wrapper.closing).replace(wrapper.opening, "", 1)
    return text if rest == text else rest


def _unknown(tables: _Tables, text: str) -> str | None:
    """A mark at the beginning of a text, or a closing one within it, that no table has."""
    lead = text[:_NEAR].lstrip()
    if lead[:1] in ("<", "["):
        found = tables.unknown.match(lead)
        if found is not None and "/" not in found.group()[:3]:
            return f"<{found.group('a') or found.group('b')}>"
    for place in _places(text, ("</", "[/"), 0)[:_MAX_PLACES]:
        found = tables.unknown.match(text, place)
        if found is None or tables.stray.match(text, place) or _is_quoted(text, *found.span()):
            continue
        # Where the text also opens it, the pair is part of the text.
        opening = found.group().replace("/", "", 1)[:-1]
        if opening.lower() not in text[:place].lower():
            return f"</{found.group('a') or found.group('b')}>"
    return None
