"""For Inspect (the extra ``inspect``): tasks, judges as a scorer, runs as logs."""
