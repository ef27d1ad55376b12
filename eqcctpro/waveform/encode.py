"""Segments to miniSEED files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pymseed import DataEncoding, MS3TraceList, nslc2sourceid

from eqcctpro.waveform.segments import Segment

__all__ = ["encode", "encode_file"]

# The record length that archives and real-time links use most.
RECORD_BYTES = 512

_RECORDS: dict[str, Any] = {
    "max_record_length": RECORD_BYTES,
    "encoding": DataEncoding.STEIM2,
    "format_version": 2,
}


def encode_file(path: Path, segments: Iterable[Segment]) -> None:
    """Write segments of 32-bit integer counts as miniSEED 2 with Steim-2 compression.

    Raises
    ------
    pymseed.MiniSEEDError
        Samples differ by more than Steim-2 can hold.
    OSError
        The file cannot be written.
    """
    _traces(segments).to_file(path, overwrite=True, **_RECORDS)


def encode(segments: Iterable[Segment]) -> bytes:
    """Records as `encode_file` writes them, in memory.

    Raises
    ------
    pymseed.MiniSEEDError
        Samples differ by more than Steim-2 can hold.
    """
    return b"".join(_traces(segments).generate(**_RECORDS))


def _traces(segments: Iterable[Segment]) -> MS3TraceList:
    traces = MS3TraceList()
    for segment in segments:
        traces.add_data(
            nslc2sourceid(*segment.code),
            np.ascontiguousarray(segment.samples, dtype=np.int32),
            "i",
            segment.sampling_rate,
            starttime=segment.start_ns,
        )
    return traces
