"""Draws the trials of a sweep as web pages; the same as ``eqcctpro plot``."""

from __future__ import annotations

import sys

from eqcctpro.cli import app

# EQCCTPro's script also takes this one, a flag; the pages always leave out failed trials.
_WITHOUT_EFFECT = {"--include-failed"}

if __name__ == "__main__":
    app(["plot", *(one for one in sys.argv[1:] if one not in _WITHOUT_EFFECT)])
