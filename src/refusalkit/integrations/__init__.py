"""Runs for other programs and people: exports, bundles, trackers, Inspect and pytest."""
