"""The finders: what they answer from good and from damaged files, and running the answer."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eqcctpro import (
    OptimalCPUConfigurationFinder,
    OptimalGPUConfigurationFinder,
    RunEQCCTPro,
)
from eqcctpro.errors import InputError, OutputError, RuntimeUnavailableError, SettingsError
from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER, PUBLISHED_COLUMNS
from eqcctpro.evaluation.finder_files import BEST_COLUMNS, write_finder_files
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.prediction import Point, predict
from eqcctpro.evaluation.results import read_results

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

# Seconds of EQTransformer/original from files to picks on two cores of an AMD EPYC, two minutes
# of 5 to 60 stations: median, least and most of three; torch with one thread, OpenVINO with two
# beside other programs.
MEASURED = {
    "torch": [
        (5, 0.1195, 0.1023, 0.1681),
        (10, 0.2356, 0.2105, 0.512),
        (15, 0.3201, 0.3017, 0.4255),
        (20, 0.3876, 0.3786, 0.5624),
        (30, 0.6565, 0.6529, 0.7457),
        (40, 0.9534, 0.9226, 0.9967),
        (60, 1.397, 1.316, 1.8108),
    ],
    "openvino": [
        (5, 0.0526, 0.0421, 0.0778),
        (10, 0.1541, 0.0794, 0.1667),
        (15, 0.1369, 0.1111, 0.2616),
        (20, 0.2448, 0.1449, 0.5013),
        (30, 0.3038, 0.2165, 0.3433),
        (40, 0.4721, 0.39, 0.6062),
        (60, 0.5451, 0.4854, 0.6413),
    ],
}

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


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a results file: ``write(rows, mode=..., header=...)``; returns its folder."""

    def write_rows(
        rows: Iterable[Row],
        mode: str = "cpu",
        header: Sequence[str] = CANONICAL_CSV_HEADER,
        quoting: Any = csv.QUOTE_MINIMAL,
    ) -> Path:
        path = tmp_path / f"{mode}_test_results.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, header, restval="", extrasaction="ignore", quoting=quoting
            )
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path

    return write_rows


def cpu_finder(folder: Path) -> OptimalCPUConfigurationFinder:
    return OptimalCPUConfigurationFinder(folder)


# ------------------------------------------------------------------ which configuration is best


def test_best_overall_is_the_fastest_at_the_most_stations(write: Write) -> None:
    folder = write([ours(50, 8, 1.0), ours(100, 2, 9.0), ours(100, 4, 5.0), ours(100, 8, 4.0)])
    best = cpu_finder(folder).find_best_overall_usecase()
    assert (best.stations, best.cpus, best.seconds) == (100, 8, 4.0)
    assert best.runner_up is not None and best.runner_up.cpus == 4
    assert best.margin_percent == pytest.approx(25.0) and not best.is_tie
    assert best.uncertainty_percent == pytest.approx(2.0) and not best.predicted
    assert best.stations_per_second == pytest.approx(25.0)


def test_extreme_cpu_counts_may_win(write: Write) -> None:
    """EQCCTPro looks at the middle half of the CPU counts only."""
    folder = write(ours(20, cpus, 16 / cpus) for cpus in (1, 2, 4, 8, 16))
    assert cpu_finder(folder).find_best_overall_usecase().cpus == 16


def test_failed_trials_and_baselines_are_never_an_answer(write: Write) -> None:
    rows = [
        ours(100, 8, 0.1, **{SUCCESS: 0, "Error Message": "3 stations failed"}),
        failed(200),
        ours(100, 8, 0.2, mode="baseline", Baseline="seisbench-annotate-merged"),
        ours(100, 4, 5.0),
    ]
    finder = cpu_finder(write(rows))
    for answer in (
        finder.find_best_overall_usecase(),
        finder.find_fastest_under(memory_mb=5000),
        finder.find_smallest_for(60, 100),
        finder.find_optimal_for(4, 100),
    ):
        assert (answer.seconds, answer.cpus, answer.runner_up) == (5.0, 4, None)


def failed(stations: int) -> Row:
    """A trial that ended before it had a time."""
    return ours(stations, 8, 1.0) | {TIME: "", SUCCESS: 0, "Error Message": "out of memory"}


def test_nothing_successful_is_said_with_the_first_error(write: Write) -> None:
    finder = cpu_finder(write([failed(10), failed(20)]))
    with pytest.raises(InputError, match=r"2 failed: out of memory \(cpu_test_results.csv, line 2"):
        finder.find_best_overall_usecase()


def test_a_tie_goes_to_fewer_resources(write: Write) -> None:
    folder = write(
        [
            ours(100, 8, 4.00, spread=0.05),
            ours(100, 4, 4.10, spread=0.05, ram=900),
            ours(100, 4, 4.12, spread=0.05, ram=500, workers=2),
            ours(100, 2, 4.50, spread=0.05),
        ]
    )
    best = cpu_finder(folder).find_best_overall_usecase()
    assert (best.cpus, best.workers, best.seconds) == (4, 2, 4.12)
    assert best.is_tie and best.margin_percent == pytest.approx((4.0 / 4.12 - 1) * 100)
    assert "which is a tie" in str(best)


def test_a_disturbed_measurement_does_not_tie_with_everything(write: Write) -> None:
    folder = write([ours(100, 8, 4.0, spread=0.01), ours(100, 1, 6.0, spread=1.5)])
    assert cpu_finder(folder).find_best_overall_usecase().cpus == 8


def test_single_measurements_tie_only_when_equal(write: Write) -> None:
    rows = [theirs(100, 8, 4.0), theirs(100, 4, 4.01)]
    best = cpu_finder(write(rows, header=PUBLISHED_COLUMNS)).find_best_overall_usecase()
    assert best.cpus == 8 and best.uncertainty_percent is None and not best.is_tie


def test_several_models_need_a_name(write: Write) -> None:
    finder = cpu_finder(write([ours(100, 2, 5.0), ours(100, 2, 1.0, model="PhaseNet/stead")]))
    assert finder.models == ("EQTransformer/original", "PhaseNet/stead")
    with pytest.raises(SettingsError, match="EQTransformer/original, PhaseNet/stead"):
        finder.find_best_overall_usecase()
    best = finder.find_best_overall_usecase("eqtransformer/ORIGINAL")
    assert (best.model, best.seconds, best.runner_up) == ("EQTransformer/original", 5.0, None)
    with pytest.raises(SettingsError, match="no successful trial of GPD/original"):
        finder.find_optimal_for(2, 100, "GPD/original")


def test_the_newest_successful_row_of_a_configuration_counts(write: Write) -> None:
    retried = [ours(100, 2, 5.0), ours(100, 2, 6.0), ours(100, 2, 1.0) | {SUCCESS: 0}]
    best = cpu_finder(write(retried)).find_best_overall_usecase()
    assert (best.seconds, best.runner_up) == (6.0, None)


def test_only_trials_of_the_same_work_are_compared(write: Write) -> None:
    short = {"Total Waveform Analysis Timespace (min)": 1}
    strict = {"settings": {"p_threshold": 0.9}, "Cell ID": "other"}
    elsewhere = {"Machine": "a faster machine"}
    rows = [
        ours(100, 8, 9.0),
        ours(100, 8, 1.0, **short, **{"Configuration ID": "short"}),
        ours(100, 8, 2.0, **elsewhere),
    ]
    best = cpu_finder(write(rows)).find_best_overall_usecase()
    assert (best.seconds, best.runner_up) == (9.0, None)
    assert any("2 other workloads" in note for note in best.notes)
    best = cpu_finder(write([ours(100, 8, 1.0, **strict), ours(100, 4, 9.0)]))
    assert best.find_best_overall_usecase().runner_up is None


# --------------------------------------------------------------------------- exact and predicted


def test_optimal_for_takes_exact_rows(write: Write) -> None:
    rows = [ours(100, 2, 9.0), ours(100, 2, 8.0, workers=1), ours(100, 4, 5.0), ours(50, 2, 4.0)]
    best = cpu_finder(write(rows)).find_optimal_for(cpu=2, station_count=100)
    assert (best.seconds, best.workers, best.predicted) == (8.0, 1, False)


def test_between_measured_station_counts_a_prediction_is_offered(write: Write) -> None:
    rows = [ours(n, 2, 1 + 0.1 * n, ram=500 + n) for n in (10, 20, 40, 80)]
    rows += [ours(n, 2, 3 + 0.1 * n, workers=1) for n in (10, 80)]
    best = cpu_finder(write(rows)).find_optimal_for(2, 60)
    assert best.predicted and best.stations == 60 and best.workers == 2
    assert best.seconds == pytest.approx(7.0)
    assert best.seconds_low < 7.0 < best.seconds_high
    assert best.ram_mb == pytest.approx(560, rel=0.1)
    assert {trial.stations for trial in best.basis} == {10, 20, 40, 80}
    assert "predicted" in str(best) and "80 stations with 2 CPUs" in str(best)
    assert best.runner_up is not None and best.runner_up.predicted


def test_between_measured_cpu_counts_a_prediction_is_offered(write: Write) -> None:
    rows = [ours(n, cpus, 1 + n / cpus) for n in (50, 100) for cpus in (2, 8)]
    best = cpu_finder(write(rows)).find_optimal_for(4, 100)
    assert best.predicted and (best.cpus, best.workers) == (4, 4)
    assert best.seconds == pytest.approx(26.0)
    assert best.seconds_low < 13.5 and best.seconds_high > 51
    assert best.pick_settings()["cpu_ids"] == [0, 1, 2, 3]


def test_batches_may_differ_between_cpu_counts(write: Write) -> None:
    rows = [
        ours(100, cpus, seconds, settings={"batch_size": batch})
        for cpus, batch, seconds in ((2, 64, 51.0), (2, 128, 53.0), (8, 64, 15.0), (8, 256, 13.5))
    ]
    best = cpu_finder(write(rows)).find_optimal_for(4, 100)
    assert best.seconds == pytest.approx(26.0) and "batch_size" not in best.settings


@pytest.mark.parametrize(("cpus", "stations"), [(2, 200), (2, 5), (4, 100), (1, 100)])
def test_too_far_away_nothing_is_predicted(write: Write, cpus: int, stations: int) -> None:
    rows = [ours(n, 2, 1 + 0.1 * n) for n in (10, 100)]
    with pytest.raises(SettingsError, match="none can be predicted") as caught:
        cpu_finder(write(rows)).find_optimal_for(cpus, stations)
    assert "nearest measured" in str(caught.value) and "line 3" in str(caught.value)


def test_a_single_station_count_predicts_nothing(write: Write) -> None:
    with pytest.raises(SettingsError, match="two station counts"):
        cpu_finder(write([ours(100, 2, 5.0)])).find_optimal_for(2, 90)


@pytest.mark.parametrize("runtime", MEASURED)
def test_left_out_measurements_lie_in_their_predicted_intervals(runtime: str) -> None:
    points = [Point(n, mid, (most - least) / mid) for n, mid, least, most in MEASURED[runtime]]
    inside = points[1:-1]
    estimates = [predict([p for p in points if p is not out], out.stations) for out in inside]
    hits = [e.low <= p.value <= e.high for e, p in zip(estimates, inside, strict=True)]
    assert all(hits)
    errors = [abs(e.value / p.value - 1) for e, p in zip(estimates, inside, strict=True)]
    assert sorted(errors)[len(errors) // 2] < (0.06 if runtime == "torch" else 0.35)


def test_quiet_measurements_give_narrow_intervals() -> None:
    noise = (1.01, 0.99, 1.0, 0.99, 1.01)
    points = [
        Point(n, (0.5 + 0.1 * n) * factor, 0.02)
        for n, factor in zip((20, 40, 60, 80, 100), noise, strict=True)
    ]
    inside, beyond = predict(points, 70), predict(points, 150)
    assert inside.value == pytest.approx(7.5, rel=0.02)
    assert (inside.high - inside.low) / inside.value < 0.1
    assert beyond.low < 15.5 < beyond.high
    assert (beyond.high - beyond.low) / beyond.value > (inside.high - inside.low) / inside.value


# ------------------------------------------------------------------- limits, deadlines, and GPUs


LADDER = [
    ours(100, 1, 20.0, ram=700, mode="local"),
    ours(100, 2, 11.0, ram=1500),
    ours(100, 4, 6.0, ram=3000),
    ours(100, 8, 4.0, ram=6000),
]


@pytest.mark.parametrize(("memory", "cpus"), [(700, 1), (2999, 2), (3000, 4), (1e6, 8)])
def test_fastest_under_a_memory_limit(write: Write, memory: float, cpus: int) -> None:
    best = cpu_finder(write(LADDER)).find_fastest_under(memory_mb=memory)
    assert best.cpus == cpus and best.ram_mb is not None and best.ram_mb <= memory


def test_unknown_memory_is_not_within_a_limit(write: Write) -> None:
    rows = [*LADDER, ours(100, 2, 0.5, ram=0, workers=1)]
    assert cpu_finder(write(rows)).find_fastest_under(memory_mb=1e6).cpus == 8
    assert cpu_finder(write(rows)).find_fastest_under().seconds == 0.5


def test_nothing_within_the_limits_names_what_needs_least(write: Write) -> None:
    with pytest.raises(SettingsError, match="700 MB"):
        cpu_finder(write(LADDER)).find_fastest_under(memory_mb=100)


def test_smallest_for_a_deadline(write: Write) -> None:
    finder = cpu_finder(write(LADDER))
    for deadline, cpus in ((1000, 1), (20.1, 2), (11.2, 2), (11.05, 4), (4.1, 8)):
        best = finder.find_smallest_for(deadline_s=deadline, station_count=100)
        assert best.cpus == cpus and best.seconds_high <= deadline, deadline
    with pytest.raises(SettingsError, match="nothing keeps 3 s") as caught:
        finder.find_smallest_for(3, 100)
    assert "8 CPUs" in str(caught.value)


def test_smallest_for_a_deadline_between_station_counts(write: Write) -> None:
    rows = [ours(n, cpus, 1 + n / cpus / 5, ram=n) for n in (50, 100, 150) for cpus in (1, 2, 4)]
    best = cpu_finder(write(rows)).find_smallest_for(15, 120)
    assert best.predicted and best.cpus == 2 and best.seconds == pytest.approx(13.0)
    assert best.seconds_high <= 15


def test_gpus(write: Write) -> None:
    rows = [
        ours(100, 2, 5.0, gpus=(0,), ram=2000),
        ours(100, 2, 3.0, gpus=(0, 1), ram=3000),
        ours(50, 2, 2.6, gpus=(0,)),
        ours(100, 4, 1.0),
    ]
    finder = OptimalGPUConfigurationFinder(write(rows, "gpu"))
    assert finder.find_best_overall_usecase().gpus == (0, 1)
    assert finder.find_optimal_for(2, [1, 0], 100).seconds == 3.0
    assert finder.find_optimal_for(num_cpus=2, gpu_list=[0], station_count=80).predicted
    assert finder.find_fastest_under(gpus=1).gpus == (0,)
    assert finder.find_fastest_under(gpus=[0, 3]).gpus == (0,)
    assert finder.find_smallest_for(60, 100).gpus == (0,)
    with pytest.raises(SettingsError, match=r"GPUs \[2\].*\[0\], \[0, 1\]"):
        finder.find_optimal_for(2, [2], 100)


# ---------------------------------------------------------------------- the files of all versions


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_files_of_eqcctpro(write: Write, quoting: Any) -> None:
    rows = [theirs(10, 4, 5.0), theirs(10, 2, 2.0, **{SUCCESS: 0}), ripper(10, 2, 9.0)]
    folder = write(rows, header=PUBLISHED_COLUMNS, quoting=quoting)
    table = read_results(folder, "cpu")
    assert [trial.mode for trial in table.trials] == ["modelactor", "modelactor", "ripper"]
    assert {trial.layout for trial in table.trials} == {"EQCCTPro"} and table.notes == ()
    best = cpu_finder(folder).find_best_overall_usecase("eqcct")
    assert (best.model, best.workers, best.cpus, best.seconds) == ("EQCCT/original", 4, 4, 5.0)
    assert best.ram_mb == 1586.0
    assert best.runner_up is not None and best.runner_up.workers == 2
    assert any("Measured by EQCCTPro" in note for note in best.notes)
    parameters = best.parameters()
    assert parameters["model_type"] == "eqcct" and "runtime" not in parameters
    assert parameters["number_of_concurrent_station_predictions"] == 4


def ripper(stations: int, cpus: int, seconds: float) -> Row:
    """EQCCTPro records the length of the queue of a Ripper trial."""
    comment = "[RIPPER MODE] Task-based approach (no ModelActors); scmlpick-style task queue"
    changes = {"Comments": comment, ACTORS: "", "Actual Ripper Concurrent Tasks": 10}
    return theirs(stations, cpus, seconds, **changes)


def test_files_of_rapid(write: Write) -> None:
    assert len(RAPID_COLUMNS) == 53
    counted = {"Successful Inference Tasks": 10, "Total Station Tasks": 10, RAM: 2000.0}
    rows = [
        theirs(10, 4, 5.0, **counted),
        theirs(10, 8, 1.0, **(counted | {"Successful Inference Tasks": 9})),
    ]
    finder = cpu_finder(write(rows, header=RAPID_COLUMNS))
    best = finder.find_best_overall_usecase()
    assert (best.seconds, best.ram_mb, best.trial.layout) == (5.0, 2000.0, "RAPID")
    assert finder.notes == (
        "cpu_test_results.csv, line 3: 1 of 10 stations failed, so the trial counts as failed",
    )


def test_our_rows_in_a_file_of_eqcctpro(write: Write) -> None:
    rows = [theirs(100, 4, 1.0, **{MODEL: "EQTransformer/original"}), ours(100, 2, 5.0)]
    folder = write(rows)
    assert [t.layout for t in read_results(folder, "cpu").trials] == ["EQCCTPro", "ours"]
    best = cpu_finder(folder).find_best_overall_usecase()
    assert (best.seconds, best.runner_up) == (5.0, None), "another program's times are no rival"


def test_lists_without_quotes(write: Write) -> None:
    folder = write([theirs(10, 4, 5.0, **{GPUS: "[0, 1]"})], "gpu", PUBLISHED_COLUMNS)
    path = folder / "gpu_test_results.csv"
    path.write_text(path.read_text().replace('"[0, 1]"', "[0, 1]"))
    best = OptimalGPUConfigurationFinder(folder).find_best_overall_usecase()
    assert best.gpus == (0, 1) and best.settings["device"] == "cuda:0,1"


@pytest.mark.parametrize("missing", [TIME, STATIONS, CPUS, MODEL, SUCCESS])
def test_missing_essential_columns_are_named(write: Write, missing: str) -> None:
    header = [name for name in CANONICAL_CSV_HEADER if name != missing]
    with pytest.raises(InputError, match="line 1") as caught:
        cpu_finder(write([ours(10, 2, 5.0)], header=header))
    assert missing in str(caught.value)


def test_other_columns_may_be_missing(write: Write) -> None:
    header = ("Trial Number", MODEL, STATIONS, CPUS, TIME, SUCCESS)
    best = cpu_finder(write([theirs(10, 2, 5.0)], header=header)).find_best_overall_usecase()
    assert (best.mode, best.ram_mb, best.seconds) == ("modelactor", None, 5.0)


def test_a_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cpu_test_results.csv is not there.*EvaluateSystem"):
        cpu_finder(tmp_path)
    (tmp_path / "cpu_test_results.csv").touch()
    with pytest.raises(InputError, match="is empty"):
        cpu_finder(tmp_path)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("appended", [False, True])
def test_a_torn_line_costs_only_itself(write: Write, keep: float, appended: bool) -> None:
    path = write([ours(10, 2, 5.0), ours(10, 1, 9.0), ours(10, 4, 3.0)]) / "cpu_test_results.csv"
    head, first, second, third = path.read_text().splitlines()
    torn = second[: int(len(second) * keep)]
    path.write_text(f"{head}\n{first}\n{torn}" + (f"\n{third}\n" if appended else ""))
    finder = cpu_finder(path.parent)
    best = finder.find_best_overall_usecase()
    assert best.cpus == (4 if appended else 2)
    assert (best.runner_up is not None) == appended
    assert len(finder.notes) == 1 and "line 3 cannot be read" in finder.notes[0]
    assert any("see notes" in note for note in best.notes)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (STATIONS, "many", "Number of Stations Used is 'many'"),
        (CPUS, "", "Number of CPUs"),
        (MODEL, " ", "Model Used is empty"),
        (TIME, "fast", "successful trial without Total Run time"),
        (TIME, "-1", "successful trial without Total Run time"),
        (SUCCESS, "perhaps", "Trial Success is 'perhaps'"),
        ("Settings (JSON)", "{mode", "not JSON"),
    ],
)
def test_unreadable_rows_are_noted(write: Write, column: str, value: str, says: str) -> None:
    finder = cpu_finder(write([ours(10, 2, 5.0), ours(99, 2, 1.0) | {column: value}]))
    assert finder.find_best_overall_usecase().stations == 10
    assert len(finder.notes) == 1
    assert "line 3 cannot be used" in finder.notes[0] and says in finder.notes[0]


def test_messages_with_line_breaks_and_repeated_headers(write: Write) -> None:
    rows = [failed(50) | {"Error Message": 'a, "b"\nc'}, ours(10, 2, 5.0)]
    rows.append({name: name for name in CANONICAL_CSV_HEADER})
    finder = cpu_finder(write(rows))
    assert finder.find_best_overall_usecase().trial.line == 4
    assert finder.notes == ("cpu_test_results.csv, line 5: the header again, left out",)


# ------------------------------------------------------------------------------ files and answers


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return list(reader.fieldnames or ()), rows


def test_files_of_the_finders(write: Write) -> None:
    rows = [
        ours(100, 2, 9.0),
        ours(100, 2, 8.0, workers=1),
        ours(100, 4, 5.0),
        ours(50, 2, 1.0),
        ours(100, 4, 0.1) | {SUCCESS: 0, "Configuration ID": "failed"},
        ours(40, 2, 0.7, model="PhaseNet/stead"),
    ]
    optimal, best = write_finder_files(write(rows), "cpu")
    header, found = read_csv(optimal)
    assert tuple(header) == CANONICAL_CSV_HEADER
    assert [(row[MODEL], row[STATIONS], row[CPUS], row[TIME]) for row in found] == [
        ("EQTransformer/original", "50", "2", "1.0"),
        ("EQTransformer/original", "100", "2", "8.0"),
        ("EQTransformer/original", "100", "4", "5.0"),
        ("PhaseNet/stead", "40", "2", "0.7"),
    ]
    header, found = read_csv(best)
    assert header[6:8] == ["Number of Concurrent Station Tasks per Timechunk", CPUS]
    assert header[13] == "Error Message" and header[14] == "Mode"
    assert [row[TIME] for row in found] == ["5.0", "0.7"]
    assert found[0]["Runner-up Trial Number"] == "1"
    assert json.loads(found[0]["Settings (JSON)"])["workers"] == 4


def test_gpu_files_of_the_finders(write: Write) -> None:
    rows = [
        ours(100, 2, 9.0, gpus=(0,), **{LIMIT: 500}),
        ours(100, 2, 8.0, gpus=(0,), workers=1, **{LIMIT: 900}),
        ours(100, 2, 7.0, gpus=(0, 1), **{LIMIT: 500}),
    ]
    optimal, best = write_finder_files(write(rows, "gpu"), "gpu")
    assert len(read_csv(optimal)[1]) == 3
    header, found = read_csv(best)
    assert header[8:10] == [GPUS, LIMIT] and header[15] == "Error Message"
    assert [row[GPUS] for row in found] == ["[0, 1]"]


def test_files_without_a_successful_trial_keep_their_headers(write: Write) -> None:
    optimal, best = write_finder_files(write([failed(10)]), "cpu")
    assert read_csv(optimal) == (list(CANONICAL_CSV_HEADER), [])
    assert read_csv(best) == (list(BEST_COLUMNS["cpu"]), [])


def test_files_of_an_earlier_version_are_kept_readable(write: Write) -> None:
    optimal, _ = write_finder_files(write([theirs(10, 2, 5.0)], header=PUBLISHED_COLUMNS), "cpu")
    header, found = read_csv(optimal)
    assert tuple(header) == CANONICAL_CSV_HEADER and found[0]["Stations Used"] == "['AAA', 'BBB']"


def test_names_of_the_folder(write: Write, tmp_path: Path) -> None:
    folder = write([ours(10, 2, 5.0)])
    log = tmp_path / "logs" / "finder.log"
    best = OptimalCPUConfigurationFinder(str(folder), log).find_best_overall_usecase()
    assert log.read_text().endswith(f"- INFO - {best}\n")
    old = OptimalCPUConfigurationFinder(eval_sys_results_dir=folder, log_file_path=log)
    assert old.find_best_overall_usecase().seconds == 5.0
    assert len(log.read_text().splitlines()) == 2
    with pytest.raises(SettingsError, match="same parameter"):
        OptimalCPUConfigurationFinder(folder, eval_sys_results_dir=folder)
    with pytest.raises(SettingsError, match="results_dir must be given"):
        OptimalGPUConfigurationFinder()
    with pytest.raises(OutputError, match="log_file_path"):
        OptimalCPUConfigurationFinder(folder, folder).find_best_overall_usecase()


def test_an_answer_as_text_json_and_parameters(write: Write) -> None:
    best = cpu_finder(write(LADDER)).find_best_overall_usecase()
    assert str(best).startswith(
        "EQTransformer/original: modelactor, 8 workers, 8 CPUs, torch, batch 64; "
        "100 stations x 10 min took 4 s (3.96 s to 4.04 s), 6,000 MB of memory "
        "[measured; cpu_test_results.csv, line 5]. "
        "Next is modelactor, 4 workers, 4 CPUs, torch, batch 64 with 6 s (+50.0 %)"
    )
    plain = json.loads(best.to_json())
    assert plain["settings"] == best.pick_settings()
    assert plain["runner_up"]["cpus"] == 4 and plain["machine"] == describe_machine()
    assert best.parameters() == {
        "model_type": "seisbench",
        "seisbench_parent_model": "EQTransformer",
        "seisbench_child_model": "original",
        "use_gpu": False,
        "mode": "modelactor",
        "number_of_concurrent_station_predictions": 8,
        "intra_threads": 1,
        "runtime": "torch",
        "batch_size": 64,
        "cpu_id_list": list(range(8)),
    }


def test_finders_need_nothing_heavy(write: Write) -> None:
    folder = write(LADDER)
    program = (
        "import sys; from eqcctpro import OptimalCPUConfigurationFinder as Finder\n"
        f"Finder({str(folder)!r}).find_best_overall_usecase()\n"
        "print({'torch', 'ray', 'pandas', 'pyarrow', 'seisbench', 'obspy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


# ---------------------------------------------------------------------------- running the answer


BASE = {
    "input_dir": "in",
    "output_dir": "out",
    "model_type": "seisbench",
    "seisbench_parent_model": "EQTransformer",
    "seisbench_child_model": "original",
}


def test_a_run_takes_the_best_configuration(write: Write) -> None:
    folder = write([ours(100, 1, 4.0, workers=3, settings={"inter_threads": 1})])
    run = RunEQCCTPro(
        **BASE,
        best_usecase_config=True,
        csv_dir=folder,
        number_of_concurrent_station_predictions=7,
        intra_threads=1,
        batch_size=8,
        ripper=True,
        P_threshold=0.4,
        runtime="openvino",
    )
    config = run.config
    assert (config.mode, config.workers, config.threads) == ("modelactor", 3, 1)
    assert (config.batch_size, config.runtime, config.cpu_ids) == (64, "torch", (0,))
    assert config.p_threshold == 0.4, "what is computed stays the user's"
    assert run.overridden == {
        "number_of_concurrent_station_predictions": 7,
        "batch_size": 8,
        "ripper": True,
        "runtime": "openvino",
    }
    assert run.configuration is not None and run.configuration.seconds == 4.0


def test_what_is_overridden_is_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write([ours(100, 1, 4.0, mode="local", **{"Machine": "another"})])
    arguments = {"batch_size": 5, "overlap": 0.5}
    with caplog.at_level(logging.INFO, logger="eqcctpro"):
        run = RunEQCCTPro(
            **BASE,
            best_usecase_config=True,
            csv_dir=folder,
            mode="modelactor",
            model_arguments=arguments,
        )
    assert (run.config.mode, run.config.workers, run.config.batch_size) == ("local", None, 64)
    assert run.config.model_arguments == {"overlap": 0.5}
    assert "mode='modelactor' is overridden" in caplog.text
    assert "measured on another machine (another;" in caplog.text
    assert "configuration of a benchmark: EQTransformer/original" in caplog.text


def test_a_configuration_can_be_given(write: Write) -> None:
    best = cpu_finder(write([ours(100, 1, 4.0)])).find_best_overall_usecase()
    run = RunEQCCTPro(**BASE, configuration=best)
    assert run.configuration is best and run.config.workers == 1 and run.overridden == {}
    with pytest.raises(SettingsError, match="exclude each other"):
        RunEQCCTPro(**BASE, configuration=best, best_usecase_config=True, csv_dir="x")
    by_parameters = RunEQCCTPro(input_dir="in", output_dir="out", **best.parameters())
    assert by_parameters.config.workers == run.config.workers


def test_cores_that_are_not_here(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    best = cpu_finder(write([ours(100, 1, 4.0, settings={"cpu_ids": [9999]})]))
    config = RunEQCCTPro(**BASE, configuration=best.find_best_overall_usecase()).config
    assert config.cpu_ids is not None and len(config.cpu_ids) == 1 and 9999 not in config.cpu_ids
    assert "cores [9999] are not all here" in caplog.text
    many = cpu_finder(write([ours(100, 10_000, 4.0)])).find_best_overall_usecase()
    with pytest.raises(SettingsError, match="needs 10000 cores"):
        RunEQCCTPro(**BASE, configuration=many)


def test_gpus_that_are_not_here(write: Write) -> None:
    folder = write([ours(100, 1, 4.0, gpus=(98, 99))], "gpu")
    with pytest.raises(RuntimeUnavailableError, match="needs GPU 98, 99"):
        RunEQCCTPro(**BASE, use_gpu=True, best_usecase_config=True, csv_dir=folder)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"best_usecase_config": True}, "belong together"),
        ({"csv_dir": "results"}, "belong together"),
        ({"csv_dir": "nowhere", "best_usecase_config": True}, "cpu_test_results.csv is not there"),
    ],
)
def test_a_configuration_that_cannot_be_found(given: dict[str, Any], says: str) -> None:
    with pytest.raises((SettingsError, InputError), match=says):
        RunEQCCTPro(**BASE, **given)


def test_a_run_with_the_best_configuration_really_uses_it(
    write: Write, imported_model: str, labelled: Path, tmp_path: Path
) -> None:
    settings = {"batch_size": 7, "runtime": "torch", "threads": 1}
    rows = [
        ours(100, 1, 4.0, mode="local", model=imported_model, settings=settings),
        ours(100, 1, 9.0, mode="modelactor", model=imported_model),
    ]
    run = RunEQCCTPro(
        **(BASE | {"input_dir": labelled, "output_dir": tmp_path / "out"}),
        stations2use=2,
        best_usecase_config=True,
        csv_dir=write(rows),
        overview=False,
    )
    result = run.run_eqcctpro()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["mode"] == summary["settings"]["mode"] == "local"
    assert summary["runtime"] == "torch" and summary["threads_per_worker"] == 1
    assert summary["settings"]["batch_size"] == 7 and summary["settings"]["cpu_ids"] == [0]
    assert result.counts["failed"] == 0 and result.counts["picks"] > 0


# ------------------------------------------------------------------------------- the command line


def test_command_line(write: Write, cli: Callable[..., Any]) -> None:
    folder = write(LADDER)
    done = cli("optimal", folder)
    assert done.exit_code == 0 and "8 workers" in done.stdout
    for options, cpus in (
        (("--stations", 100, "--cpus", 4), 4),
        (("--memory-mb", 2000), 2),
        (("--deadline", 7, "--stations", 100), 4),
        (("--cpus", 3), 2),
        (("--model", "EQTransformer/original"), 8),
    ):
        done = cli("optimal", folder, *options, "--json")
        answers = json.loads(done.stdout)["answers"]
        assert [answer["cpus"] for answer in answers] == [cpus], options


def test_command_line_answers_for_each_model_and_prints_notes(
    write: Write, cli: Callable[..., Any]
) -> None:
    rows = [ours(100, 2, 5.0), ours(100, 2, 1.0, model="PhaseNet/stead"), ours(9, 1, 1.0)]
    done = cli("optimal", write([*rows[:2], rows[2] | {SUCCESS: "?"}]))
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "EQTransformer/original",
        "PhaseNet/stead",
    ]
    assert "note: cpu_test_results.csv, line 4 cannot be used" in done.stderr


def test_command_line_finds_gpu_results(write: Write, cli: Callable[..., Any]) -> None:
    folder = write([ours(100, 2, 5.0, gpus=(0, 1))], "gpu")
    for options in ((), ("--gpus", "0,1", "--stations", 100, "--cpus", 2)):
        assert "GPU 0, 1" in cli("optimal", folder, *options).stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--deadline", 5), "--deadline needs --stations"),
        (("--deadline", 5, "--stations", 100, "--memory-mb", 9), "--deadline goes with"),
        (("--mode", "tpu"), "neither cpu nor gpu"),
        (("--mode", "cpu", "--gpus", "0"), "--gpus needs"),
        (("--mode", "gpu"), "gpu_test_results.csv is not there"),
    ],
)
def test_command_line_errors(
    write: Write, cli: Callable[..., Any], options: tuple[Any, ...], says: str
) -> None:
    done = cli("optimal", write(LADDER), *options)
    assert done.exit_code in {2, 3} and says in done.stderr
