"""From records to figures: willingness, intervals, comparison, the hard-line audit, agreement."""
