"""Where reference weights and waveforms lie, if they are here."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(
    os.environ.get("EQCCTPRO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")
).resolve()
