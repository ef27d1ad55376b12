"""Check of the record headers of small files, in one pass."""

from __future__ import annotations

import math
import struct
from functools import lru_cache

from eqcctpro.miniseed.salvage import EXPONENT_AT, usual_record_length

__all__ = ["LEAST_DRIFT_TICKS", "LEAST_RECORD_BYTES", "TICKS_PER_S", "nominal_rate", "steady_rate"]

#: Resolution of the time stamps of miniSEED 2.
TICKS_PER_S = 10_000
#: Stamps are rounded to a tick.
LEAST_DRIFT_TICKS = 1.5
#: Shorter records have no data behind their header.
LEAST_RECORD_BYTES = 64

# Headers of more records are read faster as arrays.
_MOST_RECORDS = 64
_QUALITIES, _QUALITY_AT = b"DRQM", 6
# Station, location, channel, network, year and day (SEED 2.4, chapter 8).
_CODES_AND_DAY = slice(8, 24)
_RATE_AT = 32


def steady_rate(content: bytes) -> float | None:
    """Sampling rate of a file with few records whose stamps follow it, of one channel and day.

    Parameters
    ----------
    content : bytes
        Content of the file.

    Returns
    -------
    float or None
        Hz, by the first header.  None where that is not certain; so of many records, and of other
        ones than miniSEED 2 of one length.
    """
    length, size = usual_record_length(content), len(content)
    if length < LEAST_RECORD_BYTES or size % length or size > _MOST_RECORDS * length:
        return None
    if content[_QUALITY_AT::length].strip(_QUALITIES):
        return None
    if content[EXPONENT_AT::length].strip(content[EXPONENT_AT : EXPONENT_AT + 1]):
        return None
    times, numbers = _layouts(length, little=content[48:50] == b"\xe8\x03")
    rate = nominal_rate(*numbers.unpack_from(content, _RATE_AT))
    if rate <= 0:
        return None
    sample = TICKS_PER_S / rate
    half = 0.5 * sample
    wandered, following, first = 0.0, -math.inf, content[_CODES_AND_DAY]
    for same, hour, minute, second, fraction, samples in times.iter_unpack(content):
        if same != first:
            return None
        ticks = (hour * 3_600 + minute * 60 + second) * TICKS_PER_S + fraction
        step = ticks - following
        if -half <= step <= half:  # more is a gap, from which on time is counted anew
            wandered += step if step > 0 else -step
        following = ticks + samples * sample
    return rate if wandered <= max(half, LEAST_DRIFT_TICKS) else None


@lru_cache(maxsize=16)
def _layouts(length: int, *, little: bool) -> tuple[struct.Struct, struct.Struct]:
    """Codes with the day, time and number of samples in a record's header; and its rate."""
    order = "<" if little else ">"
    times = struct.Struct(f"{order}8x16sBBBxHH{length - _RATE_AT}x")
    return times, struct.Struct(f"{order}hh")


def nominal_rate(factor: int, multiplier: int) -> float:
    """Hz, of the two numbers in a header; 0 where there is none."""
    if not factor or not multiplier:
        return 0.0
    rate = float(factor) if factor > 0 else -1.0 / factor
    return rate * multiplier if multiplier > 0 else -rate / multiplier
