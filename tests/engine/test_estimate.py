"""What a run would take is said beforehand, and what is not known is said to be unknown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refusalkit as rk
from commandline import caller
from loopback import REFUSAL, LoopbackServer, Script
from refusalkit.config.presets import PRESETS
from refusalkit.engine.lengths import Span
from refusalkit.errors import RecordError, UsageError
from refusalkit.models import tokens
from refusalkit.models.prices import price_of
from refusalkit.runs.records import read_records

CANARIES = rk.RunConfig(model="openai/gpt-4o").canaries
COUNTS = st.floats(0, 1e9)


def test_without_an_earlier_run_high_is_a_ceiling_and_low_a_refusal() -> None:
    found = rk.estimate("openai/gpt-4o", "starter", judge="graded", trials=3, earlier=())
    model, judge = found.shares
    assert found.requests == 2 * 35 * 3 + CANARIES
    assert model.output_tokens.high == 35 * 3 * rk.RunConfig(model="openai/gpt-4o").max_tokens
    assert model.output_tokens.low < model.output_tokens.expected < model.output_tokens.high
    # A judge reads the request, the answer and its own instructions.
    assert judge.input_tokens.low > model.input_tokens.low + model.output_tokens.low
    assert found.cost_usd is not None
    assert 0 < found.cost_usd.low < found.cost_usd.expected < found.cost_usd.high


def test_an_earlier_run_of_the_model_tells_how_long_its_answers_are(tmp_path: Path) -> None:
    with LoopbackServer(Script()) as server:
        options = {"judge": "graded", "judge_model": "openai/judge", "trials": 2, "limit": 10}
        options["canaries"] = 0
        base = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
        run = rk.benchmark("openai/gpt-4o", "starter", out=tmp_path / "run", **options, **base)
    found = rk.estimate("openai/gpt-4o", "starter", earlier=[run], **options)
    model, judge = found.shares
    records = [json.loads(line) for line in run.completions.read_text().splitlines()]
    taken = sum(record["usage"]["output_tokens"] for record in records)
    assert model.output_tokens.expected == pytest.approx(taken)
    assert model.basis == "20 answers of 1 earlier run"
    verdicts = [json.loads(line) for line in run.verdicts.read_text().splitlines()]
    taken = sum(record["usage"]["output_tokens"] or 0 for record in verdicts)
    assert judge.output_tokens.expected == pytest.approx(taken)
    # Of another model it says nothing.
    other = rk.estimate("openai/gpt-4o-mini", "starter", earlier=[run], **options)
    assert other.shares[0].basis.startswith("assumed")


@pytest.mark.parametrize("judge", ["lexical", "graded", "graded,refusalbench"])
def test_a_run_asks_as_often_as_was_estimated(tmp_path: Path, judge: str) -> None:
    options: dict[str, Any] = {
        "prompts": "refusalkit-166,contrast-146",
        "category": ("suicide-and-self-harm", "medical-advice"),
        "judge": judge,
        "hard_line_judge": "hard-line@openai/judge",
        "trials": 2,
    }
    if judge != "lexical":
        options["judge_model"] = "openai/judge"
    found = rk.estimate("openai/gpt-4o", earlier=(), **options)
    model, *judges = found.shares
    with LoopbackServer(Script(refusal_rate=0.0)) as server:
        base = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
        run = rk.benchmark("openai/gpt-4o", out=tmp_path / "run", **options, **base)
        asked = {"target": model.requests, "judge": sum(share.requests for share in judges)}
        assert server.requests == asked
    answered = Counter(record["answered_by"] for _, record in read_records(run.verdicts))
    hard_lines = judges[-1]
    assert hard_lines.name == "hard-line:openai/judge"
    assert 0 < hard_lines.requests == answered[hard_lines.name]


class TestPressure:
    """What is asked after refusals has shares of its own."""

    OPTIONS: ClassVar[dict[str, Any]] = {
        "prompts": "refusalkit-166,contrast-146",
        "category": ("suicide-and-self-harm", "medical-advice"),
        "judge": "graded",
        "judge_model": "openai/judge",
        "hard_line_judge": "hard-line@openai/judge",
        "trials": 2,
        "pressure": 3,
    }

    def test_a_model_that_refuses_to_the_last_is_asked_the_most(self, tmp_path: Path) -> None:
        found = rk.estimate("openai/gpt-4o", earlier=(), **self.OPTIONS)
        script = Script(target_reply=lambda _: REFUSAL)
        with LoopbackServer(script) as server:
            base = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
            run = rk.benchmark("openai/gpt-4o", out=tmp_path / "run", **self.OPTIONS, **base)
            asked = dict(server.requests)
        most = {"target": 0, "judge": 0}
        for share in found.shares:
            most["target" if share.part == "model" else "judge"] += share.most_requests
        assert most == asked
        assert found.most_requests == sum(asked.values()) > found.requests
        # Safe twins are refused too, and nobody insists on them: 12 requests, 2 trials, 3 turns.
        model = next(share for share in found.shares if share.insisting)
        assert (model.part, model.most_requests) == ("model", 12 * 2 * 3)
        # The same again is expected to come out the same, to a token of the model's own.
        again = rk.estimate("openai/gpt-4o", earlier=[run], **self.OPTIONS)
        assert again.requests == again.most_requests == found.most_requests
        said = [record["completion"]["usage"] for _, record in read_records(run.pressure)]
        share = next(share for share in again.shares if share.insisting)
        assert share.basis.startswith("24 refusals of 1 earlier run; up to 3 turns after a refusal")
        assert share.output_tokens.expected == sum(usage["output_tokens"] for usage in said)

    def test_each_turn_carries_the_conversation_before_it(self) -> None:
        turns = [
            next(
                share.input_tokens.high / share.most_requests
                for share in rk.estimate(
                    "openai/gpt-4o", max_tokens=100, earlier=(), **{**self.OPTIONS, "pressure": n}
                ).shares
                if share.insisting
            )
            for n in (1, 2, 3)
        ]
        # The mean request grows by half an answer, and half of what the user says, a turn.
        assert turns[1] - turns[0] == pytest.approx(50, abs=12)
        assert turns[2] - turns[1] == pytest.approx(50, abs=12)

    def test_what_an_earlier_run_refused_and_held_is_expected_again(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"prompts": "refusalkit-166", "judge": "lexical", "trials": 2}
        run = rk.benchmark("demo/leaky", out=tmp_path / "run", pressure=4, **options)
        found = rk.estimate("demo/leaky", earlier=[run], pressure=4, **options)
        (share,) = [share for share in found.shares if share.insisting]
        asked = sum(1 for _ in read_records(run.pressure))
        assert share.requests == pytest.approx(asked, rel=0.05)
        (shorter,) = [
            share
            for share in rk.estimate("demo/leaky", earlier=[run], pressure=1, **options).shares
            if share.insisting
        ]
        first = sum(record["turn"] == 1 for _, record in read_records(run.pressure))
        assert shorter.requests == first

    def test_without_one_half_is_expected_and_nothing_or_all_may_be_refused(self) -> None:
        plain = rk.estimate("openai/gpt-4o", "starter", trials=1, earlier=())
        found = rk.estimate("openai/gpt-4o", "starter", trials=1, pressure=2, earlier=())
        model, judge = (share for share in found.shares if share.insisting)
        # 29 ordinary requests, of which half are refused, and 6 on hard lines; two turns each.
        assert (model.requests, model.most_requests) == (round(2 * (14.5 + 6)), 2 * 35)
        assert (judge.requests, judge.most_requests) == (model.requests, model.most_requests)
        assert plain.cost_usd is not None
        assert found.cost_usd is not None
        assert found.cost_usd.low == plain.cost_usd.low
        assert found.cost_usd.expected > plain.cost_usd.expected
        assert found.cost_usd.high > 2 * plain.cost_usd.high
        # A turn waits for the answer before it, so that no batch takes it.
        assert plain.batch_cost_usd is not None
        assert found.batch_cost_usd is None

    def test_the_table_says_what_is_expected_and_the_most(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        call = caller(monkeypatch, capsys, tmp_path)
        words = ("estimate", "openai/gpt-4o", "--prompts", "starter", "--pressure", "2")
        said = call(*words, "--trials", "1", "--canaries", "0")
        assert "35 prompts x 1 trial, 152 requests (at most 210)" in said.out
        assert "model, pressure" in said.out
        assert "judge, pressure" in said.out
        data = json.loads(call(*words, "--trials", "1", "--canaries", "0", "--json").out)
        assert (data["requests"], data["most_requests"]) == (152, 210)
        assert [share["insisting"] for share in data["shares"]] == [False, False, True, True]


def test_a_fallback_is_expected_to_be_asked_nothing_and_may_be_asked_all() -> None:
    alone = rk.estimate("openai/gpt-4o", "starter", judge="graded", earlier=())
    fallback = "graded@openai/gpt-4o"
    found = rk.estimate(
        "openai/gpt-4o", "starter", judge="graded", judge_fallback=fallback, earlier=()
    )
    share = found.shares[-1]
    assert share.name == "graded:openai/gpt-4o"
    assert (share.requests, share.input_tokens.expected, share.output_tokens.low) == (0, 0, 0)
    assert share.most_requests == found.shares[1].requests
    assert share.input_tokens.high == found.shares[1].input_tokens.high
    assert "high is all" in share.basis
    assert alone.cost_usd is not None
    assert found.cost_usd is not None
    assert found.cost_usd.expected == alone.cost_usd.expected
    assert found.cost_usd.high > alone.cost_usd.high
    unknown = rk.estimate("openai/gpt-4o", "starter", judge_fallback="graded@x/y", earlier=())
    assert unknown.cost_usd is None


def test_a_judge_for_hard_lines_without_any_is_refused_as_in_a_run() -> None:
    with pytest.raises(UsageError, match="the prompts have no hard line"):
        rk.estimate("demo/open", category=("weapons",), hard_line_judge="hard-line", earlier=())


def test_a_broken_run_that_was_not_named_is_passed_over_and_named_in_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, broken = (rk.benchmark("demo/open", limit=3, trials=1) for _ in range(2))
    broken.completions.write_bytes(b"{broken\n" + broken.completions.read_bytes())
    found = rk.estimate("demo/open", limit=3)
    assert found.shares[0].basis == "3 answers of 1 earlier run"
    assert f"{broken.path} was skipped: its records cannot be read" in found.notes
    assert not any(str(whole.path) in note for note in found.notes)
    with pytest.raises(RecordError, match=r"completions.jsonl:1"):
        rk.estimate("demo/open", limit=3, earlier=[whole, broken])


@pytest.mark.parametrize("max_tokens", [10, 100, 1000])
def test_no_answer_is_taken_to_be_longer_than_it_may_be(max_tokens: int, tmp_path: Path) -> None:
    with LoopbackServer(Script(refusal_rate=0.0)) as server:
        run = rk.benchmark(
            "openai/gpt-4o",
            "starter",
            judge="lexical",
            api_base=server.openai_base,
            limit=4,
            trials=1,
            out=tmp_path / "run",
        )
    for earlier in ([], [run]):
        options: dict[str, Any] = {"judge": "lexical", "limit": 4, "trials": 1, "earlier": earlier}
        found = rk.estimate("openai/gpt-4o", "starter", max_tokens=max_tokens, **options)
        tokens = found.shares[0].output_tokens
        assert tokens.low <= tokens.expected <= tokens.high <= 4 * max_tokens


def test_answers_with_another_reasoning_say_nothing_of_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"limit": 3, "trials": 1}
    run = rk.benchmark("demo/open", **options)
    found = rk.estimate("demo/open", reasoning="on", earlier=[run], **options)
    assert found.shares[0].basis == "assumed: no earlier run of this model with reasoning on"
    why = "were not used: made with reasoning auto, not on"
    assert f"the answers of {run.path} {why}" in found.notes
    unnamed = rk.estimate("demo/open", reasoning="on", **options)
    assert any(note.startswith("1 earlier run of this model was not") for note in unnamed.notes)
    same = rk.estimate("demo/open", earlier=[run], **options)
    assert same.shares[0].basis == "3 answers of 1 earlier run"


def test_a_note_says_that_a_named_run_of_another_model_does_not_help(tmp_path: Path) -> None:
    run = rk.benchmark("demo/open", limit=3, trials=1, out=tmp_path / "open")
    why = "were not used: they are those of demo/open, not of demo/mixed"
    said = f"the answers of {run.path} {why}"
    assert said in rk.estimate("demo/mixed", limit=3, earlier=[run]).notes
    # Beside the model that it is of, it was named for that one.
    first, second = rk.estimate_many(["demo/mixed", "demo/open"], limit=3, earlier=[run])
    assert said not in first.notes
    assert second.shares[0].basis == "3 answers of 1 earlier run"


def test_a_preset_brings_its_prompts_in_an_estimate_too() -> None:
    options: dict[str, Any] = {"judge": "lexical", "earlier": ()}
    alone = rk.estimate("demo/open", preset="modern", **options)
    (beside,) = rk.estimate_many(["demo/open"], preset="modern", **options)
    expected = rk.RunConfig.model_validate(
        {"model": "demo/open", **PRESETS["modern"], "judge": "lexical"}
    )
    assert alone.prompt_set == beside.prompt_set
    assert expected.prompts.split(",")[0] in alone.prompt_set


def test_an_unknown_price_makes_the_sum_unknown_never_0() -> None:
    for options in ({}, {"api_base": "http://localhost:1/v1"}):
        found = rk.estimate("openai/no-such-model", "starter", judge="lexical", **options)
        assert found.shares[0].cost_usd is None
        assert found.cost_usd is None
        assert any("unknown" in note for note in found.notes)


def test_scripted_models_and_rules_cost_nothing() -> None:
    found = rk.estimate("demo/mixed", "starter", earlier=())
    assert found.cost_usd == Span(0, 0, 0)
    assert found.shares[1].requests == 0


def test_the_cost_is_that_of_the_tokens() -> None:
    found = rk.estimate("openai/gpt-4o", "starter", judge="lexical", earlier=())
    price, share = price_of("openai/gpt-4o"), found.shares[0]
    assert price is not None
    assert share.cost_usd is not None
    for end in ("low", "expected", "high"):
        incoming, outgoing = getattr(share.input_tokens, end), getattr(share.output_tokens, end)
        expected = incoming * price.input_usd + outgoing * price.output_usd
        assert getattr(share.cost_usd, end) == pytest.approx(expected)


@given(COUNTS, COUNTS, COUNTS, st.floats(0, 1e3))
def test_a_span_keeps_its_order(a: float, b: float, c: float, factor: float) -> None:
    low, expected, high = sorted((a, b, c))
    span = Span(low, expected, high).times(factor).plus(Span(0, 1, 2))
    assert span.low <= span.expected <= span.high


def test_tokens_are_counted_without_the_network_and_leave_no_trace() -> None:
    code = (
        "import os, socket\n"
        "def refuse(*a, **k): raise AssertionError('the network was used')\n"
        "socket.socket.connect = refuse\n"
        "from refusalkit.models.tokens import tokeniser\n"
        "t = tokeniser()\n"
        "assert t.name == 'o200k_base', t.name\n"
        "assert t.count('Hello, world!') == 4\n"
        "assert t.count('<|endoftext|>') > 1\n"
        "assert 'TIKTOKEN_CACHE_DIR' not in os.environ\n"
        "import sys; assert 'litellm' not in sys.modules\n"
    )
    # litellm sets it for its whole process, this one perhaps.
    clean = {name: value for name, value in os.environ.items() if name != "TIKTOKEN_CACHE_DIR"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(command, env=clean, check=True, timeout=60)


def test_without_the_encoding_a_rule_of_thumb_is_used_and_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "_FILE", "no-such-file")
    tokens.tokeniser.cache_clear()
    try:
        counted = tokens.tokeniser()
        assert "4 characters" in counted.name
        assert counted.count("x" * 400) == 100
    finally:
        tokens.tokeniser.cache_clear()


def test_the_command_takes_the_options_of_run_and_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    words = ("estimate", "openai/gpt-4o", "--prompts", "starter", "--trials", "2")
    ended = call(*words, "--json")
    assert ended.status == 0
    data = json.loads(ended.out)
    assert data["requests"] == 2 * 70 + CANARIES
    assert f"{CANARIES} canaries are counted with what a judge is asked" in data["notes"]
    assert data["cost_usd"]["low"] < data["cost_usd"]["high"]
    table = call(*words).out
    assert max(map(len, table.splitlines())) <= 80
    assert not list(tmp_path.iterdir()), "nothing was made"


def test_several_models_are_estimated_each_and_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    words = ("estimate", "openai/gpt-4o", "openai/gpt-4o-mini", "--prompts", "starter")
    # A run's own options do no harm: the one word is changed for the other.
    words += ("--out", "made", "--report", "r.html", "--max-unscored", "3")
    data = json.loads(call(*words, "--json").out)
    first, second = data["estimates"]
    assert (first["model"], second["model"]) == ("openai/gpt-4o", "openai/gpt-4o-mini")
    assert data["requests"] == first["requests"] + second["requests"]
    for end in ("low", "expected", "high"):
        both = first["cost_usd"][end] + second["cost_usd"][end]
        assert data["cost_usd"][end] == pytest.approx(both)
    shown = call(*words)
    assert shown.status == 0
    assert shown.out.count("retries are not counted") == 1
    assert max(map(len, shown.out.splitlines())) <= 80
    assert not list(tmp_path.iterdir()), "nothing was made"


def test_a_plan_is_estimated_table_by_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    (tmp_path / "plan.toml").write_text(
        """
limit = 6
trials = 2
[[model]]
id = "demo/mixed"
[[model]]
id = "local/x"
folder = "twice"
trials = 4
"""
    )
    words = ("estimate", "--plan", "plan.toml")
    data = json.loads(call(*words, "--judge", "lexical", "--json").out)
    assert [one["requests"] for one in data["estimates"]] == [12, 24]
    assert data["cost_usd"] is None, "one price is unknown"
    assert call(*words, "demo/open").status == 2
    assert call("estimate").status == 2


def labelled(path: Path) -> Path:
    rows = [
        {
            "prompt": f"[demo prompt {n}]",
            "response": "[demo answer] " * (n + 1),
            "category": "self-harm" if n == 0 else "weapons",
            **({"label": "refusal"} if n < 2 else {}),
        }
        for n in range(5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_what_a_judge_would_take_is_what_it_takes(tmp_path: Path) -> None:
    answers = labelled(tmp_path / "answers.jsonl")
    options: dict[str, Any] = {"judge_model": "openai/judge", "canaries": 2}
    with LoopbackServer(Script()) as server:
        base = {"judge_api_base": server.openai_base}
        rk.grade(answers, out=tmp_path / "g", **options, **base)
        (found,) = rk.estimate_judging(answers, **options, earlier=[])
        assert found.requests == len(server.log) == 7
        (again,) = rk.estimate_judging(tmp_path / "g", **options, earlier=[])
        assert again.requests == 7
        server.reset()
        rk.calibrate("graded", answers, verdicts=tmp_path / "v", **{**options, **base})
        assert len(server.log) == 2 + 2
        (calibrating,) = rk.estimate_judging(answers, labelled_only=True, earlier=[], **options)
        assert calibrating.requests == 4
    (share,) = found.shares
    assert (share.part, share.cost_usd) == ("judge", None), "that judge has no list price"
    assert share.input_tokens.low == share.input_tokens.high, "what is read is known"


def test_the_price_in_batches_is_of_what_batches_take(tmp_path: Path) -> None:
    answers = labelled(tmp_path / "answers.jsonl")
    priced: dict[str, Any] = {"judge_model": "openai/gpt-4o", "earlier": []}
    (one,) = rk.estimate_judging(answers, batch="judge", **priced)
    assert one.cost_usd is not None
    assert one.batch_cost_usd is not None
    assert one.batch_cost_usd.expected == pytest.approx(one.cost_usd.expected / 2)
    (council,) = rk.estimate_judging(answers, "graded,refusalbench", **priced)
    assert council.batch_cost_usd == council.cost_usd, "several judges are never batched"
    run = {**priced, "limit": 5}
    both = rk.estimate("openai/gpt-4o", **run)
    model = rk.estimate("openai/gpt-4o", batch="model", **run)
    assert both.batch_cost_usd is not None
    assert model.batch_cost_usd is not None
    asked, judged = model.shares
    assert asked.cost_usd is not None
    assert judged.cost_usd is not None
    expected = asked.cost_usd.expected / 2 + judged.cost_usd.expected
    assert model.batch_cost_usd.expected == pytest.approx(expected)
    assert both.batch_cost_usd.expected < model.batch_cost_usd.expected


def test_the_command_estimates_a_judge_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys, tmp_path)
    answers = labelled(tmp_path / "answers.jsonl")
    judge = ("--judge-model", "openai/gpt-4o")
    said = call("estimate", "--answers", answers, *judge)
    assert (said.status, said.out.splitlines()[0]) == (0, "answers: 5 answers, 13 requests")
    assert "in batches" in said.out
    several = call("estimate", "--labels", answers, "--labels", answers, *judge, "--json")
    data = json.loads(several.out)
    assert (data["requests"], data["estimates"][0]["n_answers"]) == (4, 2)
    assert data["batch_cost_usd"]["expected"] < data["cost_usd"]["expected"]
    for words in (("openai/x", "--answers", answers), ("--labels", answers, "--answers", answers)):
        refused = call("estimate", *words)
        assert (refused.status, "give one of MODEL" in refused.err) == (2, True)
