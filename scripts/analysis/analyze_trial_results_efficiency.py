"""Analyses the trials of a sweep; the same as ``eqcctpro analyze``."""

from __future__ import annotations

import sys

from eqcctpro.cli import app

if __name__ == "__main__":
    app(["analyze", *sys.argv[1:]])
