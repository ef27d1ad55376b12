"""Resampling of segments: of whole records as SeisBench does it, and of pieces as of their record.

SeisBench resamples a record as a whole.  What a piece of it yields must not depend on where it was
cut, so new samples of a piece lie where those of the whole record do, and have their values.
Decimation needs no more for that than its phase.  ObsPy's Fourier resampling is local but for two
things.  Samples of all of the record are stretched where its length is no multiple of the new
interval; that follows from its length, and from where in it the piece lies.  And where the new
Nyquist frequency cuts the spectrum off, each sample is heard everywhere; pieces are then taken out
of the resampled record, as long as that is held in memory.

Where samples are counted from 1970, the record does not count, and the edge of the spectrum is
smooth, so that a new sample depends on no more than the `REACH_S` around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.times import NS_PER_S, samples_in
from eqcctpro.waveform.clock import correction_at, stretch
from eqcctpro.waveform.segments import Record, Segment

__all__ = ["LONGEST_RECORD", "depends_on_all", "held_record", "resample"]

Float64 = NDArray[np.float64]

# New samples that are made at once, for the memory of long pieces.
SAMPLES_AT_ONCE = 100_000
# Data around these that are transformed with them, where there are any.
SHARP_MARGIN_S = 60.0
# How far a new sample depends on others, but for a sharp edge.
REACH_S = 3.0
# Standard deviation of the smooth edge, and how many of these it lies below the Nyquist frequency.
SMOOTH_EDGE_HZ = 0.32
EDGE_DEVIATIONS = 4
# At lower rates the edge is this share of them at most.
LARGEST_EDGE = 0.01
# What the spectrum's window leaves at the new Nyquist frequency at most, so that nothing is heard
# of its sharp end.
LARGEST_AT_EDGE = 1e-3
# Samples of a record that is held, and resampled as a whole, for a piece of it: a day at 250 Hz.
LONGEST_RECORD = 25_000_000
# Old samples after which old and new ones coincide again.  Where that takes longer, each new
# sample is evaluated by itself, which takes several times as long.
LONGEST_PERIOD = 10_000


def resample(
    segment: Segment, sampling_rate: float, *, zerophase: bool = True, absolute: bool = False
) -> Segment:
    """Bring a segment to another sampling rate.

    Integer ratios are low-pass filtered (4-corner Butterworth at the new Nyquist
    frequency) and decimated; all others are resampled in the Fourier domain with a
    Hann window and no filter, as SeisBench's ``WaveformModel.resample`` does.

    Parameters
    ----------
    segment : Segment
    sampling_rate : float
        Hz.
    zerophase : bool
        Whether the low-pass is applied forwards and backwards.
    absolute : bool
        Count new samples from 1970, and not from the beginning of the continuous record.  Whole
        records may then lose what precedes the first one.
    """
    rate = segment.sampling_rate
    if rate == sampling_rate:
        return segment
    if rate % sampling_rate == 0:
        factor = int(rate / sampling_rate)
        before = samples_in(segment.start_ns, rate) if absolute else segment.samples_before
        first = -before % factor
        samples = _decimate(segment.samples, factor, zerophase=zerophase)[first::factor]
        return _at_new_rate(segment, np.ascontiguousarray(samples), sampling_rate, first / rate)
    if absolute:
        grid = _grid_since_1970(segment, sampling_rate)
    elif segment.samples_before or segment.samples_behind:
        grid = _grid_of_record(segment, sampling_rate)
    else:
        samples = _fourier_resample(segment.samples, rate, sampling_rate)
        return _at_new_rate(segment, samples, sampling_rate, 0.0)
    # Not before the first sample of the piece.
    first = math.ceil(-grid.position / grid.interval)
    if grid.total and not segment.samples_behind:
        end = grid.new_total
    else:
        end = math.floor((len(segment.samples) - 1 - grid.position) / grid.interval) + 1
    shift = grid.position + first * _ratio(rate, sampling_rate)
    count = max(end - first, 0)
    record = segment.record
    if record is not None and record.n_samples == grid.total <= LONGEST_RECORD:
        made: NDArray[Any] = _of_record(record, rate, sampling_rate)[first : first + count]
    else:
        made = _resample_piece(segment.samples, grid, first, count)
    return _at_new_rate(segment, made, sampling_rate, float(shift) / rate)


def depends_on_all(rate: float, new_rate: float) -> bool:
    """True if new samples depend on all of the record: the spectrum ends sharply at its edge."""
    if rate <= new_rate or rate % new_rate == 0:
        return False
    return 0.5 + 0.5 * math.cos(math.pi * new_rate / rate) > LARGEST_AT_EDGE


def held_record(samples: NDArray[Any]) -> Record | None:
    """The record to be held for pieces of it, or None where that is too much or of no use."""
    if len(samples) > LONGEST_RECORD:
        return None
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        return None
    return Record([samples])


def _of_record(record: Record, rate: float, new_rate: float) -> NDArray[np.float32]:
    """The new samples of a whole record, which are made once for all its pieces."""
    found = record.resampled.get(new_rate)
    if found is None:
        found = _fourier_resample(record.samples, rate, new_rate).astype(np.float32)
        record.resampled[new_rate] = found
    return found


def _at_new_rate(
    segment: Segment, samples: NDArray[Any], sampling_rate: float, shift_s: float
) -> Segment:
    """A segment with its new samples, which begin nominal seconds behind the old ones."""
    behind = round(segment.samples_behind * sampling_rate / segment.sampling_rate)
    same = replace(
        segment, samples=samples, sampling_rate=sampling_rate, samples_behind=behind, record=None
    )
    if not shift_s:
        return same
    shift = round(shift_s * NS_PER_S)
    start, clock = segment.start_ns + shift, segment.clock
    if clock is not None:
        start += correction_at(clock, shift)
        clock = stretch(clock, shift, max(shift, int(clock[-1, 0])) + 1)
        clock = clock - clock[0]
    origin = start - shift - (segment.start_ns - segment.origin_ns)
    return replace(same, start_ns=start, anchor_ns=origin, clock=clock)


def _decimate(samples: NDArray[Any], factor: int, *, zerophase: bool) -> Float64:
    """Samples without what is above the new Nyquist frequency."""
    from scipy.signal import sosfilt

    sections = _decimation_sections(factor)
    data: Float64 = sosfilt(sections, samples.astype(np.float64))
    if zerophase:
        data = sosfilt(sections, data[::-1])[::-1]
    return data


@lru_cache(maxsize=32)
def _decimation_sections(factor: int) -> Float64:
    from scipy.signal import iirfilter

    sections = iirfilter(4, 1 / factor, btype="lowpass", ftype="butter", output="sos")
    return np.asarray(sections, dtype=np.float64)


def _fourier_resample(samples: NDArray[Any], rate: float, new_rate: float) -> Float64:
    """Samples of a whole record as ObsPy's ``Trace.resample`` has them."""
    from scipy.signal import get_window

    n = len(samples)
    spectrum = np.fft.rfft(samples.astype(np.float64))
    spectrum *= np.fft.ifftshift(get_window("hann", n))[: n // 2 + 1]
    new_n = _new_length(n, rate, new_rate)
    frequencies = np.arange(n // 2 + 1) / (n * (1.0 / rate))
    new_frequencies = np.arange(new_n // 2 + 1) * (1.0 / new_n * new_rate)
    real = np.interp(new_frequencies, frequencies, spectrum.real)
    imaginary = np.interp(new_frequencies, frequencies, spectrum.imag)
    return np.asarray(np.fft.irfft(real + 1j * imaginary, new_n) * (new_n / n))


def _new_length(n: int, rate: float, new_rate: float) -> int:
    return max(int(n / (rate / new_rate)), 1)


def _ratio(rate: float, new_rate: float) -> Fraction:
    """Old samples between two new ones at the nominal rates."""
    return Fraction(rate).limit_denominator(10**6) / Fraction(new_rate).limit_denominator(10**6)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Positions of the new samples of a piece among its old ones, and the filter between both.

    Frequencies are in cycles per old sample.

    Attributes
    ----------
    position : Fraction
        Of the new sample 0, in old samples from the first one of the piece.
    interval : Fraction
        Old samples between two new ones.
    highest : float
        Frequency above which there is nothing.
    margin : int
        Old samples on either side that are transformed with those that are wanted.
    reach : int
        Old samples on either side that a new one depends on, but for a sharp edge.
    edge : float
        Standard deviation of the smooth edge below `highest`; 0 for a sharp one.
    total, new_total : int
        Old and new samples of the record, where these count.
    stretch : float
        Old samples of the record beyond those that its new ones last, for each of the latter.
    """

    position: Fraction
    interval: Fraction
    highest: float
    margin: int
    reach: int
    edge: float = 0.0
    total: int = 0
    new_total: int = 1
    stretch: float = 0.0

    def response(self, frequencies: Float64) -> Float64:
        """Hann window of the spectrum, with its edge."""
        # The window of an odd number of samples lies half a bin beside the spectrum.
        phase = np.pi / self.total if self.total % 2 else 0.0
        response = 0.5 + 0.5 * np.cos(2 * np.pi * frequencies - phase)
        if not self.edge:
            return response * (frequencies <= self.highest)
        from scipy.special import erfc

        middle = self.highest - EDGE_DEVIATIONS * self.edge
        smooth: Float64 = 0.5 * erfc((frequencies - middle) / (np.sqrt(2) * self.edge))
        return response * smooth


def _grid_of_record(segment: Segment, new_rate: float) -> _Grid:
    """The grid of the whole record that a piece belongs to."""
    rate, total = segment.sampling_rate, segment.record_length
    new_total = _new_length(total, rate, new_rate)
    lasting = new_total * _ratio(rate, new_rate)
    return _Grid(
        Fraction(-segment.samples_before),
        Fraction(total, new_total),
        (new_total // 2) / total,
        math.ceil(SHARP_MARGIN_S * rate),
        math.ceil(REACH_S * rate),
        total=total,
        new_total=new_total,
        stretch=float((total - lasting) / lasting),
    )


def _grid_since_1970(segment: Segment, new_rate: float) -> _Grid:
    """The grid on which a whole number of samples lies between 1970 and each one."""
    rate = segment.sampling_rate
    before = samples_in(segment.start_ns, rate)
    interval = _ratio(rate, new_rate)
    lower = min(1.0, 1 / float(interval))
    edge = min(SMOOTH_EDGE_HZ / rate, LARGEST_EDGE * lower)
    reach = math.ceil(REACH_S * rate)
    return _Grid(Fraction(-before), interval, lower / 2, reach, reach, edge=edge)


def _resample_piece(samples: NDArray[Any], grid: _Grid, first: int, count: int) -> Float64:
    """Compute `count` new samples of a piece, starting at the new sample `first`."""
    new = np.empty(count)
    parts = -(-count // SAMPLES_AT_ONCE)
    edges = [count * part // parts for part in range(parts + 1)] if parts else []
    for begin, end in pairwise(edges):
        at = grid.position + (first + begin) * grid.interval
        low = max(math.floor(at) - grid.margin, 0)
        high = math.ceil(at + (end - begin) * grid.interval) + grid.margin
        old = samples[low:high].astype(np.float64)
        level = old[0]
        old -= level
        make = _by_chirp if grid.stretch or grid.interval.numerator > LONGEST_PERIOD else _by_period
        new[begin:end] = make(old, grid, at - low, first + begin, end - begin) + level
    return new


def _spectrum(old: Float64, grid: _Grid, lead: int, length: int) -> tuple[Float64, Any]:
    """Frequencies, and the spectrum of samples that go on as they end, and come round to zero.

    So the ends of a record are the same whatever piece of it ends there.
    """
    from scipy.fft import rfft

    reach = grid.reach
    ramp = 0.5 + 0.5 * np.cos(np.pi * np.arange(reach) / reach)
    behind = old[-1] * np.concatenate([np.ones(reach), ramp])
    spectrum = rfft(np.concatenate([np.zeros(lead), old, behind]), length)
    frequencies = np.arange(len(spectrum)) / length
    return frequencies, spectrum * grid.response(frequencies)


def _by_period(old: Float64, grid: _Grid, at: Fraction, first: int, count: int) -> Float64:
    """New samples by an inverse transform, where some of them coincide with old ones.

    Parameters
    ----------
    old : ndarray
    grid : _Grid
    at : Fraction
        Position of the first new sample among the old ones.
    first, count : int
        Its number, and how many there are.
    """
    from scipy.fft import irfft, next_fast_len

    period, new_period = grid.interval.numerator, grid.interval.denominator
    skipped = first % new_period
    coincides = int(at - skipped * grid.interval)
    turns = max(-(-coincides // period), 0)
    skipped += turns * new_period
    lead = turns * period - coincides
    periods = next_fast_len(-(-(lead + len(old) + 3 * grid.reach) // period), real=True)
    length, new_length = periods * period, periods * new_period
    _, spectrum = _spectrum(old, grid, lead, length)
    new = irfft(spectrum[: new_length // 2 + 1], new_length)[skipped : skipped + count]
    return np.asarray(new * (new_length / length))


def _by_chirp(old: Float64, grid: _Grid, at: Fraction, first: int, count: int) -> Float64:
    """New samples wherever they lie; see `_by_period`."""
    from scipy.fft import next_fast_len

    length = next_fast_len(len(old) + 3 * grid.reach, real=True)
    frequencies, spectrum = _spectrum(old, grid, 0, length)
    frequencies = frequencies[: int(grid.highest * length) + 1]
    spectrum = spectrum[: len(frequencies)]
    spectrum[1:] *= 2
    chirp = _chirp(len(spectrum), count, float(at) / length, float(grid.interval) / length)
    new = chirp(spectrum) / length
    if grid.stretch:
        # ObsPy interpolates the spectrum of the record between its frequencies j / total at
        # those of the shorter record of new samples, which lie by j * stretch further on.
        further = chirp(spectrum * (frequencies * grid.total * grid.stretch)) / length
        turn = np.exp(-2j * np.pi / grid.new_total * np.arange(first, first + count))
        new = new - further + (further - grid.stretch * new) * turn
    return np.ascontiguousarray(new.real)


@lru_cache(maxsize=2)
def _chirp(n: int, count: int, start: float, step: float) -> Any:
    """Sums of n terms at so many points of the unit circle; components share it."""
    from scipy.signal import CZT

    return CZT(n, count, np.exp(2j * np.pi * step), np.exp(-2j * np.pi * start))
