"""Each field of each public type has a docstring of its own."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from functools import cache
from typing import Any

import pydantic
import pytest

import refusalkit as rk


def _has_fields(kind: Any) -> bool:
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, pydantic.BaseModel)
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def _classes_in(annotation: Any) -> list[type]:
    """The classes that an annotation names: `dict[str, LanguageRow] | None` names three."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation]
    return [kind for part in typing.get_args(annotation) for kind in _classes_in(part)]


def _hints(thing: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(thing)
    except NameError:  # a name that is imported for type checkers only
        return {}


@cache
def _public_types() -> tuple[type, ...]:
    """The exported types with fields, and those of ours that their fields and results lead to."""
    waiting = [getattr(rk, name) for name in rk.__all__]
    found: list[type] = []
    seen: set[int] = set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, type):
            if not thing.__module__.startswith("refusalkit"):
                continue
            if _has_fields(thing):
                found.append(thing)
            sources = [thing] if _has_fields(thing) else []
            for value in vars(thing).values():
                if isinstance(value, property) and value.fget is not None:
                    if not value.fget.__name__.startswith("_"):
                        sources.append(value.fget)
                elif inspect.isfunction(value) and not value.__name__.startswith("_"):
                    sources.append(value)
        elif callable(thing):
            sources = [thing]
        else:
            continue
        for source in sources:
            for name, annotation in _hints(source).items():
                if not name.startswith("_"):
                    waiting += _classes_in(annotation)
    return tuple(sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__)))


def _undescribed(kind: type) -> list[str]:
    """The public fields (and properties) written in this class that no docstring follows."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    bare: list[str] = []
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            described = (
                isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
                and isinstance(following.value.value, str)
            )
        elif isinstance(statement, ast.FunctionDef):
            name = statement.name
            described = ast.get_docstring(statement) is not None
        else:
            continue
        if not name.startswith("_") and not described and "ClassVar" not in ast.dump(statement):
            bare.append(name)
    return bare


_KEYWORDS = [kind for kind in _public_types() if typing.is_typeddict(kind)]
_WITH_FIELDS = [kind for kind in _public_types() if kind not in _KEYWORDS]


@pytest.mark.parametrize("kind", _WITH_FIELDS, ids=lambda kind: kind.__qualname__)
def test_each_field_of_a_public_type_has_a_line_of_its_own(kind: type) -> None:
    ours = [base for base in kind.__mro__ if base.__module__.startswith("refusalkit")]
    assert [name for base in ours for name in _undescribed(base)] == []


def test_keyword_arguments_are_described_where_the_configuration_is() -> None:
    assert _KEYWORDS
    for kind in _KEYWORDS:
        described = {*rk.RunConfig.model_fields, *rk.Placement.model_fields}
        assert set(kind.__annotations__) <= described


def test_a_field_without_a_line_is_found() -> None:
    assert _undescribed(_Bare) == ["second", "third"]


@dataclasses.dataclass
class _Bare:
    """A class with fields."""

    first: int
    """Described."""
    second: int
    _hidden: int = 0

    @property
    def third(self) -> int:
        return self.first
