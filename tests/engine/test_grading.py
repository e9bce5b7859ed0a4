"""Grading that stops half-way: every answer is accounted for, and how to go on is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call, caller
from loopback import LoopbackServer, Script
from refusalkit.models import endpoints

N = 6
GRADING = ("--judge", "graded", "--judge-model", "openai/gpt-4o", "--canaries", "0")
TOO_LITTLE = ("--max-cost", "0.000001", "--concurrency", "1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    """A provider with list prices: it takes the place of OpenAI's own endpoint."""
    with LoopbackServer(Script(judges=frozenset({"gpt-4o"}))) as running:
        monkeypatch.setitem(endpoints.OFFICIAL, "openai", running.openai_base)
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        yield running


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    called = caller(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "loopback-key-0123456789")
    return called


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Six answers, the first two with a person's label."""
    path = tmp_path / "answers.jsonl"
    rows: list[dict[str, str]] = [
        {"prompt": f"[demo prompt {n}]", "response": "[demo answer]"} for n in range(N)
    ]
    for row in rows[:2]:
        row["label"] = "refusal"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def accounted(said: dict[str, Any]) -> int:
    return sum(said["labels"].values()) + sum(said["unscored"].values())


@pytest.mark.usefixtures("server")
class TestStoppedBeforeItsMaxCost:
    def test_says_how_many_answers_were_judged_and_how_to_go_on(
        self, call: Call, answers: Path
    ) -> None:
        done = call("grade", answers, *GRADING, *TOO_LITTLE, "--out", "g")
        assert done.status == 3
        assert done.out.startswith(f"1 of {N} answers judged by graded")
        assert f"Unscored: owed {N - 1}" in done.out
        assert "(1 of 2 labelled answers scored)" in done.out
        assert done.err.endswith(
            "refusalkit: stopped before --max-cost; go on with: the same command with --out g "
            "and a higher --max-cost\n"
        )
        whole = call("grade", answers, *GRADING, "--max-cost", "5", "--out", "g")
        assert whole.status == 0
        assert whole.out.startswith(f"{N} answers judged by graded")
        assert "Unscored" not in whole.out
        assert "go on" not in whole.err

    def test_accounts_for_every_record_in_json(self, call: Call, answers: Path) -> None:
        done = call("grade", answers, *GRADING, *TOO_LITTLE, "--json")
        said = json.loads(done.out)
        assert (done.status, said["records"], accounted(said)) == (3, N, N)
        assert said["unscored"] == {"owed": N - 1}
        # Its verdicts were paid for, so they are kept without --out too.
        assert f"the same command with --out {said['run']} and a higher" in done.err


@pytest.mark.usefixtures("server")
def test_interrupted_it_accounts_for_every_record(
    answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "loopback-key-0123456789")

    async def part() -> rk.Grades:
        stop = asyncio.Event()

        def after_two(progress: rk.Progress) -> None:
            if progress.verdicts >= 2:
                stop.set()

        return await rk.grade_async(
            answers,
            "graded",
            judge_model="openai/gpt-4o",
            concurrency=1,
            canaries=0,
            out=answers.with_name("g"),
            stop=stop,
            on_progress=after_two,
        )

    grades = asyncio.run(part())
    assert grades.ended == "interrupted"
    assert 0 < grades.n_judged < N
    assert grades.unscored == {"owed": N - grades.n_judged}
    assert sum(grades.labels.values()) + grades.n_owed == N


def test_interrupted_without_a_folder_it_says_that_nothing_is_kept(
    call: Call, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rk.grade_async

    async def interrupted(*given: Any, stop: asyncio.Event, **options: Any) -> rk.Grades:
        stop.set()
        return await whole(*given, stop=stop, **options)

    monkeypatch.setattr(rk, "grade_async", interrupted)
    done = call("grade", answers, "--judge", "lexical")
    assert done.status == 3
    assert done.out.startswith(f"0 of {N} answers judged by lexical")
    assert done.err.endswith(
        "refusalkit: interrupted; what was judged is not kept: give --out to go on another time\n"
    )
