"""Where windows start on a block."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.times import NS_PER_S

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

    Returns
    -------
    ndarray of intp
        Ascending, not to be written to; empty when the block is shorter than a window.
    """
    last = n_samples - picker.in_samples
    if last < 0:
        return np.empty(0, dtype=np.intp)
    step = window_step(picker, windows)
    before = start_ns - (origin_ns if grid == "trace" else 0)
    first = -_samples_in(before, sampling_rate) % step
    layout = _offsets if (last - first) // step < FEW else _offsets.__wrapped__
    return layout(first, last, step, edges=picker.output != "point")


@lru_cache(maxsize=64)
def _offsets(first: int, last: int, step: int, *, edges: bool) -> NDArray[np.intp]:
    offsets = np.arange(first, last + 1, step, dtype=np.intp)
    if edges:
        offsets = np.unique(np.concatenate([offsets, np.array([0, last], dtype=np.intp)]))
    offsets.flags.writeable = False
    return offsets


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


def _samples_in(span_ns: int, sampling_rate: float) -> int:
    return round(Fraction(span_ns) * Fraction(sampling_rate) / NS_PER_S) if span_ns else 0
