"""Write the lock entry of each set of answers (judges/*.jsonl) whose version has none yet.

    python scripts/lock_answers.py

An entry that is there is never altered: a set that differs from its version's entry is named, and
the exit status is 1.
"""

from __future__ import annotations

import json
import sys

from refusalkit.judges.shipped_answers import LOCK, SETS, read_answer_set
from refusalkit.shipped import judges_dir


def main() -> int:
    """Check and write."""
    path = judges_dir() / LOCK
    lock = json.loads(path.read_text("utf-8")) if path.exists() else {"schema": 1, "sets": {}}
    wrong = 0
    for found in map(read_answer_set, SETS):
        key = f"{found.name} {found.version}"
        if lock["sets"].setdefault(key, found.digest) != found.digest:
            wrong += 1
            print(f"{key} was published and differs: give it a new version", file=sys.stderr)
    lock["sets"] = dict(sorted(lock["sets"].items()))
    path.write_text(json.dumps(lock, indent=1) + "\n", encoding="utf-8", newline="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
