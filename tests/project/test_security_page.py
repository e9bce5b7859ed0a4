"""docs/security.md: each promise names a place in the code and a test, and both are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
TABLE = PAGE[PAGE.index("| promise |") :]
ROWS = [line for line in TABLE.split("\n\n")[0].splitlines()[2:] if line.startswith("|")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_promise_names_what_is_there(row: str) -> None:
    _, _, place, tests, _ = row.split("|")
    paths = re.findall(r"`(tests/[^`]+)`", tests)
    assert paths
    for path in paths:
        assert "def test_" in (ROOT / path).read_text("utf-8")
    for name in re.findall(r"`(refusalkit[\w.]*)`", place):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_every_promise_of_the_policy_is_in_the_table() -> None:
    policy = (ROOT / "SECURITY.md").read_text("utf-8")
    assert "docs/security.md" in policy
    promised = re.findall(r"^- \*\*(.+?)\.?\*\*", policy, re.MULTILINE)
    assert len(promised) >= 8
    assert len(ROWS) >= len(promised)
