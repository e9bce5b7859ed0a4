"""Evaluations that other programs wrote: tests/samples/logs says which of them are real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from commandline import caller
from places import ROOT
from refusalkit.errors import RecordError, RefusalkitError
from refusalkit.runs.imported.answers import RecordedAnswers
from refusalkit.runs.imported.log_formats import log_format_of, log_formats
from refusalkit.runs.imported.read import read_answers
from refusalkit.types import Label

LOGS = ROOT / "tests" / "samples" / "logs"
REFUSED, ANSWERED = "I can't help with that.", "[demo answer]"


def read(name: str) -> RecordedAnswers:
    return read_answers(LOGS / name)


def said(answers: RecordedAnswers) -> list[tuple[str, str, str]]:
    """(prompt text, category, answer) of each unit."""
    return [
        (prompt.text, prompt.category, answers.responses[f"{prompt.id}#{trial}"])
        for prompt, trial in answers.units
    ]


def test_each_format_has_a_sample_and_is_recognised_by_its_fields() -> None:
    found = {path.name: log_format_of(path) for path in LOGS.iterdir()}
    assert {log.name for log in found.values() if log is not None} == {
        log.name for log in log_formats()
    }
    assert None not in found.values()


def test_lm_evaluation_harness_repeats_are_trials() -> None:
    answers = read("samples_refusals.jsonl")
    assert said(answers) == [
        ("[placeholder one]", "privacy", ANSWERED),
        ("[placeholder one]", "privacy", ANSWERED),
        ("[placeholder two]", "fraud", ANSWERED),
        ("[placeholder two]", "fraud", ANSWERED),
        ("[placeholder three]", "fraud", REFUSED),
        ("[placeholder three]", "fraud", REFUSED),
    ]
    assert answers.lacks is not None
    assert "finish reasons" in answers.lacks
    assert "categories" not in answers.lacks


def test_lm_evaluation_harness_filters_are_not_further_trials(tmp_path: Path) -> None:
    lines = (LOGS / "samples_refusals.jsonl").read_text("utf-8").splitlines()
    more = [line.replace('"filter": "none"', '"filter": "strip"') for line in lines]
    path = tmp_path / "samples_x.jsonl"
    path.write_text("\n".join(lines + more), encoding="utf-8")
    assert len(read_answers(path).units) == 6


def test_lm_evaluation_harness_likelihoods_are_not_answers(tmp_path: Path) -> None:
    record = json.loads((LOGS / "samples_refusals.jsonl").read_text("utf-8").splitlines()[0])
    record["resps"] = [[["-1.5", "False"]]]
    path = tmp_path / "samples_x.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RecordError, match=r"holds no answers \(1 no answer\)"):
        read_answers(path)


def test_promptfoos_refusal_check_is_a_judge_of_its_own() -> None:
    answers = read("promptfoo.json")
    assert sorted(said(answers)) == [
        ("[placeholder one]", "privacy", ANSWERED),
        ("[placeholder one]", "privacy", ANSWERED),
        ("[placeholder two]", "fraud", REFUSED),
        ("[placeholder two]", "fraud", ANSWERED),
    ]
    assert len(answers.prompts) == 2, "a repeat is a trial of the same prompt"
    labels = [judgement.label for judgement in answers.judgements["is-refusal"].values()]
    assert labels == [Label.COMPLIANCE, Label.REFUSAL]
    assert set(answers.finish_reasons.values()) == {"stop"}
    assert answers.lacks is None
    grades = rk.grade(LOGS / "promptfoo.json", "imported")
    assert grades.labels["refusal"] == 1


def test_garaks_attempts_are_read_once_and_its_mitigation_detector_judges() -> None:
    answers = read("garak.report.jsonl")
    assert {category for _, category, _ in said(answers)} == {"test-test"}
    assert {text for _, _, text in said(answers)} == {REFUSED, ANSWERED}
    assert len(answers.units) == 2 * len(answers.prompts)
    assert len(answers.judgements["mitigation.MitigationBypass"]) == len(answers.units)
    assert answers.left_out == {"no prompt": 1}


def test_pyrits_pieces_become_conversations_and_a_block_is_a_refusal(tmp_path: Path) -> None:
    answers = read("pyrit.json")
    assert [text for text, _, _ in said(answers)] == [
        "[placeholder one]",
        "[CONVERTED]",
        "[placeholder three]",
    ]
    second = answers.units[1][0]
    assert [turn.content for turn in second.turns] == [
        "[placeholder two]",
        "[first answer]",
        "[CONVERTED]",
    ]
    assert answers.left_out == {"error": 1, "no answer": 1}
    grades = rk.grade(LOGS / "pyrit.json", "lexical", out=tmp_path / "graded")
    assert rk.score(tmp_path / "graded").refusal_rate.value == pytest.approx(100 * 2 / 3)
    assert grades.labels["refusal"] == 2


def test_a_number_of_any_size_keeps_pyrits_pieces_in_order(tmp_path: Path) -> None:
    pieces = [
        {"conversation_id": "c", "role": role, "sequence": at, "original_value": text}
        for role, at, text in (("assistant", 10**400, ANSWERED), ("user", 10**399, "[request]"))
    ]
    (tmp_path / "pyrit.json").write_text(json.dumps(pieces))
    answers = read_answers(tmp_path / "pyrit.json")
    assert [text for text, _, _ in said(answers)] == ["[request]"]
    assert list(answers.responses.values()) == [ANSWERED]


def test_chat_messages_and_logged_completions_are_graded() -> None:
    answers = read("chat.jsonl")
    assert [text for _, _, text in said(answers)] == [REFUSED, ANSWERED]
    assert answers.units[0][0].system == "Be brief."
    assert answers.left_out == {"no answer": 1, "no prompt": 1}
    logged = rk.grade(LOGS / "completions.jsonl", "lexical")
    assert logged.labels == {"refusal": 2, "deflection": 0, "partial": 0, "compliance": 1}


def test_speechmaps_judge_is_compared_with_ours() -> None:
    grades = rk.grade(LOGS / "speechmap.jsonl", "lexical")
    assert grades.against["lab/judge"][0].n == 2
    assert grades.against["lab/judge"][0].kappa == 1.0
    assert grades.left_out == {"error": 1}
    assert read("speechmap.jsonl").finish_reasons["us_hard_2#1"] == "length"


def test_what_a_file_lacks_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    shutil.copy(LOGS / "chat.jsonl", "chat.jsonl")
    shown = call("grade", "chat.jsonl", "--judge", "lexical")
    assert shown.status == 0
    assert "From chat messages: the file does not have finish reasons" in " ".join(
        shown.out.split()
    )
    as_json = json.loads(call("grade", "chat.jsonl", "--judge", "lexical", "--json").out)
    assert as_json["imported"]["lacks"].startswith("chat messages: the file does not have")
    Path("batch.jsonl").write_text('{"custom_id": "a", "response": {"body": {}}}\n')
    lacking = call("grade", "batch.jsonl", "--judge", "lexical")
    assert lacking.status == 2
    assert "batch.jsonl:1: prompt: is missing" in lacking.err
    Path("other.json").write_text('{"some": "thing"}')
    unknown = call("grade", "other.json", "--judge", "lexical")
    assert unknown.status == 2
    assert "other.json is JSON of no known kind" in unknown.err


PIECES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "message", "messages", "turns", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(LOGS.iterdir())), st.data())
def test_a_record_of_any_shape_is_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, sample: Path, data: st.DataObject
) -> None:
    log = log_format_of(sample)
    assert log is not None
    text = sample.read_text("utf-8")
    if sample.suffix == ".json":
        document: Any = json.loads(text)
        records = document["results"]["results"] if isinstance(document, dict) else document
    else:
        document = records = [json.loads(line) for line in text.splitlines()]
    record = data.draw(st.sampled_from(records))
    field = data.draw(st.sampled_from(sorted(record)))
    record[field] = data.draw(PIECES)
    path = tmp_path_factory.mktemp("log") / sample.name
    lines = (json.dumps(each) for each in records)
    path.write_text(json.dumps(document) if sample.suffix == ".json" else "\n".join(lines))
    told = ""
    try:
        read_answers(path)
    except RefusalkitError as error:
        told = str(error)
    assert "\n" not in told
