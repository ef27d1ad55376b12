"""EQCCTPro's picking: of every window the highest peak, at most one for each phase.

Windows overlap, so that most arrivals are seen twice; what two windows report of the
same arrival is one pick.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eqcctpro.picks.trigger import CurveTriggers, Triggers

__all__ = ["WindowPeaks", "highest_peaks"]

Float32 = NDArray[np.float32]

#: Reports of one phase by two windows that are closer than this are the same arrival.
SAME_ARRIVAL_S = 0.5


def highest_peaks(curves: Float32, threshold: float) -> NDArray[np.intp]:
    """Highest peak of every curve.

    A peak is a sample that is higher than the one before and not lower than the one
    after, as in EQCCTPro; the first and last sample are none.

    Parameters
    ----------
    curves : ndarray of float32, shape (n, samples)
    threshold : float
        Peaks below it do not count.

    Returns
    -------
    ndarray of intp, shape (n,)
        The first of equally high ones; -1 where a curve has none.
    """
    inner = curves[:, 1:-1]
    is_peak = (inner > curves[:, :-2]) & (inner >= curves[:, 2:]) & (inner >= threshold)
    highest = np.argmax(np.where(is_peak, inner, np.float32(-1)), axis=1)
    return np.where(is_peak.any(axis=1), highest + 1, -1)


class WindowPeaks:
    """Collects the peaks of one block's windows as predictions arrive.

    Parameters
    ----------
    offsets : ndarray of intp
        First sample of each window, ascending.
    thresholds : list of float
        Of each label that is picked, None for others, in the order of the curves.
    sampling_rate : float
        Hz.
    own : slice, optional
        Samples of the block of which the highest probability is wanted.

    Attributes
    ----------
    highest : ndarray of float32, shape (labels,)
        Highest probability so far of each label that is picked, NaN before there is any.
    """

    #: Curve samples for each input sample.
    rate_factor = 1.0

    def __init__(
        self,
        offsets: NDArray[np.intp],
        thresholds: list[float | None],
        sampling_rate: float,
        own: slice = slice(0, 2**62),
    ) -> None:
        self._offsets = offsets
        self._thresholds = thresholds
        self._tolerance = SAME_ARRIVAL_S * sampling_rate
        self._own = own
        self.highest: Float32 = np.full(len(thresholds), np.nan, dtype=np.float32)
        self._next = 0
        self._found: list[list[tuple[int, int, int, float]]] = [[] for _ in thresholds]

    @property
    def complete(self) -> bool:
        """True if every window has been added."""
        return self._next == len(self._offsets)

    def add(self, predictions: Float32) -> None:
        """Add the predictions of the next windows.

        Parameters
        ----------
        predictions : ndarray of float32, shape (n, in_samples, labels)
        """
        offsets = self._offsets[self._next : self._next + len(predictions)].tolist()
        self._next += len(predictions)
        for label, threshold in enumerate(self._thresholds):
            if threshold is None:
                continue
            curves = np.ascontiguousarray(predictions[:, :, label])
            self._note_highest(label, curves, offsets)
            peaks = highest_peaks(curves, threshold).tolist()
            for offset, curve, peak in zip(offsets, curves, peaks, strict=True):
                if peak >= 0:
                    onset, end = _flanks(curve, peak, threshold)
                    span = (offset + onset, offset + end, offset + peak)
                    self._found[label].append((*span, float(curve[peak])))

    def own_of(self, first: int, n: int, in_samples: int) -> NDArray[np.int64]:
        """Samples of windows of which the highest probability is wanted.

        Parameters
        ----------
        first, n : int
            Windows after those that were added, and how many.
        in_samples : int
            Of a window.

        Returns
        -------
        ndarray of int64, shape (n, 2)
            First and last (exclusive) in each window.
        """
        offsets = self._offsets[self._next + first :][:n, np.newaxis]
        own = np.array([self._own.start, min(self._own.stop, 2**62)], dtype=np.int64)
        return np.clip(own - offsets, 0, in_samples)

    def add_peaks(
        self,
        peak: NDArray[np.intp],
        onset: NDArray[np.intp],
        end: NDArray[np.intp],
        value: Float32,
        highest: Float32,
    ) -> None:
        """Add what was found on the next windows elsewhere; shapes (n, labels).

        Parameters
        ----------
        peak, onset, end : ndarray of intp
            As of `highest_peaks`, and the first and last sample that reach the threshold.
        value, highest : ndarray of float32
            Probability of the peak, and the highest one in what `own_of` says.
        """
        n = len(peak)
        offsets = self._offsets[self._next : self._next + n].tolist()
        self._next += n
        for label, threshold in enumerate(self._thresholds):
            if threshold is None:
                continue
            known = highest[:, label][~np.isneginf(highest[:, label])]
            self.highest[label] = np.fmax.reduce(known, initial=self.highest[label])
            for row in np.flatnonzero(peak[:, label] >= 0).tolist():
                places = (onset[row, label], end[row, label], peak[row, label])
                first, last, top = (offsets[row] + int(place) for place in places)
                self._found[label].append((first, last, top, float(value[row, label])))

    def _note_highest(self, label: int, curves: Float32, offsets: Sequence[int]) -> None:
        for offset, curve in zip(offsets, curves, strict=True):
            own = curve[max(self._own.start - offset, 0) : max(self._own.stop - offset, 0)]
            if len(own):
                self.highest[label] = np.fmax(self.highest[label], own.max())

    def triggers(self, label: int) -> Triggers:
        """Picks of one label on the whole block, each arrival once, in order of time.

        The onset and the end are the first and last sample around the peak that reach the
        threshold, in the window that the pick is from.
        """
        found = self._found[label]
        onset, end, peak = np.array([span[:3] for span in found], dtype=np.intp).reshape(-1, 3).T
        value = np.array([span[3] for span in found], dtype=np.float32)
        kept = _each_once(peak, value, self._tolerance)
        return Triggers(onset[kept], end[kept], peak[kept], value[kept])

    def triggers_of(self, labels: Sequence[int]) -> CurveTriggers:
        """Picks of several labels, one after the other."""
        found = [self.triggers(label) for label in labels]
        curve = np.repeat(np.arange(len(found)), [len(triggers.peak) for triggers in found])
        return CurveTriggers(curve, Triggers(*map(np.concatenate, zip(*found, strict=True))))


def _flanks(curve: Float32, peak: int, threshold: float) -> tuple[int, int]:
    """First and last sample of the stretch around a peak that reaches the threshold."""
    below_before = np.flatnonzero(curve[:peak] < threshold)
    below_after = np.flatnonzero(curve[peak:] < threshold)
    onset = int(below_before[-1]) + 1 if len(below_before) else 0
    end = peak + int(below_after[0]) - 1 if len(below_after) else len(curve) - 1
    return onset, end


def _each_once(peak: NDArray[np.intp], value: Float32, tolerance: float) -> NDArray[np.intp]:
    """Indices of the reports to keep, in order of time.

    Of reports closer than the tolerance only the most probable is kept, and of equally
    probable ones the earliest.
    """
    times: list[int] = []
    kept: list[int] = []
    for index in np.lexsort((peak, -value)).tolist():
        time = int(peak[index])
        place = bisect(times, time)
        near = times[max(place - 1, 0) : place + 1]
        if all(abs(time - other) > tolerance for other in near):
            times.insert(place, time)
            kept.insert(place, index)
    return np.array(kept, dtype=np.intp)
