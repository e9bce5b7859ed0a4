"""1,000,000 prompts from one file: what loading, checking and hashing take.

Each step runs in a process of its own. CPU time is a ratio to reading the same file line by line
with the standard library's json (or, for parquet, with polars into Python rows): the least that
any reader in Python does. Memory is the peak of the process less that of an idle one, as a ratio
to the prompts' own text: every prompt is held, so it cannot be below 1.

    python benchmarks/million_prompts.py [--prompts 1000000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Nothing heavy is imported here: a child's peak begins at what its parent held.
STEPS = {
    "jsonl": ("plain jsonl", "load jsonl", "load and hash jsonl"),
    "parquet": ("plain parquet", "load parquet", "load and hash parquet"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        _step(options.step, options.file)
        return
    with tempfile.TemporaryDirectory() as scratch:
        jsonl, parquet = Path(scratch) / "prompts.jsonl", Path(scratch) / "prompts.parquet"
        files = {"jsonl": jsonl, "parquet": parquet}
        text_bytes = _write(jsonl, options.prompts)
        _measure("write parquet", jsonl)
        idle = _measure("idle", jsonl)["peak_bytes"]
        print(f"{options.prompts:,} prompts; CPU time / plain reading, memory / text")
        for kind, steps in STEPS.items():
            plain, *ours = (_measure(step, files[kind]) for step in steps)
            for step, figure in zip(steps[1:], ours, strict=True):
                time_ratio = figure["seconds"] / plain["seconds"]
                memory = (figure["peak_bytes"] - idle) / text_bytes
                print(f"  {step:24} time x {time_ratio:5.1f}   memory x {memory:5.1f}")


def _write(jsonl: Path, count: int) -> int:
    """So many prompts of about 200 bytes in 32 categories; how long their text is."""
    filler = "[placeholder] " * 13
    size = 0
    with jsonl.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = f"{filler}{number}"
            size += len(text)
            file.write(json.dumps({"prompt": text, "category": f"category-{number % 32}"}) + "\n")
    return size


def _measure(step: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", step, "--file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _step(step: str, file: Path) -> None:
    import polars as pl

    from refusalkit.prompts.load import load_prompts

    started = time.process_time()
    match step:
        case "plain jsonl":
            with file.open("rb") as lines:
                for line in lines:
                    json.loads(line)
        case "plain parquet":
            for _ in pl.read_parquet(file).iter_rows(named=True):
                pass
        case "write parquet":
            pl.scan_ndjson(file).sink_parquet(file.with_suffix(".parquet"))
        case "idle":
            pass
        case _:
            loaded = load_prompts(file)
            if "hash" in step:
                _ = loaded.digest
    seconds = time.process_time() - started
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
