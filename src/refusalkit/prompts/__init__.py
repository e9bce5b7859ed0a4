"""Prompt sets: where they are read from, selection, framings, pressure and checks."""
