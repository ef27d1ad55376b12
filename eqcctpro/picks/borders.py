"""Removal of duplicate picks at the border of two neighbouring chunks.

Both chunks see the data around their border and report picks up to a second
beyond it.  With windows that start at different samples the two may place the same
arrival a sample apart, once on either side: kept by rule alone it would then be in the
result twice, or not at all.  So what both report is compared first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import Tasks
from eqcctpro.picks.raw import RawPicks

__all__ = ["settle", "settle_borders"]

# Two reports of one phase at one instrument closer than this are the same arrival.
SAME_ARRIVAL_NS = 500_000_000


def settle_borders(raw: RawPicks, tasks: Tasks) -> RawPicks:
    """Keep every arrival exactly once.

    Parameters
    ----------
    raw : RawPicks
        Of all chunks, each with the picks shortly beyond its borders.
    tasks : Tasks
        The plan that ``raw.task`` refers to.

    Returns
    -------
    RawPicks
        An arrival that both neighbours report is kept from the one that owns it, or,
        where none or both do, with the higher probability.  One that a single chunk
        reports is kept if that chunk owns it.
    """
    own_start, own_end = tasks.owned()[raw.task].T

    def station(index: int) -> tuple[str, str]:
        task = tasks[raw.task[index]]
        return task.name, task.folder

    return settle(raw, own_start, own_end, station)


def settle(
    raw: RawPicks,
    own_start: NDArray[np.int64],
    own_end: NDArray[np.int64],
    station: Callable[[int], Hashable],
) -> RawPicks:
    """`settle_borders` by the span that is owned by what reported each pick.

    Parameters
    ----------
    raw : RawPicks
    own_start, own_end : ndarray of int64
        First time that is owned, and the first that is not, of each pick.
    station : callable
        Names the instrument of a pick; borders of different ones are different.
    """
    if not len(raw):
        return raw
    owned = (raw.time_ns >= own_start) & (raw.time_ns < own_end)
    # Where a chunk has no border the difference may wrap around, and is still not near 0.
    near_start = np.abs(raw.time_ns - own_start) <= 2 * SAME_ARRIVAL_NS
    near_end = np.abs(raw.time_ns - own_end) <= 2 * SAME_ARRIVAL_NS
    keep = owned.copy()
    for left, right in _border_groups(raw, station, near_end, near_start, own_end, own_start):
        for a, b in _pairs(raw.time_ns, left, right):
            winner, loser = _winner(raw, owned, a, b)
            keep[winner], keep[loser] = True, False
    return raw.take(keep)


def _border_groups(
    raw: RawPicks,
    station: Callable[[int], Hashable],
    near_end: NDArray[np.bool_],
    near_start: NDArray[np.bool_],
    own_end: NDArray[np.int64],
    own_start: NDArray[np.int64],
) -> list[tuple[list[int], list[int]]]:
    """Picks left and right of each border of one instrument, phase by phase."""
    groups: dict[tuple[Hashable, int, int], tuple[list[int], list[int]]] = {}
    for side, near, border in ((0, near_end, own_end), (1, near_start, own_start)):
        for index in np.flatnonzero(near).tolist():
            key = (station(index), int(raw.label[index]), int(border[index]))
            groups.setdefault(key, ([], []))[side].append(index)
    return [group for group in groups.values() if group[0] and group[1]]


def _pairs(
    times_ns: NDArray[np.int64], left: Sequence[int], right: Sequence[int]
) -> list[tuple[int, int]]:
    """Match reports of the same arrival, closest first, each at most once."""
    distances = sorted(
        (abs(int(times_ns[a]) - int(times_ns[b])), a, b) for a in left for b in right
    )
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    for distance, a, b in distances:
        if distance <= SAME_ARRIVAL_NS and a not in used and b not in used:
            used.update((a, b))
            pairs.append((a, b))
    return pairs


def _winner(raw: RawPicks, owned: NDArray[np.bool_], a: int, b: int) -> tuple[int, int]:
    if owned[a] != owned[b]:
        return (a, b) if owned[a] else (b, a)
    return (a, b) if raw.probability[a] >= raw.probability[b] else (b, a)
