"""How much data a plan covers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from eqcctpro.archive.plan import Plan, instrument_key
from eqcctpro.times import NS_PER_S

__all__ = ["station_hours"]

# Spans that are numbers of Python's at a time.
_AT_A_TIME = 4096


def station_hours(plan: Plan, tasks: Iterable[int]) -> float:
    """Hours of data of some tasks, summed over their stations.

    Several instruments, channels and files of a station at one time count once, and only what
    the tasks' chunks own.  Gaps between files are left out; gaps inside a file are not known.

    Parameters
    ----------
    plan : Plan
    tasks : iterable of int
        Their indices in the plan.
    """
    rows = array("q")  # station, start and end of each extent, one after the other
    indices = array("q", tasks)
    for index, task in zip(indices, plan.tasks.headings(indices), strict=True):
        station = plan.tasks.station_number(index)
        key = (task.network, task.station, task.location, task.instrument)
        own_start, own_end = task.chunk.own_start_ns, task.chunk.own_end_ns
        for code, start, end in plan.tasks.extents_of(index):
            if instrument_key(code) == key:
                rows.extend((station, max(start, own_start), min(end, own_end)))
    return _covered(np.array(rows, dtype=np.int64).reshape(-1, 3)) / (3600 * NS_PER_S)


def _covered(spans: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> int:
    """Nanoseconds that spans cover, those of each station together; one row each."""
    total = 0
    latest = at = -(2**63)
    order = np.lexsort((spans[:, 2], spans[:, 1], spans[:, 0]))
    for first in range(0, len(order), _AT_A_TIME):
        for station, start, end in spans[order[first : first + _AT_A_TIME]].tolist():
            if station != at:
                at, latest = station, -(2**63)
            total += max(0, end - max(start, latest))
            latest = max(latest, end)
    return total
