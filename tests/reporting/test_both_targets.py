"""Both intervals, what is unscored and whether the run is complete, wherever a score is shown."""

from __future__ import annotations

import json

import pytest

import refusalkit as rk
from refusalkit.reporting import data, terminal
from refusalkit.reporting.console import console
from refusalkit.scoring.leaderboard import leaderboard_of
from run_folders import Row, write_run


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every form of the score of a run that stopped in its second trial."""
    folder = tmp_path_factory.mktemp("stopped")
    rows: list[Row] = [
        (f"p{n}", "drug-use", 1, "answered", "refusal" if n % 3 else "compliance")
        for n in range(12)
    ]
    rows.append(("p0", "drug-use", 2, "answered", "compliance"))
    run = write_run(folder / "run", rows, trials=2)
    score = rk.score(run)
    out = console()
    with out.capture() as said:
        out.print(terminal.score_view(score))
    forms = {"terminal": said.get(), "notebook": score._repr_html_()}
    for kind in ("html", "md", "json"):
        rk.report(run, folder / f"report.{kind}")
        forms[kind] = (folder / f"report.{kind}").read_text(encoding="utf-8")
    forms["leaderboard"] = str(leaderboard_of([score]).own["caveats"].to_list())
    forms["score"] = json.dumps(data.score_data(score))
    return forms


@pytest.mark.parametrize("form", ["terminal", "notebook", "html", "md", "leaderboard"])
def test_an_incomplete_run_is_marked(shown: dict[str, str], form: str) -> None:
    words = " ".join(shown[form].split())
    assert "incomplete" in words.lower()
    assert "11" in words  # units missing


@pytest.mark.parametrize("form", ["terminal", "notebook", "html"])
def test_both_targets_are_named(shown: dict[str, str], form: str) -> None:
    words = " ".join(shown[form].split()).replace("\u00a0", " ")
    assert "prompts like these" in words
    assert "asked again" in words


def test_json_has_both_and_the_interval_of_what_is_unscored(shown: dict[str, str]) -> None:
    score = json.loads(shown["score"])
    assert (score["is_complete"], score["n_owed"]) == (False, 11)
    figure, wide = score["willingness"], score["unscored_interval"]
    assert len(figure["asked_again"]) == 2
    assert wide["low"] < score["bounds"]["low"] < score["bounds"]["high"] < wide["high"]
    assert json.loads(shown["json"])["runs"][0]["score"]["is_complete"] is False
