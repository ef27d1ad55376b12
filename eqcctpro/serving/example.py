"""Synthetic example for self-tests; always the same."""

from __future__ import annotations

from functools import lru_cache

from eqcctpro.models.picker import Picker
from eqcctpro.synthetic.waveforms import synthetic_waveforms
from eqcctpro.times import parse_utc
from eqcctpro.waveform.encode import encode
from eqcctpro.waveform.segments import ChannelCode, Segment

__all__ = ["example_miniseed", "example_segments"]

START_NS = parse_utc("2024-12-15T12:00:00")

_RATE_HZ = 100.0
_SECONDS = 60.0


def example_segments(picker: Picker | None = None) -> list[Segment]:
    """Three components of one station with an earthquake, long enough for the model."""
    seconds = _SECONDS
    if picker is not None:
        seconds = max(seconds, 1.5 * picker.in_samples / (picker.sampling_rate or _RATE_HZ))
    return list(_segments(seconds))


@lru_cache(maxsize=8)
def _segments(seconds: float) -> tuple[Segment, ...]:
    recording = synthetic_waveforms(stations=1, duration_s=seconds, sampling_rate=_RATE_HZ)
    return tuple(
        Segment(ChannelCode("XX", "DEM01", "00", channel), START_NS, _RATE_HZ, row)
        for channel, row in zip(("HHZ", "HHN", "HHE"), recording.counts[0], strict=True)
    )


def example_miniseed(picker: Picker | None = None) -> bytes:
    """The example as miniSEED records."""
    return encode(example_segments(picker))
