"""Rows of trials: EQCCTPro's columns by its definitions, ours beside them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

from eqcctpro import PickConfig
from eqcctpro.evaluation.canonical import OUR_COLUMNS, PUBLISHED_COLUMNS, trial_row
from eqcctpro.evaluation.grid import TrialSpec
from eqcctpro.evaluation.results import read_results
from eqcctpro.evaluation.station_sets import StationSet
from eqcctpro.evaluation.subject import Outcome
from eqcctpro.evaluation.trial import TrialResult
from eqcctpro.evaluation.trial_store import TrialStore
from eqcctpro.resources.calculators import WorkerPlan
from eqcctpro.resources.sampler import ResourceUse

ENVIRONMENT = {"machine": "a machine", "versions": {"eqcctpro": "1"}}


def trial(mode: str, workers: int, *, asked: int | None = None, gpus: int = 0) -> TrialResult:
    """Three stations on two cores; memory in round numbers."""
    ids = ",".join(map(str, range(gpus)))
    config = PickConfig(
        input=Path(),
        output=Path("out"),
        model="PhaseNet/original",
        mode=mode,
        workers=None if mode == "local" else asked or workers,
        cpu_ids=(0, 1),
        device=f"cuda:{ids}" if gpus else "cpu",
    )
    stations = ("XX.A", "XX.B", "XX.C")
    chosen = StationSet(stations, Path(), "files", False, 6, 2, 6.0, 10.0)
    facts = {
        "runtime": "torch",
        "workers": workers,
        "threads": 1,
        "batch_size": 64,
        "start_s": 4.0,
        "model_load_s": None if mode == "ripper" else 1.5,
        "requested_ram_mb": 2000.0,
        "planned_ram_mb": 500.0 * workers + 450,
        "limits": [],
    }
    if gpus:
        facts |= {"requested_vram_mb": 1524.0, "vram_limit_mb": 3000.0}
    if asked:
        facts["limits"] = [
            f"Requested {asked} tasks, created {workers} (RAM limited to 4500 MB, 2000 MB/task)",
            "Requested 4 threads a worker, given 1 (2 cores, 2 workers)",
        ]
    stages = {"plan": 0.1, "decode": 0.9, "prepare": 0.3, "infer": 2.0, "pick": 0.1, "write": 0.1}
    load_s = 0.8 if mode == "ripper" else None
    runs = [Outcome(s, stages, 6, 0, 0, {"P": 3}, load_s=load_s) for s in (2.0, 3.0, 2.5)]
    use = ResourceUse(
        peak_pss_mb=900.0,
        start_pss_mb=20.0,
        peak_rss_mb=3000.0,
        start_rss_mb=30.0,
        root_rss_mb=400.0,
        processes=9,
        ray_workers=0 if mode == "local" else workers + 1,
        gpu_processes=2 * gpus,
        peak_vram_mb=dict.fromkeys(range(gpus), 1700.0),
    )
    return TrialResult(TrialSpec(config, chosen, "", "id", "cell"), facts, [], runs, 20.0, 5.0, use)


@pytest.mark.parametrize(
    ("mode", "actors", "tasks", "created", "loaded"),
    [
        ("local", 0, None, None, None),
        ("modelactor", 2, None, 4.0, None),
        ("ripper", 0, 2, None, 0.8),
    ],
)
def test_each_mode_fills_the_columns_that_are_its_own(
    mode: str, actors: int, tasks: int | None, created: float | None, loaded: float | None
) -> None:
    row = trial_row(trial(mode, 2), ENVIRONMENT)
    assert (row["N ModelActors"], row["Actual Ripper Concurrent Tasks"]) == (actors, tasks)
    assert row.get("Actor Creation Time (s)") == created
    assert row.get("Avg Model Load Time (s)") == loaded
    assert row["Model Load Time (s)"] == (0.8 if mode == "ripper" else 1.5)
    assert row["Start Time (s)"] == 4.0 and row["Total Trial Time (s)"] == 7.5
    assert row["Waveform Processing Time (s)"] == pytest.approx(0.2)
    assert row["Comments"] == (
        "[RIPPER MODE] Task-based approach (no ModelActors)" if mode == "ripper" else ""
    )
    assert not set(row) - set(PUBLISHED_COLUMNS) - set(OUR_COLUMNS)


def test_models_have_the_names_that_scripts_look_for() -> None:
    result = trial("local", 1)
    assert trial_row(result, ENVIRONMENT)["Model Used"] == "PhaseNet/original"
    for name, written in (("EQCCT/original", "eqcct"), ("EQCCT/mine", "EQCCT/mine")):
        config = result.spec.config.model_copy(update={"model": name})
        spec = replace(result.spec, config=config)
        assert trial_row(replace(result, spec=spec), ENVIRONMENT)["Model Used"] == written


def test_requests_and_what_was_taken_of_them() -> None:
    """N x per actor + N x 256 or 128; overhead and utilisation by memory of the process tree."""
    row = trial_row(trial("modelactor", 2, gpus=2), ENVIRONMENT)
    assert row["Total Requested RAM (MB)"] == 2 * 2000 + 2 * 256
    assert row["Total Requested VRAM (MB)"] == 2 * 1524 + 2 * 128
    assert (row["Process Tree RAM (MB)"], row["Process Tree VRAM (MB)"]) == (3000.0, 3400.0)
    assert row["RAM Overhead (MB)"] == 3000 - 4512
    assert row["VRAM Overhead (MB)"] == 3400 - 3304
    assert row["RAM Utilization (%)"] == pytest.approx(100 * 3000 / 4512)
    assert row["VRAM Utilization (%)"] == pytest.approx(100 * 3400 / 3304)
    assert (row["Peak RAM (MB)"], row["RAM Growth (MB)"]) == (400.0, 2970.0)
    assert (row["Num Worker Processes"], row["Num GPU Processes"]) == (3, 4)
    assert row["Inference Actor Memory Limit (MB)"] == 3000.0
    ours = ("Peak PSS (MB)", "PSS Growth (MB)", "Planned RAM (MB)", "Processes")
    assert [row[name] for name in ours] == [900.0, 880.0, 1450.0, 9]
    assert row["PSS Utilization (%)"] == pytest.approx(100 * 900 / 1450)


def test_comments_say_why_there_are_fewer_workers() -> None:
    row = trial_row(trial("ripper", 2, asked=4), ENVIRONMENT)
    assert (row["Number of Concurrent Station Tasks"], row["Workers"]) == (4, 2)
    assert row["Actual Ripper Concurrent Tasks"] == 2
    assert row["Comments"] == (
        "[RIPPER MODE] Task-based approach (no ModelActors); "
        "Requested 4 tasks, created 2 (RAM limited to 4500 MB, 2000 MB/task)"
    )
    assert "given 1 (2 cores, 2 workers)" in row["Notes"]


@pytest.mark.parametrize(
    ("footprint", "mode", "gpus", "request_mb"),
    [
        ("measured", "modelactor", (), (400 + 1536, None)),
        ("published", "modelactor", (), (400, None)),  # its plan has the buffer already
        ("published", "local", (), (400 + 1536, None)),
        ("measured", "modelactor", (0,), (400 + 1536, 600 + 1024)),
        ("measured", "ripper", (0,), (400 + 1536, 600)),
    ],
)
def test_a_plan_in_eqcctpros_terms(
    footprint: str, mode: Any, gpus: tuple[int, ...], request_mb: tuple[float, float | None]
) -> None:
    plan = WorkerPlan(
        *(mode, 3, 2, 2, 400.0, 9000.0, gpus),
        vram_per_worker_mb=600.0,
        overhead_mb=450.0,
        footprint=footprint,
    )
    assert plan.published_request_mb() == request_mb
    assert plan.planned_ram_mb == 2 * 400 + 450


@pytest.mark.parametrize("tasks", [3, 5])
def test_ripper_tasks_of_our_rows_are_not_bounded_by_cores(tmp_path: Path, tasks: int) -> None:
    TrialStore(tmp_path, "cpu").append(trial_row(trial("ripper", tasks), ENVIRONMENT), [])
    (kept,) = read_results(tmp_path, "cpu").trials
    assert (kept.workers, kept.cpus, kept.ram_mb) == (tasks, 2, 900.0)


def test_rows_before_there_were_columns_of_our_own(tmp_path: Path) -> None:
    """Workers and memory of rows of earlier versions are where they were then."""
    row = trial_row(trial("ripper", 3), ENVIRONMENT)
    for name in ("Workers", "Peak PSS (MB)"):
        del row[name]
    row["Peak RAM (MB)"] = 700.0
    path = TrialStore(tmp_path, "cpu").path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["Trial Number", *row])
        writer.writeheader()
        writer.writerow({"Trial Number": 1, **row})
    (kept,) = read_results(tmp_path, "cpu").trials
    assert (kept.workers, kept.ram_mb) == (3, 700.0)


def test_the_documentation_has_a_line_on_every_column_of_ours_and_on_differences() -> None:
    page = ROOT.joinpath("docs", "evaluation.md").read_text(encoding="utf-8")
    published, ours = page.partition("## Columns")[2].partition("Our own columns:")[::2]

    def first_cells(text: str) -> list[str]:
        lines = [line for line in text.partition("## ")[0].splitlines() if line.startswith("| ")]
        return [name for line in lines[1:] for name in line.split("|")[1].strip().split(", ")]

    assert sorted(first_cells(ours)) == sorted(OUR_COLUMNS)
    assert not set(first_cells(published)) - set(PUBLISHED_COLUMNS)
