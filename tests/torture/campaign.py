"""Runs of the real command, killed at random moments behind a faulty wire, and what must hold."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loopback import REFUSAL, Asked, Exchange, Fault, LoopbackServer, Script, chance
from refusalkit.prompts.load import load_prompts
from refusalkit.runs.canaries import choose_canaries
from refusalkit.runs.folder import (
    Run,
    open_run,
)
from refusalkit.runs.records import read_records

from .wire import FaultyWire

TESTS = Path(__file__).resolve().parents[1]
SEED, CONCURRENCY, CANARIES = 1000, 8, 8
FILES = ("completions", "verdicts", "canaries")
# Nothing that the command does may take longer.
DEADLINE_S = 60.0
# What happens to a session of work; most are killed.
ACTS = (
    *("kill",) * 16,
    "sigterm",
    "sigint",
    "sigint_twice",
    "two_processes",
    "disk_full",
    "disk_error",
    "clock",
)


@dataclass
class Tally:
    """What a campaign met. `violations` is empty where all held."""

    acts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    resumes: int = 0
    requests: int = 0
    repeated: int = 0  # asked again because a kill or the wire took the answer
    duplicates: int = 0  # asked again although it was on disk
    lost: int = 0
    hung: int = 0
    peak_mib: float = 0.0
    longest_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """SIGKILLs that hit a process at work."""
        return self.acts["kill"]

    def table(self) -> str:
        """The figures as a Markdown table, the faults by kind at its end."""
        others = {name: n for name, n in sorted(self.acts.items()) if name != "kill"}
        rows = [
            ("runs completed", self.runs),
            ("SIGKILLs at work", self.kills),
            ("other mishaps", ", ".join(f"{name} {n}" for name, n in others.items()) or 0),
            ("resumes", self.resumes),
            ("requests answered", self.requests),
            ("faults on the wire", self.faults.total()),
            ("asked again, answer lost in flight", self.repeated),
            ("paid twice: asked again, answer on disk", self.duplicates),
            ("records lost", self.lost),
            (f"hung for {DEADLINE_S:.0f} s", self.hung),
            ("peak memory of the command", f"{self.peak_mib:.0f} MiB"),
            ("longest session", f"{self.longest_s:.1f} s"),
            ("violations", len(self.violations)),
        ]
        rows += [(f"fault: {kind}", n) for kind, n in sorted(self.faults.items())]
        shown = [f"{value:,}" if isinstance(value, int) else value for _, value in rows]
        lines = [f"| {name} | {value} |" for (name, _), value in zip(rows, shown, strict=True)]
        violations = [f"\nVIOLATION: {text}" for text in self.violations]
        return "\n".join(["| | |", "|---|---|", *lines, *violations])


class Campaign:
    """`kills` SIGKILLs, or `minutes`, whichever ends first, in runs of `prompts` x `trials`.

    The moments and the faults are drawn by `seed`. The peak memory may not pass `most_mib`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kills: int,
        seed: int = 0,
        minutes: float = 60.0,
        prompts: int = 30,
        trials: int = 4,
        share: float = 0.1,
        acts: tuple[str, ...] = ACTS,
        most_mib: float = 600.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.tally = Tally()
        self._folder, self._kills, self._seed, self._minutes = folder, kills, seed, minutes
        self._prompts, self._trials, self._share = prompts, trials, share
        self._acts, self._most_mib, self._say = acts, most_mib, say
        self._dice = random.Random(f"torture {seed}")
        self._texts = {prompt.text: prompt.id for prompt in load_prompts("starter").prompts}
        self._canaries = choose_canaries(CANARIES, graded=True)
        self._script = Script(
            target_reply=self._reply,
            # Each by prompt, so that an undisturbed run holds the same.
            faults=(
                *(
                    Fault(kind, probability=0.1, per="key")
                    for kind in ("content_filter", "dialect_filter", "empty", "length")
                ),
                Fault("dialect", where="any", probability=0.7, per="key"),
            ),
        )

    # What the provider says, and what it was asked.

    def _unit(self, seed: object, text: str) -> str:
        assert isinstance(seed, int)
        return f"{self._texts[text]}#{seed - SEED + 1}"

    def _reply(self, asked: Asked) -> str:
        """An answer that hangs on prompt and trial alone, and names them."""
        unit = self._unit(asked.body["seed"], asked.text)
        said = REFUSAL if chance("refuses", unit) < 0.4 else "[demo answer]"
        return f"<{unit}> {said} {'.' * 60}"

    def _asked_for(self, exchange: Exchange) -> tuple[str, str]:
        if exchange.role == "target":
            return "target", self._unit(exchange.params["seed"], exchange.text)
        answer = exchange.text.split("BEGIN ANSWER", 1)[1]
        for canary in self._canaries:
            if canary.answer in answer:
                return "canary", canary.id
        return "judge", answer[answer.index("<") + 1 : answer.index(">")]

    # The campaign.

    def run(self) -> Tally:
        """Do it all; what did not hold is in the tally's `violations`."""
        until = time.monotonic() + 60 * self._minutes
        with LoopbackServer(self._script, latency_s=0.02) as server:
            expected = self._undisturbed(server)
            number = 0
            while self.tally.kills < self._kills and time.monotonic() < until:
                server.reset()
                seed = f"{self._seed} {number}"
                with FaultyWire(server.port, seed=seed, share=self._share) as wire:
                    _OneRun(self, server, wire, self._folder / f"run-{number}", expected).work(
                        lambda: self.tally.kills < self._kills and time.monotonic() < until
                    )
                    self.tally.faults += wire.faults
                number += 1
                self._say(
                    f"{self.tally.kills} kills, {self.tally.runs} runs, "
                    f"{self.tally.requests} requests, {len(self.tally.violations)} violations"
                )
        if self.tally.peak_mib > self._most_mib:
            self.violated(f"{self.tally.peak_mib:.0f} MiB at the peak")
        return self.tally

    def violated(self, what: str) -> None:
        """Write down what did not hold."""
        self.tally.violations.append(what)
        self._say(f"VIOLATION: {what}")

    def command(self, out: Path, base: str) -> list[str]:
        """The arguments that start a run."""
        options = {
            "api-base": base,
            "judge": "graded",
            "judge-model": "openai/judge-x",
            "judge-api-base": base,
            "prompts": "starter",
            "limit": self._prompts,
            "trials": self._trials,
            "seed": SEED,
            "max-tokens": 64,
            "timeout": 1.5,
            "max-retries": 3,
            "max-unscored": 100,
            "concurrency": CONCURRENCY,
            "canaries": CANARIES,
            "out": out,
        }
        flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return ["run", "openai/target", *flags]

    def _undisturbed(self, server: LoopbackServer) -> dict[str, tuple[object, ...]]:
        out = self._folder / "undisturbed"
        command = [sys.executable, "-m", "refusalkit", *self.command(out, server.openai_base)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"the undisturbed run failed: {done.stderr}")
        return standing(open_run(out))


class _OneRun:
    """One run folder: sessions of work until it is complete, each followed by the checks."""

    def __init__(
        self,
        campaign: Campaign,
        server: LoopbackServer,
        wire: FaultyWire,
        out: Path,
        expected: dict[str, tuple[object, ...]],
    ) -> None:
        self._campaign, self._server, self._wire, self._out = campaign, server, wire, out
        self._expected = expected
        self._tally, self._dice = campaign.tally, campaign._dice
        self._bytes = dict.fromkeys(FILES, b"")
        self._settled: dict[str, set[str]] = {"target": set(), "judge": set(), "canary": set()}
        self._checked = 0
        self._said = out.parent / f"{out.name}.stderr"

    def work(self, go_on: Callable[[], bool]) -> None:
        """Sessions until the run is complete; once `go_on` says no, undisturbed ones."""
        calm = 0
        while calm < 8:
            act = self._dice.choice(self._campaign._acts) if go_on() else "none"
            if act == "none":
                calm += 1
                self._wire.share = 0.0
            code = self._session(act)
            self._check()
            if code == 0:
                break
        else:
            self._campaign.violated(f"{self._out.name}: not complete after {calm} calm sessions")
            return
        self._tally.runs += 1
        self._tally.requests += len(self._server.log)
        asked = Counter(map(self._campaign._asked_for, self._server.log))
        self._tally.repeated += asked.total() - len(asked)
        try:
            if standing(open_run(self._out)) != self._expected:
                self._campaign.violated(f"{self._out.name}: not what an undisturbed run holds")
        except Exception as error:
            self._campaign.violated(f"{self._out.name}: {type(error).__name__}: {error}")
        else:
            shutil.rmtree(self._out)
            self._said.unlink(missing_ok=True)

    def _session(self, act: str) -> int:
        """Start the command, do it harm; its exit status."""
        begun = (self._out / "manifest.json").exists()
        if begun:
            self._tally.resumes += 1
            words = ["resume", str(self._out), "--max-unscored", "100"]
        else:
            # Killed before there was a manifest: nothing was asked yet.
            shutil.rmtree(self._out, ignore_errors=True)
            words = self._campaign.command(self._out, self._wire.openai_base)
        environment = {**os.environ, "TORTURE_CHECKPOINT": "20"}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(TESTS), environment.get("PYTHONPATH")])
        )
        if act in ("disk_full", "disk_error", "clock"):
            number = errno.ENOSPC if act == "disk_full" else errno.EIO
            if act == "clock":
                environment["TORTURE_CLOCK"] = "1"
            else:
                environment["TORTURE_DISK"] = f"{number}:{self._dice.randrange(1, 60)}"
        command = [sys.executable, "-m", "torture.victim", *words]
        more, delay = self._dice.randrange(0, 60), self._dice.uniform(0, 0.05)
        before, started = self._wire.requests, time.monotonic()
        with self._said.open("wb") as said:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=said, env=environment
            )
            ended = _Ended(process)
            if act not in ("none", "disk_full", "disk_error", "clock"):
                while ended.poll() is None and time.monotonic() - started < DEADLINE_S:
                    ready = begun or (self._out / "manifest.json").exists()
                    if ready and self._wire.requests - before >= more:
                        break
                    time.sleep(0.002)
                time.sleep(delay)
                self._harm(act, process, ended)
            while ended.poll() is None:
                if time.monotonic() - started > DEADLINE_S:
                    self._tally.hung += 1
                    self._campaign.violated(f"{self._out.name}: hung after {act}")
                    os.kill(process.pid, signal.SIGKILL)
                    started = float("inf")
                time.sleep(0.002)
        if started != float("inf"):
            self._tally.longest_s = max(self._tally.longest_s, time.monotonic() - started)
        self._tally.peak_mib = max(self._tally.peak_mib, ended.peak_mib)
        code = ended.poll()
        assert code is not None
        self._judge_end(act, code)
        return code

    def _harm(self, act: str, process: subprocess.Popen[bytes], ended: _Ended) -> None:
        if ended.poll() is not None:
            return
        if act == "two_processes":
            second = [sys.executable, "-m", "refusalkit", "resume", str(self._out)]
            other = subprocess.run(
                second, capture_output=True, text=True, timeout=DEADLINE_S, check=False
            )
            refused = other.returncode == 4 and "another process is writing" in other.stderr
            if not refused and ended.poll() is None:
                self._campaign.violated(f"two wrote one run: {other.returncode} {other.stderr}")
            return
        numbers = {
            "kill": [signal.SIGKILL],
            "sigterm": [signal.SIGTERM],
            "sigint": [signal.SIGINT],
            "sigint_twice": [signal.SIGINT, signal.SIGINT],
        }
        for number in numbers[act]:
            if ended.poll() is None:
                os.kill(process.pid, number)
                time.sleep(0.02)

    def _judge_end(self, act: str, code: int) -> None:
        """Count what happened; a traceback or an unknown exit status is a violation."""
        said = self._said.read_text("utf-8", "replace")
        landed = code == -signal.SIGKILL if act == "kill" else act != "none"
        if landed:
            self._tally.acts[act] += 1
        # A signal may come before its handler is set.
        early = {-signal.SIGTERM, -signal.SIGINT, 130} if act.startswith("sig") else set()
        allowed = {0, 3, 4} | early | ({-signal.SIGKILL} if act == "kill" else set())
        if act.startswith("sig") and "Fatal Python error: init" in said:
            return  # the signal came while Python itself was starting
        quiet = "Traceback" not in said or act.startswith("sig")
        if code not in allowed or not quiet or "a defect of" in said:
            self._campaign.violated(f"{self._out.name}: exit {code} after {act}: {said[-2000:]}")

    def _check(self) -> None:
        """What was on disk is there unchanged, reads well, and was not asked again."""
        for name in FILES:
            path = self._out / f"{name}.jsonl"
            raw = path.read_bytes() if path.exists() else b""
            if not raw.startswith(self._bytes[name]):
                gone = self._bytes[name].count(b"\n") - raw.count(b"\n")
                self._tally.lost += max(1, gone)
                self._campaign.violated(f"{path}: what was written has changed")
            self._bytes[name] = raw[: raw.rfind(b"\n") + 1]
        log = self._server.log
        for exchange in log[self._checked :]:
            role, what = self._campaign._asked_for(exchange)
            if what in self._settled[role]:
                self._tally.duplicates += 1
                self._campaign.violated(f"{self._out.name}: {role} {what} was on disk, asked again")
        self._checked = len(log)
        if (self._out / "manifest.json").exists():
            self._settle()

    def _settle(self) -> None:
        """What need never be asked again, from the records."""
        try:
            json.loads((self._out / "manifest.json").read_bytes())
            rows = [r for _, r in read_records(self._out / "completions.jsonl")]
            verdicts = [r for _, r in read_records(self._out / "verdicts.jsonl")]
            canaries = self._out / "canaries.jsonl"
            asked = [r for _, r in read_records(canaries)] if canaries.exists() else []
        except Exception as error:
            self._campaign.violated(f"{self._out.name}: {type(error).__name__}: {error}")
            return
        answered = Counter(r["unit"] for r in rows if r["outcome"] != "error")
        if twice := [unit for unit, n in answered.items() if n > 1]:
            # A withheld answer that has no verdict is gone: the one case of asking again.
            withheld = {r["unit"] for r in rows if r["text"] is None}
            for unit in set(twice) - withheld:
                self._campaign.violated(f"{self._out.name}: {unit} is there {answered[unit]} times")
        stand = {r["unit"]: r["unscored"] != "judge_error" for r in verdicts}
        judged = {unit for unit, stands in stand.items() if stands and unit in answered}
        withheld = {r["unit"] for r in rows if r["outcome"] in ("answered", "truncated")}
        withheld &= {r["unit"] for r in rows if r["text"] is None}
        self._settled["target"] = set(answered) - (withheld - judged)
        self._settled["judge"] = judged
        self._settled["canary"] = {r["canary"] for r in asked if r["unscored"] != "judge_error"}


class _Ended:
    """A process's end and its peak memory, from the kernel's own account of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.peak_mib = 0.0

    def poll(self) -> int | None:
        if self._process.returncode is None:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                unit = 1024 * 1024 if sys.platform == "darwin" else 1024
                self.peak_mib = usage.ru_maxrss / unit
        return self._process.returncode


def standing(run: Run) -> dict[str, tuple[object, ...]]:
    """What counts of every unit: the last of several records."""
    found: dict[str, tuple[object, ...]] = {}
    fields = ("category", "outcome", "finish_reason", "text", "text_sha256", "filter_category")
    for _, record in read_records(run.completions):
        found[record["unit"]] = tuple(record[name] for name in fields)
    said = ("judge", "label", "unscored", "source", "reason")
    for _, record in read_records(run.verdicts):
        found[record["unit"]] = found[record["unit"]][:6] + tuple(record[name] for name in said)
    if {len(row) for row in found.values()} != {11}:
        raise ValueError("a unit has no verdict")
    return found
