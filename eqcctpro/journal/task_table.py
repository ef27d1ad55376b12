"""``tasks.parquet``: a row for every station task of a run, with how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from eqcctpro.archive.tasks import Heading
from eqcctpro.errors import InputError
from eqcctpro.picks.arrow import number_column, text_column
from eqcctpro.pipeline.records import NOT_PICKED_BECAUSE, PickOutcome

__all__ = ["TASKS_FILE", "TASK_SCHEMA", "read_tasks", "task_table"]

#: Name of the table in a run's output folder.
TASKS_FILE = "tasks.parquet"

_TEXTS = (
    *("network", "station", "location", "channel", "timechunk", "status"),
    *("reason", "error"),
)

# Columns that tables of earlier versions lack.
_COUNTED = (
    *("samples_input", "samples_picked"),
    *(f"samples_{cause}" for cause in NOT_PICKED_BECAUSE),
)

TASK_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("notes", pa.list_(pa.string())),
        *(("picks", pa.int32()), ("detections", pa.int32())),
        *((f"max_probability_{phase}", pa.float32()) for phase in "PS"),
        *(("windows", pa.int64()), ("samples", pa.int64()), ("picks_outside_span", pa.int64())),
        ("seconds", pa.float32()),
        *((name, pa.int64()) for name in _COUNTED),
    ]
)
"""Columns of ``tasks.parquet``.

``channel`` is the band and instrument code; ``status`` is ``done``, ``empty`` or ``failed``,
and ``reason`` and ``error`` (a class of `eqcctpro.errors`) say why; ``notes`` say what was
done to the waveforms.  ``max_probability_P`` and ``max_probability_S`` are null where no
window reaches; ``seconds`` are those of reading and preparing.  ``samples_input`` are those in
the task's own time, of which ``samples_picked`` are picked; the others are in the columns
``samples_CAUSE``, see `eqcctpro.pipeline.records.NOT_PICKED_BECAUSE`.
"""


def task_table(
    headings: Iterable[Heading],
    records: Mapping[int, PickOutcome],
    picks: Mapping[int, int],
    detections: Mapping[int, int],
) -> pa.Table:
    """Rows of `TASK_SCHEMA` in the plan's order.

    Parameters
    ----------
    headings : iterable of Heading
        Of all tasks of the plan.
    records : mapping of int to PickOutcome
        By the task's index in the plan.
    picks, detections : mapping of int to int
        How many there are of each task that there are any of, by that index.
    """
    tasks = list(headings)
    ended = [records[index] for index in range(len(tasks))]
    counts = [record.counts for record in ended]
    left_out = [dict(count.left_out) for count in counts]
    columns = {
        "network": text_column([task.network for task in tasks]),
        "station": text_column([task.station for task in tasks]),
        "location": text_column([task.location for task in tasks]),
        "channel": text_column([task.instrument for task in tasks]),
        "timechunk": text_column([task.chunk.name for task in tasks]),
        "status": text_column([record.status for record in ended]),
        "reason": text_column([record.reason for record in ended]),
        "error": text_column([record.error for record in ended]),
    }
    numbers: dict[str, list[float]] = {
        "picks": [picks.get(index, 0) for index in range(len(tasks))],
        "detections": [detections.get(index, 0) for index in range(len(tasks))],
        "max_probability_P": [_or_nan(record.highest_p) for record in ended],
        "max_probability_S": [_or_nan(record.highest_s) for record in ended],
        "windows": [record.n_windows for record in ended],
        "samples": [record.n_samples for record in ended],
        "picks_outside_span": [record.n_outside for record in ended],
        "seconds": [record.seconds for record in ended],
        "samples_input": [count.held for count in counts],
        "samples_picked": [count.picked for count in counts],
    }
    for cause in NOT_PICKED_BECAUSE:
        numbers[f"samples_{cause}"] = [some.get(cause, 0) for some in left_out]
    columns["notes"] = _lists([record.notes for record in ended])
    for name, values in numbers.items():
        columns[name] = _numbers(values, TASK_SCHEMA.field(name).type)
    return pa.table([columns[name] for name in TASK_SCHEMA.names], schema=TASK_SCHEMA)


def _lists(texts: Sequence[Sequence[str]]) -> pa.Array:
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    flat = text_column([text for some in texts for text in some])
    return pa.ListArray.from_arrays(number_column(ends, pa.int32()), flat)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _numbers(values: Sequence[float], kind: pa.DataType) -> pa.Array:
    """A column in which NaN is null."""
    column = np.array(values, dtype=kind.to_pandas_dtype())
    if not pa.types.is_floating(kind) or not np.isnan(column).any():
        return number_column(column, kind)
    valid = pa.py_buffer(np.packbits(~np.isnan(column), bitorder="little"))
    return pa.Array.from_buffers(kind, len(column), [valid, pa.py_buffer(column)])


def read_tasks(folder: Path) -> pa.Table | None:
    """The table of a run; None where the folder has none, as of a version before it.

    Raises
    ------
    InputError
        It cannot be read.
    """
    import pyarrow.parquet

    path = folder / TASKS_FILE
    if not path.is_file():
        return None
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read: {error}", hint="pick again, with --fresh, to have it written"
        ) from error
    missing = [name for name in TASK_SCHEMA.names if name not in table.column_names]
    if lacking := [name for name in missing if name not in _COUNTED]:
        raise InputError(
            f"{path} lacks the columns {', '.join(lacking)}", hint="is it the table of a run?"
        )
    for name in missing:
        table = table.append_column(name, pa.nulls(len(table), pa.int64()))
    return table
