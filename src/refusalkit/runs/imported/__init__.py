"""Reads answers that other programs recorded: logs, plain JSONL, labels, runs of our own."""
