"""The columns of ``cpu_test_results.csv`` and ``gpu_test_results.csv``.

The first 38 are those of EQCCTPro 0.8.2, in its order and with its definitions, so that scripts
that read its files keep reading ours; the rest are ours.  `docs/evaluation.md` has a line on
each of ours, and on each of the others that is measured in another way.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CANONICAL_CSV_HEADER", "OUR_COLUMNS", "PUBLISHED_COLUMNS"]

#: EQCCTPro 0.8.2's columns.
PUBLISHED_COLUMNS: Final[tuple[str, ...]] = (
    "Trial Number",
    "Model Used",
    "Number of Stations Used",
    "Number of CPUs Allocated for Ray to Use",
    "GPUs Used",
    "N ModelActors",
    "Number of Concurrent Station Tasks",
    "Actual Ripper Concurrent Tasks",
    "Concurrent Timechunks Used",
    "Total Number of Timechunks",
    "Length of Timechunk (min)",
    "Total Waveform Analysis Timespace (min)",
    "Requested VRAM per Actor (MB)",
    "Requested RAM per Actor (MB)",
    "Total Requested VRAM (MB)",
    "Total Requested RAM (MB)",
    "Process Tree VRAM (MB)",
    "Num GPU Processes",
    "Process Tree RAM (MB)",
    "Peak RAM (MB)",
    "RAM Growth (MB)",
    "Num Worker Processes",
    "VRAM Overhead (MB)",
    "RAM Overhead (MB)",
    "VRAM Utilization (%)",
    "RAM Utilization (%)",
    "Total Trial Time (s)",
    "Actor Creation Time (s)",
    "Avg Model Load Time (s)",
    "Waveform Processing Time (s)",
    "Total Run time for Picker (s)",
    "Intra-parallelism Threads",
    "Inter-parallelism Threads",
    "Inference Actor Memory Limit (MB)",
    "Trial Success",
    "Error Message",
    "Comments",
    "Stations Used",
)

#: What we add.
OUR_COLUMNS: Final[tuple[str, ...]] = (
    # what ran
    "Configuration ID",
    "Cell ID",
    "Mode",
    "Baseline",
    "Workers",
    "Runtime",
    "Device",
    "Batch Size",
    "Settings (JSON)",
    "Station Seed",
    # how often, and how far apart
    "Repeats",
    "Picker Time Min (s)",
    "Picker Time Max (s)",
    "Picker Time Spread (%)",
    # what comes before the first run
    "Start Time (s)",
    "Model Load Time (s)",
    # where the time of the median repeat went
    "Plan Time (s)",
    "Decode Time (s)",
    "Prepare Time (s)",
    "Inference Time (s)",
    "Pick Time (s)",
    "Write Time (s)",
    "Warm-up Time (s)",
    "CPU Time (s)",
    # memory of all processes, pages that they share counted once
    "Peak PSS (MB)",
    "PSS Growth (MB)",
    "Planned RAM (MB)",
    "PSS Utilization (%)",
    "Processes",
    # what came out
    "Station Tasks Done",
    "Station Tasks Empty",
    "Station Tasks Failed",
    "P Picks",
    "S Picks",
    "Stations per Second",
    "Notes",
    # energy, where a counter can be read
    "GPU Energy (J)",
    "CPU Energy (J)",
    # where and with what
    "EQCCTPro Version",
    "Versions (JSON)",
    "Machine",
    "Recorded At",
)

#: All columns, in the order of the files.
CANONICAL_CSV_HEADER: Final[tuple[str, ...]] = PUBLISHED_COLUMNS + OUR_COLUMNS
