"""Times of connections for tests: made again at once."""

from __future__ import annotations

from eqcctpro.live.client import Timing

QUICK = Timing(connect_s=5, keepalive_s=0.4, silence_s=3, first_delay_s=0.01, last_delay_s=0.05)
