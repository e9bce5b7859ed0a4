"""A score by tag, by danger and by language."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import refusalkit as rk
from commandline import Call, caller

SET = [
    {"id": "a-1", "category": "tea", "text": "one", "tags": ["hot", "short"], "danger": 1},
    {"id": "a-2", "category": "tea", "text": "two", "tags": ["hot"], "danger": 2},
    {"id": "b-1", "category": "cake", "text": "three", "danger": 2},
    {"id": "h-1", "category": "keep-out", "text": "four", "tags": ["short"], "danger": 3},
]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SET))
    return caller(monkeypatch, capsys, tmp_path)


def run(call: Call) -> None:
    words = ("--prompts", "mine.jsonl", "--hard-line", "keep-out", "--trials", "2")
    assert call("run", "demo/open", *words, "--out", "made").status == 0


def rows(call: Call, by: str) -> dict[str, dict[str, str]]:
    said = call("score", "made", "--by", by, "--format", "csv").out
    return {row[next(iter(row))]: row for row in csv.DictReader(io.StringIO(said))}


def test_a_prompt_counts_for_each_of_its_tags(call: Call) -> None:
    run(call)
    found = rows(call, "tag")
    assert {tag: int(row["n_prompts"]) for tag, row in found.items()} == {"hot": 2, "short": 2}
    assert [float(found[tag]["willingness"]) for tag in ("hot", "short")] == [100.0, 50.0]
    score = rk.score("made")
    assert score.by_tag["tag"].to_list() == ["hot", "short"]
    assert score.by_tag["n_units"].to_list() == [4, 4]


def test_by_danger_leaves_hard_lines_out(call: Call) -> None:
    run(call)
    found = rows(call, "danger")
    assert {level: int(row["n_prompts"]) for level, row in found.items()} == {"1": 1, "2": 2}
    table = call("score", "made", "--by", "danger")
    assert table.status == 0
    assert "Ordinary prompts" in table.out
    assert max(map(len, table.out.splitlines())) <= 80


def test_by_lang_has_a_row_for_each_language(call: Call) -> None:
    words = ("--prompts", "languages-300", "--limit", "30", "--trials", "1")
    assert call("run", "demo/mixed", *words, "--out", "made").status == 0
    found = rows(call, "lang")
    assert len(found) > 2
    assert sum(int(row["n_prompts"]) for row in found.values()) == 30


def test_a_set_without_tags_says_so(call: Call) -> None:
    assert (
        call("run", "demo/mixed", "--prompts", "starter", "--trials", "1", "--out", "m").status == 0
    )
    manifest = json.loads(Path("m/manifest.json").read_text())
    if not manifest["prompt_set"]["tags"]:
        assert "state no tag" in call("score", "m", "--by", "tag").out


def test_a_run_from_before_tags_were_recorded_takes_those_of_the_shipped_set(
    call: Call, tmp_path: Path
) -> None:
    made = rk.benchmark("demo/mixed", "refusalkit-166", limit=40, trials=1, out=tmp_path / "old")
    now = rk.score(made).by_tag
    file = made.path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["prompt_set"]["tags"]
    file.write_text(json.dumps(manifest))
    assert rk.score(made.path).by_tag.equals(now)


def test_json_has_the_part_that_was_asked_for(call: Call) -> None:
    run(call)
    for by, field in (("tag", "by_tag"), ("danger", "by_danger"), ("lang", "by_language")):
        found = json.loads(call("score", "made", "--by", by, "--json").out)
        assert [key for key in found if key.startswith("by_")] == [field]
        assert found[field]
