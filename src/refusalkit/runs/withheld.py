"""Decides which answers never touch the disk.

The prompt set and the person who runs the command decide; a run folder can only withhold more.
`runs/record_json.py` leaves the withheld fields out of a record.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from refusalkit.runs.manifest import Manifest
from refusalkit.untrusted import printable

_LOG = logging.getLogger("refusalkit")


def withheld_by(manifest: Manifest) -> frozenset[str]:
    """The categories whose answers a run withholds by its own manifest."""
    return frozenset() if manifest.hard_line_text == "kept" else manifest.hard_lines


def withheld_categories(
    manifest: Manifest, hard_lines: Collection[str], *, keep: bool, is_own: bool
) -> frozenset[str]:
    """The categories whose answers are not written in this session.

    `hard_lines` are those of the prompt set; `keep`: the command says to keep their answers. The
    same in the manifest counts only if the folder `is_own`, the user's.
    """
    marked = manifest.hard_lines
    if unmarked := sorted(set(hard_lines) - marked):
        names = ", ".join(map(printable, unmarked))
        _LOG.info("%s: hard lines by the prompt set, though not by the folder", names)
    if manifest.hard_line_text == "kept":
        if keep or is_own:
            return frozenset()
        _LOG.info(
            "answers to hard-line prompts are withheld: that the folder keeps them is not enough, "
            "say --keep-hard-line-text"
        )
    return frozenset({*marked, *hard_lines})
