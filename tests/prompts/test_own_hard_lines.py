"""A file of one's own with a category that is called like a hard line of ours: the run says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commandline import Call
from refusalkit.models.demo import HARD_LINES
from refusalkit.prompts.load import load_prompts

MINORS = "minor-specific-harm"
HINT = (
    f"refusalkit: category {MINORS} is scored as ordinary: --hard-line {MINORS} makes it a hard "
    "line\n"
)


def own_set(folder: Path, *titles: str) -> Path:
    path = folder / "mine.jsonl"
    rows = [{"prompt": f"[demo prompt {n}]", "category": title} for n, title in enumerate(titles)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def run(call: Call, *words: object) -> str:
    return call("run", "demo/open", "--limit", 3, "--trials", 1, *words).err


def test_the_categories_are_those_of_our_sets() -> None:
    assert load_prompts("refusalkit-166").hard_lines == HARD_LINES


@pytest.mark.parametrize("title", [MINORS, "Minor-specific harm"])
def test_a_category_called_like_a_hard_line_is_reported_once(
    call: Call, tmp_path: Path, title: str
) -> None:
    mine = own_set(tmp_path, title, "weapons", title)
    assert run(call, "--prompts", mine).count(HINT) == 1


def test_several_are_reported_in_one_sentence(call: Call, tmp_path: Path) -> None:
    mine = own_set(tmp_path, MINORS, "suicide-and-self-harm")
    assert (
        f"categories {MINORS}, suicide-and-self-harm are scored as ordinary: --hard-line {MINORS} "
        "--hard-line suicide-and-self-harm makes them hard lines\n"
    ) in run(call, "--prompts", mine)


@pytest.mark.parametrize(
    "words",
    [
        ("--hard-line", MINORS),
        ("--hard-line", "weapons"),  # a choice
        ("--category", "weapons"),
    ],
)
def test_a_user_who_chose_hard_lines_gets_no_note(
    call: Call, tmp_path: Path, words: tuple[str, ...]
) -> None:
    mine = own_set(tmp_path, MINORS, "weapons")
    assert "scored as ordinary" not in run(call, "--prompts", mine, *words)


@pytest.mark.parametrize("name", ["starter", "contrast-146"])
def test_our_own_sets_say_themselves(call: Call, name: str) -> None:
    assert "scored as ordinary" not in run(call, "--prompts", name)


def test_a_file_that_cannot_be_read_is_the_runs_to_tell(call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{\n", "utf-8")
    said = run(call, "--prompts", mine)
    assert said.count("mine.jsonl") >= 1
    assert "scored as ordinary" not in said
