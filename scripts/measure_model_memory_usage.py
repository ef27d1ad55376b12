"""Measures what one worker of each model needs; the same as ``eqcctpro calibrate``."""

from __future__ import annotations

import sys

from eqcctpro.cli import app

if __name__ == "__main__":
    app(["calibrate", *sys.argv[1:]])
