"""A sweep on two GPUs, which are stand-ins: every column is filled, and the finder answers."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eqcctpro.resources.calculators import VRAM_BUFFER_MB
from eqcctpro.resources.footprints import find_footprint

SITE = Path(__file__).resolve().parents[1] / "helpers" / "fake_site"
sys.path.append(str(SITE))

from fake_gpu_machine import HELD_MB, TOTAL_MB, WATTS  # noqa: E402

PROGRAM = """
import os, sys
from pathlib import Path
from eqcctpro import EvaluateSystem, OptimalGPUConfigurationFinder
network, model, out = sys.argv[1:]
parent, child = model.split("/")
EvaluateSystem(
    eval_mode="gpu", selected_gpus=[0, 1], input_dir=network, output_dir=f"{out}/out",
    csv_dir=f"{out}/csv", model_type="seisbench", seisbench_parent_model=parent,
    seisbench_child_model=child, station_counts=(4,), modes=("modelactor",),
    concurrency_values=(2,), min_cpu_amount=len(os.sched_getaffinity(0)), repeats=1,
).evaluate()
finder = OptimalGPUConfigurationFinder(f"{out}/csv")
best = finder.find_best_overall_usecase()
print("best", list(best.gpus), best.workers, best.vram_mb)
print("one", list(finder.find_fastest_under(gpus=1).gpus))
"""


@pytest.mark.exhaustive
def test_every_column_of_gpus_is_filled(network: Path, imported_model: str, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(network), imported_model, str(tmp_path)],
        env={
            **{name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"},
            "PYTHONPATH": str(SITE),
            "FAKE_GPUS": str(held),
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (tmp_path / "csv" / "gpu_test_results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["GPUs Used"] for row in rows} == {"[0]", "[0, 1]"}
    check(rows)
    answers = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " [" in line)
    assert answers["one"] == "[0]"
    assert answers["best"].startswith("[0")


def check(rows: list[dict[str, str]]) -> None:
    """Columns are there, and agree with each other as EQCCTPro defines them."""
    published = find_footprint("EQTransformer/original", "torch", "cuda")
    assert published is not None
    each = published.vram_mb + VRAM_BUFFER_MB
    for row in rows:
        assert row["Trial Success"] == "1", row["Error Message"]
        number = {name: float(value) for name, value in row.items() if _is_number(value)}
        workers, gpus = int(number["N ModelActors"]), len(row["GPUs Used"].split(","))
        # EQCCTPro's table, with its buffer, and what it adds for a task.
        assert number["Requested VRAM per Actor (MB)"] == each
        assert number["Total Requested VRAM (MB)"] == workers * (each + 128)
        assert number["Process Tree VRAM (MB)"] == workers * HELD_MB
        assert number["Num GPU Processes"] == workers
        assert number["VRAM Overhead (MB)"] == pytest.approx(
            number["Process Tree VRAM (MB)"] - number["Total Requested VRAM (MB)"]
        )
        assert number["VRAM Utilization (%)"] == pytest.approx(
            100 * number["Process Tree VRAM (MB)"] / number["Total Requested VRAM (MB)"], abs=0.1
        )
        assert 0 < number["Inference Actor Memory Limit (MB)"] <= TOTAL_MB
        watts = number["GPU Energy (J)"] / number["Total Trial Time (s)"]
        assert sum(WATTS) * 0.3 < watts < sum(WATTS) * 2
        assert row["Runtime"] == "torch"
        assert row["Device"] == ("cuda:0" if gpus == 1 else "cuda:0,1")
        assert number["P Picks"] > 0
    assert len({row["P Picks"] for row in rows}) == 1


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
