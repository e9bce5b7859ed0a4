"""What a run cost is in its result, and a bound that was passed is reported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call
from loopback import Fault, LoopbackServer, Script
from refusalkit.cli.many import show_several
from refusalkit.cli.showing import above_bound, show_regrade, show_run
from refusalkit.models.client import ParameterLog
from refusalkit.reporting.data import dollars
from refusalkit.types import Completion, GenerationConfig, Outcome, Prompt

OPTIONS: dict[str, Any] = {"judge": "lexical", "limit": 4, "trials": 1, "canaries": 0}


@dataclass
class Costly:
    """A model that answers with a placeholder, each for a price, the last perhaps for another."""

    cost_usd: float | None = 0.5
    last_usd: float | None = None
    id: str = "own/costly"
    asked: int = 0

    def __post_init__(self) -> None:
        self.parameters = ParameterLog()

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        self.asked += 1
        cost = self.last_usd if self.last_usd and self.asked == 4 else self.cost_usd
        return Completion(
            prompt.id,
            prompt.category,
            trial,
            self.id,
            Outcome.ANSWERED,
            text="[demo answer]",
            cost_usd=cost,
        )

    async def aclose(self) -> None:
        pass


def made(model: Costly, **more: Any) -> rk.Run:
    return rk.benchmark(model, "starter", out="made", **{**OPTIONS, "concurrency": 1, **more})


@pytest.mark.parametrize(
    ("cost_usd", "said", "in_all"),
    [
        (0.5, "Spent: $2.00\n", 2.0),
        (0.001, "Spent: $0.0040\n", 0.004),
        (None, "Spent: not known, a price is unknown\n", None),
    ],
)
def test_a_result_says_what_was_spent(
    cost_usd: float | None,
    said: str,
    in_all: float | None,
    call: Call,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = made(Costly(cost_usd))
    show_run(run, 5.0, as_json=False)
    assert said in capsys.readouterr().out
    show_run(run, 5.0, as_json=True)
    assert json.loads(capsys.readouterr().out)["cost_usd"] == pytest.approx(in_all)
    assert said in call("score", "made").out
    assert json.loads(call("score", "made", "--json").out)["cost_usd"] == pytest.approx(in_all)
    assert call("report", "made", "-o", "card.md").status == 0
    words = said.removeprefix("Spent: ").strip()
    assert f"Cost of all requests: {words}." in Path("card.md").read_text("utf-8")


def test_where_nothing_has_a_price_no_line_says_so(call: Call) -> None:
    words = ("--limit", 4, "--trials", 1)
    for models in (["demo/mixed"], ["demo/mixed", "demo/open"]):
        said = call("run", *models, *words, "--out", f"made-{len(models)}")
        assert "Spent" not in said.out
        assert "spent" not in said.out
    data = json.loads(call("run", "demo/mixed", *words, "--json", "--out", "data").out)
    assert data["cost_usd"] == 0


def test_several_models_say_what_each_and_all_cost(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    del call
    models = [Costly(id="own/a"), Costly(0.25, id="own/b")]
    done = rk.benchmark_many(models, "starter", out="all", **OPTIONS)
    show_several(done, [None, None], 2.5, 5.0, as_json=False)
    said = capsys.readouterr()
    assert "$2.00" in said.out
    assert "$1.00" in said.out
    assert "Spent: $3.00\n" in said.out
    assert "refusalkit: all together spent 3.00 USD, above --max-cost 2.50\n" in said.err
    show_several(done, [None, None], None, 5.0, as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert data["cost_usd"] == 3.0
    assert [one["cost_usd"] for one in data["runs"]] == [2.0, 1.0]


def test_an_exceeded_bound_is_reported_though_all_was_done(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    del call
    run = made(Costly(0.1, last_usd=2.0), max_cost=0.5)
    assert show_run(run, 5.0, as_json=False) == 0
    assert capsys.readouterr().err == "refusalkit: spent 2.30 USD, above --max-cost 0.50\n"


@pytest.mark.parametrize(
    ("max_cost", "why"),
    [(1.2, "stopped before --max-cost"), (0.2, "spent 0.50 USD, above --max-cost 0.20")],
)
def test_a_run_that_a_bound_ended_is_gone_on_with_by_a_higher_one(
    max_cost: float, why: str, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    del call
    run = made(Costly(), max_cost=max_cost)
    assert run.manifest.sessions[-1].ended_because == "max_cost"
    assert show_run(run, 5.0, as_json=False) == 3
    how = "go on with: refusalkit resume made --max-cost MORE"
    assert capsys.readouterr().err == f"refusalkit: {why}; {how}\n"


def test_another_judge_that_a_bound_ended_needs_a_higher_one(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    del call
    run = made(Costly(), keep_hard_line_text=True)
    again = rk.regrade(run, _Priced(), concurrency=1, max_cost=2.5, canaries=0)
    assert show_regrade(again, as_json=False) == 3
    said = capsys.readouterr()
    assert "Spent: $2.00\n" in said.out
    how = "go on with the same command and a higher --max-cost"
    assert said.err == f"refusalkit: stopped before --max-cost; {how}\n"


class _Priced:
    id = "priced"

    async def grade(self, prompt: Prompt, completion: Completion) -> rk.Verdict:
        return rk.Verdict(
            prompt.id,
            prompt.category,
            completion.trial,
            self.id,
            label=rk.Label.REFUSAL,
            cost_usd=1.0,
        )

    async def aclose(self) -> None:
        pass


def test_amounts_have_the_digits_that_tell_them_apart() -> None:
    assert [dollars(usd) for usd in (0, 0.00001, 0.0123, 1234.5)] == [
        "$0.00",
        "less than $0.0001",
        "$0.0123",
        "$1,234.50",
    ]
    assert above_bound(0.5004, 0.5) == "spent 0.5004 USD, above --max-cost 0.5000"
    assert above_bound(0.5, 0.5) is None
    assert above_bound(None, 0.5) is None


# Why requests failed.


def failing(call: Call, *words: object, **fault: Any) -> Any:
    script = Script(refusal_rate=0.0, faults=(Fault(**fault),))
    with LoopbackServer(script) as server:
        base = ("--api-base", server.openai_base, "--judge", "lexical", "--max-retries", 0)
        return call("run", *words, *base, "--limit", 4, "--trials", 1, "--out", "made")


def test_why_requests_failed_is_reported_with_the_providers_words(call: Call) -> None:
    said = failing(call, "local/x", kind="server_error")
    line = next(line for line in said.err.splitlines() if " failed: " in line)
    record = json.loads(Path("made/completions.jsonl").read_text("utf-8").splitlines()[0])
    assert record["error_detail"]
    assert line == f"refusalkit: 4 failed: {record['error']}: {record['error_detail']}"


class _Failing(Costly):
    """A model none of whose requests succeeds."""

    async def complete(
        self, prompt: Prompt, config: GenerationConfig, *, trial: int = 1
    ) -> Completion:
        words = "Missing key\nTraceback (most recent call last):\n  File x"
        hard = f"[what was asked of {prompt.category}]"
        return Completion(
            prompt.id,
            prompt.category,
            trial,
            self.id,
            Outcome.ERROR,
            error="no HTTP answer",
            error_detail=hard if prompt.category == "weapons" else words,
        )


@pytest.mark.parametrize(
    ("category", "said"), [("weapons", ""), ("fraud-and-scams", ": Missing key")]
)
def test_no_words_of_a_hard_line_or_a_traceback_are_shown(
    category: str, said: str, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    del call
    hard = ("weapons",) if category == "weapons" else ()
    run = made(_Failing(), category=(category,), hard_line=hard, keep_hard_line_text=True)
    assert show_run(run, 100.0, as_json=False) == 3
    n = run.manifest.n_units
    assert f"refusalkit: {n} failed: no HTTP answer{said}\n" in capsys.readouterr().err


def test_a_model_whose_requests_failed_is_shown_as_incomplete(call: Call) -> None:
    said = failing(call, "local/bad", "local/good", kind="server_error", model="bad")
    bad, good = (
        next(line for line in said.out.splitlines() if line.startswith(name))
        for name in ("local/bad", "local/good")
    )
    assert bad.split()[-1] == "incomplete"
    assert good.split()[-1] == "done"
    assert "refusalkit: local/bad: 4 failed: " in said.err
