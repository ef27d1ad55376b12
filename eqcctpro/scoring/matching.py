"""One-to-one matching of picks and labels by time, the best there is.

As many pairs within the tolerance as possible; among all such matchings, the one with the smallest
sum of time differences.  On a line there is always a best matching in which pairs do not cross,
so that dynamic programming over the sorted times finds it; time grows with the number of
pick-label pairs within the tolerance, not with its square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Residuals", "match", "residuals_of"]

Int64 = NDArray[np.int64]


def match(
    pick_group: Int64, pick_time: Int64, label_group: Int64, label_time: Int64, tolerance: int
) -> Int64:
    """Match the picks of each group with its labels.

    Parameters
    ----------
    pick_group, label_group : ndarray of int64
        Picks and labels belong together only within a group, such as a station.
    pick_time, label_time : ndarray of int64
        In one unit of time.
    tolerance : int
        Largest time difference of a pair, in that unit.

    Returns
    -------
    ndarray of int64, one for each pick
        Index of its label, or -1.
    """
    partner = np.full(len(pick_time), -1, np.int64)
    if not len(pick_time) or not len(label_time):
        return partner
    group = np.concatenate([pick_group, label_group])
    time = np.concatenate([pick_time, label_time])
    is_label = np.repeat([False, True], [len(pick_time), len(label_time)])
    source = np.concatenate([np.arange(len(pick_time)), np.arange(len(label_time))])
    order = np.lexsort((time, group))
    group, time, is_label, source = group[order], time[order], is_label[order], source[order]
    component = np.cumsum(_first_of_component(group, time, is_label, tolerance)) - 1
    labels = np.bincount(component, weights=is_label).astype(np.int64)
    picks = np.bincount(component) - labels
    single = (labels == 1) & (picks == 1)
    alone = single[component]
    partner[source[alone & ~is_label]] = source[alone & is_label]
    starts = np.searchsorted(component, np.arange(len(picks) + 1))
    for number in np.flatnonzero((labels > 0) & (picks > 0) & ~single):
        part = slice(starts[number], starts[number + 1])
        mine, theirs = (
            part.start + np.flatnonzero(~is_label[part]),
            (part.start + np.flatnonzero(is_label[part])),
        )
        for i, j in _chain(time[mine].tolist(), time[theirs].tolist(), tolerance):
            partner[source[mine[i]]] = source[theirs[j]]
    return partner


def _first_of_component(
    group: Int64, time: Int64, is_label: NDArray[np.bool_], tolerance: int
) -> NDArray[np.bool_]:
    """True where no possible pair spans the step from the previous entry to this one."""
    first = np.ones(len(time), bool)
    if len(time) < 2:
        return first
    linked = np.zeros(len(time) - 1, bool)
    for kind in (is_label, ~is_label):
        # Latest entry of this kind up to here, and earliest of the other kind from the next on.
        places = np.arange(len(time))
        before = np.maximum.accumulate(np.where(kind, places, -1))[:-1]
        after = np.minimum.accumulate(np.where(~kind, places, len(time))[::-1])[::-1][1:]
        there = np.flatnonzero((before >= 0) & (after < len(time)))
        left, right = before[there], after[there]
        near = (group[left] == group[right]) & (time[right] - time[left] <= tolerance)
        linked[there] |= near
    first[1:] = ~linked
    return first


def _chain(picks: list[int], labels: list[int], tolerance: int) -> list[tuple[int, int]]:
    """Best pairs of two sorted lists.

    ``best[j]`` is the value of the picks so far with the first `j` labels: pairs, times a number
    that no sum of differences reaches, minus the sum of differences.
    """
    pair_value = (tolerance + 1) * (min(len(picks), len(labels)) + 1)
    best = [0]
    choices: list[tuple[int, bytearray]] = []
    low = high = 0
    for pick in picks:
        while high < len(labels) and labels[high] <= pick + tolerance:
            high += 1
            best.append(best[-1])
        while low < high and labels[low] < pick - tolerance:
            low += 1
        taken = bytearray(high - low)
        diagonal = best[low]
        for j in range(low, high):
            with_pair = diagonal + pair_value - abs(pick - labels[j])
            diagonal = best[j + 1]
            if with_pair > diagonal and with_pair > best[j]:
                best[j + 1] = with_pair
                taken[j - low] = 1
            elif best[j] > diagonal:
                best[j + 1] = best[j]
                taken[j - low] = 2
        choices.append((low, taken))
    return _backtrack(choices, high)


def _backtrack(choices: list[tuple[int, bytearray]], labels: int) -> list[tuple[int, int]]:
    pairs = []
    j = labels
    for i in range(len(choices) - 1, -1, -1):
        low, taken = choices[i]
        j = min(j, low + len(taken))
        while j > low and taken[j - 1 - low] == 2:
            j -= 1
        if j > low and taken[j - 1 - low] == 1:
            pairs.append((i, j - 1))
            j -= 1
    return pairs


_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_BINS = 50


@dataclass(frozen=True)
class Residuals:
    """Pick minus label, in s.

    Attributes
    ----------
    mean, mae, sigma : float
        Mean, mean of the magnitude, and standard deviation around the mean.
    percentiles : dict of str to float
        Of the residual, from ``p1`` to ``p99``.
    magnitude_percentiles : dict of str to float
        Of its magnitude: ``p50``, ``p95``, ``p99``.
    histogram : dict
        ``edges_s`` over plus and minus the tolerance, and ``counts``.
    """

    mean: float
    mae: float
    sigma: float
    percentiles: dict[str, float]
    magnitude_percentiles: dict[str, float]
    histogram: dict[str, list[float] | list[int]]


def residuals_of(seconds: NDArray[np.float64], tolerance_s: float) -> Residuals:
    """Describe at least one residual."""
    counts, edges = np.histogram(seconds, bins=_BINS, range=(-tolerance_s, tolerance_s))
    size = np.abs(seconds)
    return Residuals(
        float(seconds.mean()),
        float(size.mean()),
        float(seconds.std()),
        {f"p{q}": float(np.percentile(seconds, q)) for q in _PERCENTILES},
        {f"p{q}": float(np.percentile(size, q)) for q in (50, 95, 99)},
        {"edges_s": [round(float(edge), 9) for edge in edges], "counts": counts.tolist()},
    )
