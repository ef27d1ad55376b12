"""What the pages of the documentation take for granted: a network, labels, tables of trials."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from eqcctpro.evaluation.canonical import PUBLISHED_COLUMNS
from eqcctpro.synthetic.dataset import Synthesis, synthesize

STATIONS = ("PB01", "PB02", "PB03", "PB04", "PB05", "PB06", "PB35")


def make_network(folder: Path) -> None:
    """A made-up data set of four minutes, with stations that have names of real ones."""
    settings = Synthesis(
        stations=len(STATIONS), duration_s=240, start="2024-12-15T12:00:00", seed=3, radius_km=30
    )
    synthesize(folder, settings)
    for made, name in zip(settings.codes, STATIONS, strict=True):
        # Fixed header of miniSEED 2: station in five letters, location, channel, network.
        header = re.compile(made.encode() + rb"(.{5})XX", re.DOTALL)
        for path in sorted(folder.glob(f"waveforms/*/{made}/*")):
            patched = header.sub(name.ljust(5).encode() + rb"\1TX", path.read_bytes())
            path.write_bytes(patched)
            path.rename(path.with_name(path.name.replace(f"XX.{made}", f"TX.{name}")))
        for path in folder.glob(f"waveforms/*/{made}"):
            path.rename(path.with_name(name))
        for path in (folder / "arrivals.csv", folder / "stations.xml", folder / "stations.csv"):
            text = path.read_text(encoding="utf-8").replace(made, name)
            path.write_text(re.sub(r"\bXX\b", "TX", text), encoding="utf-8")


def write_trials(folder: Path) -> None:
    """Tables as EQCCTPro writes them: EQCCT on 8 CPUs, with actors and with Ripper tasks."""
    comment = "[RIPPER MODE] Task-based approach (no ModelActors)"
    for mode, factor in (("modelactor", 1.0), ("ripper", 2.5)):
        rows = []
        for stations in (50, 100, 200):
            for workers in (1, 2, 4, 8):
                actors = workers if mode == "modelactor" else ""
                tasks = "" if mode == "modelactor" else workers
                row = _trial(stations, workers, factor * stations * (0.2 + 0.8 / workers))
                row |= {"N ModelActors": actors, "Actual Ripper Concurrent Tasks": tasks}
                rows.append(row | {"Comments": "" if mode == "modelactor" else comment})
        path = folder / f"eval_cpu_eqcct_{mode}" / "cpu_test_results.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, PUBLISHED_COLUMNS, restval="")
            writer.writeheader()
            writer.writerows({"Trial Number": n, **one} for n, one in enumerate(rows, 1))


def _trial(stations: int, workers: int, seconds: float) -> dict[str, Any]:
    return {
        "Model Used": "eqcct",
        "Number of Stations Used": stations,
        "Number of CPUs Allocated for Ray to Use": 8,
        "GPUs Used": "[]",
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
    }
