"""Traces to be drawn: pieces of waveforms with a label, and what is left of long ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.times import NS_PER_S

__all__ = [
    "FILTER_NOTE",
    "PHASE_COLOURS",
    "OverviewTrace",
    "columns_of",
    "decimated",
    "envelope",
    "highpassed",
    "trace_range",
]

Float64 = NDArray[np.float64]

PHASE_COLOURS = {"P": "#D55E00", "S": "#0072B2"}
"""Vermillion and blue of Okabe and Ito's palette, told apart with any kind of colour vision."""

HIGHPASS_HZ = 1.0
"""Below it lies the microseism, which on broadband stations is larger than local earthquakes."""

FILTER_NOTE = f"Traces are high-pass filtered at about {HIGHPASS_HZ:g} Hz for this picture only"

_PERCENTILE = 99.5
_DAY_NS = 86_400 * NS_PER_S
_SHORTEST_HALF = 3
"""Samples in half a second; channels with fewer are not filtered."""
_BLOCK = 2**20
_POINTS = 4
"""Points in a column of pixels that samples further apart are interpolated to."""


@dataclass(frozen=True, slots=True)
class OverviewTrace:
    """One row of a picture, or a piece of one: traces with the same label share a row.

    Attributes
    ----------
    label : str
        ``NET.STA.LOC.CHA``, written beside the row.
    start_ns : int
        Time of the first sample, UTC, nanoseconds since 1970.
    sampling_rate : float
        Hz.
    samples : ndarray, shape (samples,)
        In any unit; each row is normalised by itself.
    station : str
        ``NET.STA``; picks of that station are drawn on the row.
    """

    label: str
    start_ns: int
    sampling_rate: float
    samples: NDArray[Any]
    station: str

    @property
    def end_ns(self) -> int:
        """Time just after the last sample."""
        return self.start_ns + round(self.samples.size / self.sampling_rate * NS_PER_S)


def highpassed(trace: OverviewTrace) -> OverviewTrace:
    """The trace without the microseism, to be looked at: less its mean over a second.

    Of that only NumPy is needed, which is loaded already when results are written.  Slow channels,
    which have little above the corner, stay as they are.
    """
    samples = trace.samples
    half = round(trace.sampling_rate / HIGHPASS_HZ / 2)
    if half < _SHORTEST_HALF or not np.isfinite(samples).any():
        return trace
    filtered = np.empty(samples.size, np.float32)
    for start in range(0, samples.size, _BLOCK):  # a day at once would need half a gigabyte
        end = min(start + _BLOCK, samples.size)
        first = max(start - half, 0)
        filtered[start:end] = _less_mean(samples[first : end + half], half)[start - first :][
            : end - start
        ]
    return replace(trace, samples=filtered)


def _less_mean(samples: NDArray[Any], half: int) -> Float64:
    """Samples less the mean of the finite ones up to `half` of them away on either side."""
    known = np.isfinite(samples)
    level = np.where(known, samples, 0.0)
    total, count = (_moving_sum(values, half) for values in (level, known))
    return np.where(known, level - total / np.maximum(count, 1.0), np.nan)


def _moving_sum(values: NDArray[Any], half: int) -> Float64:
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    half = min(half, values.size - 1)
    ends = np.concatenate([sums[half + 1 :], np.full(half, sums[-1])])
    ends[half:] -= sums[: values.size - half]
    return ends


def envelope(trace: OverviewTrace, column_ns: int) -> tuple[Float64, Float64]:
    """Times in days since 1970 and samples; of a long trace only the extremes of each column."""
    samples = _finite(trace.samples)
    step_ns = NS_PER_S / trace.sampling_rate
    width = int(column_ns / step_ns)
    if width <= 2:
        times_ns = trace.start_ns + np.arange(samples.size) * step_ns
        return times_ns / _DAY_NS, samples.astype(np.float64)
    starts = np.arange(0, samples.size, width)
    times_ns = np.repeat(trace.start_ns + (starts + 0.5 * width) * step_ns, 2)
    return times_ns / _DAY_NS, np.stack(_extremes(samples, starts), axis=1).ravel()


def decimated(trace: OverviewTrace, most: int) -> OverviewTrace:
    """A trace of no more than so many samples: the extremes of stretches in turn."""
    width = -(-2 * trace.samples.size // most)
    if width <= 2:
        return trace
    starts = np.arange(0, trace.samples.size, width)
    extremes = np.stack(_extremes(_finite(trace.samples), starts), axis=1).ravel()
    rate = 2 * trace.sampling_rate / width
    return replace(trace, samples=extremes.astype(np.float32), sampling_rate=rate)


def _finite(samples: NDArray[Any]) -> NDArray[Any]:
    """Samples with NaN for those that are no numbers."""
    finite = np.isfinite(samples)
    return samples if finite.all() else np.where(finite, samples, np.nan)


def _extremes(samples: NDArray[Any], starts: NDArray[np.intp]) -> tuple[Float64, Float64]:
    """Smallest and largest sample from each start to the next one, NaN where there is none."""
    lowest, highest = np.fmin.reduceat(samples, starts), np.fmax.reduceat(samples, starts)
    return lowest.astype(np.float64), highest.astype(np.float64)


def columns_of(
    trace: OverviewTrace, start_ns: int, column_ns: float
) -> tuple[int, Float64, Float64]:
    """Lowest and highest value of the line through the samples in each column of a picture.

    Parameters
    ----------
    trace : OverviewTrace
        With at least one sample.
    start_ns : int
        Where the first column begins; no later than the trace.
    column_ns : float
        Time in a column.

    Returns
    -------
    first : int
        Column that the trace begins in.
    lowest, highest : ndarray of float64, shape (columns,)
        NaN where no sample is finite.
    """
    samples = _finite(trace.samples)
    step = NS_PER_S / trace.sampling_rate / column_ns
    begin = (trace.start_ns - start_ns) / column_ns
    if step > 1 / _POINTS:
        places = np.arange(int((samples.size - 1) * step * _POINTS) + 1) / _POINTS
        samples = np.interp(places, np.arange(samples.size) * step, samples)
        step = 1 / _POINTS
    first = int(begin)
    columns = np.arange(first, int(begin + (samples.size - 1) * step) + 1)
    at = np.clip(np.ceil((columns - begin) / step).astype(np.intp), 0, samples.size - 1)
    lowest, highest = _extremes(samples, at)
    # The line from a column's last sample to the first of the next one is in both.
    between = (samples[at[1:] - 1].astype(np.float64) + samples[at[1:]]) / 2
    for side in (slice(1, None), slice(None, -1)):
        lowest[side] = np.fmin(lowest[side], between)
        highest[side] = np.fmax(highest[side], between)
    return first, lowest, highest


def trace_range(samples: Float64) -> tuple[float, float]:
    """Centre and scale of a row: the median and a percentile, which outliers hardly change."""
    finite = samples[np.isfinite(samples)]
    if not finite.size:
        return 0.0, 1.0
    offset = float(np.median(finite))
    away = np.abs(finite - offset)
    return offset, float(np.percentile(away, _PERCENTILE)) or float(away.max()) or 1.0
