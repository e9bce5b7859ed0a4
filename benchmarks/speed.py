"""refusalkit beside what a user would take instead, in one run: wall time, CPU, memory.

A provider on loopback answers every request after 200 ms (`even`), after waits of that mean that
differ (`uneven`, log-normal, sigma 1) or at once (`instant`, `many`). Each prompt is answered and
then judged, 32 units in work at once. Nothing can be quicker than the physical limit,

    1,660 requests x 0.2 s / 32 = 10.4 s,

and the figure is the whole process, imports included, as a ratio to that limit or to a peer. With
uneven waits not even a client that costs nothing reaches it: towards the end some of its 32 are
done while others wait for a late answer. What such a client takes is reckoned and shown as `best
possible`. The waits are the same in each round, in another order. Rounds are interleaved, so that a
machine that gets slower does so for all. After each the provider says how many requests it
answered: a program that asked fewer or more ends the benchmark. Ours asks its 8 canaries on top.
`help` is `refusalkit --help` beside `inspect --version`.

    python benchmarks/speed.py [--runs 5] [--load even ...] [--peer ours openai ...] [--write FILE]

CPU is that of the process and its children; memory is the peak of the largest single process
among them, not their sum.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from environments import HERE, PEERS, Peer, machine, python_of
from server import waits_of

CONCURRENCY = 32
CANARIES = 8


@dataclass(frozen=True)
class Load:
    """How much is asked, how quickly it is answered (seconds), and of whom it can be asked."""

    name: str
    prompts: int
    trials: int
    wait: float
    sigma: float
    peers: tuple[str, ...] = tuple(PEERS)

    @property
    def requests(self) -> int:
        """A completion and a verdict for each unit."""
        return 2 * self.prompts * self.trials

    @property
    def limit_s(self) -> float | None:
        """The physical limit; None where the provider answers at once."""
        return self.requests * self.wait / CONCURRENCY or None

    def best_possible(self, seed: int) -> float:
        """Seconds of a client that costs nothing, each of whose workers judges what it asked."""
        waits = itertools.cycle(waits_of(self.wait, self.sigma, self.requests, seed))
        left = self.prompts * self.trials
        # When each answer in flight is there, and whether its verdict is still to be asked for.
        in_flight: list[tuple[float, bool]] = []
        now = 0.0
        while True:
            while left and len(in_flight) < CONCURRENCY:
                left -= 1
                heapq.heappush(in_flight, (now + next(waits), True))
            if not in_flight:
                return now
            now, unjudged = heapq.heappop(in_flight)
            if unjudged:
                heapq.heappush(in_flight, (now + next(waits), False))

    @property
    def title(self) -> str:
        """What is measured, in words."""
        if not self.requests:
            return "`refusalkit --help` and `inspect --version`"
        size = f"{self.prompts:,} prompts x {self.trials}, {self.requests:,} requests"
        if not self.wait:
            return f"{size}, answered at once"
        waits = f"log-normal, sigma {self.sigma:g}, mean" if self.sigma else "each after"
        return f"{size}, {waits} {self.wait * 1000:.0f} ms, limit {self.limit_s:.1f} s"


LOADS = {
    load.name: load
    for load in (
        Load("even", 166, 5, 0.2, 0.0),
        Load("uneven", 166, 5, 0.2, 1.0),
        Load("instant", 166, 5, 0.0, 0.0),
        # The others take minutes for each of these.
        Load("many", 20_000, 1, 0.0, 0.0, ("ours", "by-hand", "openai", "litellm")),
        Load("help", 0, 0, 0.0, 0.0, ("ours", "inspect")),
    )
}


@dataclass(frozen=True)
class Measured:
    """One run of one program: seconds, seconds, MiB."""

    wall: float
    cpu: float
    peak: float


def main() -> None:
    """Measure, and print a table for each load."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--load", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--write", type=Path, help="the Markdown, into this file too")
    parser.add_argument("--prompts", type=int, help="fewer, to see that all of it works")
    given = parser.parse_args()
    loads = [shrunk(LOADS[name], given.prompts) for name in given.load]
    asked = [PEERS[name] for name in given.peer if any(name in load.peers for load in loads)]
    where = machine()  # Its load before ours adds to it.
    for peer in asked:
        python_of(peer)
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)
        if given.write:
            given.write.write_text("\n".join(lines) + "\n")

    say(
        f"{where}, {datetime.now(UTC):%Y-%m-%d}. Medians of {given.runs} rounds, in brackets "
        "the extremes; CPU of the process and its children, memory of the largest of them."
    )
    say("\n" + "; ".join(f"{peer.name}: {peer.pins}" for peer in asked) + ".")
    for load in loads:
        peers = [peer for peer in asked if peer.name in load.peers]
        found: dict[str, list[Measured]] = {peer.name: [] for peer in peers}
        for seed in range(1, given.runs + 1):
            for peer in peers:
                with tempfile.TemporaryDirectory() as out:
                    found[peer.name].append(measure(peer, load, Path(out), seed))
        say(report(load, found))


def shrunk(load: Load, prompts: int | None) -> Load:
    """The same load with at most so many prompts."""
    if prompts is None:
        return load
    return Load(
        load.name, min(load.prompts, prompts), load.trials, load.wait, load.sigma, load.peers
    )


@contextmanager
def provider(load: Load, seed: int = 1) -> Iterator[str]:
    """The provider in a process of its own; `seed` orders its waits. Yields its base URL."""
    words = ["--wait", str(load.wait), "--sigma", str(load.sigma), "--seed", str(seed)]
    words += ["--draws", str(load.requests)]
    command = [sys.executable, str(HERE / "server.py"), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.wait()


def measure(peer: Peer, load: Load, out: Path, seed: int) -> Measured:
    """One whole process, by the kernel's own account."""
    with provider(load, seed) as base, (out / "log.txt").open("w+") as log:
        command = command_of(peer, load, base, out)
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=out)
        # Nothing polls it while it runs.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read()
        with urllib.request.urlopen(f"{base}/requests") as reply:
            asked = json.load(reply)
    expected = load.requests + (CANARIES if peer.is_ours and load.requests else 0)
    units = re.search(rf"\b{load.prompts * load.trials}\b", said) or not load.requests
    if process.returncode or asked != expected or not units:
        raise SystemExit(
            f"{peer.name} failed: exit {process.returncode}, {asked} requests of {expected}:\n"
            + said[-2000:]
        )
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def command_of(peer: Peer, load: Load, base: str, out: Path) -> list[str]:
    """The command line that does the job."""
    if not load.requests:
        if peer.is_ours:
            return [sys.executable, "-m", "refusalkit", "--help"]
        return [str(Path(python_of(peer)).with_name("inspect")), "--version"]
    if not peer.is_ours:
        sizes = [str(n) for n in (load.prompts, load.trials, CONCURRENCY)]
        script = str(HERE / "peers" / peer.script)
        return [python_of(peer), script, base, *sizes, str(out), *peer.words]
    prompts = out / "prompts.jsonl"
    rows = (
        {"prompt": f"[benchmark prompt {n}]", "category": f"c{n % 32}"} for n in range(load.prompts)
    )
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "refusalkit", "run", "openai/target", "--api-base", base]
    command += ["--prompts", str(prompts), "--trials", str(load.trials)]
    command += ["--judge", "graded", "--judge-model", "openai/judge", "--judge-api-base", base]
    command += ["--canaries", str(CANARIES), "--concurrency", str(CONCURRENCY)]
    command += ["--out", str(out / "run"), "--json"]
    if peer.name == "ours-litellm":
        command += ["--via", "litellm", "--judge-via", "litellm"]
    return command


def report(load: Load, found: dict[str, list[Measured]]) -> str:
    """A Markdown table: ratios to the limit where there is one, and of ours to each peer's."""
    limit = load.limit_s
    lines = [f"\n**{load.name}**: {load.title}\n"]
    lines += [f"| | wall{' / limit' if limit else ' s'} | CPU s | peak MiB |", "|---|---|---|---|"]
    for peer, runs in found.items():
        wall = spread([run.wall / (limit or 1.0) for run in runs])
        cpu, peak = spread([run.cpu for run in runs]), spread([run.peak for run in runs], 0)
        lines.append(f"| {peer} | {wall} | {cpu} | {peak} |")
    if limit and load.sigma:
        rounds = range(1, 1 + max(map(len, found.values())))
        best = spread([load.best_possible(seed) / limit for seed in rounds])
        lines.append(f"| best possible | {best} | | |")
    ours = found.get("ours", [])
    for peer, runs in found.items():
        if not ours or peer == "ours":
            continue
        # By round: what made a round slow made it so for both.
        pairs = list(zip(ours, runs, strict=True))
        wall = spread([a.wall / b.wall for a, b in pairs])
        cpu, peak = (
            spread([a.cpu / b.cpu for a, b in pairs]),
            spread([a.peak / b.peak for a, b in pairs]),
        )
        lines.append(f"| ours / {peer} | {wall} | {cpu} | {peak} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int = 2) -> str:
    """The median, and the extremes in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
