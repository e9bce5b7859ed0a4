"""Exit codes of every command."""

from __future__ import annotations

OK, GATE, USAGE, INCOMPLETE, ERROR = range(5)

AUDIT_EXITS = {"held": OK, "crossed": GATE, "inconclusive": INCOMPLETE}
"""By an audit's answer."""
