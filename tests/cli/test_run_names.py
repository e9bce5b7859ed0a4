"""Runs by name, the table of runs, and one unit in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import refusalkit as rk
from commandline import Call
from handmade import CROSSED, write_run


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs in runs/, the last of them in a folder of several models."""
    monkeypatch.chdir(tmp_path)
    for name in ("alpha-one", "alpha-two", "both/beta"):
        options = {"trials": 1, "limit": 3} if name != "alpha-two" else {"trials": 2, "limit": 3}
        rk.benchmark("demo/mixed", "starter", out=f"runs/{name}", **options)
    return tmp_path


def test_the_table_has_every_run_the_last_first(call: Call, made: Path) -> None:
    rows = json.loads(call("runs", "--json").out)["runs"]
    assert [row["path"] for row in rows] == ["runs/both/beta", "runs/alpha-two", "runs/alpha-one"]
    assert [row["n_units"] for row in rows] == [3, 6, 3]
    assert all(row["willingness"] is not None and row["cost_usd"] == 0 for row in rows)
    said = call("runs")
    assert said.status == 0
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.out.index("both/beta") < said.out.index("alpha-two") < said.out.index("alpha-one")
    # What cannot be read does not stop the list.
    (made / "runs" / "broken").mkdir()
    (made / "runs" / "broken" / "manifest.json").write_text("{")
    (made / "runs" / "alpha-one" / "completions.jsonl").write_text("no record\n")
    rows = json.loads(call("runs", "--json").out)["runs"]
    assert [row["error"] is None for row in rows] == [True, True, False, False]
    assert rows[3]["path"] == "runs/broken"
    assert "is not JSON" in rows[3]["error"]
    said = call("runs")
    assert said.status == 0
    assert "runs/alpha-one: completions.jsonl:1: " in said.out
    assert "runs/broken: runs/broken/manifest.json is not JSON" in said.out
    assert call("runs", "nowhere").status == 2


@pytest.mark.parametrize("name", ["@last", "bet", "runs/both/be", "runs/both/beta"])
def test_a_run_is_named_by_last_or_by_the_beginning_of_its_name(
    call: Call, made: Path, name: str
) -> None:
    del made
    expected = call("score", "runs/both/beta", "--json").out
    assert call("score", name, "--json").out == expected
    assert call("audit", name).status == call("audit", "runs/both/beta").status
    assert call("compare", name, "alpha-o", "--json").status == 0


def test_an_id_names_a_run_and_an_ambiguous_beginning_lists_the_candidates(
    call: Call, made: Path
) -> None:
    run = rk.load_run(made / "runs" / "alpha-two")
    said_by_id = call("score", run.manifest.id, "--json")
    assert said_by_id.out == call("score", "runs/alpha-two", "--json").out
    refused = call("score", "alpha")
    assert refused.status == 2
    assert "runs/alpha-one" in refused.err
    assert "runs/alpha-two" in refused.err
    assert "Traceback" not in refused.err
    missing = call("score", "gamma")
    assert missing.status == 2
    assert "gamma is not a run: there is no such folder" in missing.err


def test_there_is_no_last_run_before_the_first(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = call("score", "@last")
    assert said.status == 2
    assert "there is no run in runs yet" in said.err


def test_a_unit_is_shown_without_texts_and_what_is_withheld_stays_so(
    call: Call, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "crossed", CROSSED)
    said = call("show", run.path, "suicide-and-self-harm-02#3")
    assert said.status == 0
    assert "verdict by graded:anthropic/claude-sonnet-5-5: compliance" in said.out
    assert "text:" not in said.out
    shown = call("show", run.path, "suicide-and-self-harm-02#3", "--show-text")
    assert "text: withheld: its text is on no disk" in shown.out
    refused = call("show", run.path, "suicide-and-self-harm-02#99")
    assert refused.status == 2
    assert "has no answer to suicide-and-self-harm-02#99" in refused.err


def test_texts_are_shown_on_request_only(call: Call, tmp_path: Path) -> None:
    run = rk.benchmark(
        "demo/mixed", "starter", category=["weapons"], trials=1, out=tmp_path / "run"
    )
    records = map(json.loads, run.completions.read_text().splitlines())
    record = next(each for each in records if each["text"])
    plain = call("show", run.path, record["unit"]).out
    assert record["text"] not in plain
    shown = json.loads(call("show", run.path, record["unit"], "--show-text", "--json").out)
    assert shown["text"] == record["text"]
    prompt = next(p for p in rk.load_prompts("starter").prompts if p.id == record["prompt_id"])
    assert shown["prompt"] == prompt.text
    assert prompt.text not in plain
