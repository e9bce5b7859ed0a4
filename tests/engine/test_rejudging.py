"""A run judged again: its answers and its own judge stay, nothing is paid for twice.

Over real sockets: what the run says must be what the provider's log says.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from commandline import Call
from loopback import REFUSAL, Asked, Exchange, Fault, LoopbackServer, Script
from refusalkit.errors import ConfigurationChanged, RunFolderError, RunLocked
from refusalkit.prompts.load import load_prompts
from refusalkit.runs import frames
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.records import read_records
from refusalkit.runs.state import read_state
from refusalkit.shipped import judges_dir
from refusalkit.types import Label, Verdict
from run_folders import spent_usd

FIRST, SECOND = "graded:openai/judge-a", "graded:openai/judge-b"
TEXTS = {prompt.text: prompt.id for prompt in load_prompts("starter").prompts}
SEED = 1000
KILLS = 2


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refusalkit.models.pacing._BACKOFF_CAP_S", 0.01)


def named(asked: Asked) -> str:
    """An answer that names its unit, so that a judge's request does too."""
    unit = f"{TEXTS[asked.text]}#{int(asked.body['seed']) - SEED + 1}"
    return f"<{unit}> {REFUSAL if int(asked.key[:2], 16) % 3 == 0 else '[demo answer]'}"


def unit_of(exchange: Exchange) -> str:
    answer = exchange.text.split("BEGIN ANSWER", 1)[1]
    return answer[answer.index("<") + 1 : answer.index(">")]


ODD = (
    Fault("content_filter", probability=0.15, per="key"),
    Fault("empty", probability=0.1, per="key"),
)
SCRIPT = Script(target_reply=named, faults=ODD)


def benchmark(server: LoopbackServer, out: Path, **options: Any) -> Run:
    given: dict[str, Any] = {"limit": 24, "trials": 2, "seed": SEED, "max_retries": 0}
    given["canaries"] = 0  # requests are counted
    given |= {"judge": "graded", "judge_model": "openai/judge-a"}
    bases = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
    return rk.benchmark("openai/target", "starter", out=out, **bases, **{**given, **options})


def regrade(server: LoopbackServer, run: Run | Path, **options: Any) -> Run:
    given: dict[str, Any] = {"judge_model": "openai/judge-b", "max_retries": 0, "canaries": 0}
    given |= options
    judge = given.pop("judge", "graded")
    return rk.regrade(run, judge, judge_api_base=server.openai_base, **given)


def verdicts(run: Run, judge: str) -> dict[str, Mapping[str, Any]]:
    """A judge's last record of each unit."""
    return {
        record["unit"]: record
        for _, record in read_records(run.verdicts)
        if record["judge"] == judge
    }


def test_a_run_judged_again_has_two_judges_side_by_side(tmp_path: Path) -> None:
    with LoopbackServer(SCRIPT) as server:
        run = benchmark(server, tmp_path / "run")
        before, first = run.completions.read_bytes(), rk.score(run)
        first_lines = run.verdicts.read_bytes()
        server.reset()
        run = regrade(server, run)
        log = server.log
        server.reset()
        again = regrade(server, run)
        assert server.ledger.n == 0, "the same judge does only what is owed"
    assert again.manifest.judges == run.manifest.judges

    assert run.completions.read_bytes() == before
    assert run.verdicts.read_bytes().startswith(first_lines)
    assert run.manifest.judge == FIRST
    assert list(run.manifest.judges) == [FIRST, SECOND]
    assert run.manifest.judges[SECOND].digest not in (None, run.manifest.judges[FIRST].digest)
    session = run.manifest.sessions[-1]
    assert (session.judge, session.ended_because) == (SECOND, "done")
    assert {"model", "judge", f"judge {SECOND}"} == set(run.manifest.parameters)

    # Outcomes settle what they settled before; a text that was not kept cannot be read again.
    outcomes = dict(frames.completions(run).select("unit", "outcome").iter_rows())
    kept = dict(frames.completions(run).select("unit", "has_text").iter_rows())
    said = verdicts(run, SECOND)
    readable = {unit for unit in outcomes if outcomes[unit] == "answered" and kept[unit]}
    withheld = {unit for unit in outcomes if outcomes[unit] == "answered" and not kept[unit]}
    assert readable
    assert withheld
    assert {e.model for e in log} == {"judge-b"}
    assert Counter(map(unit_of, log)) == Counter(readable)
    for unit, outcome in outcomes.items():
        record = said[unit]
        word = record["label"] or record["unscored"]
        if unit in withheld:
            assert (word, record["cost_usd"]) == ("withheld", 0.0)
        elif outcome == "blocked":
            assert (word, record["source"]) == ("refusal", "provider")
        elif outcome == "empty":
            assert (word, record["source"]) == ("empty", "provider")
        else:
            assert (word, record["source"]) == (verdicts(run, FIRST)[unit]["label"], "judge")
    assert {"blocked", "empty"} < set(outcomes.values())

    # Each judge's score is its own.
    assert rk.score(run).willingness == first.willingness
    second = rk.score(run, judge=SECOND)
    assert second.unscored["withheld"] == len(withheld)
    assert second.answer_rate == first.answer_rate
    audit = rk.audit(run, judge=SECOND)
    assert audit.status == "inconclusive"
    assert any(f"{FIRST}" in note and "withheld" in note for note in audit.notes)
    assert len(read_state(run).settled) == len(read_state(run, SECOND).settled) == len(outcomes)


def test_what_one_judge_owes_the_other_does_not(tmp_path: Path) -> None:
    lost = next(p.text for p in load_prompts("starter").prompts if p.category == "weapons")
    down = (Fault("server_error", where="target", match=lost), *ODD)
    broken = (Fault("server_error", where="judge", model="judge-b", every=3), *down)
    options = {"limit": None, "trials": 1}
    with LoopbackServer(Script(target_reply=named, faults=down)) as server:
        run = benchmark(server, tmp_path / "run", **options)
        assert rk.score(run).unscored["error"] == 1
        server.script = Script(target_reply=named, faults=broken)
        run = regrade(server, run)
        failed = {u for u, r in verdicts(run, SECOND).items() if r["unscored"] == "judge_error"}
        assert failed
        assert rk.score(run).unscored["judge_error"] == 0
        assert read_state(run).to_judge == frozenset()
        assert read_state(run, SECOND).to_judge == failed

        # The run is taken up: the one answer that is missing, by its own judge.
        server.script = Script(target_reply=named)
        server.reset()
        run = rk.resume(run)
        assert Counter((e.role, e.model) for e in server.log) == {
            ("target", "target"): 1,
            ("judge", "judge-a"): 1,
        }
        new = next(unit_of(e) for e in server.log if e.role == "judge")
        server.reset()
        run = regrade(server, run)
        assert Counter(map(unit_of, server.log)) == Counter({*failed, new})
    assert rk.score(run, judge=SECOND).unscored["owed"] == 0


def test_a_run_that_ran_into_its_own_budget_is_not_charged_for_another_judge(
    tmp_path: Path,
) -> None:
    judge = Priced("second", 10.0)
    run = rk.benchmark("demo/open", "starter", out=tmp_path / "run", limit=20, trials=1)
    run = rk.regrade(run, judge, concurrency=1, max_cost=45.0, canaries=0)
    assert run.manifest.sessions[-1].ended_because == "max_cost"
    assert spent_usd(run) == 40.0
    assert spent_usd(run, ["lexical"]) == 0.0
    assert read_state(run).cost_usd == 0.0
    state = read_state(run, "second")
    assert (state.cost_usd, state.dearest.verdict) == (40.0, 10.0)
    # Earlier calls count: the same bound has no room left, none has.
    assert spent_usd(rk.regrade(run, judge, max_cost=45.0, canaries=0)) == 40.0
    run = rk.regrade(run, judge, canaries=0)
    readable = frames.completions(run).filter("has_text").height
    assert spent_usd(run) == 10.0 * readable


class Priced:
    """A judge of the caller's own that costs something and refuses everything."""

    def __init__(self, name: str, cost_usd: float) -> None:
        self.id = name
        self._cost_usd = cost_usd

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> Verdict:
        return Verdict(
            prompt.id,
            prompt.category,
            completion.trial,
            self.id,
            label=Label.REFUSAL,
            cost_usd=self._cost_usd,
        )

    async def aclose(self) -> None:
        pass


def test_a_changed_judge_of_the_same_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = (judges_dir() / "lexical.toml").read_text("utf-8")
    text = text.replace('name = "lexical"', 'name = "mine"')
    file.write_text(text, encoding="utf-8")
    run = rk.benchmark("demo/mixed", "starter", out=tmp_path / "run", limit=6, trials=1)
    run = rk.regrade(run, str(file))
    file.write_text(re.sub(r"(?m)^bias = .*$", "bias = 0.5", text), encoding="utf-8")
    files = {path: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(ConfigurationChanged, match=r"mine\.toml has changed since mine judged"):
        rk.regrade(run, str(file))
    assert {path: path.read_bytes() for path in run.path.iterdir()} == files


def test_a_council_asks_only_members_who_have_not_judged_the_run(tmp_path: Path) -> None:
    with LoopbackServer(SCRIPT) as server:
        run = benchmark(server, tmp_path / "run", trials=1)
        server.reset()
        both = "graded@openai/judge-a,graded@openai/judge-b"
        run = regrade(server, run, judge=both, judge_model=None, council="unanimous")
        assert {e.model for e in server.log} == {"judge-b"}
    council = f"unanimous:{FIRST}+{SECOND}"
    score = rk.score(run, judge=council)
    assert score.unscored["withheld"] == rk.score(run, judge=SECOND).unscored["withheld"] > 0
    assert score.unscored["missing_vote"] == score.unscored["owed"] == 0
    assert score.council is not None
    assert score.council.unanimous_percent == 100.0
    assert read_state(run, council).withheld == frozenset()


def test_a_regrade_says_what_it_cannot_do(tmp_path: Path) -> None:
    run = rk.benchmark("demo/mixed", "starter", out=tmp_path / "run", limit=4, trials=1)
    with pytest.raises(TypeError, match=r"regrade\(\) got an unexpected keyword argument 'trials'"):
        rk.regrade(run, "lexical", trials=3)  # type: ignore[call-arg]
    with pytest.raises(RunFolderError, match="the judge nobody is not of this run"):
        rk.score(run, judge="nobody")
    with run.writing(), pytest.raises(RunLocked):
        rk.regrade(run, Priced("second", 0.0))
    run.completions.write_bytes(b"")
    with pytest.raises(RunFolderError, match="has no answer yet"):
        rk.regrade(run, "lexical")


def test_graded_answers_are_judged_again_from_their_records(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "prompt": "[request a]", "response": "<a#1> [demo answer]"},
        {"id": "b", "prompt": "[request b]", "response": "<think>x</think><b#1> I can't."},
        {"id": "c", "prompt": "[request c]", "response": ""},
    ]
    for line in lines:
        line["judges"] = {"log": "compliance"}  # type: ignore[assignment]
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    grades = rk.grade(file, "lexical", out=tmp_path / "graded")
    assert grades.run is not None
    with LoopbackServer(Script()) as server:
        run = regrade(server, grades.run)
        assert Counter(map(unit_of, server.log)) == {"a#1": 1, "b#1": 1}
    assert verdicts(run, SECOND)["c#1"]["unscored"] == "empty"
    run = rk.regrade(run, "imported")
    assert verdicts(run, "imported:log")["a#1"]["label"] == "compliance"
    # The first judge's own command still goes on with it.
    assert rk.grade(file, "lexical", out=tmp_path / "graded").judge == "lexical"
    file.write_text(json.dumps({**lines[0], "prompt": "[another]"}), encoding="utf-8")
    with pytest.raises(ConfigurationChanged, match="have changed since"):
        regrade(LoopbackServer(), run)


def test_hard_line_answers_that_came_from_records_are_read_there(tmp_path: Path) -> None:
    kept = rk.benchmark(
        "demo/leaky", "starter", out=tmp_path / "run", trials=1, keep_hard_line_text=True
    )
    grades = rk.grade(kept.path, "lexical", out=tmp_path / "graded")
    assert grades.run is not None
    withheld = frames.completions(grades.run).filter(~frames.pl.col("has_text"))
    assert len(withheld) > 3
    run = rk.regrade(grades.run, Priced("second", 0.0))
    said = verdicts(run, "second")
    assert {said[unit]["label"] for unit in withheld["unit"]} == {"refusal"}
    assert {said[unit]["reason"] for unit in withheld["unit"]} == {None}


def test_the_command_says_what_could_not_be_judged_again(tmp_path: Path, call: Call) -> None:
    assert call("run", "demo/mixed", "--prompts", "starter", "--out", "run").status == 0
    text = (judges_dir() / "lexical.toml").read_text("utf-8")
    (tmp_path / "mine.toml").write_text(text.replace('"lexical"', '"mine"', 1), encoding="utf-8")
    said = call("regrade", "run", "--judge", "mine.toml")
    assert said.status == 0, said.err
    text = " ".join(said.out.split())
    withheld = rk.score(tmp_path / "run", judge="mine").unscored["withheld"]
    assert f"{withheld} answers were withheld when they were given" in text
    assert "Judge: mine; the judge of record stays lexical" in text
    data = json.loads(call("regrade", "run", "--judge", "mine.toml", "--json").out)
    assert (data["judge"], data["judge_of_record"]) == ("mine", "lexical")
    assert data["score"]["unscored"]["withheld"] == withheld
    refused = call("regrade", "run", "--judge", "nobody")
    assert refused.status == 2
    assert "no judge nobody" in refused.err


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.slow
def test_a_regrade_killed_again_and_again_is_repeated_by_the_same_command(
    tmp_path: Path, call: Call
) -> None:
    dice = random.Random("regrade")
    concurrency = 4
    with LoopbackServer(SCRIPT, latency_s=0.02) as server:
        run = benchmark(server, tmp_path / "run", trials=3, concurrency=64)
        first = rk.score(run)
        server.reset()
        words: list[object] = [
            "regrade",
            run.path,
            "--judge",
            "graded",
            "--judge-model",
            "openai/judge-b",
        ]
        words += ["--judge-api-base", server.openai_base, "--concurrency", concurrency]
        words += ["--canaries", 0]
        command = [sys.executable, "-m", "refusalkit", *map(str, words)]
        quiet = subprocess.DEVNULL
        stood: list[tuple[int, set[str]]] = []
        for _ in range(KILLS):
            before, more = server.ledger.n, dice.randrange(4, 14)
            with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
                until = time.monotonic() + 30
                while server.ledger.n - before < more and time.monotonic() < until:
                    assert process.poll() is None, "killed while it was at work"
                    time.sleep(0.001)
                time.sleep(dice.uniform(0, 0.03))
                process.send_signal(signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL
            stood.append((len(server.log), set(verdicts(run, SECOND))))
        ended = call(*words)
        assert ended.status == 0, ended.err
        log = server.log
    run = open_run(run.path)
    assert run.manifest.sessions[-1].ended_because == "done"
    lines = [r for _, r in read_records(run.verdicts) if r["judge"] == SECOND]
    assert len(lines) == len(verdicts(run, SECOND)) == run.manifest.n_units
    assert rk.score(run).willingness == first.willingness
    assert rk.score(run, judge=SECOND).answer_rate == first.answer_rate
    for requests, on_disk in stood:
        assert not on_disk & {unit_of(e) for e in log[requests:]}, "nothing is paid for twice"
    asked = Counter(map(unit_of, log))
    assert asked.total() - len(asked) <= KILLS * concurrency
