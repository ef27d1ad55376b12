"""Sorting of records that are far from the order of time, which libmseed joins slowly.

For a record that neither follows nor precedes all others of its channel, libmseed searches its
list of segments: thousands of such records would take minutes, so they are sorted before.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymseed import MS3Record

from eqcctpro.miniseed.salvage import EXPONENT_AT, usual_record_length, whole_records

__all__ = ["in_order"]

# Up to this many records, or records that begin before their predecessor, are joined quickly.
_FEW_RECORDS = 8192
_FEW_STEPS_BACK = 4096
_LEAST_RECORD_BYTES = 40
_QUALITY_AT = 6
# The header of miniSEED 2 (SEED 2.4, chapter 8).
_HEADER2 = {
    "codes": ("S12", 8),
    "year": ("u2", 20),
    "day": ("u2", 22),
    "hour": ("u1", 24),
    "minute": ("u1", 25),
    "second": ("u1", 26),
    "fraction": ("u2", 28),
}
# The header of miniSEED 3: nanoseconds, year, day, hour, minute, second; sizes of other parts.
_MARK3, _HEADER3 = b"MS\x03", 40
_TIME3, _SIZES3 = struct.Struct("<4xIHHBBB"), struct.Struct("<33xBHI")

# Start and end of each record, number of its channel, and a number that increases with its time.
_Records = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def in_order(content: bytes) -> bytes:
    """Sort records by channel and time, if many are not in the order of time.

    Parameters
    ----------
    content : bytes
        Content of a file, under codes that libmseed distinguishes.

    Returns
    -------
    bytes
        The same object unless it was sorted; bytes outside of records come last then.
    """
    if len(content) < _FEW_RECORDS * _LEAST_RECORD_BYTES:
        return content
    found = _of_one_length(content) or _of_version_3(content) or _one_by_one(content)
    starts, ends, channels, times = found
    if len(starts) < _FEW_RECORDS:
        return content
    by_channel = np.argsort(channels, kind="stable")
    steps = np.diff(times[by_channel])[np.diff(channels[by_channel]) == 0]
    if np.count_nonzero(steps < 0) < _FEW_STEPS_BACK:
        return content
    order = np.lexsort((times, channels))
    records = zip(starts[order].tolist(), ends[order].tolist(), strict=True)
    between = zip([0, *ends.tolist()], [*starts.tolist(), len(content)], strict=True)
    return b"".join(content[start:end] for part in (records, between) for start, end in part)


def _of_one_length(content: bytes) -> _Records | None:
    """Records of miniSEED 2 in one byte order and length; None for others."""
    length = usual_record_length(content)
    if length < _LEAST_RECORD_BYTES or len(content) < length:
        return None
    end = len(content) // length * length
    qualities, lengths = content[_QUALITY_AT:end:length], content[EXPONENT_AT:end:length]
    if qualities.strip(b"DRQM") or lengths.strip(lengths[:1]):
        return None
    order = "<" if content[48:50] == b"\xe8\x03" else ">"
    fields: Any = {
        "names": list(_HEADER2),
        "formats": [kind if kind[0] == "S" else order + kind for kind, _ in _HEADER2.values()],
        "offsets": [offset for _, offset in _HEADER2.values()],
        "itemsize": length,
    }
    headers = np.frombuffer(content, np.dtype(fields), end // length)
    _, channels = np.unique(headers["codes"], return_inverse=True)
    times = headers["year"].astype(np.int64)
    for name, most in (("day", 400), ("hour", 24), ("minute", 60), ("second", 61)):
        times = times * most + headers[name]
    starts = np.arange(0, end, length, dtype=np.int64)
    return starts, starts + length, channels, times * 10_000 + headers["fraction"]


def _of_version_3(content: bytes) -> _Records | None:
    """Records of a file with only miniSEED 3; None for others."""
    numbers: dict[bytes, int] = {}
    found: list[tuple[int, int, int, int]] = []
    position = 0
    while position < len(content):
        if content[position : position + 3] != _MARK3 or position + _HEADER3 > len(content):
            return None
        name_bytes, extra, data = _SIZES3.unpack_from(content, position)
        ns, year, day, hour, minute, second = _TIME3.unpack_from(content, position)
        seconds = (((year * 400 + day) * 24 + hour) * 60 + minute) * 61 + second
        data_at = position + _HEADER3 + name_bytes
        number = numbers.setdefault(content[position + _HEADER3 : data_at], len(numbers))
        found.append((position, data_at + extra + data, number, seconds * 10**6 + ns // 1000))
        position = data_at + extra + data
    return _columns(found)


def _one_by_one(content: bytes) -> _Records:
    """Records of any kind."""
    numbers: dict[str, int] = {}
    found: list[tuple[int, int, int, int]] = []
    position = 0
    for whole in whole_records(content):
        record = MS3Record.parse(whole)
        position = content.index(whole, position)
        number = numbers.setdefault(record.sourceid, len(numbers))
        found.append((position, position + len(whole), number, record.starttime))
        position += len(whole)
    return _columns(found)


def _columns(found: list[tuple[int, int, int, int]]) -> _Records:
    starts, ends, channels, times = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return starts, ends, channels, times
