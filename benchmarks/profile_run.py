"""Where a run's time goes: what the main thread does, by samples.

The run is that of speed.py's `many`, shrunk: each prompt is answered and judged by a provider on
loopback that answers at once, so that only our own work is left.

    python benchmarks/profile_run.py [--prompts 5000]
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from environments import PEERS, Peer, machine, python_of
from speed import LOADS, command_of, provider

PROFILER = Peer("profiler", "profile_run.py", ("py-spy==0.4.2",))

# The first that is on the stack, from its inner end, says what a sample is.
_WHAT = (
    ("importlib", "importing modules"),
    ("/polars/", "reading records, scoring (polars)"),
    ("refusalkit/scoring", "reading records, scoring (polars)"),
    ("refusalkit/runs", "writing records"),
    ("/aiohttp/", "HTTP (aiohttp)"),
    ("refusalkit/judges", "the judge: its prompt, reading its reply"),
    ("jsonschema", "the judge: its prompt, reading its reply"),
    ("refusalkit/models", "requests and replies: JSON, deadline, pace"),
    ("refusalkit/engine", "who is next, progress"),
    ("/asyncio/", "event loop"),
)


def main() -> None:
    """Profile, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=5000)
    prompts = parser.parse_args().prompts
    load = replace(LOADS["many"], prompts=prompts)
    with tempfile.TemporaryDirectory() as folder, provider(load) as base:
        out = Path(folder)
        profiler = Path(python_of(PROFILER)).with_name("py-spy")
        options = ["--rate", "250", "--format", "raw", "--full-filenames", "--output", "samples"]
        command = [str(profiler), "record", *options, "--"]
        command += command_of(PEERS["ours"], load, base, out)
        subprocess.run(command, cwd=out, check=True, capture_output=True)
        stacks = (out / "samples").read_text().splitlines()
    found: Counter[str] = Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        if "refusalkit" in frames:  # other threads wait
            found[what(frames.split(";"))] += int(count)
    print(f"{machine()}; {prompts:,} prompts, {load.requests:,} requests\n")
    print("| | share of samples, % |\n|---|---|")
    for name, count in found.most_common():
        print(f"| {name} | {100 * count / found.total():.0f} |")


def what(frames: list[str]) -> str:
    """What a stack of frames, the outermost first, is at."""
    if any("importlib" in frame for frame in frames):
        return "importing modules"
    for frame in reversed(frames):
        for part, name in _WHAT:
            if part in frame:
                return name
    return "starting up, command line"


if __name__ == "__main__":
    main()
