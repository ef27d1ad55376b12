"""Where reference weights and waveforms lie, if they are here."""

from __future__ import annotations

import os
from pathlib import Path

from repository import ROOT

DATA = Path(os.environ.get("EQCCTPRO_TEST_DATA", ROOT.parent / "shared" / "data")).resolve()
