"""Exit codes of every command."""

from __future__ import annotations

OK, GATE, USAGE, INCOMPLETE, ERROR = range(5)
