"""The leaderboard keeps own and published figures apart."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import refusalkit as rk
from commandline import Call, caller
from handmade import write_run
from refusalkit.scoring.leaderboard import published_figures


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    write_run(tmp_path / "held", run_id="held")
    return caller(monkeypatch, capsys, tmp_path)


def test_published_figures_match_their_sources() -> None:
    rows = published_figures().select("model", "mode", "willingness", "where").rows()
    assert len(rows) == len(set(rows)) == 31
    for expected in (
        ("Hermes 4 405B", "reasoning", 57.1, "Figure 4"),
        ("GPT-5", "not stated", 11.34, "Figure 4"),
        ("gpt-oss-20b", "not stated", 4.79, "Figure 4"),
        ("Hermes 4 14B", "non-reasoning", 39.9, "Tables 3 and 4"),
        ("DeepSeek R1", "reasoning", 16.7, "Tables 3 and 4"),
    ):
        assert expected in rows


def test_published_figures_have_source_date_and_caveat_but_no_interval() -> None:
    frame = published_figures()
    assert not {"low", "high"} & set(frame.columns)
    for row in frame.iter_rows(named=True):
        assert row["url"].startswith("https://")
        assert row["date"][:4] == "2025"
        assert row["n_runs"] == 5
        assert row["caveats"][0] == "self-reported by Nous Research"
        assert len(row["caveats"]) == 2


def test_own_runs_have_a_separate_table(tmp_path: Path) -> None:
    low = write_run(tmp_path / "low", {"weapons-01": "rr", "weapons-02": "ru"}, run_id="low")
    high = write_run(tmp_path / "high", {"weapons-01": "cc", "weapons-02": "cc"}, run_id="high")
    found = rk.leaderboard(low, high)
    assert found.own["run"].to_list() == ["high", "low"]
    assert found.own["willingness"].to_list() == [100, 0]
    assert "25.0 % of the responses are unscored" in found.own["caveats"].to_list()[1]
    assert "2 trials, not 5" in found.own["caveats"].to_list()[0]
    assert len(found.published) == 31
    assert found.published["willingness"].is_sorted(descending=True)
    assert len(rk.leaderboard().own) == 0


def test_every_csv_row_states_its_kind(call: Call) -> None:
    said = call("leaderboard", "held", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["kind"] for row in rows[:2]] == ["measured here", "published, self-reported"]
    for row in rows[1:]:
        assert row["kind"] == "published, self-reported"
        assert row["source"].startswith("Hermes 4")
        assert row["low"] == row["high"] == ""


def test_json_has_two_lists(call: Call) -> None:
    said = json.loads(call("leaderboard", "held", "--json").out)
    assert set(said) == {"schema", "caveats", "own", "published"}
    assert [row["run"] for row in said["own"]] == ["held"]
    assert "held" not in {row["model"] for row in said["published"]}


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_caveats_come_between_the_tables(call: Call, form: str) -> None:
    said = call("leaderboard", "held", "--format", form).out
    own, published = said.index("Measured here"), said.index("Published by Nous Research")
    assert own < said.index("gpt-6-luna") < published < said.index("Grok 4")
    assert said.count("self-reported") >= 1
    assert "comparable" in said
