"""Status of a live run that has one source and one sink."""

from __future__ import annotations

import time
from typing import Any

from eqcctpro.live.sinks.publisher import SinkState


def status_of(**changes: Any) -> dict[str, Any]:
    sink = SinkState("redis://h/picks", "redis", "all", "ok", sent=7, behind=2, lag_s=1.5)
    sink.delays[1], sink.delays[3], sink.delay_sum_s = 5, 2, 1.25
    return {
        "state": "running",
        "updated": time.time(),
        "alarms": [],
        "behind_s": 0.5,
        "packets": 100,
        "windows": 40,
        "late_samples": 0,
        "given_up": 3,
        "picks": {"final": 5, "preliminary": 2},
        "records": {"duplicates": 4},
        "stations": {"live": 9, "dead": 1},
        "sources": [
            {
                "address": "seedlink://h:18000",
                "state": "streaming",
                "last_error": "",
                "packets": 100,
            }
        ],
        "sinks": [sink.as_dict()],
    } | changes
