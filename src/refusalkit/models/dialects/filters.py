"""Whether a filter for harmful content answered, and the word that says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from refusalkit.models.dialects.rows import any_of, folded, table, values_at

_NOT_A_NAME = re.compile(r"\W+")
_OF_ERROR = re.compile("(?:error|exception)$")
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, slots=True)
class _Field:
    path: tuple[str, ...]
    values: frozenset[str]
    even_with_text: bool
    names_categories: bool


@cache
def _codes() -> frozenset[str]:
    return frozenset(folded(row["code"]) for row in table("filters")["code"])


def is_filter_code(code: str) -> bool:
    """Whether a code, folded, is a filter's."""
    return code in _codes() or _form().fullmatch(code) is not None


@cache
def _form() -> re.Pattern[str]:
    return any_of(table("filters")["form"], "form")


@cache
def _words(*, page: bool = False) -> tuple[tuple[re.Pattern[str], ...], ...]:
    return tuple(
        tuple(re.compile(row[key], re.IGNORECASE) for key in ("words", "and", "of") if key in row)
        for row in table("filters")["words"]
        if row.get("page", False) or not page
    )


@cache
def _other() -> re.Pattern[str]:
    return any_of(table("filters")["other"])


@cache
def _statuses() -> frozenset[int]:
    return frozenset(row["status"] for row in table("filters")["status"])


@cache
def _fields() -> tuple[_Field, ...]:
    return tuple(
        _Field(
            tuple(row["field"].split(".")),
            frozenset(map(folded, row.get("values", ()))),
            row.get("even_with_text", False),
            row.get("names_categories", False),
        )
        for row in table("filters")["field"]
    )


@cache
def flag_fields() -> tuple[frozenset[str], frozenset[str]]:
    """The fields of a body, and of a choice, that may report a filter even beside a text."""
    paths = [field.path for field in _fields() if field.even_with_text]
    of_choice = frozenset(path[2] for path in paths if path[:2] == ("choices", "*"))
    return frozenset(path[0] for path in paths if path[0] != "choices"), of_choice


@cache
def guards() -> frozenset[str]:
    """The models that an answer names where a guard wrote it."""
    return frozenset(row["model"] for row in table("filters")["model"])


def filter_in_error(status: int, codes: Iterable[str], message: str, body: object) -> str | None:
    """The word by which an error says that a filter answered; None where it does not."""
    # A text of one word is a code.
    for code in (*codes, *(text for text in message.split("; ") if " " not in text)):
        if _is_filters(code):
            return code
    if (found := filter_in_fields(body)) is not None:
        return found
    if _other().search(message):
        return None
    if status in _statuses():
        return f"HTTP_{status}"
    return _in_words(message)


def filter_in_page(page: str) -> str | None:
    """The word by which a web page or XML says that a filter answered; None where it does not."""
    text = _TAG.sub(" ", page)
    return None if _other().search(text) else _in_words(text, page=True)


def _in_words(text: str, *, page: bool = False) -> str | None:
    for words, *also in _words(page=page):
        if (hit := words.search(text)) and all(one.search(text) for one in also):
            # A name, not a sentence: it is kept even where texts are withheld.
            return _NOT_A_NAME.sub("_", hit.group(0)).strip("_").casefold()[:40]
    return None


def _is_filters(code: str) -> bool:
    """Whether a code, or some of its dotted parts in a row (`A.B.Filtered`), is a filter's.

    With or without `error` or `exception` at its end.
    """
    if is_filter_code(folded(code)) or is_filter_code(_OF_ERROR.sub("", folded(code))):
        return True
    parts = code.split(".")[:8]
    return len(parts) > 1 and any(
        is_filter_code(folded(".".join(parts[start:end])))
        for start in range(len(parts))
        for end in range(start + 1, len(parts) + 1)
    )


def filter_in_fields(body: object, *, beside_text: bool = False) -> str | None:
    """The word by which a body's fields say that a filter answered; None where they do not.

    `beside_text`: the body has an answer's text too, so that only some fields count.
    """
    if not isinstance(body, dict | list):
        return None
    for field in _fields():
        if beside_text and not field.even_with_text:
            continue
        for value in values_at(body, field.path):
            if _says_so(value, field.values):
                # With the field's name where the value alone (true, 1) would say nothing.
                plain = isinstance(value, str) and not value.isdigit()
                return (
                    value if plain else f"{'.'.join(field.path).replace('.*', '')}={_short(value)}"
                )
    return None


def _says_so(value: Any, values: frozenset[str]) -> bool:
    if values:
        return isinstance(value, str | int) and folded(str(value)) in values
    return value is not None and value is not False and value != 0 and value not in ("", [], {})


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))[:60]
    return "true" if value is True else str(value)[:60]


def filtered_categories(body: object) -> str | None:
    """The categories that a filter reports as filtered, sorted and joined; None: none."""
    found: set[str] = set()
    for field in _fields():
        if not field.names_categories:
            continue
        # The path ends in `*` and a flag: an object's items by name, and each one's flag.
        *path, _, sign = field.path
        for results in values_at(body, path):
            if isinstance(results, Mapping):
                found.update(
                    str(name)
                    for name, result in results.items()
                    if isinstance(result, Mapping) and result.get(sign) is True
                )
    for steps in _category_fields():
        found.update(value for value in values_at(body, steps) if isinstance(value, str) and value)
    return ",".join(sorted(found)) or None


@cache
def _category_fields() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row["category"].split(".")) for row in table("filters")["category"])
