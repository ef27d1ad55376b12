"""Results in the folders and columns that EQCCTPro's users read.

``OUT/<timechunk>/<STATION>_outputs/X_prediction_results.csv``, one row for each P with
the first S that follows it within 30 s, then one for each S left over, or a single
row without picks.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eqcctpro.archive.plan import StationTask
from eqcctpro.codes import safe_name
from eqcctpro.errors import OutputError
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.picks.writers import atomic_file
from eqcctpro.times import moment_text

__all__ = [
    "EQCCTPRO_COLUMNS",
    "station_file",
    "write_eqcctpro_folders",
    "write_folders_of_picks",
]

EQCCTPRO_COLUMNS = (
    "file_name",
    "network",
    "station",
    "instrument_type",
    "station_lat",
    "station_lon",
    "station_elv",
    "p_arrival_time",
    "p_probability",
    "s_arrival_time",
    "s_probability",
)

# EQCCTPro's rule for a P and an S in one row.
PAIR_WITHIN = timedelta(seconds=30)

Row = dict[str, Any]


def write_eqcctpro_folders(
    table: pa.Table,
    tasks: Sequence[StationTask],
    output: Path,
    failed: Callable[[StationTask, OutputError], None] | None = None,
) -> list[Path]:
    """Write one file for every station folder of every chunk.

    Parameters
    ----------
    table : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    tasks : sequence of StationTask
        All tasks that did not fail; a station without picks gets a blank row.
    output : Path
    failed : callable, optional
        Told of each task whose file cannot be written; the others are written.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OutputError
        A file cannot be written, and `failed` is not given.
    """
    rows_of = dict(_by_chunk(table))
    by_chunk: dict[str, list[StationTask]] = {}
    for task in tasks:
        by_chunk.setdefault(task.chunk.name, []).append(task)
    paths = []
    for chunk, members in by_chunk.items():
        stations = [
            _Station(
                (task.network, task.station, task.location, task.instrument), task.folder, task
            )
            for task in members
        ]
        # Rows of one chunk at a time: as Python objects they take far more than in the table.
        rows = table.take(rows_of[chunk]).to_pylist() if chunk in rows_of else []
        paths.extend(_write_chunk(rows, stations, output / safe_name(chunk), failed))
    return paths


def write_folders_of_picks(batches: Iterable[pa.RecordBatch], output: Path) -> list[Path]:
    """Write the same files from picks alone: of stations without picks nothing is known.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    output : Path
    """
    table = pa.Table.from_batches(batches, schema=PICK_SCHEMA)
    paths = []
    for chunk, indices in _by_chunk(table):
        rows = table.take(indices).to_pylist()
        stations = [_Station(codes, codes[1]) for codes in sorted({_codes(row) for row in rows})]
        paths.extend(_write_chunk(rows, stations, output / safe_name(chunk or "picks")))
    return paths


def _by_chunk(table: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    """Yield each time chunk and the numbers of its rows, in the order of the table."""
    encoded = table["timechunk"].fill_null("").combine_chunks().dictionary_encode()
    which = encoded.indices.to_numpy()
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(encoded.dictionary)))
    for name, rows in zip(
        encoded.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=len(order) > 0
    ):
        yield name, pa.array(rows)


@dataclass(frozen=True, slots=True)
class _Station:
    """Network, station, location and instrument code, and the folder of the output."""

    codes: tuple[str, ...]
    folder: str
    task: StationTask | None = None


def _codes(row: Row) -> tuple[str, ...]:
    return tuple(row[name] or "" for name in ("network", "station", "location", "channel"))


def _write_chunk(
    rows: Iterable[Row],
    stations: Iterable[_Station],
    output: Path,
    failed: Callable[[StationTask, OutputError], None] | None = None,
) -> list[Path]:
    picks: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        picks.setdefault(_codes(row), []).append(row)
    folders: dict[str, list[_Station]] = {}
    for station in stations:
        folders.setdefault(station.folder, []).append(station)
    paths = []
    for folder, members in folders.items():
        path = output / f"{safe_name(folder)}_outputs" / "X_prediction_results.csv"
        lines = [row for one in members for row in _rows(one, picks.get(one.codes, []))]
        try:
            _write_station(path, lines)
        except OutputError as error:
            if failed is None:
                raise
            for task in (one.task for one in members if one.task is not None):
                failed(task, error)
        else:
            paths.append(path)
    return paths


def _write_station(path: Path, lines: Iterable[list[str]]) -> None:
    # Thousands of small files: waiting for each would take longer than picking them.
    with atomic_file(path, sync=False) as file:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(EQCCTPRO_COLUMNS)
        writer.writerows(lines)
        file.write(text.getvalue().encode())


def _rows(station: _Station, picks: Sequence[Row]) -> Iterable[list[str]]:
    # Coordinates are not in miniSEED; EQCCTPro writes zeros there.
    network, code, _, instrument = station.codes
    head = [station.folder, network, code, instrument, "0.0", "0.0", "0.0"]
    p_picks = [row for row in picks if row["phase"].upper().startswith("P")]
    s_picks = [row for row in picks if row["phase"].upper().startswith("S")]
    unpaired = list(s_picks)
    rows = []
    for p in p_picks:
        follows = (s for s in unpaired if p["time"] < s["time"] <= p["time"] + PAIR_WITHIN)
        s = next(follows, None)
        if s is not None:
            unpaired.remove(s)
        rows.append(head + _cells(p) + _cells(s))
    rows.extend(head + _cells(None) + _cells(s) for s in unpaired)
    return rows or [head + _cells(None) + _cells(None)]


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["", ""]
    probability = row["probability"]
    shown = "" if probability is None else f"{probability:.6f}"
    return [moment_text(row["time"], " "), shown]


def station_file(output: Path, chunk: str, folder: str) -> Path:
    """Path of the file for the rows of a station folder; always below `output`."""
    return output / safe_name(chunk) / f"{safe_name(folder)}_outputs" / "X_prediction_results.csv"
