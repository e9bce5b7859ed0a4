"""refusalkit beside what a user would take instead, in one run: wall time, CPU, memory.

A provider on loopback answers every request after 200 ms (`even`), after waits of that mean that
differ (`uneven`, log-normal, sigma 1) or at once (`instant`, `many`). Each prompt is answered and
then judged, 32 units in work at once. Nobody can be quicker than the physical limit,

    1,660 requests x 0.2 s / 32 = 10.4 s,

and the figure is the whole process, imports included, as a ratio to that limit or to a peer. Rounds
are interleaved, so that a machine that gets slower does so for all.

    python benchmarks/speed.py [--runs 5] [--load even uneven instant many] [--peer ours openai ...]

Each peer has an environment of its own in `benchmarks/.environments/`, made on first use from
the versions pinned here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".environments"
CONCURRENCY = 32


@dataclass(frozen=True)
class Load:
    """How much is asked, and how quickly it is answered (seconds)."""

    name: str
    prompts: int
    trials: int
    wait: float
    sigma: float

    @property
    def requests(self) -> int:
        """A completion and a verdict for each unit."""
        return 2 * self.prompts * self.trials

    @property
    def limit_s(self) -> float | None:
        """What nobody can beat; None where the provider answers at once."""
        return self.requests * self.wait / CONCURRENCY or None


LOADS = {
    load.name: load
    for load in (
        Load("even", 166, 5, 0.2, 0.0),
        Load("uneven", 166, 5, 0.2, 1.0),
        Load("instant", 166, 5, 0.0, 0.0),
        Load("many", 20_000, 1, 0.0, 0.0),
    )
}


@dataclass(frozen=True)
class Peer:
    """A program that does the same job. `packages` are pinned; none: our own environment."""

    name: str
    script: str
    packages: tuple[str, ...] = ()


PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", ""),
        Peer("ours-litellm", ""),
        Peer("by-hand", "by_hand.py"),
        Peer("openai", "openai_sdk.py", ("openai[aiohttp]==2.54.0", "aiohttp", "polars")),
        Peer("litellm", "litellm_pipeline.py", ("litellm==1.106.0", "aiohttp", "polars")),
        Peer("inspect", "inspect_task.py", ("inspect_ai==0.3.285", "openai==3.54.0")),
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
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--load", nargs="+", choices=LOADS, default=["even", "uneven", "instant"])
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    given = parser.parse_args()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}; "
        f"medians of {given.runs}, in brackets the spread"
    )
    for name in given.load:
        load = LOADS[name]
        found: dict[str, list[Measured]] = {peer: [] for peer in given.peer}
        with tempfile.TemporaryDirectory() as scratch, provider(load) as base:
            for number in range(given.runs):
                for peer in given.peer:
                    out = Path(scratch) / f"{peer}-{number}"
                    out.mkdir()
                    found[peer].append(measure(PEERS[peer], load, base, out))
        report(load, found)


@contextmanager
def provider(load: Load) -> Iterator[str]:
    """The provider in a process of its own; yields its base URL."""
    words = ["--wait", str(load.wait), "--sigma", str(load.sigma)]
    command = [sys.executable, str(HERE / "server.py"), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.wait()


def measure(peer: Peer, load: Load, base: str, out: Path) -> Measured:
    """One whole process, by the kernel's own account."""
    command = command_of(peer, load, base, out)
    log = (out / "log.txt").open("w+")
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=out)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    log.seek(0)
    said = log.read()
    if process.returncode or str(load.prompts * load.trials) not in said:
        raise SystemExit(f"{peer.name} failed with {process.returncode}:\n{said[-2000:]}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def command_of(peer: Peer, load: Load, base: str, out: Path) -> list[str]:
    """The command line that does the job."""
    if not peer.name.startswith("ours"):
        sizes = [str(n) for n in (load.prompts, load.trials, CONCURRENCY)]
        return [python_of(peer), str(HERE / "peers" / peer.script), base, *sizes, str(out)]
    prompts = out / "prompts.jsonl"
    rows = (
        {"prompt": f"[benchmark prompt {n}]", "category": f"c{n % 32}"} for n in range(load.prompts)
    )
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "refusalkit", "run", "openai/target", "--api-base", base]
    command += ["--prompts", str(prompts), "--trials", str(load.trials)]
    command += ["--judge", "graded", "--judge-model", "openai/judge", "--judge-api-base", base]
    command += ["--concurrency", str(CONCURRENCY), "--out", str(out / "run"), "--json"]
    if peer.name == "ours-litellm":
        command += ["--via", "litellm", "--judge-via", "litellm"]
    return command


def python_of(peer: Peer) -> str:
    """The interpreter of a peer's environment, which is made if it is not there."""
    if not peer.packages:
        return sys.executable
    folder = ENVIRONMENTS / peer.name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != repr(peer.packages):
        print(f"making the environment of {peer.name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *peer.packages], check=True)
        subprocess.run([python, "-m", "compileall", "-q", str(folder / "lib")], check=False)
        ready.write_text(repr(peer.packages))
    return str(python)


def report(load: Load, found: dict[str, list[Measured]]) -> None:
    """A Markdown table: ratios to the limit, or to the quickest, and to each other."""
    limit = load.limit_s
    size = f"{load.prompts:,} prompts x {load.trials}, {load.requests:,} requests"
    print(f"\n{load.name}: {size}" + (f", limit {limit:.1f} s" if limit else ", answered at once"))
    print(f"\n| | wall{' / limit' if limit else ' s'} | CPU s | peak MiB |\n|---|---|---|---|")
    for peer, runs in found.items():
        wall = spread([run.wall / (limit or 1.0) for run in runs], 2)
        cpu, peak = spread([run.cpu for run in runs], 1), spread([run.peak for run in runs], 0)
        print(f"| {peer} | {wall} | {cpu} | {peak} |")
    if "ours" in found:
        ours = found["ours"]
        for peer, runs in found.items():
            if peer != "ours":
                pairs = [
                    spread(
                        [
                            getattr(a, what) / getattr(b, what)
                            for a, b in zip(ours, runs, strict=True)
                        ],
                        2,
                    )
                    for what in ("wall", "cpu", "peak")
                ]
                print(f"| ours / {peer} | {' | '.join(pairs)} |")


def spread(values: list[float], digits: int) -> str:
    """The median, and the extremes in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
