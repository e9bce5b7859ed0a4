"""Measures the judges themselves: agreement, calibration, correction, probes, succession."""
