"""Where the tests find the checkout and what lies in it."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
SAMPLES = TESTS / "samples"
