"""Files of trials of several versions, for the finders."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eqcctpro import OptimalCPUConfigurationFinder
from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER, PUBLISHED_COLUMNS
from eqcctpro.evaluation.machine import describe_machine

STATIONS, CPUS = "Number of Stations Used", "Number of CPUs Allocated for Ray to Use"
TIME, RAM, SUCCESS = "Total Run time for Picker (s)", "Peak RAM (MB)", "Trial Success"
CONCURRENCY, ACTORS = "Number of Concurrent Station Tasks", "N ModelActors"
LIMIT, MODEL, GPUS = "Inference Actor Memory Limit (MB)", "Model Used", "GPUs Used"

# RAPID's columns after the first 26.
RAPID_COLUMNS = (
    *PUBLISHED_COLUMNS[:26],
    *("Total Trial Time (s)", "Actor Creation Time (s)", TIME, "Avg Model Load Time (s)"),
    *("Avg Preprocess Time (s)", "Avg Inference Time (s)", "Avg Pick Write Time (s)"),
    *("Avg Task Compute Time (s)", "Sum Task Compute Time (s)", "Task Scheduling Overhead (s)"),
    *("Warmup Time (s)", "Sum Model Load Time (s)", "Sum Warmup Time (s)"),
    *("Sum Waveform Load Time (s)", "Sum Preprocess Time (s)", "Sum Inference Time (s)"),
    *("Sum Pick Write Time (s)", "Successful Inference Tasks", "Total Station Tasks"),
    *("Waveform Processing Time (s)", "Intra-parallelism Threads", "Inter-parallelism Threads"),
    *(LIMIT, SUCCESS, "Error Message", "Comments", "Stations Used"),
)

Row = dict[str, Any]


def ours(
    stations: int,
    cpus: int,
    seconds: float,
    *,
    spread: float = 0.02,
    model: str = "EQTransformer/original",
    mode: str = "modelactor",
    workers: int | None = None,
    gpus: Sequence[int] = (),
    ram: float = 1000.0,
    settings: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Row:
    """A row of this version; `spread` is the relative range of three repeats."""
    workers = workers or cpus
    ran = {
        "mode": mode,
        "workers": None if mode == "local" else workers,
        "threads": 1,
        "runtime": "torch",
        "batch_size": 64,
        "device": "cuda:" + ",".join(map(str, gpus)) if gpus else "cpu",
        "cpu_ids": list(range(cpus)),
        "p_threshold": 0.1,
    } | dict(settings or {})
    identity = f"{model} {stations} {json.dumps(ran)} {gpus}"
    return {
        "Trial Number": 1,
        MODEL: model,
        STATIONS: stations,
        CPUS: cpus,
        GPUS: str(list(gpus)),
        ACTORS: workers if mode == "modelactor" else "",
        CONCURRENCY: workers,
        "Concurrent Timechunks Used": 1,
        "Total Number of Timechunks": 1,
        "Length of Timechunk (min)": 10,
        "Total Waveform Analysis Timespace (min)": 10,
        RAM: ram,
        "Total Trial Time (s)": seconds + 5,
        TIME: seconds,
        LIMIT: "",
        SUCCESS: 1,
        "Configuration ID": identity,
        "Cell ID": f"{model} {stations}",
        "Mode": mode,
        "Settings (JSON)": json.dumps(ran),
        "Repeats": 3,
        "Picker Time Min (s)": seconds * (1 - spread / 2),
        "Picker Time Max (s)": seconds * (1 + spread / 2),
        "Machine": describe_machine(),
    } | columns


def theirs(stations: int, cpus: int, seconds: float, **columns: Any) -> Row:
    """A row of EQCCTPro 0.8.2; with RAPID's header, one of RAPID."""
    return {
        "Trial Number": 1,
        MODEL: "eqcct",
        STATIONS: stations,
        CPUS: cpus,
        GPUS: "[]",
        ACTORS: 4,
        CONCURRENCY: 10,
        "Concurrent Timechunks Used": 1,
        "Total Number of Timechunks": 1,
        "Length of Timechunk (min)": 1.0,
        "Total Waveform Analysis Timespace (min)": 1.0,
        "Process Tree RAM (MB)": 1586.0,
        RAM: 136.0,
        TIME: seconds,
        "Intra-parallelism Threads": 1,
        SUCCESS: 1,
        "Comments": "Requested 10 actors, created 4 (memory)",
        "Stations Used": "['AAA', 'BBB']",
    } | columns


def ripper(stations: int, cpus: int, seconds: float) -> Row:
    """EQCCTPro records the length of the queue of a Ripper trial."""
    comment = "[RIPPER MODE] Task-based approach (no ModelActors); scmlpick-style task queue"
    changes = {"Comments": comment, ACTORS: "", "Actual Ripper Concurrent Tasks": 10}
    return theirs(stations, cpus, seconds, **changes)


def failed(stations: int) -> Row:
    """A trial that ended before it had a time."""
    return ours(stations, 8, 1.0) | {TIME: "", SUCCESS: 0, "Error Message": "out of memory"}


Write = Callable[..., Path]


def write_rows(
    folder: Path,
    rows: Iterable[Row],
    mode: str = "cpu",
    header: Sequence[str] = CANONICAL_CSV_HEADER,
    quoting: Any = csv.QUOTE_MINIMAL,
) -> Path:
    """Write a results file; returns its folder."""
    path = folder / f"{mode}_test_results.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", extrasaction="ignore", quoting=quoting)
        writer.writeheader()
        writer.writerows(rows)
    return folder


def cpu_finder(folder: Path) -> OptimalCPUConfigurationFinder:
    return OptimalCPUConfigurationFinder(folder)


LADDER = [
    ours(100, 1, 20.0, ram=700, mode="local"),
    ours(100, 2, 11.0, ram=1500),
    ours(100, 4, 6.0, ram=3000),
    ours(100, 8, 4.0, ram=6000),
]
