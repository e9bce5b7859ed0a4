"""Intervals, quantiles and paired tests: numbers in, numbers out."""
