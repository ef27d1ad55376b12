"""How long does a window take on each runtime, and how long does a runtime take to load?

    python experiments/workbench/runtimes.py RECORDS --model PhaseNet/original

RECORDS is an archive in EQCCTPro's layout with three-component records.  Runtimes take turns;
for each, the quickest round is given as wall time and as time of the processor (which other
programs on the machine disturb less), and the largest difference to torch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import MS3TraceList

from eqcctpro.models.export import cached_export
from eqcctpro.models.picker import Picker
from eqcctpro.models.weights import find_weights, split_name
from eqcctpro.runtimes.base import Runtime
from eqcctpro.runtimes.select import open_picker

KINDS = ("torch", "onnxruntime", "openvino")


def real_windows(archive: Path, picker: Picker, count: int) -> NDArray[np.float32]:
    """Windows, half overlapping, of the archive's three-component records."""
    windows: list[NDArray[np.float32]] = []
    for station in sorted(archive.glob("*/*")):
        rows = {}
        for path in sorted(station.glob("*.mseed")):
            for trace in MS3TraceList.from_file(str(path), unpack_data=True):
                rows[trace.sourceid[-1]] = trace[0].np_datasamples.astype(np.float32)
        if not set(picker.components) <= set(rows):
            continue
        samples = min(len(row) for row in rows.values())
        record = np.stack([rows[component][:samples] for component in picker.components])
        step = picker.in_samples // 2
        for start in range(0, samples - picker.in_samples + 1, step):
            windows.append(record[:, start : start + picker.in_samples])
        if len(windows) >= count:
            return np.ascontiguousarray(windows[:count])
    raise SystemExit(f"{archive} holds fewer than {count} windows of {picker.name}")


def run(runtime: Runtime, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    size = runtime.batch_size
    parts = range(0, len(windows), size)
    return np.concatenate([runtime.predict(windows[p : p + size]).copy() for p in parts])


def measure(model: str, archive: Path, batch: int | None, threads: int, rounds: int) -> list[dict]:
    files = find_weights(*split_name(model))
    cached_export(files)
    runtimes: dict[str, Runtime] = {}
    rows = {}
    for kind in KINDS:
        for _ in range(2):  # the second time finds compiled networks and imported packages
            start = time.perf_counter()
            picker, runtimes[kind] = open_picker(
                files, runtime=kind, batch_size=batch, threads=threads
            )
            load = time.perf_counter() - start
        size = runtimes[kind].batch_size
        rows[kind] = {
            "model": model, "runtime": kind, "threads": threads, "batch": size, "load_s": load,
            "wall_ms": float("inf"), "cpu_ms": float("inf"),
        }  # fmt: skip
    windows = real_windows(archive, picker, 128)
    curves = {kind: run(runtime, windows) for kind, runtime in runtimes.items()}
    for _ in range(rounds):
        for kind, runtime in runtimes.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(runtime, windows)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            row = rows[kind]
            row["wall_ms"] = min(row["wall_ms"], wall / len(windows) * 1e3)
            row["cpu_ms"] = min(row["cpu_ms"], cpu / len(windows) * 1e3)
    for kind, row in rows.items():
        row["difference"] = float(np.abs(curves[kind] - curves["torch"]).max())
        runtimes[kind].close()
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--batch", type=int, action="append", help="default: what is usual")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for model in options.model:
        for threads in options.threads or [1, 2]:
            for batch in options.batch or [None]:
                for row in measure(model, options.records, batch, threads, options.rounds):
                    rows.append(row)
                    print(
                        "{model:38s} {runtime:12s} {threads} threads, batch {batch:4d}: "
                        "{wall_ms:6.3f} ms ({cpu_ms:6.3f} of the processor), "
                        "load {load_s:.2f} s, difference {difference:.1e}".format(**row),
                        flush=True,
                    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
