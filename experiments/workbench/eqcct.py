"""EQCCT on TensorFlow, as published, and on the other runtimes: curves, picks, time, memory.

    python experiments/workbench/eqcct.py RECORDS PICKS --p-model P.h5 --s-model S.h5

RECORDS is an archive in EQCCTPro's layout, PICKS a CSV of analyst picks with the columns
timechunk, network, station, n_components, p_time and s_time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eqcctpro import PickConfig, run_picking
from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.models.eqcct import VARIANTS, find_eqcct
from eqcctpro.models.weights import find_weights
from eqcctpro.pipeline.prepare import prepare
from eqcctpro.pipeline.settings import resolve_settings
from eqcctpro.resources.sampler import ResourceSampler
from eqcctpro.runtimes.select import load_picker, open_picker
from eqcctpro.sources.files import FileCache
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.sources.task_waveforms import task_waveforms
from eqcctpro.synthetic.tiling import tile_network

RUNTIMES = ("tensorflow", "torch", "onnxruntime", "openvino")
HIT_S = 0.5


def windows_of(records: Path, weights: Any) -> np.ndarray:
    """All windows of an archive."""
    picker = load_picker(weights)
    settings = resolve_settings(picker)
    cut = []
    for task in make_plan(InputSettings((records,))).tasks:
        decoded = FileCache().read(task, None, 0)
        ready = prepare(task_waveforms(task, decoded, settings), picker, settings)
        for block, offsets in ready.blocks:
            cut += [block.data[:, start : start + picker.in_samples] for start in offsets.tolist()]
    return np.ascontiguousarray(np.stack(cut), dtype=np.float32)


def compare_curves(records: Path, files: dict[str, Path]) -> list[dict[str, Any]]:
    """Largest difference of each runtime to TensorFlow on all windows of the records."""
    rows = []
    for variant in VARIANTS:
        weights = find_eqcct("original", find_weights, **files, variant=variant)
        windows = windows_of(records, weights)
        curves = {}
        for runtime in RUNTIMES:
            _, opened = open_picker(weights, runtime=runtime, batch_size=32)
            parts = [opened.predict(windows[i : i + 32]).copy() for i in range(0, len(windows), 32)]
            curves[runtime] = np.concatenate(parts)
            opened.close()
        for runtime in RUNTIMES[1:]:
            difference = np.abs(curves[runtime] - curves["tensorflow"]).max(axis=(0, 1))
            p, s = (float(value) for value in difference)
            rows.append(
                {"variant": variant, "runtime": runtime, "windows": len(windows), "P": p, "S": s}
            )
            print(f"curves {variant:9s} {runtime:12s} {len(windows)} windows: P {p:.1e} S {s:.1e}")
    return rows


def hits(picks: pd.DataFrame, analyst: pd.DataFrame, phase: str) -> tuple[int, int]:
    """Records whose analyst pick is found, all and three-component ones."""
    found = found_3 = 0
    for row in analyst.itertuples():
        same = picks[
            (picks.timechunk == row.timechunk)
            & (picks.network == row.network)
            & (picks.station == row.station)
            & (picks.phase == phase)
        ]
        time_s = pd.Timestamp(getattr(row, f"{phase.lower()}_time"))
        hit = bool((abs(same.time - time_s).dt.total_seconds() <= HIT_S).any())
        found += hit
        found_3 += hit and row.n_components == 3
    return found, found_3


def compare_picks(
    records: Path, analyst: pd.DataFrame, files: dict[str, Path], scratch: Path
) -> list[dict[str, Any]]:
    """Counts, hits, and the largest distance in time to TensorFlow's picks."""
    rows = []
    for variant in VARIANTS:
        reference = None
        for runtime in RUNTIMES:
            config = PickConfig.checked(
                input=records,
                output=scratch / f"{variant}-{runtime}",
                p_model=files["p_model"],
                s_model=files["s_model"],
                runtime=runtime,
                model_arguments={"variant": variant},
                formats=("csv",),
                overview=False,
            )
            picks = run_picking(config).picks
            picks = picks.sort_values(["timechunk", "network", "station", "phase", "time"])
            reference = picks if reference is None else reference
            apart = None
            if len(picks) == len(reference):
                later = picks.time.reset_index(drop=True) - reference.time.reset_index(drop=True)
                apart = float(later.dt.total_seconds().abs().max())
            row = {"variant": variant, "runtime": runtime, "apart_s": apart}
            for phase in "PS":
                row[phase] = int((picks.phase == phase).sum())
                row[f"{phase}_hits"], row[f"{phase}_hits_3c"] = hits(picks, analyst, phase)
            rows.append(row)
            print("picks", row)
    return rows


def compare_speed(
    network: Path, files: dict[str, Path], scratch: Path, repeats: int
) -> list[dict[str, Any]]:
    """Wall and processor seconds from files to CSV, cold and warm, and peak memory.

    The first process of a runtime fills its caches and is left out.
    """
    names = ("cold_s", "cold_cpu_s", "warm_s", "warm_cpu_s", "peak_mb")
    rows: dict[str, dict[str, Any]] = {name: {key: [] for key in names} for name in RUNTIMES}
    for round_ in range(repeats + 1):
        for runtime, row in rows.items():
            command = [sys.executable, __file__, "--job", runtime, str(network)]
            command += [str(scratch / runtime), str(files["p_model"]), str(files["s_model"])]
            environment = {**os.environ, "EQCCTPRO_CACHE": str(scratch / "cache")}
            started, used = time.perf_counter(), _children_s()
            with (
                subprocess.Popen(
                    command, env=environment, stdout=subprocess.PIPE, text=True
                ) as process,
                ResourceSampler(process.pid) as memory,
            ):
                output, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"{runtime} failed")
            if round_ == 0:
                continue
            wall, cpu = json.loads(output.splitlines()[-1])
            row["cold_s"].append(time.perf_counter() - started - sum(wall[1:]))
            row["cold_cpu_s"].append(_children_s() - used - sum(cpu[1:]))
            row["warm_s"] += wall[1:]
            row["warm_cpu_s"] += cpu[1:]
            row["peak_mb"].append(memory.peak_mb)
    for runtime, row in rows.items():
        middle = {name: statistics.median(values) for name, values in row.items()}
        print(
            f"{runtime:12s} cold {middle['cold_s']:6.2f} s ({middle['cold_cpu_s']:.2f} s of the "
            f"processor), warm {middle['warm_s']:6.2f} s ({middle['warm_cpu_s']:.2f}), "
            f"peak {middle['peak_mb']:.0f} MB"
        )
    return [{"runtime": runtime, **row} for runtime, row in rows.items()]


def _children_s() -> float:
    """Processor seconds of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def job(runtime: str, network: Path, output: Path, p_model: Path, s_model: Path) -> None:
    """Pick a network several times in this process with the same loaded model."""
    from eqcctpro.orchestration.worker import BundleResult, TaskPicker, WorkerSpec, open_pipeline
    from eqcctpro.picks.table import pick_table
    from eqcctpro.picks.writers import write_csv

    weights = find_eqcct("original", find_weights, p_model=p_model, s_model=s_model)
    settings = TaskSettings.of(resolve_settings(load_picker(weights)))
    pipeline = open_pipeline(WorkerSpec(weights, settings, runtime=runtime))
    output.mkdir(parents=True, exist_ok=True)
    wall, cpu = [], []
    for _ in range(5):
        started, used = time.perf_counter(), time.process_time()
        plan = make_plan(InputSettings((network,)))
        picked = TaskPicker(pipeline, settings).pick(plan.tasks)
        results = [result for some in picked for result in some]
        raw = BundleResult.gather(results).picks
        write_csv(pick_table(raw, plan.tasks, pipeline.picker, "job"), output / "picks.csv")
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    print(json.dumps([wall, cpu]))


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        runtime, *paths = sys.argv[2:]
        job(runtime, *(Path(path) for path in paths))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("picks", type=Path)
    parser.add_argument("--p-model", type=Path, required=True)
    parser.add_argument("--s-model", type=Path, required=True)
    parser.add_argument("--stations", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-speed", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    files = {"p_model": options.p_model.resolve(), "s_model": options.s_model.resolve()}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if not options.only_speed:
            analyst = pd.read_csv(options.picks, dtype={"station": str})
            found["curves"] = compare_curves(options.records, files)
            found["picks"] = compare_picks(options.records, analyst, files, scratch)
        network = tile_network(options.records, scratch / "network", stations=options.stations)
        found["speed"] = compare_speed(network, files, scratch, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
