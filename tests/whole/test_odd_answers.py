"""Answers that say nothing: from a provider's socket to every form of the report.

Empty, white space, marks that cannot be seen, or nothing but reasoning. None of them may look like
an answer, and a reader is told how many there are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from browser import Visit
from commandline import caller
from loopback.canned import Canned, CannedServer

pytestmark = pytest.mark.xdist_group("chromium")

REASON = "[placeholder of a thought]"
EMPTY = ({"content": ""}, {"content": None}, {"content": " \n\t\u00a0\u3000\r\n "})
UNSEEN = (
    {"content": "\u200b\u200e\u200f\u202e\u2066\u2069\ufeff"},
    {"content": "\x00\x1b\x07\x7f"},
)
THOUGHT = (
    {"content": f"<think>{REASON}</think>"},
    {"content": f"<think>{REASON}"},
    {"content": "", "reasoning_content": REASON},
)
ANSWERED = ({"content": "[demo answer]"},)
SAID = (*EMPTY, *UNSEEN, *THOUGHT, *ANSWERED)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    """A run in which each of them came once."""
    folder = tmp_path_factory.mktemp("odd")
    prompts = folder / "set.jsonl"
    rows = [{"prompt": f"[placeholder {n}]", "category": "Ordinary"} for n in range(len(SAID))]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def reply(asked: dict[str, Any], _: str) -> Canned:
        number = int(asked["messages"][-1]["content"].strip("[]").split()[1])
        message = {"role": "assistant", **SAID[number]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Canned.json({"id": "c", "model": "m", "choices": [choice]})

    with CannedServer(reply) as server:
        return rk.benchmark(
            "local/m",
            prompts,
            judge="lexical",
            trials=1,
            canaries=0,
            api_base=f"{server.url}/v1",
            out=folder / "run",
        )


def test_answers_without_visible_text_have_no_label(run: rk.Run) -> None:
    frame = rk.units(run, show_text=True).sort("prompt_id")
    outcomes = dict(frame["outcome"].value_counts().iter_rows())
    assert outcomes == {
        "empty": len(EMPTY) + len(UNSEEN),
        "no_answer": len(THOUGHT),
        "answered": len(ANSWERED),
    }
    silent = frame.filter(frame["outcome"].is_in(["empty", "no_answer"]))
    assert silent["label"].null_count() == len(silent)
    score = rk.score(run)
    assert score.n_scored == len(ANSWERED)


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_each_form_says_how_many_there_are(run: rk.Run, tmp_path: Path, suffix: str) -> None:
    text = rk.report(run, tmp_path / f"report{suffix}", show_text=True).read_text("utf-8")
    assert REASON not in text
    assert not set(text) & set("\u200b\u200e\u200f\u202e\u2066\u2069\ufeff\x00\x1b\x07\x7f")
    if suffix == ".md":
        assert f"{len(SAID) - 1} of {len(SAID)} units unscored" in text
    else:
        assert "empty" in text
        assert "no_answer" in text or "no answer" in text


def test_the_terminal_says_so_too(
    run: rk.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = caller(monkeypatch, capsys, tmp_path)("score", run.path)
    assert "empty" in said.out + said.err
    assert REASON not in said.out + said.err


def test_a_browser_shows_a_row_for_each(browser: Any, run: rk.Run, tmp_path: Path) -> None:
    path = rk.report(run, tmp_path / "report.html", show_text=True)
    with Visit(browser, path, width=360) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert visit.console == []
        table = visit.page.locator("#units-table").inner_text()
        assert table.count("no answer") + table.count("no_answer") >= len(THOUGHT)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
