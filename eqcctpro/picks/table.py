"""The pick table: its schema, and how raw picks become rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eqcctpro.archive.plan import Tasks
from eqcctpro.models.picker import Picker
from eqcctpro.picks.arrow import number_column, text_column
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


def pick_table(raw: RawPicks, tasks: Tasks, picker: Picker, run_id: str) -> pa.Table:
    """Rows of `PICK_SCHEMA`, sorted by time, then by code and phase."""
    raw = _sorted(raw, tasks, picker)
    columns = _columns(raw, tasks, picker, run_id)
    columns["phase"] = text_column(picker.labels, raw.label)
    return pa.table([columns[name] for name in PICK_SCHEMA.names], schema=PICK_SCHEMA)


def detection_table(raw: RawPicks, tasks: Tasks, picker: Picker, run_id: str) -> pa.Table:
    """Rows of `DETECTION_SCHEMA`, sorted by time, then by code."""
    columns = _columns(_sorted(raw, tasks, picker), tasks, picker, run_id)
    return pa.table([columns[name] for name in DETECTION_SCHEMA.names], schema=DETECTION_SCHEMA)


def _sorted(raw: RawPicks, tasks: Tasks, picker: Picker) -> RawPicks:
    """In the order of time, code, phase and time chunk."""
    used, position = np.unique(raw.task, return_inverse=True)
    named = list(tasks.headings(used.tolist()))
    codes = _ranks([(t.network, t.station, t.location, t.instrument) for t in named])
    chunks = _ranks([task.chunk.name for task in named])
    keys = (chunks[position], _ranks(picker.labels)[raw.label], codes[position])
    return raw.take(np.lexsort((*keys, _microseconds(raw.time_ns))))


def _ranks(values: Sequence[Any]) -> NDArray[np.intp]:
    """Place of each value among all different ones in order."""
    place = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return np.array([place[value] for value in values], dtype=np.intp)


def _columns(raw: RawPicks, tasks: Tasks, picker: Picker, run_id: str) -> dict[str, pa.Array]:
    used, which = np.unique(raw.task, return_inverse=True)
    named = list(tasks.headings(used.tolist()))
    same = np.zeros(len(raw), dtype=np.intp)
    return {
        "network": text_column([task.network for task in named], which),
        "station": text_column([task.station for task in named], which),
        "location": text_column([task.location for task in named], which),
        "channel": text_column([task.instrument for task in named], which),
        "time": number_column(_microseconds(raw.time_ns), _UTC),
        "start_time": number_column(_microseconds(raw.start_ns), _UTC),
        "end_time": number_column(_microseconds(raw.end_ns), _UTC),
        "probability": number_column(raw.probability, pa.float32()),
        "model": text_column([picker.model], same),
        "weights": text_column([picker.weights], same),
        "timechunk": text_column([task.chunk.name for task in named], which),
        "run_id": text_column([run_id], same),
    }


def _microseconds(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    return (times_ns + 500) // 1000
