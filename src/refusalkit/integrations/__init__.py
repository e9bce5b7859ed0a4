"""What other programs and people read of a run, and what of theirs can be benchmarked."""
