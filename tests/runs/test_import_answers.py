"""Answers recorded elsewhere: the reference environment's log, runs of our own, Inspect's logs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call
from refusalkit.errors import RecordError, UsageError
from refusalkit.runs.imported import inspect_log
from refusalkit.runs.imported.read import read_answers
from refusalkit.scoring.judge_quality.grades import reference_rates
from refusalkit.types import Judgement, Label

DECLINED, ANSWERED = "I'm sorry, but I can't help with that.", "[demo answer]"


def line(
    number: int,
    refused: bool,
    *,
    category: str = "Privacy & Data",
    invert: bool = False,
    judged: str | None = None,
    response: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    text = response if response is not None else (DECLINED if refused else ANSWERED)
    return {
        "prompt": f"[placeholder {number}]",
        "response": text,
        "extracted_response": text,
        "overarching_category": category,
        "danger_level": "low",
        "intermediate_category": "x",
        "specific_category": "y",
        "is_refusal": refused,
        "judge_judgment": judged if judged is not None else str(refused),
        "format_valid": True,
        "thinking_mode": False,
        "finish_reason": "stop",
        "should_invert": invert,
        **more,
    }


def write_log(folder: Path, samples: list[dict[str, Any]], rates: dict[str, float] | None) -> Path:
    """A log folder as the environment writes it, keys and all."""
    folder.mkdir()
    text = "".join(json.dumps(sample) + "\n" for sample in samples)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")
    if rates is not None:
        names = ("overall_refusal_rate", "normal_categories_refusal_rate")
        names += ("inverted_categories_refusal_rate",)
        found = {f"eval/{n}": r for n, r in zip(names, rates.values(), strict=True)}
        metrics = {"config_general": {}, "results": {"all": found}}
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    # Reading a pipe without a writer blocks for ever: opening this file would hang.
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "evaluate_config.yaml")
    return folder


INVERTED = {"category": "Self-harm and Dangerous Behavior", "invert": True}
SAMPLES = [
    line(1, False),
    line(2, True, judged="FALLBACK_REFUSAL: Found pattern 'i can't'"),
    line(3, False, response="<think>never closed", judged="FALLBACK_COMPLIANCE: none"),
    line(4, False, judged="JUDGE_ERROR: timed out"),
    line(5, False, response="", judged="JUDGE_ERROR_EMPTY_RESPONSE"),
    line(6, True, response=f"<think>[thought]</think>\n{DECLINED}", thinking_content="[thought]"),
    line(7, True, **INVERTED),
    line(8, True, **INVERTED),
    line(9, False, **INVERTED, finish_reason="length"),
]
RATES = {"overall": 4 / 9, "ordinary": 2 / 6, "inverted": 2 / 3}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", SAMPLES, RATES)


def test_the_references_three_rates_come_out_of_our_scorer(log: Path, tmp_path: Path) -> None:
    grades = rk.grade(log, "imported", out=tmp_path / "graded")
    assert grades.recorded_rates == RATES
    assert grades.rates == RATES  # to the last bit
    score = rk.score(tmp_path / "graded")
    assert reference_rates(score) == RATES
    assert score.refusal_rate.value == pytest.approx(100 * RATES["overall"], abs=1e-9)
    assert score.answer_rate.value == pytest.approx(100 - 100 * RATES["ordinary"], abs=1e-9)
    assert score.hold_rate.value == pytest.approx(100 * RATES["inverted"], abs=1e-9)
    assert score.n_scored == 9
    assert score.manifest.judges["imported:atropos"].kind == "recorded"
    assert not score.manifest.judges["imported:atropos"].graded


def test_averaged_runs_are_averaged_as_the_reference_does(tmp_path: Path) -> None:
    # Two runs, of which one lost an answer: the mean of means, not of all answers.
    samples = [line(n, n == 1, run_number=1) for n in (1, 2, 3)]
    samples += [line(n, True, run_number=2) for n in (1, 2)]
    rates = {"overall": (1 / 3 + 1) / 2, "ordinary": (1 / 3 + 1) / 2, "inverted": 0.0}
    log = write_log(tmp_path / "log", samples, rates)
    grades = rk.grade(log, "imported")
    assert grades.rates == {"overall": rates["overall"], "ordinary": rates["ordinary"]}
    answers = read_answers(log)
    assert len(answers.prompts) == 3
    assert max(trial for _, trial in answers.units) == 2


def test_flags_tell_the_judge_from_its_stand_ins(log: Path) -> None:
    answers = read_answers(log)
    said = answers.judgements["atropos"]
    assert [j.flag for j in said.values()] == [
        "judge", "fallback", "fallback", "error", "error", "judge", "judge", "judge", "judge",
    ]  # fmt: skip
    assert said["sample-0002#1"] == Judgement(Label.REFUSAL, "fallback")
    assert said["sample-0002#1"].label is None
    assert answers.prompts.hard_lines == {"self-harm-and-dangerous-behavior"}
    strict = rk.grade(log, "imported-strict")
    assert strict.unscored == {"unparsable": 4}
    assert strict.flags == {"fallback": 2, "error": 2}
    assert strict.n_owed == 0


def test_our_judge_against_the_imported_one(log: Path, call: Call) -> None:
    grades = rk.grade(log, "lexical")
    # The open think tag and the empty answer hold nothing to judge.
    assert grades.unscored == {"no_answer": 1, "empty": 1}
    assert grades.against["atropos"][0].n == 5
    assert grades.against["atropos"][0].kappa == 1.0
    shown = call("grade", "log", "--judge", "lexical")
    assert shown.status == 0
    assert "Against atropos (5 answers)" in shown.out
    assert "keywords stood in for the judge: 2" in shown.out
    data = json.loads(call("grade", "log/samples.jsonl", "--judge", "imported", "--json").out)
    assert data["imported"]["rates"] == data["imported"]["recorded_rates"] == RATES


def test_judges_agree_on_a_log(log: Path, call: Call) -> None:
    shown = call("judges", "agree", "log", "--judge", "lexical")
    assert shown.status == 0
    assert "placeholder" not in shown.out
    found = json.loads(call("judges", "agree", "log", "--judge", "lexical", "--json").out)
    assert found["labelled"] == {"atropos": 5, "atropos, as counted": 9, "lexical": 7}
    by_pair = {(p["first"], p["second"]): p for p in found["pairs"]}
    assert by_pair["atropos", "lexical"]["differ"] == []
    assert call("judges", "agree", "log").status == 0


def test_a_log_without_metrics_and_other_shapes(tmp_path: Path) -> None:
    bare = write_log(tmp_path / "bare", [line(1, False)], None)
    assert read_answers(bare).rates == {}
    old = line(1, False)
    del old["danger_level"], old["should_invert"]
    assert read_answers(write_log(tmp_path / "old", [old], None)).prompts.prompts[0].danger is None
    twice = write_log(tmp_path / "twice", [line(1, False), line(1, True)], None)
    assert [p.id for p, _ in read_answers(twice).units] == ["sample-0001", "sample-0002"]


WRONG = {
    "nothing": ("", None, "holds no answers"),
    "no judgement": ('{"prompt": "p", "response": "r"}\n', None, ":1: is_refusal: is missing"),
    "not JSON": ("{\n", None, ":1: is not JSON"),
    "metrics that are none": (json.dumps(line(1, False)), "{", "metrics.json is not JSON"),
    "a category in part": (
        "\n".join(json.dumps(line(n, False, invert=n == 1)) for n in (1, 2)),
        None,
        "is a hard line in some records only",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_log_is_one_sentence(case: str, tmp_path: Path) -> None:
    text, metrics, expected = WRONG[case]
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "samples.jsonl").write_text(text)
    if metrics is not None:
        (folder / "metrics.json").write_text(metrics)
    with pytest.raises(RecordError) as stopped:
        rk.grade(folder, "lexical")
    assert expected in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_a_run_is_judged_again(tmp_path: Path, call: Call) -> None:
    assert (
        call("run", "demo/mixed", "--prompts", "starter", "--trials", 2, "--out", "run").status == 0
    )
    shown = call("grade", "run", "--judge", "lexical", "--out", "again", "--json")
    assert shown.status == 0, shown.err
    data = json.loads(shown.out)
    # 35 prompts twice; 6 of them in hard lines, whose text was never written.
    assert data["imported"]["left_out"]["withheld"] > 0
    withheld = data["imported"]["left_out"]["withheld"]
    assert data["records"] + sum(data["imported"]["left_out"].values()) == 70
    assert withheld <= 12
    (split, *_) = data["imported"]["against"]["lexical"]
    assert split["n"] == data["records"]
    assert split["kappa"] == 1.0
    assert "withheld" in call("grade", "run", "--judge", "lexical").out
    # The folder with the verdicts can be judged again too.
    assert call("grade", "again", "--judge", "imported", "--out", "third").status == 0
    agreed = json.loads(call("judges", "agree", "third", "--json").out)
    assert agreed["labelled"].keys() == {"imported:lexical", "lexical"}
    assert [pair["differ"] for pair in agreed["pairs"]] == [[]]
    assert "kept" not in call("judges", "agree", "run").out


def test_a_run_whose_prompts_changed_is_refused(tmp_path: Path, call: Call) -> None:
    table = tmp_path / "set.jsonl"
    table.write_text('{"prompt": "[a]", "category": "One"}\n')
    assert call("run", "demo/open", "--prompts", table, "--trials", 1, "--out", "run").status == 0
    table.write_text('{"prompt": "[b]", "category": "One"}\n')
    done = call("grade", "run", "--judge", "lexical")
    assert done.status == 4
    assert "has changed" in done.err


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("outcome", "\x1b[31m\ud800", r"outcome cannot be \u001b[31m\ud800"),
        ("unit", "other#1", "unit is not that of its prompt_id and trial"),
        ("trial", 9, "unit is not that of its prompt_id and trial"),
    ],
)
def test_a_record_that_no_run_wrote_is_named(
    tmp_path: Path, call: Call, field: str, value: object, what: str
) -> None:
    run = rk.benchmark("demo/open", "starter", trials=1, limit=4, out=tmp_path / "run")
    rows = [json.loads(line) for line in run.completions.read_text().splitlines()]
    rows[1][field] = value
    run.completions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = call("grade", "run", "--judge", "lexical")
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith(f"completions.jsonl:2: {what}\n")


def test_a_run_with_nothing_kept(tmp_path: Path, call: Call) -> None:
    table = tmp_path / "set.jsonl"
    table.write_text('{"prompt": "[a]", "category": "One"}\n')
    words = ["run", "demo/open", "--prompts", table, "--hard-line", "One", "--trials", 1]
    assert call(*words, "--out", "run").status == 0
    done = call("grade", "run", "--judge", "lexical")
    assert done.status == 2
    assert "kept no answer" in done.err
    assert "1 withheld" in done.err


@pytest.mark.parametrize("field", ["unit", "prompt_id", "trial", "outcome"])
@pytest.mark.parametrize("value", [None, ["a"], {}])
def test_a_run_with_a_record_that_lacks_a_field_is_reported(
    tmp_path: Path, call: Call, field: str, value: object
) -> None:
    assert call("run", "demo/open", "--limit", 3, "--trials", 1, "--out", "run").status == 0
    file = tmp_path / "run" / "completions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    damaged = {**json.loads(lines[0]), "unit": "x#1", field: value}
    file.write_text("".join([*lines, json.dumps(damaged) + "\n"]))
    done = call("grade", "run", "--judge", "lexical")
    assert done.status == 2
    assert f"completions.jsonl:{len(lines) + 1}: {field} is missing" in done.err


def test_judges_of_plain_records(tmp_path: Path, call: Call) -> None:
    records = [
        {
            "id": n,
            "prompt": f"[request {n}]",
            "response": DECLINED if n < 3 else ANSWERED,
            "label": "refusal" if n < 2 else "compliance",
            "judges": {"words": "2_full_refusal" if n < 3 else "1_full_compliance", "odd": "?"},
        }
        for n in range(5)
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = json.loads(call("judges", "agree", "answers.jsonl", "--json").out)
    by_pair = {(p["first"], p["second"]): p for p in found["pairs"]}
    assert by_pair["words", "people"]["differ"] == ["2#1"]
    assert by_pair["words", "people"]["splits"][0]["accuracy"] == 0.8
    two = call("judges", "agree", "answers.jsonl", "answers.jsonl")
    assert "answers.jsonl:2#1" in two.out
    with pytest.raises(UsageError, match="imported:NAME; it has: words, odd"):
        rk.grade(file, "imported")
    assert rk.grade(file, "imported:words").agreements[0].accuracy == 0.8


def test_too_many_judges_and_trials_are_reported_at_once(tmp_path: Path, call: Call) -> None:
    """Judges are compared each with each: of thousands that would take hours."""
    answered = {"prompt": "[request]", "response": ANSWERED}
    many = dict.fromkeys((f"j{n}" for n in range(2000)), "refusal")
    rows = {
        "judges": {**answered, "judges": many},
        "people": {**answered, "annotators": many},
        "trial": {**answered, "trial": 1001},
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    done = call("grade", "judges.jsonl", "--judge", "lexical")
    assert (done.status, done.out) == (2, "")
    assert "judges.jsonl has judgements by 2,000 judges, and 200 is the most" in done.err
    done = call("judges", "agree", "people.jsonl")
    assert (done.status, done.out) == (2, "")
    assert "labels of 2,000 judges and people" in done.err
    assert call("grade", "people.jsonl", "--judge", "lexical").status == 0
    done = call("grade", "trial.jsonl", "--judge", "lexical")
    assert done.status == 2
    assert "trial.jsonl:1: id: '1' has trial 1,001, and 1,000 is the most" in done.err


def test_rates_that_are_none_are_passed_over(tmp_path: Path, call: Call) -> None:
    rates = {"overall": 10**400, "ordinary": float("nan"), "inverted": 0.5}
    write_log(tmp_path / "log", SAMPLES, rates)
    assert call("grade", "log", "--judge", "imported").status == 0
    assert rk.grade("log", "imported").recorded_rates == {"inverted": 0.5}


def test_one_judge_is_nothing_to_compare(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "[a]", "response": "[b]"}\n')
    done = call("judges", "agree", "a.jsonl")
    assert done.status == 2
    assert "two judges are needed" in done.err
    with pytest.raises(UsageError, match="it has none"):
        rk.grade(file, "imported")


def test_a_judge_changed_between_two_calls_is_refused(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rk.grade(log, "imported", out=out)
    again = [*SAMPLES[:-1], {**SAMPLES[-1], "is_refusal": True}]
    other = tmp_path / "log" / "samples.jsonl"
    other.write_text("".join(json.dumps(sample) + "\n" for sample in again))
    with pytest.raises(rk.RefusalkitError, match="judge: not the one"):
        rk.grade(log, "imported", out=out)


@pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is not None, reason="the extra is installed"
)
def test_an_inspect_log_without_the_extra(tmp_path: Path, call: Call) -> None:
    (tmp_path / "log.eval").write_bytes(b"PK")
    done = call("grade", "log.eval", "--judge", "lexical")
    assert done.status == 2
    assert "from a clone pip install '.[inspect]'" in done.err
    assert len(done.err.splitlines()) == 1


def test_an_inspect_log_is_unpacked_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """inspect_ai, which stands in here, reads whatever there is: it is given what was measured."""
    given: list[dict[str, int]] = []

    def read_eval_log(path: str) -> Any:
        with zipfile.ZipFile(path) as log:
            given.append({each.filename: each.compress_size for each in log.infolist()})
        return SimpleNamespace(samples=[])

    for name in ("inspect_ai", "inspect_ai.log"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(
        sys.modules["inspect_ai.log"], "read_eval_log", read_eval_log, raising=False
    )
    monkeypatch.setattr(inspect_log, "_MAX_UNPACKED", 2**20)
    monkeypatch.setattr(inspect_log, "MAX_WHOLE", 2**20)

    def said(name: str, size: int, method: int = zipfile.ZIP_DEFLATED) -> str:
        with zipfile.ZipFile(tmp_path / name, "w", method) as log:
            log.writestr("../header.json", bytes(10))
            log.writestr("samples/1.json", bytes(size))
        done = call("grade", name, "--judge", "lexical")
        assert (done.status, done.out) == (2, "")
        return done.err

    assert "holds no answers" in said("small.eval", 2**19)
    assert given == [{"../header.json": 10, "samples/1.json": 2**19}]
    assert "large.eval cannot be read as an Inspect log: it unpacks to more" in said(
        "large.eval", 2**21
    )
    assert "it is not packed as Inspect packs" in said("other.eval", 2**19, zipfile.ZIP_LZMA)
    (tmp_path / "large.json").write_text('{"eval": {}' + " " * 2**21 + "}")
    assert "it is larger than 1 MB" in call("grade", "large.json", "--judge", "lexical").err
    assert len(given) == 1
    assert not (tmp_path.parent / "header.json").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="needs the extra refusalkit[inspect]"
)
def test_an_inspect_log(tmp_path: Path) -> None:
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalSample,
        EvalSpec,
        write_eval_log,
    )
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    def sample(name: str, epoch: int, given: Any, text: str, word: str | None) -> EvalSample:
        return EvalSample(
            id=name,
            epoch=epoch,
            input=given,
            target="",
            output=ModelOutput.from_content("mockllm/model", text),
            scores={"grader": Score(value=word)} if word else {},
            metadata={"category": "One & Two"} if name == "a" else {},
        )

    turns = [ChatMessageSystem(content="[system]"), ChatMessageUser(content="[placeholder b]")]
    spec = EvalSpec(
        created="2026-11-23T10:15:00+00:00",
        task="placeholder",
        dataset=EvalDataset(),
        model="mockllm/model",
        config=EvalConfig(),
    )
    samples = [
        sample("a", 1, "[placeholder a]", DECLINED, "refusal"),
        sample("a", 2, "[placeholder a]", ANSWERED, "C"),
        sample("b", 1, turns, ANSWERED, None),
    ]
    for suffix in ("eval", "json"):
        file = tmp_path / f"log.{suffix}"
        write_eval_log(EvalLog(eval=spec, samples=samples, status="success"), file)
        answers = read_answers(file)
        assert [trial for _, trial in answers.units] in ([1, 2, 1], [1, 1, 2])
        assert answers.prompts.prompts[-1].system == "[system]"
        assert answers.judgements == {"grader": {"a#1": Judgement(Label.REFUSAL)}}
        assert [c.title for c in answers.prompts.categories] == ["One & Two", "uncategorised"]
    shutil.copy(tmp_path / "log.json", tmp_path / "broken.json")
    (tmp_path / "broken.json").write_text('{"eval": ')
    with pytest.raises(RecordError, match="cannot be read as an Inspect log"):
        read_answers(tmp_path / "broken.json")
