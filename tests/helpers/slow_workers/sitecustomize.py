"""Slows down Ray's workers, so that faults hit them while they pick."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

if any("default_worker" in argument for argument in getattr(sys, "orig_argv", [])):
    from eqcctpro.sources import feeder

    sound = feeder.prepare

    def prepare(*arguments: Any) -> Any:
        """Prepare a station task, after a while."""
        time.sleep(float(os.environ["EQCCTPRO_TEST_PAUSE_S"]))
        return sound(*arguments)

    feeder.prepare = prepare
