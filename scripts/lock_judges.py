"""Write the lock entry of each shipped judge that has none yet.

    python scripts/lock_judges.py [--check]

An entry that is there is never altered: judge files that differ from theirs are listed, and so are
published ones that are gone, and the exit status is 1. `--check` writes nothing.
"""

from __future__ import annotations

import argparse
import sys

from refusalkit.judges.lock import changes, entry_key, lock_entry, read_lock, write_lock
from refusalkit.judges.rubrics import load_rubric, shipped_judges
from refusalkit.shipped import LOCK_FILE, judges_dir


def main() -> int:
    """Check and write."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    path = judges_dir() / LOCK_FILE
    entries = read_lock(path)
    rubrics = [load_rubric(name) for name in shipped_judges()]
    wrong = changes(rubrics, entries)
    for line in wrong:
        print(line, file=sys.stderr)
    added = {entry_key(r): lock_entry(r) for r in rubrics if entry_key(r) not in entries}
    for key in added:
        print(f"{key}: {'no entry yet' if options.check else 'entry written'}")
    if added and not options.check:
        write_lock(path, {**entries, **added})
    return 1 if wrong or (added and options.check) else 0


if __name__ == "__main__":
    sys.exit(main())
