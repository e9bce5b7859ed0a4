"""The main job against its physical limit: 166 prompts x 5 trials, each answered and then judged.

A loopback server answers every request after 200 ms; 32 units are in work at once. Nobody can be
quicker than 1,660 x 0.2 s / 32 = 10.4 s. The run's 8 canaries, asked of the judge beside them, come
on top and are not in the limit. The figure is the whole process's wall time, imports
included, as a ratio to that limit; the machine's own speed hardly enters it.

    python benchmarks/end_to_end.py [--runs 5] [--via litellm]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from loopback import loopback_process  # noqa: E402

PROMPTS, TRIALS, CONCURRENCY, LATENCY_S = 166, 5, 32, 0.2
REQUESTS = 2 * PROMPTS * TRIALS
CANARIES = 8  # the default; asked on top, and no part of the limit
LIMIT_S = math.ceil(PROMPTS * TRIALS / CONCURRENCY) * 2 * LATENCY_S


def main() -> None:
    """Run the job so many times and print the ratios."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--via", choices=["litellm"], help="target and judge through litellm")
    options = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(_prompt(number) for number in range(PROMPTS)))
        with loopback_process("plain", latency_s=LATENCY_S) as server:
            for number in range(options.runs):
                out = folder / f"run-{number}"
                figures.append(_once(server.openai_base, prompts, out, options.via))
    _report(figures, options.via)


def _prompt(number: int) -> str:
    category = f"category-{number % 32:02}"
    return json.dumps({"prompt": f"[benchmark prompt {number}]", "category": category}) + "\n"


def _once(base: str, prompts: Path, out: Path, via: str | None) -> dict[str, float]:
    command = [sys.executable, "-m", "refusalkit", "run", "openai/target"]
    command += ["--prompts", str(prompts), "--trials", str(TRIALS), "--api-base", base]
    command += ["--judge", "graded", "--judge-model", "openai/judge", "--judge-api-base", base]
    command += ["--canaries", str(CANARIES)]
    command += ["--concurrency", str(CONCURRENCY), "--out", str(out), "--json"]
    if via:
        command += ["--via", via, "--judge-via", via]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=out.parent
    )
    assert process.stdout is not None
    output = process.stdout.read()
    # The kernel's own account of this one process; nothing polls it while it runs.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    score = json.loads(output)["score"]
    if process.returncode != 0 or score["n_scored"] != PROMPTS * TRIALS:
        raise SystemExit(f"the run failed: exit {process.returncode}, {score['unscored']}")
    if score["canaries"]["asked"] != CANARIES:
        raise SystemExit(f"canaries: {score['canaries']}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": usage.ru_maxrss / 1024}


def _report(figures: list[dict[str, float]], via: str | None) -> None:
    def spread(name: str, unit: float = 1.0) -> str:
        values = [figure[name] / unit for figure in figures]
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    milliseconds, runs = round(LATENCY_S * 1000), len(figures)
    print(
        f"{REQUESTS} + {CANARIES} requests of {milliseconds} ms, {CONCURRENCY} at once; {runs} runs"
    )
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, way: {via or 'OpenAI protocol'}"
    )
    print(f"wall / limit of {LIMIT_S:.1f} s   {spread('wall_s', LIMIT_S)}")
    print(f"CPU seconds             {spread('cpu_s')}")
    print(f"peak MiB                {spread('peak_mib')}")


if __name__ == "__main__":
    main()
