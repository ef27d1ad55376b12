"""The pick table: its schema, and how raw picks become rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eqcctpro.archive.plan import StationTask
from eqcctpro.models.picker import Picker
from eqcctpro.picks.raw import RawPicks

__all__ = [
    "AMPLITUDE_FIELDS",
    "DETECTION_SCHEMA",
    "MEASURED_SCHEMA",
    "PICK_SCHEMA",
    "detection_table",
    "pick_table",
]

_UTC = pa.timestamp("us", tz="UTC")
_CODES = [(name, pa.string()) for name in ("network", "station", "location", "channel")]
_TIMES = [(name, _UTC) for name in ("time", "start_time", "end_time")]
_ORIGIN = [(name, pa.string()) for name in ("model", "weights", "timechunk", "run_id")]

PICK_SCHEMA = pa.schema(
    [*_CODES, ("phase", pa.string()), *_TIMES, ("probability", pa.float32()), *_ORIGIN]
)
"""Columns of ``picks.csv`` and ``picks.parquet``.

``channel`` is the band and instrument code.  ``time`` is the peak of the curve;
``start_time`` and ``end_time`` are where the trigger goes on and off.
"""

AMPLITUDE_FIELDS = [
    pa.field(name, pa.float64())
    for name in ("amplitude_counts", "velocity_m_s", "wood_anderson_mm")
]
"""What `eqcctpro.amplitudes` adds to a pick table."""

MEASURED_SCHEMA = pa.schema([*PICK_SCHEMA, *AMPLITUDE_FIELDS])
"""Columns of ``amplitudes.csv``."""

DETECTION_SCHEMA = pa.schema([*_CODES, *_TIMES, ("probability", pa.float32()), *_ORIGIN])
"""Columns of ``detections.csv``; ``time`` is the peak of the detection curve."""


def pick_table(
    raw: RawPicks, tasks: Sequence[StationTask], picker: Picker, run_id: str
) -> pa.Table:
    """Rows of `PICK_SCHEMA`, sorted by time, then by code and phase."""
    columns = _columns(raw, tasks, picker, run_id)
    columns["phase"] = pa.array(list(picker.labels), pa.string()).take(pa.array(raw.label))
    return _sorted(columns, PICK_SCHEMA)


def detection_table(
    raw: RawPicks, tasks: Sequence[StationTask], picker: Picker, run_id: str
) -> pa.Table:
    """Rows of `DETECTION_SCHEMA`, sorted by time, then by code."""
    return _sorted(_columns(raw, tasks, picker, run_id), DETECTION_SCHEMA)


def _columns(
    raw: RawPicks, tasks: Sequence[StationTask], picker: Picker, run_id: str
) -> dict[str, pa.Array]:
    which = pa.array(raw.task)

    def per_task(values: list[str]) -> pa.Array:
        return pa.array(values, pa.string()).take(which)

    def constant(value: str) -> pa.Array:
        return pa.array([value], pa.string()).take(pa.array(np.zeros(len(raw), dtype=np.int32)))

    return {
        "network": per_task([task.network for task in tasks]),
        "station": per_task([task.station for task in tasks]),
        "location": per_task([task.location for task in tasks]),
        "channel": per_task([task.instrument for task in tasks]),
        "time": _timestamps(raw.time_ns),
        "start_time": _timestamps(raw.start_ns),
        "end_time": _timestamps(raw.end_ns),
        "probability": pa.array(raw.probability, pa.float32()),
        "model": constant(picker.model),
        "weights": constant(picker.weights),
        "timechunk": per_task([task.chunk.name for task in tasks]),
        "run_id": constant(run_id),
    }


def _timestamps(times_ns: NDArray[np.int64]) -> pa.Array:
    microseconds = (times_ns + 500) // 1000
    return pa.array(microseconds, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def _sorted(columns: dict[str, pa.Array], schema: pa.Schema) -> pa.Table:
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    order = ["time", "network", "station", "location", "channel"]
    order += [name for name in ("phase", "timechunk") if name in schema.names]
    return table.sort_by([(name, "ascending") for name in order])
