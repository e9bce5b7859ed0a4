"""`export --to every-eval-ever`: the record and the instances say what the score says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call, caller
from refusalkit.errors import UsageError
from refusalkit.types import Completion, Outcome
from run_folders import TEXT, write_run

PLACE = ("data", "refusalkit", "demo", "leaky")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    folder = tmp_path_factory.mktemp("made")
    return rk.benchmark("demo/leaky", "starter", trials=2, out=folder / "run")


def exported(run: rk.Run, out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    record, samples = rk.export(run, "every-eval-ever", out).paths
    return (
        json.loads(record.read_text("utf-8")),
        [json.loads(line) for line in samples.read_text("utf-8").splitlines()],
    )


def test_each_rate_is_there_with_interval_direction_and_samples(
    run: rk.Run, tmp_path: Path
) -> None:
    record, _ = exported(run, tmp_path)
    score = rk.score(run)
    results = {r["metric_config"]["metric_id"]: r for r in record["evaluation_results"]}
    assert {"refusalkit.willingness", "refusalkit.hold_rate"} <= results.keys()
    for name, result in results.items():
        estimate = getattr(score, name.removeprefix("refusalkit."))
        said = result["score_details"]
        interval = said["uncertainty"]["confidence_interval"]
        assert said["score"] == estimate.value
        assert (interval["lower"], interval["upper"]) == (estimate.low, estimate.high)
        assert said["uncertainty"]["num_samples"] == estimate.n_prompts
    directions = {name: r["metric_config"]["lower_is_better"] for name, r in results.items()}
    assert directions["refusalkit.refusal_rate"] is True
    assert directions["refusalkit.willingness"] is directions["refusalkit.hold_rate"] is False
    judging = results["refusalkit.willingness"]["metric_config"]["additional_details"]
    assert judging["judge_digest"] == run.manifest.judges["lexical"].digest
    assert record["eval_library"] == {"name": "refusalkit", "version": rk.__version__}


def test_the_instances_give_the_rate_again(run: rk.Run, tmp_path: Path) -> None:
    record, samples = exported(run, tmp_path)
    of_rate = [s for s in samples if s["evaluation_result_id"].endswith("#willingness")]
    by_prompt: dict[str, list[float]] = {}
    for sample in of_rate:
        by_prompt.setdefault(sample["metadata"]["prompt_id"], []).append(
            sample["evaluation"]["score"]
        )
    means = [sum(scores) / len(scores) for scores in by_prompt.values()]
    assert 100 * sum(means) / len(means) == pytest.approx(rk.score(run).willingness.value)
    detailed = record["detailed_evaluation_results"]
    data = (tmp_path / detailed["file_path"]).read_bytes()
    assert detailed["checksum"] == hashlib.sha256(data).hexdigest()
    assert detailed["total_rows"] == len(samples) == 70
    assert {s["evaluation_id"] for s in samples} == {record["evaluation_id"]}


def test_no_text_is_written_and_a_second_export_is_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("h1", "hard-a", 1, "answered", "refusal")])
    begun = {"started_at": "2026-01-02T03:04:05+00:00"}
    manifest = run.manifest.model_validate(
        {**run.manifest.model_dump(), "sessions": [begun], "hard_line_text": "kept"}
    )
    run = run.with_manifest(manifest)
    with run.writing(withheld=()) as writer:
        writer.completion(Completion("h1", "hard-a", 1, "test/model", Outcome.ANSWERED, text=TEXT))
    assert TEXT in run.completions.read_text("utf-8")
    exported(run, tmp_path / "a")
    exported(run, tmp_path / "b")
    first, second = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.json*")}
        for name in ("a", "b")
    )
    assert first == second
    assert len(first) == 2
    assert not any(TEXT.encode() in data for data in first.values())


@pytest.mark.parametrize("model", ["../../up", "a/b/..", "CON/x y", "no-provider", "x/ü"])
def test_a_model_of_any_name_stays_below_the_folder(model: str, tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", [("p1", "a", 1, "answered", "refusal")], config={"model": model}
    )
    begun = {"started_at": "2026-01-02T03:04:05+00:00"}
    run = run.with_manifest(
        run.manifest.model_validate({**run.manifest.model_dump(), "sessions": [begun]})
    )
    paths = rk.export(run, "every-eval-ever", tmp_path / "out").paths
    for path in paths:
        inside = path.resolve().relative_to((tmp_path / "out").resolve())
        assert len(inside.parts) == 5
        assert inside.parts[:2] == PLACE[:2]


def test_contrast_prompts_alone_have_rates_of_their_own(tmp_path: Path) -> None:
    run = rk.benchmark("demo/mixed", "contrast-146", trials=1, limit=6, out=tmp_path / "run")
    record, samples = exported(run, tmp_path / "out")
    rates = {r["metric_config"]["metric_id"]: r for r in record["evaluation_results"]}
    assert rates.keys() == {"refusalkit.over_refusal"}
    assert rates["refusalkit.over_refusal"]["metric_config"]["lower_is_better"] is True
    assert {s["evaluation_result_id"] for s in samples} == {
        rates["refusalkit.over_refusal"]["evaluation_result_id"]
    }


def test_a_run_without_a_score_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("p1", "a", 1, "error", None)])
    with pytest.raises(UsageError, match="has no scored response yet"):
        rk.export(run, "every-eval-ever", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_both_files(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    run: rk.Run,
) -> None:
    call: Call = caller(monkeypatch, capsys, tmp_path)
    said = call("export", run.path, "out", "--to", "every-eval-ever", "--organization", "Us")
    assert said.status == 0
    assert said.out.count("Written: ") == 2
    record = next(Path("out", *PLACE).glob("*.json"))
    source = json.loads(record.read_text("utf-8"))["source_metadata"]
    assert source["source_organization_name"] == "Us"
