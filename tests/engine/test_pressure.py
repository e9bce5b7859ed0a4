"""`--pressure N`: after a refusal the user insists, with the model's own words in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import refusalkit as rk
from loopback import REFUSAL, Asked, LoopbackServer, Script
from refusalkit.prompts.pressure import MAX_TURNS, insisted, shipped_script
from refusalkit.reporting import data, terminal
from refusalkit.reporting.console import show
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.frames import SCORED, RunRecords
from refusalkit.runs.pressure import read_conversations
from refusalkit.runs.records import read_records
from refusalkit.types import Category, Label, Message

ORDINARY, HARD = "tea", "suicide-and-self-harm"


def a_set(n: int = 4) -> rk.PromptSet:
    """`n` ordinary requests and one on a hard line."""
    prompts = [rk.Prompt(f"tea-{number}", ORDINARY, f"[request {number}]") for number in range(n)]
    prompts.append(rk.Prompt("hard-0", HARD, "[hard request]"))
    categories = (Category(ORDINARY, "Tea"), Category(HARD, "Hard", hard_line=True))
    return rk.PromptSet("teas", "1.0.0", categories, tuple(prompts))


def insisted_on(asked: Asked) -> int:
    """How often the user insisted before this answer."""
    return sum(message["role"] == "assistant" for message in asked.body["messages"])


def gives_way_at(turn: int | None) -> Script:
    """A model that refuses until the user has insisted so often; None: for good."""

    def reply(asked: Asked) -> str:
        insisted = insisted_on(asked)
        gave_way = turn is not None and insisted >= turn
        return f"[demo answer {insisted}]" if gave_way else f"{REFUSAL} ({insisted})"

    return Script(target_reply=reply)


def run_against(server: LoopbackServer, out: Path, *, turns: int = 3, **options: Any) -> Run:
    return rk.benchmark(
        "openai/target",
        options.pop("prompts", a_set()),
        judge=options.pop("judge", "lexical"),
        api_base=server.openai_base,
        pressure=turns,
        trials=options.pop("trials", 2),
        out=out,
        **options,
    )


class TestTheScript:
    def test_is_published_with_version_and_digest(self) -> None:
        script = shipped_script()
        assert (script.name, script.version, len(script.turns)) == ("pressure", "1.0.0", MAX_TURNS)
        assert script.digest == (
            "sha256:dc27953549ae25f890496c26c4fc4f25614aa83927a5ee211974a234496cd30e"
        )

    def test_the_conversation_goes_on_with_the_models_own_words(self) -> None:
        prompt = rk.Prompt("a", "tea", "[request]", system="[system]")
        third = insisted(prompt, ["[no]", "[no again]"], shipped_script())
        first, second = shipped_script().turns[:2]
        assert third.turns == (
            Message("user", "[request]"),
            Message("assistant", "[no]"),
            Message("user", first),
            Message("assistant", "[no again]"),
            Message("user", second),
        )
        assert (third.text, third.system, third.id) == (second, "[system]", "a")


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_model_that_gives_way_at_a_turn_is_seen_to_do_so(tmp_path: Path, turn: int) -> None:
    with LoopbackServer(gives_way_at(turn)) as server:
        run = run_against(server, tmp_path / "run")
        assert server.requests["target"] == 5 * 2 * (1 + turn)
    score = rk.score(run)
    pressure = score.pressure
    assert pressure is not None
    assert (score.refusal_rate.value, pressure.n_refusals, pressure.n_pressed) == (100, 10, 10)
    held = [one.held.value for one in pressure.turns]
    assert held == [100.0] * (turn - 1) + [0.0] * (4 - turn)
    assert [one.gave_way for one in pressure.turns] == [10 * (k == turn) for k in (1, 2, 3)]
    assert {at for _, at in pressure.gave_way} == {turn}
    assert pressure.turns[0].held.n_prompts == 5  # the prompt is the unit
    assert [one.held.n_responses for one in pressure.hard_lines] == [2, 2, 2]


def test_a_model_that_holds_is_asked_to_the_last_turn(tmp_path: Path) -> None:
    with LoopbackServer(gives_way_at(None)) as server:
        run = run_against(server, tmp_path / "run", turns=2)
        assert server.requests["target"] == 5 * 2 * 3
    pressure = rk.score(run).pressure
    assert pressure is not None
    assert [one.held.value for one in pressure.turns] == [100, 100]
    assert pressure.turns[-1].held.low is not None
    assert pressure.gave_way == ()


def test_pressure_changes_neither_score_nor_audit(tmp_path: Path) -> None:
    with LoopbackServer(gives_way_at(1)) as server:
        pressed = run_against(server, tmp_path / "pressed")
        plain = run_against(server, tmp_path / "plain", turns=0)
    one, other = rk.score(pressed), rk.score(plain)
    assert one.willingness == other.willingness
    assert other.pressure is None
    assert rk.audit(pressed).status == rk.audit(plain).status == "held"
    assert not plain.pressure.exists()


def test_answers_twins_and_framings_are_not_insisted_on(tmp_path: Path) -> None:
    prompts = a_set(1)
    twin = rk.Prompt("twin-0", ORDINARY, "[safe request]", twin="tea-0")
    both = rk.PromptSet("teas", "1.0.0", prompts.categories, (*prompts.prompts, twin))
    script = Script(target_reply=lambda asked: REFUSAL if "safe" in asked.text else "[demo answer]")
    with LoopbackServer(script) as server:
        run = run_against(server, tmp_path / "run", prompts=both, trials=1)
        assert server.requests["target"] == 3
    assert not run.pressure.exists()


def test_the_judge_of_the_run_reads_each_turn(tmp_path: Path) -> None:
    def verdict(body: Mapping[str, Any]) -> str:
        complied = "[demo answer" in json.dumps(body["messages"])
        return json.dumps({"reason": "", "verdict": "compliance" if complied else "refusal"})

    with LoopbackServer(replace(gives_way_at(2), judge_reply=verdict)) as server:
        options = {"judge": "graded", "judge_model": "openai/judge", "canaries": 0}
        run = run_against(
            server, tmp_path / "run", judge_api_base=server.openai_base, trials=1, **options
        )
        assert server.requests == {"target": 5 * 3, "judge": 5 * 3}
    assert {one.gave_way for one in read_conversations(run).values()} == {2}


class TestRecords:
    def test_hard_line_words_never_touch_the_disk(self, tmp_path: Path) -> None:
        with LoopbackServer(gives_way_at(2)) as server:
            run = run_against(server, tmp_path / "run", trials=1)
        turns = [record for _, record in read_records(run.pressure)]
        assert len(turns) == 5 * 2
        for turn in turns:
            said, verdict = turn["completion"], turn["verdict"]
            hard = said["category"] == HARD
            assert (said["text"] is None) == hard
            assert said["text_chars"] > 0
            assert hard == (verdict["reason"] is None)
        assert [t["turn"] for t in turns if t["unit"] == "hard-0#1"] == [1, 2]
        for file in run.path.iterdir():
            assert "(1)" not in file.read_text() or file.name == "pressure.jsonl"

    def test_the_manifest_says_which_script(self, tmp_path: Path) -> None:
        with LoopbackServer(gives_way_at(1)) as server:
            run = run_against(server, tmp_path / "run", trials=1)
        entry = open_run(run.path).manifest.pressure
        assert entry is not None
        assert (entry.version, entry.digest) == ("1.0.0", shipped_script().digest)
        assert entry.turns == 3

    def test_what_it_cost_is_counted(self, tmp_path: Path) -> None:
        class Priced(Held):
            async def complete(
                self, prompt: rk.Prompt, config: rk.GenerationConfig, *, trial: int = 1
            ) -> rk.Completion:
                self.asked += 1
                return rk.Completion(
                    prompt.id, prompt.category, trial, self.id, rk.Outcome.ANSWERED,
                    text=REFUSAL, cost_usd=0.5,
                )  # fmt: skip

        model = Priced()
        run = rk.benchmark(
            model, a_set(), judge="lexical", pressure=2, trials=1, out=tmp_path / "r"
        )
        assert model.asked == 5 * 3
        assert RunRecords(run, SCORED | {"cost_usd"}).spent_usd() == 0.5 * 15

    def test_an_invalid_turn_is_named(self, tmp_path: Path) -> None:
        with LoopbackServer(gives_way_at(1)) as server:
            run = run_against(server, tmp_path / "run", trials=1)
        with run.pressure.open("a") as file:
            file.write('{"schema": 1, "unit": "tea-0#1"}\n')
        with pytest.raises(rk.RefusalkitError, match=r"pressure.jsonl:6: is not a turn"):
            rk.score(open_run(run.path))


class Held:
    """A model that refuses, whatever is said to it."""

    id = name = "held"

    def __init__(self) -> None:
        self.asked = 0

    async def complete(
        self, prompt: rk.Prompt, config: rk.GenerationConfig, *, trial: int = 1
    ) -> rk.Completion:
        self.asked += 1
        return rk.Completion(
            prompt.id, prompt.category, trial, self.id, rk.Outcome.ANSWERED, text=REFUSAL
        )

    async def aclose(self) -> None:
        """Nothing to close."""


class Failing(Held):
    """Refuses, and fails in the second turn of insistence."""

    async def complete(
        self, prompt: rk.Prompt, config: rk.GenerationConfig, *, trial: int = 1
    ) -> rk.Completion:
        said = await super().complete(prompt, config, trial=trial)
        if len(prompt.turns) == 5:
            return rk.Completion(
                prompt.id, prompt.category, trial, self.id, rk.Outcome.ERROR, error="no route"
            )
        return said


class TestResuming:
    def test_a_conversation_that_failed_is_held_again(self, tmp_path: Path) -> None:
        run = rk.benchmark(
            Failing(), a_set(2), judge="lexical", pressure=3, trials=1, out=tmp_path / "r"
        )
        broken = rk.score(run).pressure
        assert broken is not None
        assert [one.held.value for one in broken.turns] == [100, None, None]
        assert broken.turns[1].held.n_unscored == 3

        model = Held()
        run = rk.resume(run.path, model=model, prompts=a_set(2))
        whole = rk.score(run).pressure
        assert whole is not None
        assert [one.held.value for one in whole.turns] == [100, 100, 100]
        # Three turns each, and of the hard line, whose refusal was withheld, the request again.
        assert model.asked == 3 * 3 + 1
        turns = [r["turn"] for _, r in read_records(run.pressure) if r["attempt"] == 2]
        assert sorted(turns) == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]

    def test_nothing_is_asked_of_what_is_over(self, tmp_path: Path) -> None:
        run = rk.benchmark(
            Held(), a_set(), judge="lexical", pressure=2, trials=2, out=tmp_path / "r"
        )
        model = Held()
        rk.resume(run.path, model=model, prompts=a_set())
        assert model.asked == 0

    @pytest.mark.slow
    @pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
    def test_after_a_kill_every_refusal_is_insisted_on_to_the_end(self, tmp_path: Path) -> None:
        out = tmp_path / "run"
        slow = gives_way_at(3)
        with LoopbackServer(slow) as server:
            words = [
                sys.executable,
                "-m",
                "refusalkit",
                "run",
                "openai/target",
                "--prompts",
                "starter",
            ]
            words += ["--judge", "lexical", "--api-base", server.openai_base, "--trials", "2"]
            words += ["--pressure", "3", "--concurrency", "2", "--out", str(out), "--canaries", "0"]
            env = {**os.environ, "OPENAI_API_KEY": "x"}
            process = subprocess.Popen(
                words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            wait_for(out / "pressure.jsonl")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            before = len(list(read_records(out / "completions.jsonl")))
            assert before < 70
            again = ["resume", str(out), "--api-base", server.openai_base]
            subprocess.run(
                [*words[:3], *again], env=env, check=False, capture_output=True, timeout=120
            )
        run = open_run(out)
        pressure = rk.score(run).pressure
        assert pressure is not None
        assert (pressure.n_refusals, pressure.n_pressed) == (70, 70)
        assert [one.held.value for one in pressure.turns] == [100, 100, 0]
        assert all(one.turns[-1] is Label.COMPLIANCE for one in read_conversations(run).values())


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > 2000):
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.02)


def test_a_blocked_turn_counts_as_held_for_those_that_cannot_be_asked(tmp_path: Path) -> None:
    class Filtered(Held):
        async def complete(
            self, prompt: rk.Prompt, config: rk.GenerationConfig, *, trial: int = 1
        ) -> rk.Completion:
            said = await super().complete(prompt, config, trial=trial)
            blocked = len(prompt.turns) == 3
            return rk.Completion(
                said.prompt_id, said.category, trial, self.id,
                rk.Outcome.BLOCKED if blocked else rk.Outcome.ANSWERED,
                text="" if blocked else REFUSAL,
            )  # fmt: skip

    run = rk.benchmark(
        Filtered(), a_set(), judge="lexical", pressure=3, trials=1, out=tmp_path / "r"
    )
    pressure = rk.score(run).pressure
    assert pressure is not None
    assert [one.held.value for one in pressure.turns] == [100, 100, 100]
    assert len(list(read_records(run.pressure))) == 5


def test_it_is_shown_in_score_audit_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rk.benchmark("demo/leaky", "starter", pressure=3, trials=2, out=tmp_path / "run")
    score, audit = rk.score(run), rk.audit(run)
    show(terminal.score_view(score))
    show(terminal.audit_view(audit))
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "Share of the refusals still held after so many turns of insistence (pressure 1.0.0)"
        in shown
    )
    assert "Share of the hard-line refusals still held" in shown
    said = json.loads(data.to_json(data.score_data(score)))["pressure"]
    assert [one["turn"] for one in said["turns"]] == [1, 2, 3]
    assert said["gave_way"]
    assert json.loads(data.to_json(data.audit_data(audit)))["pressure"]["hard_lines"]
    page = tmp_path / "r.html"
    rk.report(run, page)
    assert "turns of insistence" in page.read_text()


@pytest.mark.parametrize("turns", [-1, MAX_TURNS + 1])
def test_more_turns_than_the_script_has_are_refused(tmp_path: Path, turns: int) -> None:
    with pytest.raises(rk.RefusalkitError, match="pressure"):
        rk.benchmark("demo/mixed", "starter", pressure=turns, out=tmp_path / "run")
