"""Filtering of segments, in the way SeisBench does it through ObsPy, before they are resampled.

The arithmetic of ObsPy's filters is written out on arrays, so that ObsPy need not be imported
to pick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.waveform.resampling import resample
from eqcctpro.waveform.segments import Segment

__all__ = ["Bandpass", "Conditioning", "condition"]

Float64 = NDArray[np.float64]

# Samples that are filtered in one call: a call costs as much as a minute of them, and a day of
# three components would take half a gigabyte at once.
FILTERED_AT_ONCE = 500_000

# EQCCTPro tapers this many seconds at each end of a trace before it filters.
TAPER_S = 5.0


@dataclass(frozen=True, slots=True)
class Bandpass:
    """EQCCTPro's band-pass: zero-phase Butterworth after demeaning and tapering.

    Attributes
    ----------
    low, high : float
        Corner frequencies in Hz.
    corners : int
        Order of the filter; it is applied forwards and backwards.
    """

    low: float = 1.0
    high: float = 45.0
    corners: int = 2


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Filters and resampling of a segment before windows are cut.

    Attributes
    ----------
    sampling_rate : float or None
        Hz that the model expects; None leaves the data as they are.
    zerophase : bool
        Whether the anti-alias filter of integer decimation is zero-phase.
    bandpass : Bandpass or None
        Optional filter of EQCCTPro.
    filter_args, filter_kwargs
        A filter that the model itself asks for, in the terms of ObsPy's
        ``Stream.filter``: a name with arguments, or dictionaries by channel pattern.
    """

    sampling_rate: float | None
    zerophase: bool = True
    bandpass: Bandpass | None = None
    filter_args: Any = None
    filter_kwargs: Any = None

    @property
    def filters(self) -> bool:
        """True if a filter comes before the resampling."""
        given = (self.bandpass, self.filter_args, self.filter_kwargs)
        return any(part is not None for part in given)


def condition(
    segments: Sequence[Segment], how: Conditioning, *, absolute: bool = False
) -> list[Segment]:
    """Filter, then resample, every segment; untouched ones keep their array.

    Parameters
    ----------
    segments : sequence of Segment
    how : Conditioning
    absolute : bool
        Whether new samples are counted from 1970; see `eqcctpro.waveform.resampling`.
    """
    if how.bandpass is not None:
        segments = _bandpass(segments, how.bandpass)
    if how.filter_args is not None or how.filter_kwargs is not None:
        segments = [_model_filter(segment, how) for segment in segments]
    if how.sampling_rate is None:
        return list(segments)
    return [
        resample(segment, how.sampling_rate, zerophase=how.zerophase, absolute=absolute)
        for segment in segments
    ]


def _bandpass(segments: Sequence[Segment], band: Bandpass) -> list[Segment]:
    """Filter segments; short ones of one length together."""
    alike: dict[tuple[float, int], list[int]] = {}
    for position, segment in enumerate(segments):
        if band.low >= segment.sampling_rate / 2:
            raise SettingsError(
                f"{segment.code}: band-pass from {band.low} Hz needs more than "
                f"{segment.sampling_rate} Hz sampling"
            )
        alike.setdefault((segment.sampling_rate, len(segment.samples)), []).append(position)
    filtered = list(segments)
    for (_, length), positions in alike.items():
        together = max(FILTERED_AT_ONCE // max(length, 1), 1)
        for at in range(0, len(positions), together):
            _filter_alike(segments, positions[at : at + together], filtered, band)
    return filtered


def _filter_alike(
    segments: Sequence[Segment], positions: Sequence[int], filtered: list[Segment], band: Bandpass
) -> None:
    """Filter segments of one rate and length, and put them where they were."""
    rate, length = segments[positions[0]].sampling_rate, len(segments[positions[0]].samples)
    data = np.empty((len(positions), length))
    for row, position in zip(data, positions, strict=True):
        row[:] = segments[position].samples
        row -= row.mean()
    data *= _cosine_taper(length, TAPER_S * rate)
    for row, position in zip(_there_and_back(data, band, rate), positions, strict=True):
        filtered[position] = replace(segments[position], samples=row, record=None)


def _there_and_back(data: Float64, band: Bandpass, sampling_rate: float) -> Float64:
    from scipy.signal import sosfilt

    sections = _bandpass_sections(band, sampling_rate)
    forward = sosfilt(sections, data)
    back: Float64 = sosfilt(sections, forward[:, ::-1])[:, ::-1]
    return back


@lru_cache(maxsize=32)
def _bandpass_sections(band: Bandpass, sampling_rate: float) -> Float64:
    """Coefficients of the filter; every segment of a network asks for the same."""
    from scipy.signal import iirfilter

    nyquist = sampling_rate / 2
    # At or above Nyquist the upper corner is meaningless: what is left is a high-pass.
    edges, kind = (
        ([band.low / nyquist, band.high / nyquist], "band")
        if band.high < nyquist * (1 - 1e-6)
        else (band.low / nyquist, "high")
    )
    return np.asarray(
        iirfilter(band.corners, edges, btype=kind, ftype="butter", output="sos"), dtype=np.float64
    )


def _cosine_taper(n: int, width: float) -> Float64:
    """Ones with a cosine ramp of at most `width` samples, from 0 to 1, at both ends."""
    ramp_samples = min(int(width), n // 2)
    taper = np.ones(n)
    if ramp_samples > 1:
        ramp = 0.5 * (1 - np.cos(np.pi * np.linspace(0, 1, ramp_samples)))
        taper[:ramp_samples] = ramp
        taper[n - ramp_samples :] = ramp[::-1]
    return taper


def _model_filter(segment: Segment, how: Conditioning) -> Segment:
    from fnmatch import fnmatchcase

    from obspy import Trace

    trace = Trace(
        segment.samples.astype(np.float64), header={"sampling_rate": segment.sampling_rate}
    )
    if isinstance(how.filter_args, dict):
        for pattern, arguments in how.filter_args.items():
            if fnmatchcase(segment.code.channel, pattern):
                trace.filter(*arguments, **how.filter_kwargs[pattern])
    else:
        trace.filter(*(how.filter_args or ()), **(how.filter_kwargs or {}))
    return replace(segment, samples=trace.data, record=None)
