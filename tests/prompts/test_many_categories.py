"""Sets of a very large number of categories: bounded in time, and what is shown is cut."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from commandline import Call

N = 20_000


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many.csv"
    rows = (f"What is item {n} of {n * 7919 % N}?,category {n}\n" for n in range(N))
    path.write_text("prompt,category\n" + "".join(rows))
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("prompts", "validate", "many.csv"),
        ("prompts", "show", "many.csv"),
        ("run", "demo/mixed", "--prompts", "many.csv", "--limit", 50, "--trials", 1),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_commands_are_bounded_in_time_and_output(
    call: Call, many: Path, words: tuple[object, ...]
) -> None:
    began = time.process_time()
    done = call(*words)
    assert done.status == 0, done.err
    assert time.process_time() - began < 20
    assert len(done.out) < 50_000


def test_a_sentence_says_how_many_categories_are_not_shown(call: Call, many: Path) -> None:
    lines = call("prompts", "show", many).out.splitlines()
    assert "... and 19,500 more categories (--json has all)" in lines
