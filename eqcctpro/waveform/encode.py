"""Segments to miniSEED files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pymseed import DataEncoding, MS3TraceList, nslc2sourceid

from eqcctpro.waveform.segments import Segment

__all__ = ["encode_file"]

# The record length that archives and real-time links use most.
RECORD_BYTES = 512


def encode_file(path: Path, segments: Iterable[Segment]) -> None:
    """Write segments of 32-bit integer counts as miniSEED 2 with Steim-2 compression.

    Raises
    ------
    pymseed.MiniSEEDError
        Samples differ by more than Steim-2 can hold.
    OSError
        The file cannot be written.
    """
    traces = MS3TraceList()
    for segment in segments:
        traces.add_data(
            nslc2sourceid(*segment.code),
            np.ascontiguousarray(segment.samples, dtype=np.int32),
            "i",
            segment.sampling_rate,
            starttime=segment.start_ns,
        )
    traces.to_file(
        path,
        overwrite=True,
        max_record_length=RECORD_BYTES,
        encoding=DataEncoding.STEIM2,
        format_version=2,
    )
