"""Results in the folders and columns that EQCCTPro's users read.

``OUT/<timechunk>/<STATION>_outputs/X_prediction_results.csv``, one row for each P with
the first S that follows it within 30 s, then one for each S left over, or a single
row without picks.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from eqcctpro.archive.plan import StationTask
from eqcctpro.picks.writers import atomic_file

__all__ = ["EQCCTPRO_COLUMNS", "station_file", "write_eqcctpro_folders"]

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
    table: pa.Table, tasks: Sequence[StationTask], output: Path
) -> list[Path]:
    """Write one file for every station folder of every chunk.

    Parameters
    ----------
    table : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    tasks : sequence of StationTask
        All tasks that did not fail; a station without picks gets a blank row.
    output : Path

    Returns
    -------
    list of Path
        The files.
    """
    picks: dict[tuple[str, ...], list[Row]] = {}
    for row in table.to_pylist():
        key = tuple(row[k] for k in ("timechunk", "network", "station", "location", "channel"))
        picks.setdefault(key, []).append(row)
    folders: dict[Path, list[list[str]]] = {}
    for task in tasks:
        path = station_file(output, task.chunk.name, task.folder)
        key = (task.chunk.name, task.network, task.station, task.location, task.instrument)
        folders.setdefault(path, []).extend(_rows(task, picks.get(key, [])))
    paths = []
    for path, rows in folders.items():
        # Thousands of small files: waiting for each would take longer than picking them.
        with atomic_file(path, sync=False) as file:
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(EQCCTPRO_COLUMNS)
            writer.writerows(rows)
            file.write(text.getvalue().encode())
        paths.append(path)
    return paths


def _rows(task: StationTask, picks: Sequence[Row]) -> Iterable[list[str]]:
    # Coordinates are not in miniSEED; EQCCTPro writes zeros there.
    head = [task.folder, task.network, task.station, task.instrument, "0.0", "0.0", "0.0"]
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
    return [f"{row['time']:%Y-%m-%d %H:%M:%S.%f}", f"{row['probability']:.6f}"]


def station_file(output: Path, chunk: str, folder: str) -> Path:
    """Where the rows of a station folder go; always below `output`."""
    return output / _safe(chunk) / f"{_safe(folder)}_outputs" / "X_prediction_results.csv"


def _safe(name: str) -> str:
    """A name that stays inside its folder whatever codes the records hold."""
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    return kept or "_"
