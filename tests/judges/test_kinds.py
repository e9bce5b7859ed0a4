"""What sets a kind of judge apart is on the kind, and its own module opens its files."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import get_args

import pytest

import refusalkit
from refusalkit.judges.kinds import KINDS, Kind, kind_named
from refusalkit.judges.rubrics import load_rubric, shipped_judges

SOURCE = Path(refusalkit.__file__).parent


@pytest.mark.parametrize("name", shipped_judges())
def test_every_shipped_judge_has_a_kind_whose_module_opens_it(name: str) -> None:
    kind = load_rubric(name).of_kind
    assert kind.module is not None
    assert callable(importlib.import_module(kind.module).open_rubric)


def test_a_judge_file_may_name_each_kind_that_has_a_module() -> None:
    assert set(get_args(Kind)) == {kind.name for kind in KINDS.values() if kind.module}


def test_a_kind_from_a_later_version_is_known_by_its_name_alone() -> None:
    kind = kind_named("oracle")
    assert (kind.title, kind.asks_model, kind.reads_words, kind.is_object) == (
        "oracle",
        False,
        False,
        False,
    )


def test_no_module_compares_a_judges_kind() -> None:
    """A comparison of a `.kind` with the name of a judge's kind belongs on `JudgeKind`."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            asks = any(isinstance(s, ast.Attribute) and s.attr == "kind" for s in sides)
            names = {s.value for s in sides if isinstance(s, ast.Constant)}
            if asks and names & KINDS.keys():
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert found == []
