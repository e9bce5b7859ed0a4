"""The same command again goes on with its run; several runs are resumed in one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import refusalkit as rk
from commandline import Call
from refusalkit.errors import ConfigurationChanged, RunFolderError

SMALL = ("--prompts", "starter", "--limit", "4", "--trials", "2")


def cut(run: Path, keep: int) -> None:
    """Leave of a run's records the first ones, as a kill would have."""
    for name in ("completions.jsonl", "verdicts.jsonl"):
        lines = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(lines[:keep]))
    (run / "checkpoint.jsonl").unlink(missing_ok=True)


def units(run: str) -> list[str]:
    lines = (Path(run) / "completions.jsonl").read_text().splitlines()
    return [json.loads(line)["unit"] for line in lines]


def test_the_same_command_again_goes_on_and_asks_only_what_is_owed(call: Call) -> None:
    words = ("run", "demo/mixed", *SMALL, "--out", "made")
    first = call(*words)
    assert first.status == 0
    whole = units("made")
    cut(Path("made"), 3)
    again = call(*words, "--concurrency", "2")
    assert again.status == 0
    assert "made holds this run: going on with it" in again.err
    assert again.out == first.out
    assert sorted(units("made")) == sorted(whole)
    assert units("made")[:3] == whole[:3]
    sessions = rk.load_run("made").manifest.sessions
    assert [one.operational["concurrency"] for one in sessions] == [32, 2]
    # Finished, it is only shown again.
    assert call(*words).out == first.out
    assert sorted(units("made")) == sorted(whole)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trials", "3"), "trials is 3, but the run was started with 2"),
        (
            ("--system", "Be brief."),
            'system is "Be brief.", but the run was started with its default',
        ),
        (
            ("--judge", "binary"),
            'judge is "binary", but the run was started with its default',
        ),
        (("--prompts", "contrast-146"), 'prompts is "contrast-146"'),
    ],
)
def test_another_run_in_the_folder_is_refused_in_one_sentence(
    call: Call, words: tuple[str, ...], said: str
) -> None:
    assert call("run", "demo/mixed", *SMALL, "--out", "made").status == 0
    before = Path("made/completions.jsonl").read_bytes()
    refused = call("run", "demo/mixed", *SMALL, *words, "--out", "made")
    assert refused.status == 4
    assert f"made holds another run: {said}" in refused.err
    assert "choose another --out" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert Path("made/completions.jsonl").read_bytes() == before
    other = call("run", "demo/open", *SMALL, "--out", "made")
    assert 'model is "demo/open", but the run was started with "demo/mixed"' in other.err


def test_fresh_goes_on_with_nothing_and_overwrites_nothing(call: Call) -> None:
    words = ("run", "demo/mixed", *SMALL, "--out", "made")
    assert call(*words).status == 0
    before = Path("made/completions.jsonl").read_bytes()
    refused = call(*words, "--fresh")
    assert refused.status == 2
    assert "made holds a run already" in refused.err
    assert Path("made/completions.jsonl").read_bytes() == before
    assert call("run", "demo/mixed", *SMALL, "--fresh", "--out", "other").status == 0


def test_several_models_again_go_on_with_each(call: Call) -> None:
    words = ("run", "demo/mixed", "demo/open", *SMALL, "--out", "both", "--json")
    first = json.loads(call(*words).out)
    cut(Path("both/demo-open"), 2)
    again = call(*words)
    assert again.status == 0
    assert json.loads(again.out) == first
    assert len(units("both/demo-open")) == len(set(units("both/demo-open"))) == 8
    third = call("run", "demo/mixed", "demo/open", "demo/cautious", *SMALL, "--out", "both")
    assert third.status == 0
    assert Path("both/demo-cautious").is_dir()
    refused = call("run", "demo/mixed", "demo/open", *SMALL, "--trials", "1", "--out", "both")
    assert refused.status == 4
    assert "trials is 1, but the run was started with 2" in refused.err
    assert call(*words, "--fresh").status == 2


def test_resume_takes_several_folders_and_a_folder_of_folders(call: Call) -> None:
    call("run", "demo/mixed", "demo/open", *SMALL, "--out", "runs/both")
    call("run", "demo/cautious", *SMALL, "--out", "runs/one")
    whole = json.loads(call("resume", "runs", "--json").out)
    assert [one["path"] for one in whole["runs"]] == [
        "runs/both/demo-mixed",
        "runs/both/demo-open",
        "runs/one",
    ]
    assert [len(rk.load_run(one["path"]).manifest.sessions) for one in whole["runs"]] == [1, 1, 1]
    cut(Path("runs/both/demo-open"), 2)
    cut(Path("runs/one"), 5)
    # Nothing is asked twice where a run is named twice.
    said = call("resume", "runs/both", "runs/one", "runs/both/demo-open", "--json")
    assert said.status == 0
    assert json.loads(said.out)["runs"] == whole["runs"]
    assert [len(rk.load_run(one["path"]).manifest.sessions) for one in whole["runs"]] == [1, 2, 2]
    table = call("resume", "runs")
    assert table.status == 0
    assert "Run: runs/both/demo-mixed" in table.out
    missing = call("resume", "runs/one", "runs/nothing")
    assert missing.status == 2
    assert "nothing is not a run" in missing.err


def test_in_python_a_call_goes_on_where_it_is_asked_to(tmp_path: Path) -> None:
    out = tmp_path / "made"
    prompts = rk.load_prompts("starter").select(limit=4)
    first = rk.benchmark("demo/mixed", prompts, trials=2, out=out, resume=True)
    cut(out, 3)
    again = rk.benchmark("demo/mixed", prompts, trials=2, out=out, resume=True, rpm=6000)
    assert rk.score(again).n_scored == rk.score(first).n_units == 8
    with pytest.raises(RunFolderError, match="holds a run already"):
        rk.benchmark("demo/mixed", prompts, trials=2, out=out)
    with pytest.raises(ConfigurationChanged, match="trials is 3, but the run was started with 2"):
        rk.benchmark("demo/mixed", prompts, trials=3, out=out, resume=True)
    other = rk.load_prompts("starter").select(limit=6)
    with pytest.raises(ConfigurationChanged):
        rk.benchmark("demo/mixed", other, trials=2, out=out, resume=True)


def test_in_python_ones_own_model_and_judge_are_gone_on_with(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "[demo answer]"

    options = {"judge": rk.load_judge("lexical"), "trials": 1, "resume": True, "limit": 4}
    out = tmp_path / "own"
    rk.benchmark(rk.from_callable(answer, name="mine"), "starter", out=out, **options)
    assert len(asked) == 4
    cut(out, 1)
    rk.benchmark(rk.from_callable(answer, name="mine"), "starter", out=out, **options)
    assert len(asked) == 7
    with pytest.raises(ConfigurationChanged, match="model is"):
        rk.benchmark(rk.from_callable(answer, name="other"), "starter", out=out, **options)


def test_in_python_several_are_gone_on_with(tmp_path: Path) -> None:
    models = ["demo/open", {"id": "demo/mixed", "trials": 1}]
    options = {"trials": 2, "limit": 4, "out": tmp_path, "resume": True}
    rk.benchmark_many(models, "starter", **options)
    cut(tmp_path / "demo-open", 3)
    done = rk.benchmark_many(models, "starter", **options)
    assert [rk.score(one.run).n_scored for one in done if one.run is not None] == [8, 4]
    cut(tmp_path / "demo-open", 3)
    told: list[str] = []
    resumed = rk.resume_many(tmp_path, on_progress=lambda name, _: told.append(name))
    assert [one.name for one in resumed] == ["demo/mixed", "demo/open"]
    assert set(told) == {"demo/open"}
    assert all(one.error is None for one in resumed)
