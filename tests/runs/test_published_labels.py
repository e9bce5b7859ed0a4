"""Published answers that people labelled: each source on a small file of its published shape."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from commandline import Call
from refusalkit.errors import RecordError, UsageError
from refusalkit.runs.imported import published_labels as module
from refusalkit.runs.imported.published_labels import label_sources, published_labels
from refusalkit.runs.imported.read import read_answers
from refusalkit.types import Label
from webhost import Host, Page, serving

XSTEST = (
    "id,type,prompt,completion,annotation_1,annotation_2,agreement,final_label\n"
    'v2-1,homonyms,[p1],"[a, one]",1_full_compliance,1_full_compliance,TRUE,1_full_compliance\n'
    "v2-2,contrast_homonyms,[p2],[a2],2_full_refusal,3_partial_refusal,FALSE,2_full_refusal\n"
)
CHATGPT = [
    {"prompt": "[p1]", "response": "[a1]", "tone": "complied", "finish_reason": "stop"},
    {"prompt": "[p2]", "response": "[a2]", "tone": "counseling", "finish_reason": "stop"},
    {"prompt": "[p3]", "response": "[a3]", "tone": "dontknow", "finish_reason": "stop"},
]
MODELS = ["GPT4", "ChatGPT", "Claude", "ChatGLM2", "llama2-7b-chat", "vicuna-7b"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with serving() as started:
        monkeypatch.setenv("HF_ENDPOINT", started.url)
        monkeypatch.setenv("REFUSALKIT_GITHUB_ENDPOINT", started.url)
        for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield started


def labels_of(named: str) -> list[str]:
    found = published_labels(named)
    assert found is not None
    recorded = read_answers(found.path)
    assert len(recorded.units) == found.n_answers == len(recorded.labels)
    return [label.value for label in recorded.labels.values()]


def lines(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_xstest_keeps_both_annotators(tmp_path: Path) -> None:
    path = tmp_path / "gpt4.csv"
    path.write_text(XSTEST)
    assert labels_of(f"xstest-answers:{path}") == ["compliance", "refusal"]
    found = published_labels(f"xstest-answers:{path}")
    assert found is not None
    recorded = read_answers(found.path)
    second = {name: said["v2-2#1"] for name, said in recorded.annotators.items()}
    assert second == {"annotator-1": Label.REFUSAL, "annotator-2": Label.PARTIAL}
    assert recorded.responses["v2-1#1"] == "[a, one]"


def test_a_copy_under_its_published_name_says_which_model_answered(tmp_path: Path) -> None:
    path = tmp_path / "xstest_v2_completions_llama2new.csv"
    path.write_text(XSTEST)
    for named, model in ((path, "llama2new"), (path.rename(tmp_path / "a_b.csv"), None)):
        named.write_text(XSTEST)
        found = published_labels(f"xstest-answers:{named}")
        assert found is not None
        assert {one.get("model") for one in read_answers(found.path).origins.values()} == {model}


def test_five_models_answers_are_fetched_and_are_trials_of_a_prompt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = label_sources()["xstest-answers"]
    digest = hashlib.sha256(XSTEST.encode()).hexdigest()
    made_up = source.model_copy(update={"sha256": [digest] * 5})
    monkeypatch.setattr(module, "label_sources", lambda: {source.name: made_up})
    for file in source.files:
        host.pages[f"/{source.github}/{source.revision}/{file}"] = Page(XSTEST.encode())
    assert labels_of("xstest-answers") == ["compliance", "refusal"] * 5
    found = published_labels("xstest-answers")
    assert found is not None
    origins = read_answers(found.path).origins
    assert origins["v2-1#1"] == {"source": "xstest-answers", "model": "gpt4"}
    assert origins["v2-1#5"]["model"] == "mistralinstruct"
    assert len(host.asked) == 5


def test_a_word_that_means_no_label_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps(CHATGPT))
    found = published_labels(f"chatgpt-refusals:{path}")
    assert found is not None
    assert found.left_out == {"labelled dontknow": 1}
    assert labels_of(f"chatgpt-refusals:{path}") == ["compliance", "partial"]
    assert "complied = compliance" in found.notices[0]
    assert found.notices[1] == "chatgpt-refusals: left out: 1 labelled dontknow"


def test_do_not_answer_has_six_answers_in_a_row(tmp_path: Path) -> None:
    row: dict[str, object] = {"id": 0, "types_of_harm": "[harm]", "question": "[p]"}
    for action, model in enumerate(MODELS):
        row |= {f"{model}_response": f"[{model}]", f"{model}_action": action}
    path = tmp_path / "dna.parquet"
    pl.DataFrame([row]).write_parquet(path)
    found = published_labels(f"do-not-answer-answers:{path}")
    assert found is not None
    assert found.left_out == {"labelled 4": 1}
    assert labels_of(f"do-not-answer-answers:{path}") == [
        "refusal",
        "deflection",
        "deflection",
        "partial",
        "compliance",
    ]


def test_gptfuzz_finds_its_questions_in_a_file_beside(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('question,Response,label\n0,"[a\n1]",0\n1,[a2],1\n')
    with pytest.raises(RecordError, match=r"needs question_list\.csv beside it"):
        published_labels(f"gptfuzz-answers:{path}")
    (tmp_path / "question_list.csv").write_text("index,text\n0,[p0]\n1,[p1]\n")
    assert labels_of(f"gptfuzz-answers:{path}") == ["refusal", "compliance"]


def test_speechmap_joins_answers_and_labels_by_question_and_model(tmp_path: Path) -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": "[a]"}}]}
    key = {"question_id": "q1", "question": "[p]", "domain": "[d]"}
    path = lines(
        tmp_path / "answers.jsonl",
        {**key, "model": "x/one", "response": answer},
        {**key, "model": "x/two", "response": answer},
    )
    lines(
        tmp_path / "us_hard_sample_manifest_consensus_v4.jsonl",
        {"question_id": "q1", "model": "x/two", "expected_compliance": "EVASIVE"},
        {"question_id": "q1", "model": "x/one", "expected_compliance": "DENIAL"},
    )
    assert labels_of(f"speechmap-gold:{path}") == ["refusal", "partial"]


def test_jailbreakbench_keeps_three_experts_and_five_judges(tmp_path: Path) -> None:
    path = tmp_path / "judge-comparison.csv"
    path.write_text(
        "index,prompt,goal,target_response,human1,human2,human3,human_majority,gpt4_cf,"
        "harmbench_cf,llamaguard1_cf,llamaguard2_cf,llama3_cf\n"
        "0,[attack],[p],[a],1,1,0,1,1,0,0,0,1\n"
    )
    found = published_labels(f"jailbreakbench-judges:{path}")
    assert found is not None
    recorded = read_answers(found.path)
    assert list(recorded.labels.values()) == [Label.COMPLIANCE]
    assert len(recorded.annotators) == 3
    assert len(recorded.judgements) == 5


def test_sorry_bench_joins_by_question_and_style(tmp_path: Path) -> None:
    path = tmp_path / "judgements.parquet"
    row = {"model_id": "m", "choices": [{"index": 0, "turns": ["[a]"]}], "human_score": 1.0}
    rows = [{**row, "question_id": 1, "prompt_style": style} for style in ("base", "slang")]
    pl.DataFrame(rows).write_parquet(path)
    lines(
        tmp_path / "question.jsonl",
        {"question_id": 1, "category": "1", "turns": ["[p]"], "prompt_style": "base"},
        {"question_id": 1, "category": "1", "turns": ["[p]"], "prompt_style": "slang"},
    )
    assert labels_of(f"sorry-bench-judgements:{path}") == ["compliance"] * 2


def test_strongreject_says_whether_an_answer_refuses(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("forbidden_prompt,response,human_refusal\n[p1],[a],1\n[p2],[a],0\n")
    assert labels_of(f"strongreject-labels:{path}") == ["refusal", "compliance"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (XSTEST.replace("final_label", "label"), "has no column final_label"),
        (
            XSTEST.replace(",1_full_compliance\n", ",9_other\n"),
            "'9_other' is not a label of XSTest",
        ),
        (XSTEST.splitlines()[0] + "\n", "holds no labelled answer"),
    ],
)
def test_another_shape_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(RecordError) as stopped:
        published_labels(f"xstest-answers:{path}")
    assert said in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_what_names_no_source_is_a_file() -> None:
    assert published_labels("labelled.jsonl") is None
    with pytest.raises(UsageError, match="names no file"):
        published_labels("xstest-answers:")


def test_a_gated_source_says_how_to_get_in(host: Host, call: Call) -> None:
    source = label_sources()["sorry-bench-judgements"]
    for file in source.files:
        url = f"/datasets/{source.hub}/resolve/refs%2Fconvert%2Fparquet/{file}"
        host.pages[url] = Page(b"", status=403)
        host.pages[url.replace("%2F", "/")] = Page(b"", status=403)
    said = call("judges", "calibrate", "lexical", "--labels", source.name)
    assert said.status == 4
    assert "accept its terms at" in said.err


def test_one_command_says_how_good_a_judge_is(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps(CHATGPT))
    said = call("judges", "calibrate", "lexical", "--labels", f"chatgpt-refusals:{path}")
    assert said.status == 0, said.err
    text = " ".join(said.out.split())
    assert "on 2 labelled answers to 2 prompts" in text
    assert "complied = compliance, rejected = refusal" in text
    (kept,) = (tmp_path / "cache" / "labels" / "chatgpt-refusals").glob("*.jsonl")
    assert kept.stat().st_mode & 0o077 == 0


def test_a_misspelt_source_is_answered_with_the_one_that_was_meant(call: Call) -> None:
    for named, advice in (
        ("xstest-answer", "did you mean xstest-answers?"),
        ("nothing", "name one of xstest-answers, "),
    ):
        done = call("judges", "calibrate", "lexical", "--labels", named)
        assert done.status == 2
        told = f"neither a file nor a source of people's labels named {named}: {advice}"
        assert told in done.err
        assert len(done.err.splitlines()) == 1
    assert (
        "labels.jsonl is not a file"
        in call("judges", "calibrate", "lexical", "--labels", "labels.jsonl").err
    )
