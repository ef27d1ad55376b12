"""Rules at borders of time: which picks are reported, and which neighbour keeps a duplicate.

Two that pick neighbouring spans both see the data around their border and report picks up to a
second beyond it.  With windows that start at different samples the two may place the same
arrival a sample apart, once on either side: kept by rule alone it would then be in the
result twice, or not at all.  So what both report is compared first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from eqcctpro.picks.raw import RawPicks
from eqcctpro.spans import FOREVER_NS, Span
from eqcctpro.times import NS_PER_S

__all__ = ["BORDER_GUARD_NS", "reported", "samples_within", "settle"]

# Picks this close to a border are reported by both neighbours, which are then compared.
BORDER_GUARD_NS = NS_PER_S
# Two reports of one phase at one instrument closer than this are the same arrival.
SAME_ARRIVAL_NS = 500_000_000

Picks = TypeVar("Picks", bound=RawPicks)


def reported(times_ns: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of picks that lie in the spans of which they are wanted, or shortly beyond.

    Parameters
    ----------
    times_ns : ndarray of int64, shape (picks,)
    own : ndarray of int64, shape (picks, 2)
        First time that is wanted, and the first that is not.
    """
    # Spans without a border own all that 64 bits hold.
    first = np.maximum(own[:, 0], BORDER_GUARD_NS - FOREVER_NS) - BORDER_GUARD_NS
    end = np.minimum(own[:, 1], FOREVER_NS - BORDER_GUARD_NS) + BORDER_GUARD_NS
    return (times_ns >= first) & (times_ns < end)


def samples_within(start_ns: int, interval_ns: float, n: int, span: Span) -> tuple[int, int]:
    """First of `n` samples in a span of time, and the first behind it.

    Parameters
    ----------
    start_ns : int
        Time of the first sample.
    interval_ns : float
        Between samples.
    n : int
    span : Span
    """
    first, last = (math.ceil((edge - start_ns) / interval_ns) for edge in span)
    first = min(max(first, 0), n)
    return first, max(min(last, n), first)


def settle(
    raw: Picks, own: NDArray[np.int64], station: Callable[[int], Hashable] = lambda _: ""
) -> Picks:
    """Keep every arrival exactly once.

    Parameters
    ----------
    raw : RawPicks
        Of all neighbours, each with the picks shortly beyond its borders.
    own : ndarray of int64, shape (picks, 2)
        First time that is owned, and the first that is not, by what reported each pick.
    station : callable
        Names the instrument of a pick, by its position; borders of different ones are different.

    Returns
    -------
    RawPicks
        An arrival that both neighbours report is kept from the one that owns it, or,
        where none or both do, with the higher probability.  One that a single neighbour
        reports is kept if that one owns it.
    """
    if not len(raw):
        return raw
    own_start, own_end = own.T
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
