"""SIGKILL at any moment: after resume the run equals one that was never killed.

Nothing that was on disk is asked again.

The provider runs in the test's own process, so its log survives the kills and holds the texts: a
judge's request has no key of its own (its nonce is fresh each time), but the answer that it shows
names its unit, because the script writes prompt and trial into it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import refusalkit
from loopback import REFUSAL, Asked, Exchange, Fault, LoopbackServer, Script, chance
from refusalkit.prompts.load import load_prompts
from refusalkit.runs.canaries import CanaryCheck, choose_canaries
from refusalkit.runs.checkpoint import load_checkpoint
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.records import read_records

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="SIGKILL")]

KILLS = 5  # in each of the two runs; `make torture` has a thousand
PROMPTS, TRIALS, SEED = 20, 3, 1000
CONCURRENCY = 8
OPTIONS = {
    "judge": "graded",
    "judge_model": "openai/judge-x",
    "prompts": "starter",
    "limit": PROMPTS,
    "trials": TRIALS,
    "seed": SEED,
    "max_tokens": 64,
}
CANARIES = choose_canaries(8, graded=True)
TEXTS = {prompt.text: prompt.id for prompt in load_prompts("starter").prompts}


def unit_of_target(body_seed: object, text: str) -> str:
    assert isinstance(body_seed, int)
    return f"{TEXTS[text]}#{body_seed - SEED + 1}"


def reply(asked: Asked) -> str:
    """An answer that depends on prompt and trial alone, and names them."""
    unit = unit_of_target(asked.body["seed"], asked.text)
    said = REFUSAL if chance("refuses", unit) < 0.4 else "[demo answer]"
    return f"<{unit}> {said} {'.' * 60}"  # its first half still says what it is


# The same for the odd outcomes: whether a prompt meets one hangs on its text, not on when it came.
SCRIPT = Script(
    target_reply=reply,
    faults=(
        Fault("content_filter", probability=0.1, per="key"),
        Fault("empty", probability=0.1, per="key"),
        Fault("length", probability=0.1, per="key"),
        # A fault that goes away: the client asks again.
        Fault("drop", where="any", times=1, probability=0.1, per="key"),
    ),
)


def asked_for(exchange: Exchange) -> tuple[str, str]:
    """(role, unit) of a request; for a canary ("canary", its id)."""
    if exchange.role == "target":
        return "target", unit_of_target(exchange.params["seed"], exchange.text)
    answer = exchange.text.split("BEGIN ANSWER", 1)[1]
    for canary in CANARIES:
        if canary.answer in answer:
            return "canary", canary.id
    return "judge", answer[answer.index("<") + 1 : answer.index(">")]


@dataclass
class Snapshot:
    """What was on disk after a kill, and how much the provider had been asked by then."""

    requests: int
    completions: set[str] = field(default_factory=set)
    verdicts: set[str] = field(default_factory=set)
    canaries: set[str] = field(default_factory=set)


def snapshot(out: Path, server: LoopbackServer) -> Snapshot:
    seen = Snapshot(len(server.log))
    for name in ("completions", "verdicts"):
        path = out / f"{name}.jsonl"
        getattr(seen, name).update(record["unit"] for _, record in read_records(path))
    canaries = out / "canaries.jsonl"
    if canaries.exists():
        seen.canaries.update(record["canary"] for _, record in read_records(canaries))
    return seen


def killed(command: list[str], out: Path, server: LoopbackServer, dice: random.Random) -> bool:
    """Start it and SIGKILL it at a random moment; False if it was done before that."""
    before, started = server.ledger.n, (out / "manifest.json").exists()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        # Once it works, after so many requests and so many milliseconds more.
        more, delay = dice.randrange(0, 26), dice.uniform(0, 0.05)
        until = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < until:
            ready = started or (out / "manifest.json").exists()
            if ready and server.ledger.n - before >= more:
                break
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGKILL, 0), said.decode()
    return process.returncode != 0


def standing(run: Run) -> dict[str, tuple[object, ...]]:
    """The outcome and label of every unit, with what an answer's text was."""
    found: dict[str, tuple[object, ...]] = {}
    for _, record in read_records(run.completions):
        # Of a withheld answer nothing is left to judge: killed before its verdict, the model is
        # asked again. The last one counts.
        assert record["unit"] not in found or record["text"] is None, "one completion a unit"
        fields = ("category", "outcome", "finish_reason", "text", "text_sha256", "filter_category")
        found[record["unit"]] = tuple(record[name] for name in fields)
    for _, record in read_records(run.verdicts):
        before = found[record["unit"]]
        assert len(before) == 6, "one verdict a unit"
        fields = ("judge", "label", "unscored", "source", "reason")
        found[record["unit"]] = before[:6] + tuple(record[name] for name in fields)
    assert {len(fields) for fields in found.values()} == {11}
    return found


# The command, with a checkpoint after so many records.
CHECKPOINTED = """
from refusalkit.runs import state
from refusalkit.cli import script
state.EVERY = 9
script()
"""


@pytest.mark.parametrize(
    "command", [["-m", "refusalkit"], ["-c", CHECKPOINTED]], ids=["short", "with checkpoints"]
)
def test_a_run_killed_again_and_again_equals_one_that_was_never_killed(
    tmp_path: Path, command: list[str]
) -> None:
    dice = random.Random(f"kill {command[0]}")
    out = tmp_path / "killed"
    with LoopbackServer(SCRIPT, latency_s=0.03) as server:
        bases = {"api_base": server.openai_base, "judge_api_base": server.openai_base}
        undisturbed = refusalkit.benchmark(
            "openai/target", **OPTIONS, **bases, concurrency=64, out=tmp_path / "undisturbed"
        )
        expected = standing(undisturbed)
        assert len(expected) == PROMPTS * TRIALS
        server.reset()

        python = [sys.executable, *command]
        options = {**OPTIONS, **bases, "concurrency": CONCURRENCY, "out": str(out)}
        start = [*python, "run", "openai/target"]
        for name, value in options.items():
            start += [f"--{name.replace('_', '-')}", str(value)]
        resume = [*python, "resume", str(out)]

        snapshots, gone_on_from = [], set()
        for kill in range(KILLS):
            if killed(resume if kill else start, out, server, dice):
                snapshots.append(snapshot(out, server))
                # Whatever moment it was, what lies there is whole.
                if (found := load_checkpoint(open_run(out))) is not None:
                    gone_on_from.add(found.n_records)
        assert len(snapshots) == KILLS, "every kill hit a run that was at work"
        ended = subprocess.run(resume, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode in (0, 1), ended.stderr
        log = server.log

    assert len(gone_on_from) > 1 if command[0] == "-c" else not gone_on_from
    run = open_run(out)
    assert run.manifest.sessions[-1].ended_because == "done"
    assert standing(run) == expected
    assert refusalkit.score(run).willingness == refusalkit.score(undisturbed).willingness
    assert refusalkit.score(run).canaries == CanaryCheck(asked=8, right=8)
    assert any(text is None for _, _, _, text, *_ in expected.values()), "hard lines are among them"

    # The provider's own log: nothing that was on disk was asked again.
    withheld = {unit for unit, fields in expected.items() if fields[3] is None}
    for seen in snapshots:
        assert seen.verdicts <= seen.completions, "no verdict is written before its completion"
        standing_on_disk = seen.completions - (withheld - seen.verdicts)
        later = [asked_for(exchange) for exchange in log[seen.requests :]]
        assert not standing_on_disk & {unit for role, unit in later if role == "target"}
        assert not seen.canaries & {name for role, name in later if role == "canary"}
        assert not seen.verdicts & {unit for role, unit in later if role == "judge"}
    # Each kill lost no more than what was in flight.
    for role in ("target", "judge", "canary"):
        asked = Counter(
            unit
            for exchange in log
            if exchange.fault != "drop"
            for who, unit in [asked_for(exchange)]
            if who == role
        )
        assert sum(asked.values()) - len(asked) <= KILLS * CONCURRENCY
    assert len(log) > len(expected)
