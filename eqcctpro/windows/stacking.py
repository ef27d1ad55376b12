"""Predictions of overlapping windows to one curve per block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eqcctpro.models.picker import Picker, WindowSettings

__all__ = ["CurveStack", "StackLayout", "curve_rate", "stack_alike"]

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StackLayout:
    """Layout of the predictions of a block's windows on its curve.

    Attributes
    ----------
    point : bool
        Whether a window yields one value instead of a curve.
    average : bool
        Whether the mean is taken, or the maximum.
    keep : tuple of slice
        Stretches of a window's curve that are not blinded.
    starts : ndarray of intp
        Where windows begin on the block's curve.
    n_samples : int
        Length of the block's curve.
    """

    point: bool
    average: bool
    keep: tuple[slice, ...]
    starts: NDArray[np.intp]
    n_samples: int

    @classmethod
    def of(cls, picker: Picker, windows: WindowSettings, offsets: NDArray[np.intp]) -> StackLayout:
        """The layout of windows that start at these input samples, ascending."""
        average = windows.stacking == "avg"
        if picker.output == "point":
            starts = np.arange(len(offsets), dtype=np.intp)
            return cls(True, average, (slice(0, 1),), starts, len(offsets))
        before, after = windows.blinding
        starts = np.round(offsets * curve_rate(picker)).astype(np.intp)
        n_samples = int(starts[-1]) + picker.out_samples
        end = max(picker.out_samples - after, before)
        blinded = [sample for sample in sorted(windows.blinded) if before <= sample < end]
        edges = pairwise([before - 1, *blinded, end])
        keep = tuple(slice(last + 1, following) for last, following in edges)
        return cls(False, average, keep, starts, n_samples)

    @cached_property
    def counts(self) -> Float32:
        """Windows that say something about each sample, shape (n_samples,)."""
        edges = np.zeros(self.n_samples + 1, dtype=np.int32)
        for part in self.keep:
            np.add.at(edges, self.starts + part.start, 1)
            np.add.at(edges, self.starts + part.stop, -1)
        return np.cumsum(edges[:-1]).astype(np.float32)


def curve_rate(picker: Picker) -> float:
    """Curve samples for each input sample."""
    return picker.out_samples / (picker.pred_sample[1] - picker.pred_sample[0])


class CurveStack:
    """Joins the predictions of one block's windows as they arrive.

    The rules are SeisBench's: blinded samples count as missing, ``"avg"`` is the mean
    of what is there, ``"max"`` the maximum, and where no window says anything the
    curve is NaN.

    Parameters
    ----------
    layout : StackLayout
    labels : sequence of int
        Those that are wanted.
    """

    def __init__(self, layout: StackLayout, labels: Sequence[int]) -> None:
        self._layout = layout
        self._next = 0
        # As a slice where they follow each other, which copies nothing.
        first, last = min(labels), max(labels) + 1
        follow = list(labels) == list(range(first, last))
        self._labels: slice | list[int] = slice(first, last) if follow else list(labels)
        shape = (len(labels), layout.n_samples)
        fill = 0.0 if layout.average else -np.inf
        self._curve: Float32 = np.full(shape, fill, dtype=np.float32)

    @property
    def complete(self) -> bool:
        """True if every window has been added."""
        return self._next == len(self._layout.starts)

    def add(self, predictions: Float32) -> None:
        """Add the predictions of the next windows.

        Parameters
        ----------
        predictions : ndarray of float32, shape (n, out_samples, all labels)
        """
        layout = self._layout
        first = self._next
        self._next += len(predictions)
        if layout.point:
            self._curve[:, first : self._next] = predictions[:, 0, self._labels].T
            return
        # In the order of windows, since sums of float32 depend on their order.
        for start, values in zip(
            layout.starts[first : self._next].tolist(),
            predictions[:, :, self._labels].transpose(0, 2, 1),
            strict=True,
        ):
            for kept in layout.keep:
                part = self._curve[:, start + kept.start : start + kept.stop]
                if layout.average:
                    part += values[:, kept]
                else:
                    np.fmax(part, values[:, kept], out=part)

    def finish(self) -> Float32:
        """The curves, shape (labels, samples); NaN where no window reaches."""
        if not self._layout.point:
            _finish(self._curve, self._layout)
        return self._curve


def stack_alike(predictions: Float32, layout: StackLayout, labels: Sequence[int]) -> Float32:
    """Join the predictions of many blocks with the same layout at once; see `CurveStack`.

    Parameters
    ----------
    predictions : ndarray of float32, shape (blocks, windows, out_samples, all labels)
    layout : StackLayout
        Of each block.
    labels : sequence of int
        Those that are wanted.

    Returns
    -------
    ndarray of float32, shape (blocks, labels, samples)
    """
    shape = (len(predictions), len(labels), layout.n_samples)
    if layout.point:
        return np.ascontiguousarray(predictions[:, :, 0, list(labels)].transpose(0, 2, 1))
    curves: Float32 = np.full(shape, 0.0 if layout.average else -np.inf, dtype=np.float32)
    for window, start in enumerate(layout.starts.tolist()):
        for kept in layout.keep:
            span = slice(start + kept.start, start + kept.stop)
            for row, label in enumerate(labels):
                part, values = curves[:, row, span], predictions[:, window, kept, label]
                if layout.average:
                    part += values
                else:
                    np.fmax(part, values, out=part)
    _finish(curves, layout)
    return curves


def _finish(curves: Float32, layout: StackLayout) -> None:
    """Finish curves whose samples are their last axis."""
    if layout.average:
        with np.errstate(invalid="ignore", divide="ignore"):
            curves /= layout.counts
    else:
        curves[np.isneginf(curves)] = np.nan
