"""Workers on a Ray cluster of this machine beside one process: time, a lost worker, the driver.

    python benchmarks/cluster.py [--units 3320] [--concurrency 128] [--workers 2] [--latency 0.2]

Needs the extra `ray`. A server on loopback, a process of its own, answers each request after 0.2 s.
Asked are refusalkit-166's prompts, judged by `lexical`. First by one process, then by workers, then
by workers of which one is killed by SIGKILL half-way. Last the server answers at once, and the
driver's own CPU time says how many records a second it can take.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.loopback.process import loopback_process

PROMPTS = 166
CHILD = """
import json, os, resource, signal, sys, time
from pathlib import Path
import refusalkit

given = json.loads(sys.argv[1])
kill_at = given.pop("kill_at")
killed = []
first = []

def workers():
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and (folder / "cmdline").read_bytes()[:11] == b"ray::Worker":
                found.append(int(folder.name))
        except OSError:
            pass
    return found

def watch(progress):
    if progress.verdicts == 1:
        first.append((time.perf_counter(), time.process_time()))
    if kill_at and progress.verdicts >= kill_at and not killed:
        killed.extend(workers()[:1])
        os.kill(killed[0], signal.SIGKILL)

began = time.perf_counter()
run = refusalkit.benchmark(**given, on_progress=watch)
ended, cpu = time.perf_counter(), time.process_time()
at, cpu_at = first[0]
score = refusalkit.score(run)
print(json.dumps({
    "all": ended - began, "asking": ended - at, "cpu": cpu - cpu_at, "killed": len(killed),
    "scored": score.n_scored,
}))
"""


def main() -> None:
    """Measure, and print two tables."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--units", type=int, default=3320)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--latency", type=float, default=0.2)
    given = parser.parse_args()
    trials = max(1, given.units // PROMPTS)
    units = trials * PROMPTS
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load "
        f"{os.getloadavg()[0]:.1f}; {units} units, {given.concurrency} at once"
    )
    several = {"engine": "ray", "workers": given.workers}
    limit = units * given.latency / given.concurrency
    print(f"\nanswers after {given.latency:g} s: no client is faster than {limit:.1f} s")
    print(f"{'':34}{'asking':>8}{'whole':>8}{'asked':>8}{'scored':>8}")
    for name, options, kill_at in (
        ("one process", {}, 0),
        (f"{given.workers} workers", several, 0),
        (f"{given.workers} workers, one killed", several, units // 2),
    ):
        found, asked = measure(given.latency, trials, given.concurrency, options, kill_at)
        assert found["scored"] == units, found
        assert bool(found["killed"]) == bool(kill_at)
        print(
            f"{name:34}{found['asking']:7.1f}s{found['all']:7.1f}s{asked:8}{found['scored']:8}",
            flush=True,
        )
    print("\nanswers at once: what the driver takes")
    print(f"{'':34}{'wall':>8}{'CPU':>8}{'CPU a record':>14}{'records a CPU second':>22}")
    for name, options, at_once in (
        ("one process", {}, given.concurrency),
        (f"{given.workers} workers", several, given.concurrency),
        ("1 worker, a call for each record", {"engine": "ray", "workers": 1}, 1),
    ):
        found, _ = measure(0.0, trials, at_once, options, 0)
        each = found["cpu"] / units
        print(
            f"{name:34}{found['asking']:7.1f}s{found['cpu']:7.1f}s{each * 1000:11.2f} ms"
            f"{1 / each:22.0f}",
            flush=True,
        )


def measure(
    latency: float, trials: int, concurrency: int, options: dict[str, object], kill_at: int
) -> tuple[dict[str, float], int]:
    """What a run says of itself, in a process of its own, and how many requests the server saw."""
    with (
        tempfile.TemporaryDirectory() as folder,
        loopback_process("plain", latency, folder=Path(folder)) as server,
    ):
        given = {
            **options,
            "model": "local/small",
            "prompts": "refusalkit-166",
            "judge": "lexical",
            "canaries": 0,
            "trials": trials,
            "concurrency": concurrency,
            "api_base": server.openai_base,
            "out": f"{folder}/run",
            "kill_at": kill_at,
        }
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(given)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found, len(server.exchanges())


if __name__ == "__main__":
    main()
