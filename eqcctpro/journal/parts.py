"""Part files: picks and detections of a group of station tasks, synced before they are listed."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from eqcctpro.picks.arrow import flag_column, number_column
from eqcctpro.picks.raw import TaskPicks

__all__ = ["TEMPORARY", "Findings", "read_part", "write_part"]

#: Ending of files that are not complete yet.
TEMPORARY = ".unfinished"

_SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("label", pa.int16()),
        ("time_ns", pa.int64()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("probability", pa.float32()),
        ("detection", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Findings:
    """Picks and detections; ``task`` holds the keys of journal items."""

    picks: TaskPicks = field(default_factory=TaskPicks.empty)
    detections: TaskPicks = field(default_factory=TaskPicks.empty)

    def __len__(self) -> int:
        return len(self.picks) + len(self.detections)


def write_part(path: Path, findings: Findings) -> int:
    """Write a part file atomically and sync it to disk; returns its CRC-32.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
        out.write(_batch(findings.picks, detection=False))
        out.write(_batch(findings.detections, detection=True))
    content = memoryview(sink.getvalue())
    unfinished = path.with_name(path.name + TEMPORARY)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return zlib.crc32(content)


def read_part(path: Path, crc: int) -> Findings | None:
    """Read a part file; None if it is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if zlib.crc32(content) != crc:
        return None
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    detection = table["detection"].to_numpy()
    columns = [np.asarray(column.to_numpy()) for column in table.drop("detection").columns]
    whole = TaskPicks(*[*columns[1:], columns[0]])
    return Findings(whole.take(~detection), whole.take(detection))


def _batch(picks: TaskPicks, *, detection: bool) -> pa.RecordBatch:
    *columns, task = picks.columns()
    numbers = [
        number_column(np.ascontiguousarray(column, dtype=field.type.to_pandas_dtype()), field.type)
        for column, field in zip((task, *columns), _SCHEMA, strict=False)
    ]
    return pa.record_batch([*numbers, flag_column(detection, len(picks))], schema=_SCHEMA)


def _sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
