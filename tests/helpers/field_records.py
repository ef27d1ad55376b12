"""Records of miniSEED as instruments, ring buffers and archives put them into files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

RECORD_BYTES = 512

#: Start of the data of tests, nanoseconds.
START_NS = 1_734_264_000 * 10**9  # 2024-12-15T12:00:00


def records_of(
    code: str,
    samples: np.ndarray,
    *,
    start_ns: int = START_NS,
    rate: float = 100.0,
    length: int = RECORD_BYTES,
    version: int = 2,
) -> list[bytes]:
    """Steim-2 records of one channel, ``NET.STA.LOC.CHA``."""
    from pymseed import DataEncoding, MS3TraceList, nslc2sourceid

    traces = MS3TraceList()
    traces.add_data(
        nslc2sourceid(*code.split(".")),
        np.ascontiguousarray(samples, dtype=np.int32),
        "i",
        rate,
        starttime=start_ns,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        traces.to_file(
            path,
            overwrite=True,
            max_record_length=length,
            encoding=DataEncoding.STEIM2,
            format_version=version,
        )
        content = path.read_bytes()
    return split(content)


def split(content: bytes) -> list[bytes]:
    """The records of a file."""
    from pymseed import MS3Record

    records, position = [], 0
    while position < len(content):
        length = MS3Record.parse(content[position:]).reclen
        records.append(content[position : position + length])
        position += length
    return records


def start_of(record: bytes) -> int:
    """Time of a record's first sample, nanoseconds."""
    from pymseed import MS3Record

    return int(MS3Record.parse(record).starttime)


def in_time_order(records: Iterable[bytes]) -> list[bytes]:
    """Records as a ring buffer holds them: in the order of their times."""
    return sorted(records, key=start_of)


def noise(seconds: float, *, rate: float = 100.0, seed: int = 0, size: float = 300.0) -> np.ndarray:
    """Integer noise, most of it slow."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, size / 10, round(seconds * rate))
    return np.convolve(steps, np.ones(20) / 4, "same").astype(np.int32)


def write(path: Path, records: Sequence[bytes]) -> Path:
    """Write records to a file, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(records))
    return path
