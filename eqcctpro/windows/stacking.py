"""Predictions of overlapping windows to one curve per block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eqcctpro.models.picker import Picker, WindowSettings

__all__ = ["CurveStack"]

Float32 = NDArray[np.float32]


class CurveStack:
    """Joins the predictions of one block's windows as they arrive.

    The rules are SeisBench's: blinded samples count as missing, ``"avg"`` is the mean
    of what is there, ``"max"`` the maximum, and where no window says anything the
    curve is NaN.

    Parameters
    ----------
    picker : Picker
    windows : WindowSettings
    offsets : ndarray of intp
        First input sample of each window, ascending.
    """

    def __init__(self, picker: Picker, windows: WindowSettings, offsets: NDArray[np.intp]) -> None:
        self._point = picker.output == "point"
        self._average = windows.stacking == "avg"
        self._missing = len(offsets)
        self._next = 0
        n_labels = len(picker.labels)
        if self._point:
            self._starts = np.arange(len(offsets), dtype=np.intp)
            self._curve = np.empty((len(offsets), n_labels), dtype=np.float32)
            return
        before, after = windows.blinding
        span = picker.pred_sample[1] - picker.pred_sample[0]
        self.rate_factor = picker.out_samples / span
        self._keep = slice(before, picker.out_samples - after)
        self._length = max(picker.out_samples - before - after, 0)
        starts = np.round(offsets * self.rate_factor).astype(np.intp)
        n_samples = int(starts[-1]) + picker.out_samples
        self._starts = starts + before
        fill = 0.0 if self._average else -np.inf
        self._curve = np.full((n_samples, n_labels), fill, dtype=np.float32)

    @property
    def complete(self) -> bool:
        """Whether every window has been added."""
        return self._missing == 0

    def add(self, predictions: Float32) -> None:
        """Add the predictions of the next windows.

        Parameters
        ----------
        predictions : ndarray of float32, shape (n, out_samples, labels)
        """
        first = self._next
        n = len(predictions)
        self._next += n
        self._missing -= n
        if self._point:
            self._curve[first : first + n] = predictions[:, 0]
            return
        kept = predictions[:, self._keep]
        for start, values in zip(self._starts[first : first + n].tolist(), kept, strict=True):
            part = self._curve[start : start + self._length]
            if self._average:
                part += values
            else:
                np.fmax(part, values, out=part)

    def finish(self) -> Float32:
        """The curve, shape (samples, labels); NaN where no window reaches."""
        if self._point:
            return self._curve
        if self._average:
            counts = self._coverage()
            with np.errstate(invalid="ignore", divide="ignore"):
                self._curve /= counts[:, np.newaxis]
        else:
            self._curve[np.isneginf(self._curve)] = np.nan
        return self._curve

    def _coverage(self) -> Float32:
        edges = np.zeros(len(self._curve) + 1, dtype=np.int32)
        np.add.at(edges, self._starts, 1)
        np.add.at(edges, self._starts + self._length, -1)
        return np.cumsum(edges[:-1]).astype(np.float32)
