"""Picks and detections on probability curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Triggers", "find_triggers"]


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
    # NumPy compares float32 arrays with Python floats in float32, as SeisBench does.
    above = np.flatnonzero(curve >= threshold)
    if not len(above):
        return _NONE
    low = np.flatnonzero(curve >= threshold / 2)
    breaks = np.flatnonzero(np.diff(low) > 1)
    run_start = low[np.concatenate([[0], breaks + 1])]
    run_end = low[np.concatenate([breaks, [len(low) - 1]])]
    run = np.searchsorted(run_start, above, side="right") - 1
    runs, first = np.unique(run, return_index=True)
    onset = above[first]
    end = run_end[runs]
    peak = np.array(
        [
            start + int(np.argmax(curve[start : stop + 1]))
            for start, stop in zip(onset, end, strict=True)
        ],
        dtype=np.intp,
    )
    return Triggers(onset, end, peak, curve[peak])
