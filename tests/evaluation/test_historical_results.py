"""Tables of trials of every version of EQCCTPro are read by finders, analysis and plots."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from finder_tables import RAPID_COLUMNS

from eqcctpro import OptimalCPUConfigurationFinder, OptimalGPUConfigurationFinder
from eqcctpro.analysis.efficiency import analyze
from eqcctpro.errors import InputError
from eqcctpro.evaluation.canonical import PUBLISHED_COLUMNS
from eqcctpro.evaluation.results import read_results
from eqcctpro.evaluation.trial_store import TrialStore

_FIRST = ("Trial Number", "Stations Used", "Number of Stations Used")
_CPUS = "Number of CPUs Allocated for Ray to Use"
_AT_ONCE = "Number of Stations Running Predictions Concurrently"
_THREADS = ("Intra-parallelism Threads", "Inter-parallelism Threads")
_TIME = "Total Run time for Picker (s)"
_LAST = ("Trial Success", "Error Message")
_SPANS = (
    *("Total Waveform Analysis Timespace (min)", "Total Number of Timechunks"),
    *("Concurrent Timechunks Used", "Length of Timechunk (min)"),
    "Number of Concurrent Station Tasks",
)

#: Header of each version.
HEADERS = {
    "0.3": (*_FIRST, _CPUS, _AT_ONCE, *_THREADS, _TIME, *_LAST),
    "0.3 GPU": (
        *(*_FIRST, _CPUS, "GPUs Used", "VRAM Used Per Task", _AT_ONCE),
        *(*_THREADS, _TIME, *_LAST),
    ),
    "0.6": (
        *(*_FIRST, _CPUS, *_THREADS, "GPUs Used", "VRAM Used Per Task"),
        *(*_SPANS, _TIME, *_LAST),
    ),
    "0.7": (
        *(*_FIRST, _CPUS, *_THREADS, "GPUs Used", "Inference Actor Memory Limit (MB)"),
        *(*_SPANS, _TIME, "Model Used", *_LAST),
    ),
    # Without five columns on times, Ripper tasks and comments.
    "0.8.0": tuple(
        name
        for name in PUBLISHED_COLUMNS
        if name
        not in {
            *("Actual Ripper Concurrent Tasks", "Total Trial Time (s)", "Actor Creation Time (s)"),
            *("Avg Model Load Time (s)", "Waveform Processing Time (s)", "Comments"),
        }
    ),
    "0.8.2": PUBLISHED_COLUMNS,
    "RAPID": RAPID_COLUMNS,
}
UNNAMED = ("0.3", "0.6")


def values(cpus: int, concurrent: int, seconds: float, gpus: str) -> dict[str, Any]:
    """Cells of a trial with five stations, whatever they are called."""
    return {
        "Stations Used": "['AAA', 'BBB', 'CCC', 'DDD', 'EEE']",
        "Number of Stations Used": 5,
        _CPUS: cpus,
        "GPUs Used": gpus,
        "VRAM Used Per Task": 2000.0 if gpus != "[]" else "",
        "Inference Actor Memory Limit (MB)": 2000.0 if gpus != "[]" else "",
        "Model Used": "eqcct",
        "N ModelActors": concurrent,
        _AT_ONCE: concurrent,
        "Number of Concurrent Station Tasks": concurrent,
        **dict.fromkeys(_THREADS, 1),
        "Total Waveform Analysis Timespace (min)": 60.0,
        "Total Number of Timechunks": 2,
        "Concurrent Timechunks Used": 1,
        "Length of Timechunk (min)": 30.0,
        _TIME: seconds,
        "Trial Success": 1.0,
    }


def write(folder: Path, header: Sequence[str], gpus: str = "[]") -> Path:
    """Three trials, of which the last is the fastest; the version's quoting."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{'cpu' if gpus == '[]' else 'gpu'}_test_results.csv"
    trials = [values(2, 1, 40.0, gpus), values(2, 2, 25.0, gpus), values(4, 4, 12.5, gpus)]
    with path.open("w", newline="", encoding="utf-8") as file:
        quoting: Any = csv.QUOTE_MINIMAL if _AT_ONCE in header else csv.QUOTE_NONNUMERIC
        writer = csv.DictWriter(file, header, restval="", extrasaction="ignore", quoting=quoting)
        writer.writeheader()
        writer.writerows({"Trial Number": n, **one} for n, one in enumerate(trials, 1))
    return folder


@pytest.mark.parametrize("version", [name for name in HEADERS if "GPU" not in name])
def test_the_finder_answers_from_every_version(tmp_path: Path, version: str) -> None:
    folder = write(tmp_path / "results", HEADERS[version])
    best = OptimalCPUConfigurationFinder(folder).find_best_overall_usecase("eqcct")
    assert (best.model, best.stations, best.cpus) == ("EQCCT/original", 5, 4)
    assert (best.workers, best.seconds, best.trial.number) == (4, 12.5, 3)
    # Tasks loaded the model themselves before there were actors.
    assert best.mode == ("ripper" if version == "0.3" else "modelactor")
    named = any("taken as measured with EQCCT/original" in note for note in best.notes)
    assert named == (version in UNNAMED)
    exact = OptimalCPUConfigurationFinder(folder, model="eqcct").find_optimal_for(2, 5)
    assert (exact.seconds, exact.workers) == (25.0, 2)


@pytest.mark.parametrize("version", ["0.3 GPU", "0.6", "0.7"])
def test_memory_limits_and_gpus_of_early_versions(tmp_path: Path, version: str) -> None:
    folder = write(tmp_path / "results", HEADERS[version], "[0, 1]")
    finder = OptimalGPUConfigurationFinder(folder, model="eqcct")
    best = finder.find_optimal_for(num_cpus=4, gpu_list=[0, 1], station_count=5)
    assert (best.gpus, best.settings["vram_mb"], best.seconds) == ((0, 1), 2000.0, 12.5)


@pytest.mark.parametrize("version", UNNAMED)
def test_without_a_model_the_error_says_what_to_name(
    tmp_path: Path, cli: Callable[..., Any], version: str
) -> None:
    folder = write(tmp_path / "results", HEADERS[version])
    with pytest.raises(InputError, match=r"Model Used is missing in lines 2, 3, 4.*--model eqcct"):
        OptimalCPUConfigurationFinder(folder).find_best_overall_usecase()
    for command in ("optimal", "analyze", "plot"):
        done = cli(command, folder)
        assert done.exit_code == 3, command
        assert "Model Used is missing" in done.output and "--model" in done.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "version",
    [UNNAMED[0], *(pytest.param(one, marks=pytest.mark.exhaustive) for one in UNNAMED[1:])],
)
def test_the_command_line_reads_them_with_a_model(
    tmp_path: Path, cli: Callable[..., Any], version: str
) -> None:
    folder = write(tmp_path / "results", HEADERS[version])
    told = cli("optimal", folder, "--model", "eqcct")
    assert told.exit_code == 0, told.output
    assert "EQCCT/original" in told.output and "12.5 s" in told.output
    analysed = cli("analyze", folder, "-o", tmp_path / "analysis", "--model", "eqcct")
    assert analysed.exit_code == 0, analysed.output
    assert "3 trials of 3 succeeded" in analysed.output
    assert "3 trials name no model and count as eqcct" in analysed.output
    drawn = cli("plot", folder, "-o", tmp_path / "pages", "--model", "eqcct")
    assert drawn.exit_code == 0, drawn.output
    assert list((tmp_path / "pages").glob("dashboard_*.html"))


@pytest.mark.slow
def test_among_others_they_are_of_eqcct_alone(tmp_path: Path, cli: Callable[..., Any]) -> None:
    write(tmp_path / "old" / "a", HEADERS["0.6"])
    new = write(tmp_path / "old" / "b", HEADERS["0.8.2"])
    path = new / "cpu_test_results.csv"
    path.write_text(path.read_text().replace('"eqcct"', '"PhaseNet/original"'))
    for model, kinds in (("phasenet_original", 1), (None, 1), ("eqcct", 1)):
        chosen = () if model is None else ("--model", model)
        where = ("--results_root", tmp_path / "old", "-o", tmp_path / "out" / str(model))
        done = cli("analyze", "--batch", *where, *chosen, "-q")
        assert done.exit_code == 0, done.output
        assert ("left out: see --model eqcct" in done.output) == (model != "eqcct")
        table = (tmp_path / "out" / str(model) / "batch_analysis_summary.csv").read_text()
        assert len(table.splitlines()) == 1 + kinds
        assert ("EQCCT/original" in table) == (model == "eqcct")


@pytest.mark.slow
def test_in_python_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "results", HEADERS["0.6"])
    done = analyze(folder, tmp_path / "out", model="EQCCT/original")
    assert set(done.table["Model"]) == {"EQCCT/original"}
    assert done.table["Picker Time (s)"].tolist() == [40.0, 25.0, 12.5]


def test_a_sweep_adds_its_rows_to_a_file_of_0_6(tmp_path: Path) -> None:
    """The header grows; rows that name no model stay what they were, whatever others name."""
    folder = write(tmp_path / "results", HEADERS["0.6"])
    ours = {
        **values(4, 4, 1.0, "[]"),
        "Model Used": "PhaseNet/original",
        "Configuration ID": "a",
        "Mode": "modelactor",
    }
    del ours["VRAM Used Per Task"], ours[_AT_ONCE]
    TrialStore(folder, "cpu").append(ours, [])
    table = read_results(folder, "cpu", model="eqcct")
    assert [(t.model, t.layout) for t in table.trials] == [
        *[("EQCCT/original", "EQCCTPro")] * 3,
        ("PhaseNet/original", "ours"),
    ]
    assert table.notes == ("cpu_test_results.csv: 3 trials name no model and count as eqcct",)
    finder = OptimalCPUConfigurationFinder(folder)
    assert finder.models == ("PhaseNet/original",)
    assert "3 trials name no model" in finder.notes[0]
    assert {trial.workers for trial in table.trials} == {1, 2, 4}
