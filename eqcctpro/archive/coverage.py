"""How much data a plan covers."""

from __future__ import annotations

from collections.abc import Iterable

from eqcctpro.archive.plan import Plan, StationTask, instrument_key
from eqcctpro.times import NS_PER_S

__all__ = ["station_hours"]


def station_hours(plan: Plan, tasks: Iterable[StationTask]) -> float:
    """Hours of data of some tasks, summed over their stations.

    Several instruments, channels and files of a station at one time count once, and only what
    the tasks' chunks own.  Gaps between files are left out; gaps inside a file are not known.
    """
    extents: dict[str, list[tuple[tuple[str, str, str, str], int, int]]] = {}
    for file in plan.files:
        extents[file.path] = [
            (instrument_key(extent.code), extent.start_ns, extent.end_ns)
            for extent in file.channels
        ]
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for task in tasks:
        key = (task.network, task.station, task.location, task.instrument)
        spans.setdefault((task.network, task.station), []).extend(
            (max(start, task.chunk.own_start_ns), min(end, task.chunk.own_end_ns))
            for path in task.files
            for code, start, end in extents.get(path, [])
            if code == key
        )
    return sum(_covered(each) for each in spans.values()) / (3600 * NS_PER_S)


def _covered(spans: list[tuple[int, int]]) -> int:
    total = 0
    latest = -(2**63)
    for start, end in sorted(spans):
        total += max(0, end - max(start, latest))
        latest = max(latest, end)
    return total
