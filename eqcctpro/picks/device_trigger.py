"""Picks on probability curves on the device that they are on.  Imports torch.

The rules are those of `eqcctpro.picks.trigger` and `eqcctpro.picks.window_peak`, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from eqcctpro.picks.trigger import CurveTriggers, Triggers

__all__ = ["PeaksOfWindows", "find_triggers_along", "highest_along", "peaks_of_windows"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def find_triggers_along(
    curves: torch.Tensor, lengths: Sequence[int], thresholds: Float64
) -> CurveTriggers:
    """Find the triggers of blocks that lie one after the other.

    Parameters
    ----------
    curves : torch.Tensor of float32, shape (labels, samples of all blocks)
    lengths : sequence of int
        Samples of each block.
    thresholds : ndarray of float64, shape (blocks, labels)

    Returns
    -------
    CurveTriggers
        Curves are counted block by block, and the labels of a block one after the other.
    """
    n_blocks, n_labels, total = len(lengths), len(curves), curves.shape[1]
    device = curves.device
    # Curves are compared with thresholds in float32, as SeisBench does.
    on = torch.from_numpy(thresholds.T.astype(np.float32)).to(device)
    off = torch.from_numpy((thresholds.T / 2).astype(np.float32)).to(device)
    each = torch.tensor(lengths, device=device)
    block = torch.repeat_interleave(torch.arange(n_blocks, device=device), each, output_size=total)
    alike = bool((thresholds == thresholds[0]).all())
    low = torch.nonzero((curves >= (off[:, :1] if alike else off[:, block])).reshape(-1))[:, 0]
    values = curves.reshape(-1)[low]
    # Of the same label and the same block.
    key = torch.div(low, total, rounding_mode="floor") * n_blocks + block[low % total]
    above = torch.nonzero(values >= on.reshape(-1)[key])[:, 0]
    if not len(above):
        return _host(n_labels, lengths, above, above, above, above, values[:0])
    # From here on, samples are counted among those that reach half of the threshold.
    breaks = torch.nonzero((torch.diff(low) > 1) | (torch.diff(key) != 0))[:, 0]
    ends = torch.tensor([len(low) - 1], device=device)
    run_start = torch.cat([ends.new_zeros(1), breaks + 1])
    run_end = torch.cat([breaks, ends])
    run = torch.searchsorted(run_start, above, right=True) - 1
    first = _first_of_each(run)
    onset, end = above[first], run_end[run[first]]
    peak = _first_highest(values, onset, end)
    return _host(
        n_labels, lengths, key[peak], low[onset] % total, low[end] % total, low[peak] % total,
        values[peak],
    )  # fmt: skip


def _host(
    n_labels: int,
    lengths: Sequence[int],
    key: torch.Tensor,
    onset: torch.Tensor,
    end: torch.Tensor,
    peak: torch.Tensor,
    value: torch.Tensor,
) -> CurveTriggers:
    """Triggers on the host, by blocks, and counted from the beginning of their block."""
    numbers = torch.stack([key, onset, end, peak]).cpu().numpy().astype(np.intp)
    values: Float32 = value.cpu().numpy()
    label, block = np.divmod(numbers[0], len(lengths))
    begins = np.cumsum([0, *lengths])[block]
    curve = block * n_labels + label
    order = np.lexsort((numbers[1], curve))
    found = (array[order] for array in (*(numbers[1:] - begins), values))
    return CurveTriggers(curve[order], Triggers(*found))


def _first_of_each(groups: torch.Tensor) -> torch.Tensor:
    """Index of the first member of each group of an ascending tensor."""
    return torch.nonzero(torch.diff(groups, prepend=groups.new_full((1,), -1)))[:, 0]


def _first_highest(values: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Position of the highest value between each first and last one, the first of equals."""
    lengths = last - first + 1
    group = torch.repeat_interleave(lengths)
    begin = torch.cumsum(lengths, 0) - lengths
    position = torch.arange(len(group), device=values.device) + (first - begin)[group]
    inside = values[position]
    highest = torch.full_like(first, -torch.inf, dtype=values.dtype)
    highest.scatter_reduce_(0, group, inside, "amax")
    equal = torch.nonzero(inside == highest[group])[:, 0]
    return position[equal[_first_of_each(group[equal])]]


def highest_along(curves: torch.Tensor, lengths: Sequence[int], own: Sequence[slice]) -> Float32:
    """Highest value of each label in the samples of each block whose picks are wanted.

    Parameters
    ----------
    curves : torch.Tensor of float32, shape (labels, samples of all blocks)
    lengths : sequence of int
    own : sequence of slice
        Of each block, counted from its beginning.

    Returns
    -------
    ndarray of float32, shape (blocks, labels)
        NaN where there is none.
    """
    values = torch.where(torch.isnan(curves), -torch.inf, curves)
    if any(part != slice(0, length) for part, length in zip(own, lengths, strict=True)):
        wanted = torch.zeros(curves.shape[1], dtype=torch.bool)
        begin = 0
        for part, length in zip(own, lengths, strict=True):
            wanted[begin : begin + length][part] = True
            begin += length
        values = torch.where(wanted.to(curves.device), values, -torch.inf)
    if len(set(lengths)) == 1:
        highest = values.reshape(len(curves), len(lengths), lengths[0]).amax(dim=2)
    elif values.device.type == "mps":  # which has no such operation
        highest = torch.stack([part.amax(dim=1) for part in values.split(list(lengths), 1)], 1)
    else:
        each = torch.tensor(lengths, device=values.device).repeat(len(curves))
        flat = torch.segment_reduce(values.reshape(-1), "max", lengths=each, unsafe=True)
        highest = flat.reshape(len(curves), len(lengths))
    on_host: Float32 = torch.where(torch.isneginf(highest), torch.nan, highest).T.cpu().numpy()
    return on_host


class PeaksOfWindows(NamedTuple):
    """The highest peak of every window and label; shapes (windows, labels).

    Attributes
    ----------
    peak, onset, end : ndarray of intp
        Samples of the peak, and the first and last one around it that reach the threshold; the
        peak is -1 where there is none.
    value : ndarray of float32
        Probability of the peak.
    highest : ndarray of float32
        Of the samples whose picks are wanted; -inf where there are none, NaN where one is.
    """

    peak: NDArray[np.intp]
    onset: NDArray[np.intp]
    end: NDArray[np.intp]
    value: Float32
    highest: Float32


def peaks_of_windows(
    predictions: torch.Tensor, thresholds: Float64, own: NDArray[np.int64]
) -> PeaksOfWindows:
    """Find the highest peak of every window; see `eqcctpro.picks.window_peak`.

    Parameters
    ----------
    predictions : torch.Tensor of float32, shape (windows, samples, labels)
    thresholds : ndarray of float64, shape (windows, labels)
        Infinity for labels that are not picked.
    own : ndarray of int64, shape (windows, 2)
        First and last (exclusive) sample whose picks are wanted.
    """
    device, length = predictions.device, predictions.shape[1]
    curves = predictions.transpose(1, 2)
    least = torch.from_numpy(thresholds.astype(np.float32)).to(device)[:, :, None]
    inner = curves[:, :, 1:-1]
    is_peak = (inner > curves[:, :, :-2]) & (inner >= curves[:, :, 2:]) & (inner >= least)
    peak = torch.where(is_peak, inner, -1.0).argmax(dim=2) + 1
    peak = torch.where(is_peak.any(dim=2), peak, -1)
    value = curves.gather(2, peak.clamp(min=0)[:, :, None])[:, :, 0]
    at = torch.arange(length, device=device)
    below = curves < least
    before = torch.where(below & (at < peak[:, :, None]), at, -1).amax(dim=2) + 1
    after = torch.where(below & (at > peak[:, :, None]), at, length).amin(dim=2) - 1
    wanted = torch.from_numpy(own).to(device)[:, None]
    inside = (at >= wanted[:, :, :1]) & (at < wanted[:, :, 1:])
    highest = torch.where(inside, curves, -torch.inf).amax(dim=2)
    spans = torch.stack([peak, before, after]).cpu().numpy().astype(np.intp)
    values = torch.stack([value, highest]).cpu().numpy()
    return PeaksOfWindows(*spans, *values)
