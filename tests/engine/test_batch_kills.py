"""SIGKILL at any moment of a run in batches: nothing is lost and nothing is paid twice.

The provider runs in the test's own process; its log says what was asked, and so paid for. It keeps
its own time: batches end later, its list of batches lags behind, results come shuffled, some twice.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import refusalkit
from loopback import REFUSAL, Asked, Exchange, LoopbackServer, Script, chance
from refusalkit.prompts.load import load_prompts
from refusalkit.runs.canaries import choose_canaries
from refusalkit.runs.folder import open_run
from refusalkit.runs.records import read_records

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="SIGKILL")]

# `REFUSALKIT_BATCH_KILLS=100` for the long form, on the whole set five times.
KILLS = int(os.environ.get("REFUSALKIT_BATCH_KILLS", "10"))
LONG = KILLS >= 50
SEED = 1000
OPTIONS = {
    "judge": "graded",
    "prompts": "refusalkit-166",
    "limit": 166 if LONG else 24,
    "trials": 5 if LONG else 2,
    "seed": SEED,
    "max_tokens": 64,
}
CANARIES = choose_canaries(8, graded=True)
TEXTS = {prompt.text: prompt.id for prompt in load_prompts("refusalkit-166").prompts}

# Starts the command again and again, each in a process of its own: a fork of one that has imported
# all it needs, so that a kill meets its work and not its imports. The provider's day has half a
# second.
NURSERY = """
import json, os, sys, traceback
import aiohttp, anthropic, polars
import refusalkit.api.calibration, refusalkit.api.rejudging, refusalkit.api.runs
import refusalkit.judges.llm, refusalkit.models.anthropic, refusalkit.models.openai
from refusalkit.cli import script
from refusalkit.engine import batch_exchange, batching
batching.POLL_S, batch_exchange.LIST_LAG_S = 0.05, 0.4
for line in sys.stdin:
    words, said = json.loads(line)
    if not (child := os.fork()):
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.argv[:] = ["refusalkit", *words]
        try:
            script()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 99
        else:
            code = 0
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs the command line in processes that can be killed."""

    def __init__(self, said: Path) -> None:
        self._said = said
        self._parent = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._from = os.fdopen(self._parent.stdout.fileno(), "rb", closefd=False, buffering=0)

    def start(self, words: list[str]) -> int:
        """The id of a process that runs the command."""
        self._parent.stdin.write(json.dumps([words, str(self._said)]).encode() + b"\n")
        self._parent.stdin.flush()
        return int(self._line())

    def has_ended(self, within_s: float) -> bool:
        """Whether it has ended; `exit_code` is called once then."""
        return bool(select.select([self._from], [], [], within_s)[0])

    def exit_code(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        return int(self._line())

    def run(self, words: list[str], *, within_s: float = 90) -> int:
        """Run a command to its end."""
        self.start(words)
        assert self.has_ended(within_s), "it hangs"
        return self.exit_code()

    @property
    def said(self) -> str:
        """What the last one printed."""
        return self._said.read_text()

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            more = self._from.read(1)
            assert more, "the nursery is gone"
            line += more
        return line

    def close(self) -> None:
        """End it."""
        self._parent.stdin.close()
        self._parent.wait(30)
        self._parent.stdout.close()


@pytest.fixture
def nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    made = Nursery(tmp_path / "said.txt")
    yield made
    made.close()


def reply(asked: Asked) -> str:
    """An answer that depends on prompt and trial alone, and names them."""
    trial = asked.body.get("seed")
    # Anthropic's API has no seed: the trial of a prompt is how often it was asked before.
    number = asked.ask + 1 if trial is None else trial - SEED + 1
    unit = f"{TEXTS[asked.text]}#{number}"
    return f"<{unit}> {REFUSAL if chance('refuses', TEXTS[asked.text]) < 0.4 else '[demo answer]'}"


def asked_for(exchange: Exchange) -> tuple[str, str]:
    """(role, prompt or unit) of a request; for a canary ("canary", its id)."""
    if exchange.role == "target":
        seed = exchange.params.get("seed")
        name = TEXTS[exchange.text]
        return "target", name if seed is None else f"{name}#{seed - SEED + 1}"
    answer = exchange.text.split("BEGIN ANSWER", 1)[1]
    for canary in CANARIES:
        if canary.answer in answer:
            return "canary", canary.id
    return "judge", answer[answer.index("<") + 1 : answer.index(">")]


def killed(nursery: Nursery, words: list[str], out: Path, dice: random.Random) -> bool:
    """Start it and SIGKILL it a moment after a random step; False if it was done before that."""

    def steps() -> int:
        found = 0
        for name in ("batches", "completions", "verdicts"):
            path = out / f"{name}.jsonl"
            if path.exists():
                size = path.stat().st_size
                found += path.read_bytes().count(b"\n") if name == "batches" else bool(size)
        return found

    before = steps()
    process = nursery.start(words)
    wanted, delay = before + dice.randrange(1, 5), dice.choice((0, 0.002, 0.01, 0.05, 0.3))
    patience = time.monotonic() + dice.choice((0.5, 2, 8))
    while time.monotonic() < patience and steps() < wanted:
        if nursery.has_ended(0.001):
            break
    if not nursery.has_ended(delay * dice.random()):
        os.kill(process, signal.SIGKILL)
    code = nursery.exit_code()
    assert code in (-signal.SIGKILL, 0, 1), nursery.said
    return code < 0


def answers_file(path: Path) -> Path:
    """Recorded answers that name their units, a fifth of them to a hard line."""
    units = [(p, trial) for p in TEXTS.items() for trial in range(1, OPTIONS["trials"] + 1)]
    with path.open("w", encoding="utf-8") as file:
        for (text, name), trial in units[: OPTIONS["limit"] * OPTIONS["trials"]]:
            refuses = chance("refuses", name) < 0.4
            row = {
                "id": name,
                "trial": trial,
                "prompt": text,
                "category": "self-harm" if chance("hard", name) < 0.2 else "weapons",
                "response": f"<{name}#{trial}> {REFUSAL if refuses else '[demo answer]'}",
            }
            file.write(json.dumps(row) + "\n")
    return path


def labels(out: Path, judge: str | None = None) -> dict[str, object]:
    """The label of every unit by one judge, who judged each once."""
    run = open_run(out)
    rows = [r for _, r in read_records(run.verdicts) if r["judge"] == (judge or run.manifest.judge)]
    found = {r["unit"]: (r["label"], r["unscored"]) for r in rows}
    assert len(found) == len(rows), "one verdict a unit"
    return found


def last_step(journal: Path) -> str:
    """What of a batch was written down last before a kill: for which part, and which step."""
    kinds, step = {}, "nothing yet"
    for _, record in read_records(journal) if journal.exists() else ():
        kinds.setdefault(record["label"], record.get("kind"))
        step = f"{kinds[record['label']]} {record['event']}"
    return step


def standing(out: Path) -> dict[str, tuple[object, ...]]:
    """The outcome and label of every unit, with what an answer's text was."""
    run, found = open_run(out), {}
    for _, record in read_records(run.completions):
        assert record["unit"] not in found, "one completion a unit"
        found[record["unit"]] = tuple(record[name] for name in ("category", "outcome", "text"))
    for _, record in read_records(run.verdicts):
        before = found[record["unit"]]
        assert len(before) == 3, "one verdict a unit"
        found[record["unit"]] = (*before, record["label"], record["source"])
    return found


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_run_in_batches_that_is_killed_again_and_again_pays_for_nothing_twice(
    tmp_path: Path, nursery: Nursery, api: str
) -> None:
    dice = random.Random(f"batches {api}")
    kills, runs = 0, 0
    after: Counter[str] = Counter()
    with LoopbackServer(Script(target_reply=reply)) as server:
        server.batches.script.delay_s, server.batches.script.list_lag_s = 0.15, 0.15
        base = server.openai_base if api == "openai" else server.anthropic_base
        options = {**OPTIONS, "judge_model": f"{api}/judge-x", "api_base": base}
        options["judge_api_base"] = base
        alone = refusalkit.benchmark(f"{api}/target", out=tmp_path / "alone", **options)
        expected = refusalkit.score(alone).willingness
        while kills < KILLS:
            server.reset()
            out, runs = tmp_path / f"run{runs}", runs + 1
            start = ["run", f"{api}/target", "--out", str(out), "--batch", "--wait"]
            for name, value in options.items():
                start += [f"--{name.replace('_', '-')}", str(value)]
            resume = ["resume", str(out)]
            done, enough = False, kills + dice.randrange(5, 15)
            while not done and kills < min(KILLS, enough):
                command = resume if (out / "manifest.json").exists() else start
                done = not killed(nursery, command, out, dice)
                kills += not done
                journal = out / "batches.jsonl"
                if not done:
                    after[last_step(journal)] += 1
            command = resume if (out / "manifest.json").exists() else start
            assert nursery.run(command) in (0, 1), nursery.said
            run = open_run(out)
            assert run.manifest.sessions[-1].ended_because == "done"
            assert len(standing(out)) == run.manifest.n_units, "nothing lost"
            assert all(len(fields) == 5 for fields in standing(out).values())
            assert refusalkit.score(run).willingness == expected
            if api == "openai":  # where each trial's answer names its own unit in both
                assert standing(out) == standing(alone.path)

            asked = Counter(map(asked_for, server.log))
            allowed = {"target": 1 if api == "openai" else OPTIONS["trials"], "judge": 1}
            twice = {what: n for what, n in asked.items() if n > allowed.get(what[0], 99)}
            assert not twice, "nothing paid twice"
            text = (out / "batches.jsonl").read_text()
            withheld = {unit for unit, fields in standing(out).items() if fields[2] is None}
            assert withheld, "hard lines are among them"
            assert "[demo answer]" not in text
            assert base not in text
    assert kills >= KILLS
    print(f"{api}: {kills} kills in {runs} runs, by the journal's last step: {dict(after)}")


def answer_files(folder: Path, until: threading.Event) -> None:
    """Answer each file of requests, all lines at once, as `vllm run-batch` does in its order."""
    while not until.wait(0.02):
        for asked in sorted(folder.glob("rk-*.jsonl")):
            results = asked.with_name(f"{asked.stem}.results.jsonl")
            if asked.name.endswith(".results.jsonl") or results.exists():
                continue
            rows = []
            for name, unit in requests_in(asked):
                refuses = chance("refuses", unit.rpartition("#")[0]) < 0.4
                text = f"<{unit}> {REFUSAL if refuses else '[demo answer]'}"
                choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
                body = {"model": "target", "choices": [choice], "usage": None}
                response = {"status_code": 200, "request_id": "vllm-batch-1", "body": body}
                row = {"id": "vllm-1", "custom_id": name, "response": response, "error": None}
                rows.append(json.dumps(row) + "\n")
            half = results.with_suffix(".half")
            half.write_text("".join(rows), encoding="utf-8")
            half.rename(results)


def requests_in(path: Path) -> Iterator[tuple[str, str]]:
    """The ids and units in a file of requests."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = TEXTS[row["body"]["messages"][-1]["content"]]
        yield row["custom_id"], f"{prompt}#{row['body']['seed'] - SEED + 1}"


def test_a_run_through_files_that_is_killed_again_and_again_asks_for_nothing_twice(
    tmp_path: Path, nursery: Nursery
) -> None:
    dice = random.Random("files")
    kills, runs = 0, 0
    after: Counter[str] = Counter()
    until = threading.Event()
    with LoopbackServer(Script(target_reply=reply)) as server:
        server.batches.script.delay_s, server.batches.script.list_lag_s = 0.15, 0.15
        base = server.openai_base
        options = {**OPTIONS, "judge_model": "openai/judge-x", "judge_api_base": base}
        alone = refusalkit.benchmark(
            "openai/target", out=tmp_path / "alone", api_base=base, **options
        )
        while kills < KILLS:
            server.reset()
            runs += 1
            out, files = tmp_path / f"run{runs}", tmp_path / f"files{runs}"
            answering = threading.Thread(target=answer_files, args=(files, until))
            answering.start()
            where = ["--batch-to", str(files), "--batch", "--wait"]
            start = ["run", "hosted_vllm/target", "--out", str(out), *where]
            for name, value in options.items():
                start += [f"--{name.replace('_', '-')}", str(value)]
            try:
                done, enough = False, kills + dice.randrange(5, 15)
                while not done and kills < min(KILLS, enough):
                    words = ["resume", str(out), *where]
                    command = words if (out / "manifest.json").exists() else start
                    done = not killed(nursery, command, out, dice)
                    kills += not done
                    if not done:
                        after[last_step(out / "batches.jsonl")] += 1
                command = words if (out / "manifest.json").exists() else start
                assert nursery.run(command) in (0, 1), nursery.said
            finally:
                until.set()
                answering.join()
                until.clear()
            assert open_run(out).manifest.sessions[-1].ended_because == "done"
            assert standing(out) == standing(alone.path), "nothing lost"
            requests = (p for p in files.glob("rk-*.jsonl") if ".results" not in p.name)
            asked = Counter(unit for path in requests for _, unit in requests_in(path))
            assert set(asked.values()) == {1}, "nothing asked twice"
            judged = Counter(map(asked_for, server.log))
            assert not {what: n for what, n in judged.items() if what[0] == "judge" and n > 1}
            assert {what[0] for what in judged} <= {"judge", "canary"}
    assert kills >= KILLS
    print(f"files: {kills} kills in {runs} runs, by the journal's last step: {dict(after)}")


@pytest.mark.parametrize("command", ["grade", "regrade"])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_judging_in_batches_that_is_killed_again_and_again_pays_for_nothing_twice(
    tmp_path: Path, nursery: Nursery, api: str, command: str
) -> None:
    dice = random.Random(f"batches {api} {command}")
    kills, runs = 0, 0
    after: Counter[str] = Counter()
    answers = answers_file(tmp_path / "answers.jsonl")
    with LoopbackServer(Script()) as server:
        server.batches.script.delay_s, server.batches.script.list_lag_s = 0.15, 0.15
        base = server.openai_base if api == "openai" else server.anthropic_base
        where = {"judge_api_base": base, "canaries": 8, "hard_line": ["self-harm"]}
        alone = refusalkit.grade(
            answers, "graded", judge_model=f"{api}/judge-x", out=tmp_path / "alone", **where
        )
        assert alone.run is not None
        expected = labels(alone.run.path)
        while kills < KILLS:
            server.reset()
            runs += 1
            # A run is judged again by another judge each time, and graded anew.
            model = f"{api}/judge-{runs}"
            out = tmp_path / f"graded{runs}" if command == "grade" else alone.run.path
            words = ["grade", str(answers), "--out", str(out), "--hard-line", "self-harm"]
            if command == "regrade":
                words = ["regrade", str(out)]
            words += ["--judge", "graded", "--judge-model", model, "--judge-api-base", base]
            start = [*words, "--batch", "--wait"]
            done, enough = False, kills + dice.randrange(5, 15)
            while not done and kills < min(KILLS, enough):
                done = not killed(nursery, start, out, dice)
                kills += not done
                if not done:
                    after[last_step(out / "batches.jsonl")] += 1
            assert nursery.run(start) == 0, nursery.said
            assert open_run(out).manifest.sessions[-1].ended_because == "done"
            assert labels(out, f"graded:{model}") == expected, "nothing lost"
            asked = Counter(map(asked_for, server.log))
            twice = {what: n for what, n in asked.items() if what[0] == "judge" and n > 1}
            assert not twice, "nothing paid twice"
            completions = [r["unit"] for _, r in read_records(out / "completions.jsonl")]
            assert len(set(completions)) == len(completions) == len(expected)
            text = (out / "batches.jsonl").read_text()
            assert "demo" not in text
            assert base not in text
            for path in out.glob("*.jsonl"):
                hard = [row for _, row in read_records(path) if row.get("category") == "self-harm"]
                assert not any(row.get("text") for row in hard), "hard lines are withheld"
    assert kills >= KILLS
    print(f"{command} {api}: {kills} kills in {runs} runs, by the last step: {dict(after)}")
