"""Picks and detections on probability curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CurveTriggers", "Triggers", "find_triggers", "find_triggers_on"]


class Triggers(NamedTuple):
    """Stretches of a curve that count as picks; all arrays have one entry each.

    Attributes
    ----------
    onset, end, peak : ndarray of intp
        Samples at which the trigger goes on, goes off (inclusive), and is highest.
    value : ndarray of float32
        Probability at the peak.
    """

    onset: NDArray[np.intp]
    end: NDArray[np.intp]
    peak: NDArray[np.intp]
    value: NDArray[np.float32]


class CurveTriggers(NamedTuple):
    """Triggers on several curves, in the order of the curves and then of time.

    Attributes
    ----------
    curve : ndarray of intp
        Which curve each is on.
    triggers : Triggers
    """

    curve: NDArray[np.intp]
    triggers: Triggers


_NO_SAMPLES = np.empty(0, dtype=np.intp)
_NONE = Triggers(_NO_SAMPLES, _NO_SAMPLES, _NO_SAMPLES, np.empty(0, dtype=np.float32))


def find_triggers(curve: NDArray[np.float32], threshold: float) -> Triggers:
    """Trigger on `threshold`, off below half of it, as SeisBench does.

    A trigger is a run of samples at or above ``threshold / 2`` that reaches
    `threshold`; it begins where the threshold is first reached and ends with the run.
    The pick is its highest sample, the first of equals.

    Parameters
    ----------
    curve : ndarray of float32, shape (n,)
        Probabilities; NaN counts as below every threshold.
    threshold : float
        In 0..1.
    """
    return find_triggers_on(curve[np.newaxis], [threshold]).triggers


def find_triggers_on(curves: NDArray[np.float32], thresholds: Sequence[float]) -> CurveTriggers:
    """Find the triggers of many curves at once; see `find_triggers`.

    Parameters
    ----------
    curves : ndarray of float32, shape (curves, n)
        C-contiguous.
    thresholds : sequence of float
        Of each curve.
    """
    # Curves are compared with thresholds in float32, as SeisBench does.
    on = np.array(thresholds, dtype=np.float32)
    off = np.array([threshold / 2 for threshold in thresholds], dtype=np.float32)
    low = np.flatnonzero(curves >= off[:, np.newaxis])
    values = curves.reshape(-1)[low]
    curve = low // max(curves.shape[1], 1)
    above = np.flatnonzero(values >= on[curve])
    if not len(above):
        return CurveTriggers(_NO_SAMPLES, _NONE)
    # From here on, samples are counted among those that reach half of the threshold.
    breaks = np.flatnonzero((low[1:] - low[:-1] > 1) | (curve[1:] != curve[:-1]))
    run_start = np.concatenate([[0], breaks + 1])
    run_end = np.concatenate([breaks, [len(low) - 1]])
    run = np.searchsorted(run_start, above, side="right") - 1
    first = _first_of_each(run)
    onset, end = above[first], run_end[run[first]]
    peak = _first_highest(values, onset, end)
    which = curve[peak]
    base = which * curves.shape[1]
    found = Triggers(low[onset] - base, low[end] - base, low[peak] - base, values[peak])
    return CurveTriggers(which, found)


def _first_of_each(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Index of the first member of each group of an ascending array."""
    begins = np.empty(len(groups), dtype=bool)
    begins[:1] = True
    np.not_equal(groups[1:], groups[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _first_highest(
    values: NDArray[np.float32], first: NDArray[np.intp], last: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Position of the highest value between each first and last one, the first of equals."""
    lengths = last - first + 1
    group = np.repeat(np.arange(len(first)), lengths)
    begin = np.cumsum(lengths) - lengths
    position = np.arange(len(group)) + np.repeat(first - begin, lengths)
    inside = values[position]
    highest = np.maximum.reduceat(inside, begin)
    equal = np.flatnonzero(inside == highest[group])
    return position[equal[_first_of_each(group[equal])]]
