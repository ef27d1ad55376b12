"""How much data a plan covers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from eqcctpro.archive.plan import Plan
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
    return _covered(plan.tasks.spans_of(tasks)) / (3600 * NS_PER_S)


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
