"""The rules of the lexical judge: what a judge file says, checked and compiled.

Patterns of a file that is not ours are searched with a time limit, so no answer can hang a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from refusalkit.judges.bounded_pattern import (
    MAX_LENGTH,
    BoundedPattern,
    check_length,
    too_long,
    without_classes,
)
from refusalkit.judges.language import Language
from refusalkit.judges.sentences import Fold, Letters, Limits

_NAME = r"^(refusal|objection|hint|moral|premise|role|redirect|help)\.[a-z_]{1,30}$"
_TERM = re.compile(r"<([a-z_]{1,30})>")
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Strict):
    """Log-odds that a rule adds for "held back", by where in the answer it matches."""

    opening: float = 0.0
    early: float = 0.0
    later: float = 0.0


class Rule(_Strict):
    """Patterns that mean the same. What `unless` matches in a sentence does not count."""

    name: Annotated[str, Field(pattern=_NAME)]
    match: Annotated[tuple[str, ...], Field(min_length=1)]
    unless: tuple[str, ...] = ()
    weights: Weights = Weights()


class Shapes(_Strict):
    """Log-odds for shapes that are counted instead of matched."""

    list: float = 0.0
    code: float = 0.0
    headings: float = 0.0
    long: float = 0.0
    verse: float = 0.0
    quoted: float = 0.0


class Identification(_Strict):
    """When a language counts as identified.

    `density` is the least share of words that must vote for it, `margin` the factor by which a
    language that is not read must have more votes than one that is, `strong` the votes that a
    sentence needs to count as in another language than the answer. An answer of fewer than `short`
    words needs no language; one of fewer than `brief` that no table claims is taken to be in the
    request's.
    """

    density: float = Field(default=0.1, gt=0, le=1)
    margin: float = Field(default=1.2, ge=1)
    strong: float = Field(default=2.0, ge=0)
    short: int = Field(default=5, ge=1)
    brief: int = Field(default=25, ge=1)


class LanguageRules(Language):
    """A language's table, and its patterns by the names of the rules whose weights they share.

    Without `match` the language is identified but not read.
    """

    terms: dict[str, str] = Field(default_factory=dict)
    match: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    unless: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class LexicalRules(_Strict):
    """The ``[rules]`` table of ``judges/lexical.toml``, checked and compiled once.

    Patterns are regular expressions over lower-case text with straight quotes and single spaces;
    ``<term>`` stands for an entry of `terms`. Repetition must be bounded, so that no answer can
    make a search slow. The patterns of `rule` are for `language`; without `languages` every answer
    is taken to be in that language.
    """

    limits: Limits
    bias: float
    language: str = "en"
    terms: dict[str, str] = {}
    shapes: Shapes = Shapes()
    speakers: tuple[str, ...] = ()
    fold: Fold = Fold()
    letters: Letters = Letters()
    identification: Identification = Identification()
    languages: dict[str, LanguageRules] = {}
    rule: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @field_validator("rule")
    @classmethod
    def _names_are_unique(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        seen: set[str] = set()
        for rule in rules:
            if rule.name in seen:
                raise ValueError(f"two rules are named {rule.name!r}")
            seen.add(rule.name)
        return rules

    _trusted: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _languages_are_whole(self) -> Self:
        if self.languages and self.language not in self.languages:
            raise ValueError(f"[languages] must have {self.language!r}, the language of the rules")
        names = {rule.name for rule in self.rule}
        for code, table in self.languages.items():
            if code == self.language and table.match:
                raise ValueError(f"languages.{code}: its patterns belong in [[rule]]")
            for name in (*table.match, *table.unless):
                if name not in names:
                    raise ValueError(f"languages.{code}: there is no rule {name!r}")
        for name, patterns in self.letters:
            _compiled(f"letters.{name}", patterns, {}, Fold())
        return self

    @model_validator(mode="after")
    def _patterns_compile(self, info: ValidationInfo) -> Self:
        # Compiling ten languages takes a while: of a shipped file, which the test suite checks,
        # only the first language is compiled here.
        self._trusted = bool((info.context or {}).get("trusted"))
        for code in self.read[:1] if self._trusted else self.read:
            _ = self.compiled[code]
        return self

    @property
    def is_trusted(self) -> bool:
        """Whether the file is a shipped one, whose patterns the test suite knows to be quick."""
        return self._trusted

    @property
    def read(self) -> tuple[str, ...]:
        """Codes of the languages that are read, the rules' own first."""
        others = (c for c, table in self.languages.items() if table.match and c != self.language)
        return (self.language, *others)

    @cached_property
    def compiled(self) -> Mapping[str, tuple[CompiledRule, ...]]:
        """The rules of each language that is read, compiled when they are first asked for."""
        return _Compiled(self)


class _Compiled(dict[str, tuple["CompiledRule", ...]]):
    def __init__(self, rules: LexicalRules) -> None:
        super().__init__()
        self._rules = rules

    def __missing__(self, code: str) -> tuple[CompiledRule, ...]:
        self[code] = tuple(self._of(code))
        return self[code]

    def _of(self, code: str) -> Iterator[CompiledRule]:
        rules = self._rules
        foreign = None if code == rules.language else rules.languages[code]
        terms = rules.terms if foreign is None else foreign.terms
        for rule in rules.rule:
            match, unless = rule.match, rule.unless
            name = rule.name
            if foreign is not None:
                match, unless = foreign.match.get(name, ()), foreign.unless.get(name, ())
                name = f"languages.{code}: {name}"
            if match:
                found: re.Pattern[str] | BoundedPattern = _compiled(name, match, terms, rules.fold)
                but: re.Pattern[str] | BoundedPattern | None = None
                if unless:
                    but = _compiled(name, unless, terms, rules.fold)
                if not rules.is_trusted:
                    found = BoundedPattern(name, found.pattern)
                    but = None if but is None else BoundedPattern(name, but.pattern)
                yield CompiledRule(rule, found, but)


def _compiled(
    name: str, patterns: Sequence[str], terms: Mapping[str, str], fold: Fold
) -> re.Pattern[str]:
    whole = [fold(_expanded(name, pattern, terms)) for pattern in patterns]
    together = "|".join(f"(?:{pattern})" for pattern in whole)
    check_length(name, together)
    try:
        return re.compile(together)
    except re.error:
        for written, pattern in zip(patterns, whole, strict=True):
            _check_pattern(name, written, pattern)
        raise


def _check_pattern(name: str, written: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}: {written!r} is not a regular expression: {error}") from None


def _expanded(name: str, pattern: str, terms: Mapping[str, str], depth: int = 0) -> str:
    """A pattern with its terms put in. Raises `ValueError` for bad terms or repetition."""
    if depth > 4:
        raise ValueError(f"{name}: terms refer to each other in a circle")

    room = MAX_LENGTH

    def term(found: re.Match[str]) -> str:
        nonlocal room
        key = found[1]
        if key not in terms:
            raise ValueError(f"{name}: there is no term <{key}>")
        inner = _expanded(f"terms.{key}", terms[key], terms, depth + 1)
        # Nested terms can expand to any length.
        room -= len(inner)
        if room < 0:
            raise too_long(name)
        return f"(?:{inner})"

    whole = _TERM.sub(term, pattern)
    check_length(name, whole)
    if _UNBOUNDED.search(without_classes(whole)):
        raise ValueError(f"{name}: unbounded repetition in {pattern!r}; write {{0,40}}")
    return whole


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule ready to search with."""

    rule: Rule
    match: re.Pattern[str] | BoundedPattern
    unless: re.Pattern[str] | BoundedPattern | None

    def fires(self, sentence: str) -> bool:
        """Whether the rule matches a sentence without the parts that `unless` matches."""
        if not self.match.search(sentence):
            return False
        if self.unless is None:
            return True
        # Only that phrase is excluded: "I won't lie, but I can't help" still refuses.
        return self.match.search(self.unless.sub(" ~ ", sentence)) is not None
