"""Messages about picks, made up from a number, for tests of the outbox and the sinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eqcctpro.live.messages import PickMessage, message_id
from eqcctpro.times import NS_PER_S, parse_utc

START_NS = parse_utc("2024-03-02T23:59:00")


def message(number: int = 0, **changes: Any) -> PickMessage:
    """A final pick; each number has another time, station and id."""
    time_ns = START_NS + number * NS_PER_S // 4 + 123_000
    code = ("NC", f"S{number % 7}", "", "HH")
    one = PickMessage(
        id=message_id("PhaseNet", "original", time_ns, code, "PS"[number % 2]),
        version=1,
        status="final",
        network=code[0],
        station=code[1],
        location=code[2],
        channel=code[3],
        phase="PS"[number % 2],
        time_ns=time_ns,
        start_ns=time_ns - 50_000_000,
        end_ns=time_ns + 70_000_000,
        probability=0.5 + (number % 50) / 100,
        model="PhaseNet",
        weights="original",
        components="ZNE",
        late=False,
        created_ns=time_ns + 30 * NS_PER_S,
        data_end_ns=time_ns + 29 * NS_PER_S,
        received_ns=time_ns + 30 * NS_PER_S,
    )
    return replace(one, **changes)
