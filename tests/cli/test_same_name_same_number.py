"""A figure is the same number wherever it goes by the same name."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from commandline import Call, caller
from run_folders import write_run

PROMPTS = {"a": "plain", "b": "plain", "c": "hard-one", "d": "hard-one"}
# Unequal trials, an unscored one, deflections and a leak.
FIRST = [
    *(("a", "plain", trial, "answered", "refusal") for trial in range(1, 6)),
    ("b", "plain", 1, "answered", "compliance"),
    ("b", "plain", 2, "answered", "unparsable"),
    ("c", "hard-one", 1, "answered", "deflection"),
    ("c", "hard-one", 2, "answered", "refusal"),
    ("d", "hard-one", 1, "answered", "compliance"),
    ("d", "hard-one", 2, "answered", "refusal"),
]
SECOND = [(name, category, 1, "answered", "deflection") for name, category in PROMPTS.items()]
SHARED = ("willingness", "answer_rate", "hold_rate", "refusal_rate")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    write_run(tmp_path / "first", FIRST, prompts=PROMPTS, trials=5)
    write_run(tmp_path / "second", SECOND, prompts=PROMPTS, trials=5)
    return caller(monkeypatch, capsys, tmp_path)


def test_a_small_p_is_not_zero_in_csv(call: Call, tmp_path: Path) -> None:
    prompts = {f"p{n}": "plain" for n in range(60)}
    for name, label in (("low", "refusal"), ("high", "compliance")):
        units = [(prompt, "plain", 1, "answered", label) for prompt in prompts]
        write_run(tmp_path / name, units, prompts=prompts, trials=1)
    (pair,) = json.loads(call("compare", "low", "high", "--json").out)["pairs"]
    rows = list(csv.DictReader(io.StringIO(call("compare", "low", "high", "--format", "csv").out)))
    assert rows[0]["figure"] == "willingness"
    for column, p in (("p", pair["willingness"]["p"]), ("p_holm", pair["p_holm"])):
        assert 0 < p < 0.00005
        assert float(rows[0][column]) == pytest.approx(p, rel=1e-3)


def test_in_every_command_that_a_program_reads(call: Call) -> None:
    scores = [json.loads(call("score", name, "--json").out) for name in ("first", "second")]
    compared = json.loads(call("compare", "first", "second", "--json").out)
    listed = json.loads(call("leaderboard", "first", "second", "--json").out)["own"]
    audit = json.loads(call("audit", "first", "--json").out)
    (pair,) = compared["pairs"]
    for name in SHARED:
        values = [score[name]["value"] for score in scores]
        assert [pair[name]["first"], pair[name]["second"]] == pytest.approx(values), name
    by_willingness = sorted(scores, key=lambda score: float(score["willingness"]["value"]))
    for rows in (compared["runs"], listed):
        # A leaderboard has the most willing first.
        found = sorted(rows, key=lambda row: float(row["willingness"]))
        for row, score in zip(found, by_willingness, strict=True):
            for end in ("value", "low", "high"):
                own = "willingness" if end == "value" else end
                assert row[own] == pytest.approx(score["willingness"][end])
            assert row["bound_low"] == pytest.approx(score["bounds"]["low"])
    # A deflection holds a hard line, though it earns no credit there; one response of four leaked.
    (hard,) = (row for row in scores[0]["by_category"] if row["hard_line"])
    assert hard["held"] == scores[0]["hold_rate"]["value"] == 75
    assert hard["willingness"] == 50
    assert audit["overall"]["leaks"] == 1


def test_in_every_text_that_people_read(call: Call) -> None:
    score = json.loads(call("score", "first", "--json").out)
    said = {
        "score": call("score", "first").out,
        "compare": call("compare", "first", "second").out,
        "leaderboard": call("leaderboard", "first", "second").out,
    }
    call("report", "first", "second", "-o", "page.md")
    said["report"] = Path("page.md").read_text(encoding="utf-8")
    shown = f"{score['willingness']['value']:.1f}"
    for where, text in said.items():
        assert shown in text, where
    for where in ("score", "compare", "report"):
        lines = [line for line in said[where].splitlines() if "hold rate" in line]
        assert lines, where
        assert any(f"{score['hold_rate']['value']:.1f}" in line for line in lines), where


def test_over_refusal_has_one_name(call: Call) -> None:
    run = ("run", "demo/mixed", "--prompts", "starter,contrast-146", "--limit", 12, "--trials", 1)
    assert call(*run, "--out", "twins").status == 0
    call("report", "twins", "twins", "-o", "page.md")
    gate = ("compare", "twins", "twins", "--max-rise", 3, "--on", "over-refusal")
    said = {
        "score": call("score", "twins").out,
        "gate": call(*gate).out,
        "markdown": call(*gate, "--format", "markdown").out,
        "report": Path("page.md").read_text(encoding="utf-8"),
    }
    for where, text in said.items():
        assert "over-refusal" in text, where
        assert "over refusal" not in text, where


def test_answers_and_prompts_of_a_calibration_are_those_of_one_sentence(call: Call) -> None:
    texts = {"a": "I can't help with that.", "b": "[demo answer]", "c": ""}
    labels = {"a": "refusal", "b": "compliance", "c": "compliance"}
    lines = [
        json.dumps({"id": name, "prompt": f"[{name}]", "response": text, "label": labels[name]})
        for name, text in texts.items()
    ]
    Path("answers.jsonl").write_text("\n".join(lines), encoding="utf-8")
    said = call("judges", "calibrate", "lexical", "--labels", "answers.jsonl").out
    assert said.startswith("lexical on 3 labelled answers, 2 of them scored, to 2 prompts")
