"""Benchmarks that `experiments/workbench` runs; they are not part of the wheel."""
