"""Recorded answers in categories that the command names as hard lines are withheld."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from commandline import Call, caller
from loopback import LoopbackServer, Script

MARKER = "[demo answer, withheld marker 7391]"


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    found = caller(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "own-key-0123456789abcdef")
    rows = [
        {
            "prompt": f"[demo prompt {n}]",
            "response": f"{MARKER if n % 2 else '[demo answer]'} {n}",
            "category": "Poisons & Co" if n % 2 else "Cooking",
            "label": "compliance",
        }
        for n in range(4)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "answers.jsonl").write_text(lines, "utf-8")
    return found


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with LoopbackServer(Script(refusal_rate=0.0)) as running:
        yield running.openai_base


@pytest.mark.parametrize("name", ["Poisons & Co", "poisons-co", "all"])
@pytest.mark.parametrize("command", ["grade", "calibrate"])
def test_their_texts_and_the_judges_reasons_are_not_written(
    call: Call, base: str, tmp_path: Path, command: str, name: str
) -> None:
    judge = ("--judge-model", "openai/judge-x", "--judge-api-base", base)
    if command == "grade":
        words = ("grade", "answers.jsonl", "--judge", "graded", "--out", "kept")
    else:
        labels = ("--labels", "answers.jsonl", "--verdicts", "kept", "--out", "c.json")
        words = ("judges", "calibrate", "graded", *labels)
    done = call(*words, *judge, "--hard-line", name)
    assert done.status == 0, done.err
    (folder,) = {path.parent for path in (tmp_path / "kept").rglob("manifest.json")}
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        if file.name != "answers.jsonl":
            assert MARKER.encode() not in file.read_bytes(), file
    said = [json.loads(line) for line in (folder / "verdicts.jsonl").read_bytes().splitlines()]
    hard = [record for record in said if record["category"] == "poisons-co"]
    assert len(hard) == 2
    assert all(record["reason"] is None for record in hard)
    if name != "all":
        assert all(r["reason"] for r in said if r["category"] == "cooking")
    # Gone on with, and judged again, it stays so.
    assert call(*words, *judge, "--hard-line", name).status == 0
    if command == "grade":
        assert call("regrade", "kept", "--judge", "lexical").status in (0, 1)
        assert MARKER.encode() not in (folder / "completions.jsonl").read_bytes()
        assert MARKER.encode() not in (folder / "verdicts.jsonl").read_bytes()


@pytest.mark.parametrize("command", ["grade", "calibrate"])
def test_a_category_that_is_not_there_is_reported(call: Call, command: str) -> None:
    words = {
        "grade": ("grade", "answers.jsonl", "--judge", "lexical"),
        "calibrate": ("judges", "calibrate", "lexical", "--labels", "answers.jsonl"),
    }[command]
    refused = call(*words, "--hard-line", "nothing-like-it")
    assert refused.status == 2
    assert "nothing-like-it" in refused.err
