"""Segments to miniSEED files."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MS3TraceList

from eqcctpro.codes import HEADER_FIELDS, Code, header_of_code, is_tidy, source_of_code
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.clock import LEAP_SECONDS_NS
from eqcctpro.waveform.segments import Segment

__all__ = ["Series", "encode", "encode_file", "encode_series"]

# The record length that archives and real-time links use most.
RECORD_BYTES = 512


class Series(NamedTuple):
    """Samples of one channel without a gap, as they are written.

    Attributes
    ----------
    code : tuple of str
        Network, station, location and channel.
    start_ns : int
        Time of the first sample, nanoseconds since 1970 UTC.
    sampling_rate : float
        Hz.
    samples : ndarray of int32 or float32, shape (n,)
    """

    code: Code
    start_ns: int
    sampling_rate: float
    samples: NDArray[Any]


def encode_file(path: Path, segments: Iterable[Segment]) -> None:
    """Write segments of 32-bit integer counts as miniSEED with Steim-2 compression.

    Raises
    ------
    pymseed.MiniSEEDError
        Samples differ by more than Steim-2 can hold.
    OSError
        The file cannot be written.
    """
    path.write_bytes(encode(segments))


def encode(segments: Iterable[Segment]) -> bytes:
    """Records as `encode_file` writes them, in memory.

    Raises
    ------
    pymseed.MiniSEEDError
        Samples differ by more than Steim-2 can hold.
    """
    counts = (
        Series(s.code, s.start_ns, s.sampling_rate, np.asarray(s.samples, dtype=np.int32))
        for s in segments
    )
    return b"".join(encode_series(counts, DataEncoding.STEIM2, RECORD_BYTES))


def encode_series(
    series: Iterable[Series], encoding: DataEncoding, record_bytes: int
) -> Iterator[bytes]:
    """Records of miniSEED 2, or of miniSEED 3 for codes that miniSEED 2 has no room for.

    Parameters
    ----------
    series : iterable of Series
    encoding : pymseed.DataEncoding
    record_bytes : int
        Length of the records; of miniSEED 3 the greatest one.

    Raises
    ------
    pymseed.MiniSEEDError, ValueError
        The codes fit neither, or the encoding cannot hold the samples.
    """
    lists: dict[tuple[int, int], MS3TraceList] = {}
    # Codes that libmseed would change are put into the headers afterwards.
    headers: dict[bytes, bytes] = {}
    for one, leap_seconds in _between_leap_seconds(series):
        header, source = header_of_code(one.code), source_of_code(one.code)
        if header is not None and not is_tidy(header):
            number = list(headers.values()).index(header) if header in headers.values() else None
            station = f"~{len(headers) if number is None else number:04X}"
            headers[f"{station}~~HHZ~~".encode()] = header
            source = f"FDSN:~~_{station}_~~_H_H_Z"
        version = 3 if header is None else 2
        lists.setdefault((version, leap_seconds), MS3TraceList()).add_data(
            source,
            np.ascontiguousarray(one.samples),
            one.samples.dtype.kind,
            one.sampling_rate,
            starttime=one.start_ns,
        )
    for (version, _), members in sorted(lists.items(), key=lambda item: item[0]):
        for record in members.generate(
            max_record_length=record_bytes, encoding=encoding, format_version=version
        ):
            header = headers.get(record[HEADER_FIELDS]) if headers and version == 2 else None
            yield record if header is None else _with_fields(record, header)


def _between_leap_seconds(series: Iterable[Series]) -> Iterator[tuple[Series, int]]:
    """Series cut at leap seconds, and how many lie before each part.

    libmseed takes samples across one to include it, and sets records behind it back by a second.
    """
    for one in series:
        interval_ns = NS_PER_S / one.sampling_rate
        end_ns = one.start_ns + round((len(one.samples) - 1) * interval_ns)
        first, last = (bisect_right(LEAP_SECONDS_NS, time) for time in (one.start_ns, end_ns))
        if first == last:
            yield one, first
            continue
        inside = LEAP_SECONDS_NS[first:last]
        cuts = [math.ceil((time - one.start_ns) / interval_ns - 1e-6) for time in inside]
        edges = [0, *cuts, len(one.samples)]
        for count, (begin, end) in enumerate(pairwise(edges), first):
            start_ns = one.start_ns + round(begin * interval_ns)
            yield one._replace(start_ns=start_ns, samples=one.samples[begin:end]), count


def _with_fields(record: bytes, fields: bytes) -> bytes:
    return record[: HEADER_FIELDS.start] + fields + record[HEADER_FIELDS.stop :]
