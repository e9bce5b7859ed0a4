"""The fault campaign in its long form: the real command, killed a thousand times.

Runs against a loopback provider behind a wire that resets, halves, drips and swells what passes;
most sessions end by SIGKILL at a random moment, others by SIGTERM, SIGINT (once, twice), a full or
failing disk, a wall clock that jumps, or beside a second process. After each the records are
checked, and every run must end as an undisturbed one. Exit status 1 where something did
not hold. POSIX only.

    python benchmarks/torture.py [--kills 1000] [--seed 0] [--minutes 60]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from environments import machine  # noqa: E402

from torture import Campaign  # noqa: E402


def main() -> None:
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--kills", type=int, default=1000, help="SIGKILLs at work")
    parser.add_argument("--seed", type=int, default=0, help="draws moments and faults")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after so long")
    parser.add_argument("--keep", type=Path, help="folder for the runs that did not hold")
    options = parser.parse_args()
    started, where = time.monotonic(), machine()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        tally = Campaign(
            folder,
            kills=options.kills,
            seed=options.seed,
            minutes=options.minutes,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        ).run()
    print(tally.table())
    print(f"\nseed {options.seed}, {time.monotonic() - started:.0f} s; {where}")
    sys.exit(1 if tally.violations else 0)


if __name__ == "__main__":
    main()
