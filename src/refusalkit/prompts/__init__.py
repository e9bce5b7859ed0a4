"""Readers that turn what lies on disk into prompts: set folders and single-file tables."""
