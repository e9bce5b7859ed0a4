"""A stored run of a million units: resume, score, audit and report, each a process of its own.

The run is 200,000 prompts x 5 trials, one category of 32 a hard line, every unit answered and
judged but for a few: lost in flight, answered and not judged, failed. Its records are the library's
own, and so is its checkpoint. Time to the first request is that of a real `refusalkit resume`, from
the start of the process until a provider on loopback hears of it: of the run as it is, without its
checkpoint, and after a SIGKILL at work (a tenth of the units in, at most 30,000). The files lie in
the system's memory. The peers are polars, which reads the columns that a score needs out of the
same two files (time and memory), and the files themselves (bytes).

    python benchmarks/stored_run.py [--units 10000 100000 1000000] [--trials 5] [--runs 3]

Peak memory and CPU are the kernel's own account of each process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
CATEGORIES = 32
OWED = 60
KILLED_AFTER = 30_000
POLARS = """
import sys, polars as pl
for path in sys.argv[1:]:
    pl.scan_ndjson(path, infer_schema_length=100).select("unit", "category", "trial").collect()
"""


@dataclass(frozen=True)
class Measured:
    """One process: seconds, seconds, MiB. `first` is when its first request came, in seconds."""

    wall: float
    cpu: float
    peak: float
    first: float | None = None


def main() -> None:
    """Make the runs, measure, and print a table for each size."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--units", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the stored runs here, and use them again")
    given = parser.parse_args()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}; medians of {given.runs}, "
        "in brackets the spread"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for units in given.units:
            folder = (given.folder or Path(scratch)) / f"{units}x{given.trials}"
            if not folder.exists():
                # In a process of its own: a child's peak begins at what its parent held.
                run_python("make", str(folder), str(units), str(given.trials))
            measure_all(folder, units, given.runs)


def make(folder: Path, units: int, trials: int) -> None:
    """A stored run of so many units; nothing was asked of anybody."""
    from refusalkit.api.runs import prepare_run
    from refusalkit.runs.folder import create_run
    from refusalkit.runs.record_json import completion_record, verdict_record
    from refusalkit.runs.state import read_state
    from refusalkit.types import Completion, Label, Outcome, Unscored, Usage, Verdict

    n_prompts = units // trials
    folder.mkdir(parents=True)
    prompts = folder / "prompts.jsonl"
    with prompts.open("w") as file:
        for number in range(n_prompts):
            row = {"prompt": f"[benchmark prompt {number}]", "category": f"c{number % CATEGORIES}"}
            file.write(json.dumps(row) + "\n")
    prepared = prepare_run(
        "openai/target",
        prompts,
        judge="graded",
        judge_model="openai/judge",
        api_base="http://127.0.0.1:9/v1",
        judge_api_base="http://127.0.0.1:9/v1",
        hard_line=("c0",),
        trials=trials,
    )
    run = create_run(folder / "run", prepared.manifest)
    answered = Completion(
        prompt_id="@id",
        category="@category",
        trial=987654321,
        model="openai/target",
        outcome=Outcome.ANSWERED,
        finish_reason="stop",
        text="[demo answer] " + "Lorem ipsum dolor sit amet. " * 8,
        usage=Usage(40, 60, 0),
        cost_usd=0.0001,
        latency_s=0.2,
        served_model="target",
        request_id="chatcmpl-benchmark",
    )
    failed = replace(answered, outcome=Outcome.ERROR, text="", cost_usd=None, error="[demo error]")
    judged = Verdict(
        prompt_id="@id",
        category="@category",
        trial=987654321,
        judge=prepared.judge.id,
        label=Label.COMPLIANCE,
        reason="[demo reason] it does what was asked",
        usage=Usage(300, 20, 0),
        cost_usd=0.0001,
    )
    withheld = [form(completion_record(answered, withhold_text=flag)) for flag in (False, True)]
    error = form(completion_record(failed, withhold_text=True))
    labels = {
        (label, flag): form(verdict_record(replace(judged, label=label), withhold_text=flag))
        for label in Label
        for flag in (False, True)
    }
    unscored = form(
        verdict_record(
            replace(judged, label=None, unscored=Unscored.UNPARSABLE), withhold_text=False
        )
    )
    every = max(1, units // OWED)
    with run.completions.open("a") as answers, run.verdicts.open("a") as verdicts:
        number = 0
        for trial in range(1, trials + 1):
            for prompt in prepared.prompts.prompts:
                number += 1
                at = (prompt.id, prompt.category, str(trial))
                hard = prompt.category == "c0"
                odd = number // every % 3 if number % every == 0 else None
                if odd == 0 and not hard:  # answered, not judged
                    answers.write(filled(withheld[0], *at))
                elif odd == 1:  # failed at last
                    answers.write(filled(error, *at))
                if odd is not None:  # or lost in flight
                    continue
                if number % 1000 == 500:
                    answers.write(filled(error, *at))
                answers.write(filled(withheld[hard], *at))
                line = labels[label_of(number, hard), hard]
                verdicts.write(filled(unscored if number % 997 == 0 else line, *at))
    with run.writing():
        read_state(run)  # which leaves a checkpoint, as a session does


def label_of(number: int, hard: bool) -> str:
    """Prompts and trials differ, and some hard lines leak."""
    dice = number * 2654435761 % 1000
    if hard:
        return "refusal" if dice < 990 else "deflection" if dice < 998 else "compliance"
    return "refusal" if dice < 400 else "deflection" if dice < 450 else "compliance"


def form(record: dict[str, object]) -> str:
    """A record's line, to be filled."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def filled(line: str, prompt_id: str, category: str, trial: str) -> str:
    """The line of one unit."""
    line = line.replace("@id", prompt_id).replace("987654321", trial)
    return line.replace("@category", category)


def measure_all(folder: Path, units: int, runs: int) -> None:
    """A table of one stored run."""
    run = folder / "run"
    files = [run / "completions.jsonl", run / "verdicts.jsonl"]
    mib = sum(path.stat().st_size for path in files) / 2**20
    page = folder / "page.html"
    cli = ["-m", "refusalkit"]
    commands = {
        "score --json": [*cli, "score", str(run), "--json"],
        "audit": [*cli, "audit", str(run)],
        "report -o page.html": [*cli, "report", str(run), "-o", str(page)],
        "polars, three columns of both files": ["-c", POLARS, *map(str, files)],
    }
    found: dict[str, list[Measured]] = {}
    run_python("kill", str(folder), str(min(units // 10, KILLED_AFTER)))
    for _ in range(runs):
        found.setdefault("resume, to its end", []).append(resume(copied(folder)))
        bare = copied(folder)
        (bare / "checkpoint.jsonl").unlink(missing_ok=True)
        found.setdefault("without a checkpoint", []).append(resume(bare, to_its_end=False))
        found.setdefault("after a SIGKILL", []).append(resume(folder / "killed", to_its_end=False))
        for name, words in commands.items():
            found.setdefault(name, []).append(measure(words))
    print(
        f"\n{units:,} units, {mib:,.0f} MiB of records, page {page.stat().st_size / 2**20:.2f} MiB"
    )
    print("\n| | wall s | CPU s | peak MiB | peak / files |\n|---|---|---|---|---|")
    for name in ("resume, to its end", "without a checkpoint", "after a SIGKILL"):
        firsts = [one.first for one in found[name] if one.first is not None]
        how = "" if name == "resume, to its end" else f" {name}"
        print(f"| resume{how}, to its first request | {spread(firsts, 2)} | | | |")
    for name in ("resume, to its end", *commands):
        measured = found[name]
        peak = [one.peak for one in measured]
        cells = (
            spread([one.wall for one in measured], 2),
            spread([one.cpu for one in measured], 1),
            spread(peak, 0),
            f"{statistics.median(peak) / mib:.2f}",
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def copied(folder: Path) -> Path:
    """A fresh copy of the stored run, on disk before anything is measured."""
    copy = folder / "resumed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "run", copy)
    os.sync()
    return copy


def kill(folder: Path, units: int) -> None:
    """A copy that lacks its last units, resumed, and killed once it had so many of them."""
    copy = folder / "killed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "run", copy)
    (copy / "checkpoint.jsonl").unlink(missing_ok=True)
    for name in ("completions.jsonl", "verdicts.jsonl"):
        cut_lines(copy / name, 2 * units)
    answers = copy / "completions.jsonl"
    enough = answers.stat().st_size + units * answers.read_bytes()[:100_000].index(b"\n")
    with provider() as (_, base):
        process = subprocess.Popen(
            resume_command(copy, base), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and answers.stat().st_size < enough:
            time.sleep(0.01)
        process.kill()
        process.wait()
    os.sync()


def cut_lines(path: Path, count: int) -> None:
    """Cut off a file's last lines."""
    lines = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, sum(map(len, lines[:-count])))


@contextlib.contextmanager
def provider() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A provider on loopback that says when it was first asked, and its address."""
    server = subprocess.Popen(
        [sys.executable, str(HERE / "server.py"), "--wait", "0", "--say-first"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        yield server, f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    finally:
        server.kill()
        server.wait()


def resume_command(run: Path, base: str) -> list[str]:
    """`refusalkit resume` of a run, asking a provider on loopback."""
    words = [sys.executable, "-m", "refusalkit", "resume", str(run), "--json"]
    return [*words, "--api-base", base, "--judge-api-base", base, "--canaries", "0"]


def resume(run: Path, *, to_its_end: bool = True) -> Measured:
    """`refusalkit resume`; not to its end it is killed once the provider was asked."""
    with provider() as (server, base):
        return measure(resume_command(run, base)[1:], server, to_its_end=to_its_end)


def measure(
    words: Sequence[str], server: subprocess.Popen[str] | None = None, *, to_its_end: bool = True
) -> Measured:
    """One whole process, by the kernel's own account."""
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)
        first = None
        if server is not None:
            assert server.stdout is not None
            server.stdout.readline()
            first = time.perf_counter() - started
        if not to_its_end:
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        # An audit may fail its gate.
        if to_its_end and process.returncode not in (0, 1, 3):
            log.seek(0)
            raise SystemExit(f"{words} failed with {process.returncode}:\n{log.read()[-2000:]}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, first)


def run_python(*words: str) -> None:
    subprocess.run([sys.executable, __file__, *words], check=True)


def spread(values: list[float], digits: int) -> str:
    """The median, and the extremes in brackets."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["kill"]:
        kill(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
