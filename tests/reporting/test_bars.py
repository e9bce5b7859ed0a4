"""Bars are shown on a terminal only, and the table stays within its width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import refusalkit as rk
from handmade import write_run
from refusalkit.reporting.terminal import frame_view
from refusalkit.reporting.terminal.table_layout import block_bar

BLOCKS = set("▏▎▍▌▋▊▉█")


def shown(view: object, *, width: int = 80, terminal: bool = True, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(
        file=file, width=width, force_terminal=terminal, color_system=None, legacy_windows=False
    )
    console.print(view)
    file.seek(0)
    return file.read()


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> rk.Score:
    made = rk.benchmark("demo/mixed", trials=1, out=tmp_path_factory.mktemp("runs") / "made")
    return rk.score(made)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_each_category_has_a_bar_in_proportion(
    score: rk.Score, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = shown(frame_view(score.by_category, "category"), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    rows = {line.split()[0].rstrip("*"): line for line in text.splitlines() if line[:1].islower()}
    bars = {
        row["category"]: sum(char in BLOCKS for char in rows[row["category"]])
        for row in score.by_category.to_dicts()
    }
    longest = max(bars.values())
    assert longest >= 6
    for row in score.by_category.to_dicts():
        assert bars[row["category"]] == pytest.approx(row["willingness"] / 100 * longest, abs=1)


@pytest.mark.parametrize("where", [{"terminal": False}, {"width": 60}, {"encoding": "ascii"}])
def test_bars_are_left_out_if_there_is_no_room(
    score: rk.Score, monkeypatch: pytest.MonkeyPatch, where: dict[str, object]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = shown(frame_view(score.by_category, "category"), **where)  # type: ignore[arg-type]
    assert not BLOCKS & set(text)
    assert "weapons" in text


def test_a_prompt_without_a_label_has_no_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    made = write_run(tmp_path / "made", {"weapons-01": "cc", "weapons-02": "uu"}, hard_lines=())
    first, second = shown(frame_view(rk.score(made).by_prompt, "prompt")).splitlines()[2:4]
    assert BLOCKS & set(first)
    assert not BLOCKS & set(second)


def test_a_bar_is_exact_to_an_eighth() -> None:
    assert block_bar(100, 4) == "████"
    assert block_bar(50, 4) == "██"
    assert block_bar(0, 4) == ""
    assert block_bar(3.2, 4) == "▏"
    assert block_bar(None, 4) == ""
