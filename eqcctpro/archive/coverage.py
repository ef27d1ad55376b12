"""Hours and samples of data that the station tasks of a plan cover."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import Plan
from eqcctpro.times import NS_PER_S

__all__ = ["planned_samples", "station_hours"]

# Spans that are converted to Python's numbers at a time.
_AT_A_TIME = 4096


def station_hours(
    plan: Plan, tasks: Iterable[int], data_ns: NDArray[np.int64] | None = None
) -> float:
    """Hours of data of some tasks, summed over their stations.

    Several instruments, channels and files of a station at one time count once, and only what
    the tasks' chunks own.

    Parameters
    ----------
    plan : Plan
    tasks : iterable of int
        Their indices in the plan.
    data_ns : ndarray of int64, optional
        Time with samples of each task.  Without it, gaps inside files count as data.  With it,
        the gaps of a task are spread evenly over the spans of its files; where instruments of a
        station overlap in time, the one with the most data counts.
    """
    spans = plan.tasks.spans_of(tasks)
    spans = spans[spans[:, 3] > spans[:, 2]]
    weights = np.ones(len(spans))
    if data_ns is not None:
        held = np.zeros(len(data_ns))
        for task, start, end in _joined(spans[:, 0], spans):
            held[task] += end - start
        share = np.divide(data_ns, held, out=np.zeros(len(held)), where=held > 0)
        weights = np.minimum(share, 1.0)[spans[:, 0]]
    total = 0.0
    of_station: list[tuple[int, int, float]] = []
    at = latest = -(2**63)
    for index, (_, station, start, end, *_) in _in_order(spans[:, 1], spans):
        if of_station and (station != at or start >= latest):
            total += _weighted(of_station)
            of_station = []
        at, latest = station, max(end, latest) if of_station else end
        of_station.append((start, end, float(weights[index])))
    return (total + _weighted(of_station)) / (3600 * NS_PER_S)


def planned_samples(plan: Plan, tasks: Iterable[int]) -> NDArray[np.int64]:
    """Number of samples of each task, from the headers at the ends of its files."""
    tasks = np.fromiter(tasks, dtype=np.int64)
    spans = plan.tasks.spans_of(tasks)
    return np.bincount(spans[:, 0], spans[:, 4], len(tasks)).astype(np.int64)


def _in_order(keys: NDArray[np.int64], spans: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """Indices and rows of spans, sorted by key and time."""
    order = np.lexsort((spans[:, 3], spans[:, 2], keys))
    for first in range(0, len(order), _AT_A_TIME):
        some = order[first : first + _AT_A_TIME]
        yield from zip(some.tolist(), spans[some].tolist(), strict=True)


def _joined(keys: NDArray[np.int64], spans: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Non-overlapping spans of each key."""
    at = latest = -(2**63)
    for index, (_, _, start, end, *_) in _in_order(keys, spans):
        key = int(keys[index])
        if key != at:
            at, latest = key, start
        if end > latest:
            yield key, max(start, latest), end
            latest = end


def _weighted(spans: list[tuple[int, int, float]]) -> float:
    """Integral over time of the highest weight among sorted spans, in ns times weight."""
    if not spans:
        return 0.0
    if len({weight for _, _, weight in spans}) == 1:
        return (max(end for _, end, _ in spans) - spans[0][0]) * spans[0][2]
    edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
    total, number = 0.0, 0
    here: list[tuple[float, int]] = []
    for begin, after in pairwise(edges):
        while number < len(spans) and spans[number][0] <= begin:
            heapq.heappush(here, (-spans[number][2], spans[number][1]))
            number += 1
        while here and here[0][1] <= begin:
            heapq.heappop(here)
        if here:
            total -= (after - begin) * here[0][0]
    return total
