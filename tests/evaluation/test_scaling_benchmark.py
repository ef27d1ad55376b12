"""`run_requested_benchmarks.py`: a table of trials as `eqcctpro evaluate` writes it."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER
from eqcctpro.resources.sampler import ResourceUse

SCRIPT = ROOT / "experiments" / "workbench" / "scaling" / "run_requested_benchmarks.py"


@pytest.mark.exhaustive
def test_our_modes_and_others_in_the_columns_of_a_sweep(
    generated_network: tuple[Path, list[Any]],
    imported_model: str,
    tmp_path: Path,
    cli: Callable[..., Any],
) -> None:
    command = [sys.executable, SCRIPT, generated_network[0], tmp_path / "out"]
    command += ["--model", imported_model, "--stations", "3", "--repeats", "1", "--threads", "1"]
    command += ["--baseline", "floor", "--ours"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "scaling.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CANONICAL_CSV_HEADER
    assert [row["Mode"] for row in rows] == ["baseline", "local", "modelactor", "ripper"]
    assert rows[0]["Baseline"] == "floor"
    assert {row["Trial Success"] for row in rows} == {"1"}
    assert len({row["Cell ID"] for row in rows}) == 1
    assert len({row["P Picks"] for row in rows[1:]}) == 1
    assert float(rows[3]["Avg Model Load Time (s)"]) > 0
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and again.stdout == "", "what is there is not measured again"
    read = cli("analyze", tmp_path / "out" / "scaling.csv", "-o", tmp_path / "analysis", "-q")
    assert read.exit_code == 0, read.output


def test_use_of_one_time_and_a_later_one() -> None:
    first = ResourceUse(
        peak_pss_mb=100.0, start_pss_mb=10.0, processes=3, cpu_s=1.0, seconds=2.0,
        peak_vram_mb={0: 50.0}, gpu_energy_j={0: 5.0},
    )  # fmt: skip
    later = ResourceUse(
        peak_pss_mb=80.0, start_pss_mb=70.0, processes=4, cpu_s=2.0, seconds=3.0,
        peak_vram_mb={0: 60.0, 1: 9.0}, gpu_energy_j={0: 6.0},
    )  # fmt: skip
    assert ResourceUse().and_then(first) == first
    both = first.and_then(later)
    assert (both.peak_pss_mb, both.start_pss_mb, both.processes) == (100.0, 10.0, 4)
    assert (both.cpu_s, both.seconds) == (3.0, 5.0)
    assert (both.peak_vram_mb, both.gpu_energy_j) == ({0: 60.0, 1: 9.0}, {0: 11.0})
