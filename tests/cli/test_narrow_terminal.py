"""A terminal narrower than 80 columns: a table that does not fit is a list of its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

import refusalkit as rk
from commandline import Call

COMMANDS = {
    "score": ("score", "runs/a"),
    "categories": ("score", "runs/a", "--by", "category"),
    "audit": ("audit", "runs/a"),
    "compare": ("compare", "runs/a", "runs/b", "--by", "category"),
    "leaderboard": ("leaderboard", "runs/a", "runs/b"),
    "runs": ("runs",),
}
SCORE = """\
willingness
  percent 61.4; like these 44.0 to 75.7;
  asked again 52.2 to 70.1; prompts 35;
  resp. 69; uns. 1
"""


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rk.benchmark("demo/mixed", "starter", trials=2, out="runs/a")
    rk.benchmark("demo/cautious", "starter", trials=2, out="runs/b")


@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_word_is_broken_and_no_line_is_too_long(
    call: Call, monkeypatch: pytest.MonkeyPatch, width: int, name: str
) -> None:
    def said(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        return call(*COMMANDS[name]).out.splitlines()

    narrow, wide = said(width), said(300)
    assert max(len(line.rstrip()) for line in narrow) <= width
    known = {word.rstrip(";") for line in wide for word in line.split()}
    assert {word.rstrip(";") for line in narrow for word in line.split()} - known - {
        "",
        "-",
    } == set()


def test_a_row_is_its_name_and_each_figure_with_its_head(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = call("score", "runs/a").out.splitlines()
    assert SCORE in "\n".join(line.rstrip() for line in lines)
    monkeypatch.setenv("COLUMNS", "80")
    assert "willingness" in call("score", "runs/a").out
    assert ";" not in call("score", "runs/a").out.partition("95 % intervals")[0]
