"""Benchmarks: the same work, side by side, with everything that took part recorded."""
