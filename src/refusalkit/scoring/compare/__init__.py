"""Compares the scores of two runs, prompt by prompt."""
