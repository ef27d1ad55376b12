"""The pick table: its schema, and how raw picks become rows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eqcctpro.models.picker import Picker
from eqcctpro.picks.arrow import TextPool, number_column
from eqcctpro.picks.raw import TaskPicks

__all__ = [
    "AMPLITUDE_FIELDS",
    "DETECTION_SCHEMA",
    "MEASURED_SCHEMA",
    "PICK_SCHEMA",
    "PickRows",
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

# Columns that a station task has one text for, in the order of the table's rows.
_OF_TASK = ("network", "station", "location", "channel", "timechunk")


class TaskNames(Protocol):
    """Station tasks that tell what they are called."""

    def names(self, positions: Iterable[int]) -> Iterator[tuple[str, str, str, str, str]]:
        """Network, station, location, instrument and time chunk of some."""


class PickRows:
    """Picks or detections in the order of their table, of which rows are made when wanted.

    Sorted by time, then by code, phase and time chunk.

    Parameters
    ----------
    raw : TaskPicks
    tasks : Tasks
        What `raw` was found in.
    picker : Picker
    run_id : str
    schema : pyarrow.Schema
        `PICK_SCHEMA` or `DETECTION_SCHEMA`.

    Attributes
    ----------
    phases : dict of str to int
        How many there are of each phase that there are any of.
    per_task : dict of int to int
        How many there are of each station task that there are any of.
    """

    def __init__(
        self,
        raw: TaskPicks,
        tasks: TaskNames,
        picker: Picker,
        run_id: str,
        schema: pa.Schema = PICK_SCHEMA,
    ) -> None:
        used, of_used = np.unique(raw.task, return_inverse=True)
        columns = {name: _Names() for name in _OF_TASK}
        for names in tasks.names(used.tolist()):
            for column, name in zip(columns.values(), names, strict=True):
                column.append(name)
        self.schema = schema
        self._texts = {"phase": TextPool(picker.labels), "model": TextPool([picker.model])}
        self._texts |= {"weights": TextPool([picker.weights]), "run_id": TextPool([run_id])}
        self._texts |= {name: TextPool(column.in_order) for name, column in columns.items()}
        places = {name: column.places()[of_used] for name, column in columns.items()}
        *of_codes, of_chunk = places.values()
        ranks = (*of_codes, _ranks(picker.labels)[raw.label], of_chunk)
        times: NDArray[np.integer[Any]] = _microseconds(raw.time_ns)
        order = np.lexsort((*reversed(ranks), times))
        counts = np.bincount(raw.label, minlength=len(picker.labels)).tolist()
        self.phases = {label: n for label, n in zip(picker.labels, counts, strict=True) if n}
        in_tasks = np.bincount(of_used, minlength=len(used)).tolist()
        self.per_task = dict(zip(used.tolist(), in_tasks, strict=True))
        self._n_rows = len(raw)
        self._table: pa.Table | None = None
        self._raw = raw.take(order)
        self._which: dict[str, NDArray[np.integer[Any]]] = {
            name: place[order] for name, place in places.items()
        }

    def __len__(self) -> int:
        return self._n_rows

    @property
    def texts(self) -> Iterable[TextPool]:
        """All texts of the table."""
        return self._texts.values()

    def parts(self, rows: int) -> Iterator[pa.Table]:
        """The table in parts of so many rows."""
        for at in range(0, len(self), rows):
            if self._table is not None:
                yield self._table.slice(at, rows)
            else:
                yield self._rows(slice(at, at + rows))

    @property
    def times_us(self) -> NDArray[np.int64]:
        """Times of the rows, in microseconds since 1970; before `table` is made."""
        return _microseconds(self._raw.time_ns)

    def rows(self, part: slice) -> pa.Table:
        """Some of the rows."""
        return self._rows(part) if self._table is None else self._table[part]

    @property
    def table(self) -> pa.Table:
        """All rows, which take the place of what they are made of."""
        if self._table is None:
            self._table = self._rows(slice(None))
            self._raw, self._which = TaskPicks.empty(), {}
        return self._table

    def _rows(self, part: slice) -> pa.Table:
        raw = self._raw.take(part)
        which = {name: numbers[part] for name, numbers in self._which.items()}
        which["phase"] = raw.label
        same = np.zeros(len(raw), dtype=np.int32)
        columns = {
            "time": number_column(_microseconds(raw.time_ns), _UTC),
            "start_time": number_column(_microseconds(raw.start_ns), _UTC),
            "end_time": number_column(_microseconds(raw.end_ns), _UTC),
            "probability": number_column(raw.probability, pa.float32()),
            **{name: texts.column(which.get(name, same)) for name, texts in self._texts.items()},
        }
        return pa.table([columns[name] for name in self.schema.names], schema=self.schema)


def pick_table(raw: TaskPicks, tasks: TaskNames, picker: Picker, run_id: str) -> pa.Table:
    """Rows of `PICK_SCHEMA`, sorted by time, then by code and phase."""
    return PickRows(raw, tasks, picker, run_id).table


class _Names:
    """Names of station tasks, each held once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._numbers = array("i")

    def append(self, name: str) -> None:
        """Add the next task's name."""
        self._numbers.append(self._known.setdefault(name, len(self._known)))

    @property
    def in_order(self) -> list[str]:
        """The names."""
        return sorted(self._known)

    def places(self) -> NDArray[np.int32]:
        """Rank of each task's name among the sorted names."""
        return _ranks(list(self._known))[np.array(self._numbers, dtype=np.int32)]


def _ranks(names: Sequence[str]) -> NDArray[np.int32]:
    """Place of each name among all in order; equal ones have the same."""
    place = {name: rank for rank, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names], dtype=np.int32)


def _microseconds(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    return (times_ns + 500) // 1000
