"""Placement of windows on a block."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.times import NS_PER_S, samples_in
from eqcctpro.waveform.clock import Clock

__all__ = ["WindowGrid", "window_offsets"]

WindowGrid = Literal["trace", "absolute"]

# Windows of blocks whose layout is remembered, since a network has many that are alike.
FEW = 1000


def window_offsets(
    picker: Picker,
    windows: WindowSettings,
    n_samples: int,
    *,
    grid: WindowGrid = "trace",
    start_ns: int = 0,
    origin_ns: int = 0,
    sampling_rate: float = 100.0,
    clock: Clock | None = None,
) -> NDArray[np.intp]:
    """First sample of every window on a block.

    Parameters
    ----------
    picker : Picker
    windows : WindowSettings
    n_samples : int
        Length of the block.
    grid : {"trace", "absolute"}
        ``"trace"`` counts from the first sample of the continuous record, as SeisBench
        does; ``"absolute"`` from 1970, so that windows do not depend on where a record
        begins.  One more window stands at each edge that no other begins or ends at.
    start_ns, origin_ns : int
        Where the block and the continuous record that it is a part of begin.
    sampling_rate : float
        Hz.
    clock : ndarray of int64, optional
        Corrections of the times of samples.  Windows at multiples of the step since 1970 follow
        them: their starts may be a sample closer together, or further apart.

    Returns
    -------
    ndarray of intp
        Ascending, not to be written to; empty when the block is shorter than a window.
    """
    last = n_samples - picker.in_samples
    if last < 0:
        return np.empty(0, dtype=np.intp)
    step = window_step(picker, windows)
    edges = picker.output != "point"
    if clock is not None and grid == "absolute":
        multiples = _multiples(clock, start_ns, last, step, sampling_rate)
        return _with_edges(multiples, last, edges=edges)
    before = start_ns - (origin_ns if grid == "trace" else 0)
    first = -samples_in(before, sampling_rate) % step
    layout = _offsets if (last - first) // step < FEW else _offsets.__wrapped__
    return layout(first, last, step, edges=edges)


@lru_cache(maxsize=64)
def _offsets(first: int, last: int, step: int, *, edges: bool) -> NDArray[np.intp]:
    return _with_edges(np.arange(first, last + 1, step, dtype=np.intp), last, edges=edges)


def _with_edges(offsets: NDArray[np.intp], last: int, *, edges: bool) -> NDArray[np.intp]:
    if edges:
        offsets = np.unique(np.concatenate([offsets, np.array([0, last], dtype=np.intp)]))
    offsets.flags.writeable = False
    return offsets


def _multiples(
    clock: Clock, start_ns: int, last: int, step: int, sampling_rate: float
) -> NDArray[np.intp]:
    """Samples up to a last one that are nearest to multiples of the step since 1970."""
    every = Fraction(step) * NS_PER_S / Fraction(sampling_rate)
    nominal = clock[:, 0].astype(np.float64)
    # A leap second makes times go back.
    true = np.maximum.accumulate(clock.sum(axis=1)).astype(np.float64)
    length_ns = last * NS_PER_S / sampling_rate
    end_ns = start_ns + int(length_ns + max(clock[:, 1].max(), 0))
    numbers = range(-int(-start_ns // every), int(end_ns // every) + 1)
    behind = np.array([round(number * every) - start_ns for number in numbers], dtype=np.float64)
    at = np.interp(behind, true, nominal)
    at += np.minimum(behind - true[0], 0) + np.maximum(behind - true[-1], 0)
    samples = np.unique(np.round(at * sampling_rate / NS_PER_S).astype(np.intp))
    return samples[(samples >= 0) & (samples <= last)]


def window_step(picker: Picker, windows: WindowSettings) -> int:
    """Samples from one window to the next.

    Raises
    ------
    SettingsError
        The overlap leaves no step.
    """
    step = windows.stride if picker.output == "point" else picker.in_samples - windows.overlap
    if step < 1:
        name = "stride" if picker.output == "point" else "overlap"
        raise SettingsError(
            f"{name}: windows of {picker.in_samples} samples cannot be moved by {step} samples",
            hint=f"choose an overlap below {picker.in_samples} and a stride of at least 1",
        )
    return step
