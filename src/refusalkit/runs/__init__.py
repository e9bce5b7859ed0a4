"""The run folder: manifest, records, state and checkpoint."""
