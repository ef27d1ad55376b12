"""Tables of trials as EQCCTPro writes them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eqcctpro.evaluation.canonical import PUBLISHED_COLUMNS

Row = dict[str, Any]


def row(stations: int, workers: int, seconds: float, **columns: Any) -> Row:
    """A row of EQCCTPro 0.8.2 with ModelActors on 8 CPUs and an hour of data."""
    return {
        "Model Used": "eqcct",
        "Number of Stations Used": stations,
        "Number of CPUs Allocated for Ray to Use": 8,
        "GPUs Used": "[]",
        "N ModelActors": workers,
        "Number of Concurrent Station Tasks": workers,
        "Concurrent Timechunks Used": 1,
        "Total Number of Timechunks": 1,
        "Length of Timechunk (min)": 60.0,
        "Total Waveform Analysis Timespace (min)": 60.0,
        "Total Requested RAM (MB)": 1000.0 * workers,
        "Process Tree RAM (MB)": 800.0 * workers,
        "Peak RAM (MB)": 100.0,
        "Total Trial Time (s)": seconds + 10,
        "Actor Creation Time (s)": 9.0,
        "Total Run time for Picker (s)": seconds,
        "Trial Success": 1,
    } | columns


def ripper(stations: int, workers: int, seconds: float, **columns: Any) -> Row:
    """The same without ModelActors."""
    comment = "[RIPPER MODE] Task-based approach (no ModelActors)"
    changes = {"Comments": comment, "N ModelActors": "", "Actual Ripper Concurrent Tasks": workers}
    return row(stations, workers, seconds, **changes, **columns)


def write(path: Path, rows: Iterable[Row], header: Sequence[str] = PUBLISHED_COLUMNS) -> Path:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"Trial Number": n, **one} for n, one in enumerate(rows, 1))
    return path
