"""Stacking of a batch's predictions on the device that they are on.  Imports torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["finished", "stack_on", "windows_over_a_sample"]


def windows_over_a_sample(starts: NDArray[np.intp], length: int) -> int:
    """Most windows that any sample is in.

    Parameters
    ----------
    starts : ndarray of intp
        Ascending.
    length : int
        Samples of each window.
    """
    over = np.searchsorted(starts, starts + length, side="left") - np.arange(len(starts))
    return int(over.max(initial=0))


def stack_on(
    axis: torch.Tensor,
    predictions: torch.Tensor,
    starts: torch.Tensor,
    keep: torch.Tensor,
    most: int,
    *,
    average: bool,
) -> torch.Tensor:
    """Join the predictions of a batch's windows on one axis, in the order of the windows.

    Every sample takes its first window's prediction, then the second one's, and so on, as
    `eqcctpro.windows.stacking.CurveStack` does: sums are equal to the last bit.

    Parameters
    ----------
    axis : torch.Tensor of float32, shape (samples, labels)
        Sums or maxima so far; changed in place.
    predictions : torch.Tensor of float32, shape (n, out_samples, labels)
    starts : torch.Tensor of int64, shape (n,)
        Sample of the axis on which each window begins, ascending.
    keep : torch.Tensor of bool, shape (out_samples,)
        Samples of a window that are not blinded.
    most : int
        Windows that a sample is in at most; see `windows_over_a_sample`.
    average : bool

    Returns
    -------
    torch.Tensor of float32, shape (samples, 1)
        Windows that say something about each sample.
    """
    n, length = predictions.shape[:2]
    samples = torch.arange(len(axis), device=axis.device)
    first = torch.searchsorted(starts, samples - length, right=True)
    counts = torch.zeros((len(axis), 1), dtype=torch.float32, device=axis.device)
    for nth in range(most):
        window = (first + nth).clamp_(max=n - 1)
        position = samples - starts[window]
        # The last window is met again where there are no more.
        there = (first + nth < n) & (position >= 0) & (position < length)
        position.clamp_(0, length - 1)
        there = (there & keep[position])[:, None]
        values = predictions[window, position]
        joined = axis + values if average else torch.fmax(axis, values)
        torch.where(there, joined, axis, out=axis)
        counts += there
    return counts


def finished(axis: torch.Tensor, counts: torch.Tensor, *, average: bool) -> torch.Tensor:
    """Curves of sums or maxima, NaN where no window says anything."""
    if average:
        return axis / counts
    return torch.where(torch.isneginf(axis), torch.nan, axis)
