"""The exit codes of every command."""

from __future__ import annotations

from refusalkit.errors import Interrupted, RefusalkitError, UsageError

OK = 0
"""Done, or held."""
GATE = 1
"""A gate failed: a line was crossed, a change was too large, too much is unscored."""
USAGE = 2
"""The call, or a file that it names, is wrong."""
INCOMPLETE = 3
"""Inconclusive, interrupted, or not complete."""
ERROR = 4
"""A provider or configuration error, or an output that cannot be written."""

AUDIT_EXITS = {"held": OK, "crossed": GATE, "inconclusive": INCOMPLETE}
"""By an audit's answer."""


def exit_code_of(error: RefusalkitError) -> int:
    """The exit code for an error that ended a command."""
    if isinstance(error, UsageError):
        return USAGE
    return INCOMPLETE if isinstance(error, Interrupted) else ERROR
