"""Inspect (the extra ``inspect``): tasks, the judges as scorers, and runs as logs."""
