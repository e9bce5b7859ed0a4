"""Write the lock entry of each shipped prompt set whose version has none yet.

    python scripts/lock_prompts.py [--check]

An entry that is there is never altered: prompts that differ from their version's entry are listed,
and the exit status is 1. `--check` writes nothing.
"""

from __future__ import annotations

import argparse
import sys

from refusalkit import load_prompts, shipped_sets
from refusalkit.prompts.lock import changes, entry_key, lock_entry, read_lock, write_lock
from refusalkit.shipped import LOCK_FILE, prompts_dir


def main() -> int:
    """Check and write."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    path = prompts_dir() / LOCK_FILE
    entries = read_lock(path)
    added, wrong = [], 0
    for prompts in map(load_prompts, shipped_sets()):
        key = entry_key(prompts)
        if key not in entries:
            entries[key] = lock_entry(prompts)
            added.append(key)
            continue
        for name, what in changes(prompts, entries[key]):
            wrong += 1
            print(f"{prompts.name}: {name or 'set'}: {what}", file=sys.stderr)
    for key in added:
        print(f"{key}: {'no entry yet' if options.check else 'entry written'}")
    if added and not options.check:
        write_lock(path, entries)
    return 1 if wrong or (added and options.check) else 0


if __name__ == "__main__":
    sys.exit(main())
