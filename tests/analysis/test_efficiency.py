"""Efficiency analysis: numbers that follow from rows, and files that are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import finder_tables
import pandas as pd
import pytest
from PIL import Image
from trial_tables import ripper, row, write

from eqcctpro.analysis.efficiency import analyze, analyze_batch, compare_methods
from eqcctpro.analysis.efficiency_metrics import efficiency_table
from eqcctpro.analysis.trials import load_trials
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER, PUBLISHED_COLUMNS

FIGURES = ("runtime_vs_stations_by_concurrency", "picker_runtime_vs_stations_by_concurrency")


@pytest.fixture
def eqcctpro_file(tmp_path: Path) -> Path:
    """What EQCCTPro writes: 100 and 200 stations, 1 to 4 workers, and one that failed."""
    rows = [
        row(100, 1, 100.0),
        row(100, 2, 62.5),
        row(100, 4, 50.0),
        row(200, 1, 200.0),
        row(200, 4, 80.0),
        row(200, 2, 1.0, **{"Trial Success": 0, "Error Message": "no memory"}),
        ripper(100, 2, 150.0),
        ripper(200, 4, 140.0),
    ]
    return write(tmp_path / "eval_cpu_eqcct_modelactor" / "cpu_test_results.csv", rows)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    rows = [row(100, 1, 100.0), row(100, 2, 62.5), row(100, 4, 50.0), row(200, 4, 80.0)]
    path = write(tmp_path_factory.mktemp("rows") / "cpu_test_results.csv", rows)
    return efficiency_table(load_trials(path)[0].trials)


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        ("Picker Throughput (Stations/s)", [1.0, 1.6, 2.0, 2.5]),
        ("Throughput (Stations/s)", [100 / 110, 100 / 72.5, 100 / 60, 200 / 90]),
        ("Parallel Efficiency", [1.0, 0.8, 0.5, None]),
        ("Marginal Gain of a Worker (Stations/s)", [None, 0.6, 0.2, None]),
        ("Measured RAM (MB)", [800.0, 1600.0, 3200.0, 3200.0]),
        ("Calculated RAM Utilization (%)", [80.0, 80.0, 80.0, 80.0]),
        ("Resource Cost Score", [8.0, 8.0, 8.0, 8.0]),
        ("Real-time Stations", [3600.0, 5760.0, 7200.0, 9000.0]),
        ("Share of Time in Model (%)", [None] * 4),
    ],
)
def test_what_follows_from_the_rows(
    table: pd.DataFrame, column: str, wanted: list[float | None]
) -> None:
    found = [None if pd.isna(value) else value for value in table[column]]
    assert found == [None if value is None else pytest.approx(value) for value in wanted]


@pytest.mark.slow
def test_ripper_rows_of_one_cpu_are_in_the_table_of_workers(tmp_path: Path) -> None:
    """Tasks of our rows that wait for each other's cores are still so many tasks."""
    found = [
        finder_tables.ours(10, 1, seconds, mode="ripper", workers=workers, **{"Workers": workers})
        for workers, seconds in ((1, 4.0), (3, 3.0), (5, 2.5))
    ]
    done = analyze(finder_tables.write_rows(tmp_path, found), tmp_path / "out")
    assert done.table["Effective Concurrency"].tolist() == [1, 3, 5]
    part = done.text.partition("What more ripper tasks")[2].partition("Workload")[0]
    # Stations, CPUs, GPUs, workers.
    assert [line.split()[:4] for line in part.splitlines()[3:6]] == [
        ["10", "1", "0", workers] for workers in ("1", "3", "5")
    ]
    assert done.table["Parallel Efficiency"].tolist() == pytest.approx([1, 4 / 9, 4 / 12.5])


def test_gpus_cost_ten_cpus_each(tmp_path: Path) -> None:
    gpu = {"GPUs Used": "[0, 1]", "Process Tree VRAM (MB)": 4000, "Total Requested VRAM (MB)": 8000}
    path = write(tmp_path / "gpu_test_results.csv", [row(100, 2, 10.0, **gpu)])
    found = efficiency_table(load_trials(path)[0].trials).iloc[0]
    assert found["Resource Cost Score"] == 28
    assert found["Throughput/GPU"] == pytest.approx(5.0)
    assert found["Calculated VRAM Utilization (%)"] == pytest.approx(50.0)


def test_time_in_the_model_of_our_files_and_of_rapid(tmp_path: Path) -> None:
    stages = {"Decode Time (s)": 1, "Prepare Time (s)": 1, "Inference Time (s)": 6}
    ours = write(
        tmp_path / "ours" / "cpu_test_results.csv",
        [row(10, 1, 5.0, **stages)],
        CANONICAL_CSV_HEADER,
    )
    sums = ("Sum Inference Time (s)", "Sum Task Compute Time (s)")
    rapid = write(
        tmp_path / "rapid" / "cpu_test_results.csv",
        [row(10, 1, 5.0, **dict(zip(sums, (3, 12), strict=True)))],
        (*PUBLISHED_COLUMNS, *sums, "Successful Inference Tasks", "Total Station Tasks"),
    )
    for path, share in ((ours, 75.0), (rapid, 25.0)):
        found = efficiency_table(load_trials(path)[0].trials)
        assert found["Share of Time in Model (%)"].tolist() == [share]


@pytest.mark.slow
def test_files_have_the_published_names(
    eqcctpro_file: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    done = cli("analyze", eqcctpro_file.parent, "--output_dir", out, "--desired_runtime", 80)
    assert done.exit_code == 0, done.output
    names = {path.name for path in out.iterdir()}
    for mode in ("modelactor", "ripper"):
        assert {
            f"efficiency_summary_{mode}.txt",
            f"efficiency_analysis_results_{mode}.csv",
            f"requested_vs_actual_ram_{mode}.png",
            *(f"{figure}_{mode}.png" for figure in FIGURES),
        } <= names
    assert "correlation_matrix_modelactor.png" in names
    for name in names:
        if name.endswith(".png"):
            picture = Image.open(out / name)
            # Something other than paper was drawn.
            assert picture.width > 400 and len(picture.convert("L").getcolors() or []) > 20
    saved = pd.read_csv(out / "efficiency_analysis_results_modelactor.csv")
    assert set(PUBLISHED_COLUMNS) <= set(saved) and len(saved) == 5
    text = (out / "efficiency_summary_modelactor.txt").read_text()
    assert "5 trials of 6 succeeded" in text and "no memory" in text
    assert "smallest for 200 stations: 8 CPUs, 4 workers: 200 stations in 80 s" in text
    assert "(picker 2.5 st/s, trial 2.22 st/s)" in text
    assert "time chunks of a trial: 1 time chunk of 60 min" in text
    assert "about 9,000 stations" in text
    assert text in done.output


@pytest.mark.slow
def test_several_models_get_a_folder_each(tmp_path: Path) -> None:
    other = {"Model Used": "PhaseNet/original"}
    path = write(tmp_path / "cpu_test_results.csv", [row(10, 1, 5.0), row(10, 1, 4.0, **other)])
    analyze(path, tmp_path / "both")
    assert {p.name for p in (tmp_path / "both").iterdir()} == {
        "eqcct_cpu",
        "phasenet_original_cpu",
    }
    one = analyze(path, tmp_path / "one", model="phasenet_original")
    assert set(one.table["Model"]) == {"PhaseNet/original"}
    with pytest.raises(SettingsError, match="gpd") as caught:
        analyze(path, tmp_path / "none", model="gpd")
    assert "phasenet_original" in str(caught.value)


@pytest.mark.slow
def test_batches_have_a_summary(eqcctpro_file: Path, tmp_path: Path) -> None:
    write(tmp_path / "eval_cpu_eqcct_ripper" / "cpu_test_results.csv", [ripper(10, 2, 9.0)])
    failed = [row(10, 1, 1.0, **{"Trial Success": 0})]
    write(tmp_path / "eval_cpu_gpd_ripper" / "cpu_test_results.csv", failed)
    done = analyze_batch(tmp_path, tmp_path / "out")
    saved = pd.read_csv(tmp_path / "out" / "batch_analysis_summary.csv")
    assert list(saved["Execution Mode"]) == ["ModelActor", "Ripper", "Ripper"]
    assert saved["Total Trials"].tolist() == [5, 2, 1]
    assert (tmp_path / "out/eval_cpu_eqcct_ripper/efficiency_summary_ripper.txt").is_file()
    assert any("eval_cpu_gpd_ripper" in note for note in done.notes)


@pytest.mark.slow
def test_methods_are_compared_at_the_same_stations(eqcctpro_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = compare_methods(eqcctpro_file.parents[1], out, model="eqcct", trial_type_="cpu")
    assert (out / "comparison_modelactor_vs_ripper_eqcct_cpu.png").stat().st_size > 20_000
    lines = [line.split() for line in done.text.splitlines() if "CPU Ripper" in line]
    assert lines[0][-1] == "3", "150 s are three times 50 s"
    with pytest.raises(InputError, match="no trials"):
        compare_methods(eqcctpro_file.parents[1], out, model="eqcct", trial_type_="gpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "CSV_OR_DIR is missing"),
        (("nowhere",), "nowhere is not there"),
        (("--batch", "--results_root", "nowhere"), "nowhere is not a folder"),
        (("--compare",), "--compare needs --model"),
        (("nowhere", "--trial_type", "tpu"), "tpu"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, cli: Callable[..., Any], arguments: tuple[str, ...], words: str
) -> None:
    done = cli("analyze", *arguments, "-o", tmp_path)
    assert done.exit_code in (2, 3) and words in done.output
