"""Where windows start on a block."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.times import NS_PER_S

__all__ = ["WindowGrid", "window_offsets"]

WindowGrid = Literal["trace", "absolute"]


def window_offsets(
    picker: Picker,
    windows: WindowSettings,
    n_samples: int,
    *,
    grid: WindowGrid = "trace",
    start_ns: int = 0,
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
        ``"trace"`` counts from the block's first sample and adds one window at the
        end, as SeisBench does.  ``"absolute"`` puts windows at multiples of the step
        since 1970 and adds one at each edge, so that windows inside a record do not
        depend on where the record was cut.
    start_ns, sampling_rate
        Of the block; only needed for the absolute grid.

    Returns
    -------
    ndarray of intp
        Ascending; empty when the block is shorter than a window.
    """
    last = n_samples - picker.in_samples
    if last < 0:
        return np.empty(0, dtype=np.intp)
    step = window_step(picker, windows)
    first = 0
    if grid == "absolute":
        first = -_samples_since_1970(start_ns, sampling_rate) % step
    offsets = np.arange(first, last + 1, step, dtype=np.intp)
    if picker.output == "point":
        return offsets
    edges = [0, last] if grid == "absolute" else [last]
    return np.unique(np.concatenate([offsets, np.asarray(edges, dtype=np.intp)]))


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


def _samples_since_1970(start_ns: int, sampling_rate: float) -> int:
    return round(Fraction(start_ns) * Fraction(sampling_rate) / NS_PER_S)
