"""The finders: which configuration they answer with."""

from __future__ import annotations

import pytest
from finder_tables import (
    LADDER,
    SUCCESS,
    Write,
    cpu_finder,
    failed,
    ours,
    theirs,
)

from eqcctpro import (
    OptimalGPUConfigurationFinder,
)
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.evaluation.canonical import PUBLISHED_COLUMNS
from eqcctpro.evaluation.prediction import Point, predict

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


def test_best_overall_is_the_fastest_at_the_most_stations(write_trials: Write) -> None:
    folder = write_trials(
        [ours(50, 8, 1.0), ours(100, 2, 9.0), ours(100, 4, 5.0), ours(100, 8, 4.0)]
    )
    best = cpu_finder(folder).find_best_overall_usecase()
    assert (best.stations, best.cpus, best.seconds) == (100, 8, 4.0)
    assert best.runner_up is not None and best.runner_up.cpus == 4
    assert best.margin_percent == pytest.approx(25.0) and not best.is_tie
    assert best.uncertainty_percent == pytest.approx(2.0) and not best.predicted
    assert best.stations_per_second == pytest.approx(25.0)


def test_extreme_cpu_counts_may_win(write_trials: Write) -> None:
    """EQCCTPro looks at the middle half of the CPU counts only."""
    folder = write_trials(ours(20, cpus, 16 / cpus) for cpus in (1, 2, 4, 8, 16))
    assert cpu_finder(folder).find_best_overall_usecase().cpus == 16


def test_failed_trials_and_baselines_are_never_an_answer(write_trials: Write) -> None:
    rows = [
        ours(100, 8, 0.1, **{SUCCESS: 0, "Error Message": "3 stations failed"}),
        failed(200),
        ours(100, 8, 0.2, mode="baseline", Baseline="seisbench-annotate-merged"),
        ours(100, 4, 5.0),
    ]
    finder = cpu_finder(write_trials(rows))
    for answer in (
        finder.find_best_overall_usecase(),
        finder.find_fastest_under(memory_mb=5000),
        finder.find_smallest_for(60, 100),
        finder.find_optimal_for(4, 100),
    ):
        assert (answer.seconds, answer.cpus, answer.runner_up) == (5.0, 4, None)


def test_nothing_successful_is_said_with_the_first_error(write_trials: Write) -> None:
    finder = cpu_finder(write_trials([failed(10), failed(20)]))
    with pytest.raises(InputError, match=r"2 failed: out of memory \(cpu_test_results.csv, line 2"):
        finder.find_best_overall_usecase()


def test_a_tie_goes_to_fewer_resources(write_trials: Write) -> None:
    folder = write_trials(
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


def test_a_disturbed_measurement_does_not_tie_with_everything(write_trials: Write) -> None:
    folder = write_trials([ours(100, 8, 4.0, spread=0.01), ours(100, 1, 6.0, spread=1.5)])
    assert cpu_finder(folder).find_best_overall_usecase().cpus == 8


def test_single_measurements_tie_only_when_equal(write_trials: Write) -> None:
    rows = [theirs(100, 8, 4.0), theirs(100, 4, 4.01)]
    best = cpu_finder(write_trials(rows, header=PUBLISHED_COLUMNS)).find_best_overall_usecase()
    assert best.cpus == 8 and best.uncertainty_percent is None and not best.is_tie


def test_several_models_need_a_name(write_trials: Write) -> None:
    finder = cpu_finder(
        write_trials([ours(100, 2, 5.0), ours(100, 2, 1.0, model="PhaseNet/stead")])
    )
    assert finder.models == ("EQTransformer/original", "PhaseNet/stead")
    with pytest.raises(SettingsError, match="EQTransformer/original, PhaseNet/stead"):
        finder.find_best_overall_usecase()
    best = finder.find_best_overall_usecase("eqtransformer/ORIGINAL")
    assert (best.model, best.seconds, best.runner_up) == ("EQTransformer/original", 5.0, None)
    with pytest.raises(SettingsError, match="no successful trial of GPD/original"):
        finder.find_optimal_for(2, 100, "GPD/original")


def test_the_newest_successful_row_of_a_configuration_counts(write_trials: Write) -> None:
    retried = [ours(100, 2, 5.0), ours(100, 2, 6.0), ours(100, 2, 1.0) | {SUCCESS: 0}]
    best = cpu_finder(write_trials(retried)).find_best_overall_usecase()
    assert (best.seconds, best.runner_up) == (6.0, None)


def test_only_trials_of_the_same_work_are_compared(write_trials: Write) -> None:
    short = {"Total Waveform Analysis Timespace (min)": 1}
    strict = {"settings": {"p_threshold": 0.9}, "Cell ID": "other"}
    elsewhere = {"Machine": "a faster machine"}
    rows = [
        ours(100, 8, 9.0),
        ours(100, 8, 1.0, **short, **{"Configuration ID": "short"}),
        ours(100, 8, 2.0, **elsewhere),
    ]
    best = cpu_finder(write_trials(rows)).find_best_overall_usecase()
    assert (best.seconds, best.runner_up) == (9.0, None)
    assert any("2 other workloads" in note for note in best.notes)
    best = cpu_finder(write_trials([ours(100, 8, 1.0, **strict), ours(100, 4, 9.0)]))
    assert best.find_best_overall_usecase().runner_up is None


# --------------------------------------------------------------------------- exact and predicted


def test_optimal_for_takes_exact_rows(write_trials: Write) -> None:
    rows = [ours(100, 2, 9.0), ours(100, 2, 8.0, workers=1), ours(100, 4, 5.0), ours(50, 2, 4.0)]
    best = cpu_finder(write_trials(rows)).find_optimal_for(cpu=2, station_count=100)
    assert (best.seconds, best.workers, best.predicted) == (8.0, 1, False)


def test_between_measured_station_counts_a_prediction_is_offered(write_trials: Write) -> None:
    rows = [ours(n, 2, 1 + 0.1 * n, ram=500 + n) for n in (10, 20, 40, 80)]
    rows += [ours(n, 2, 3 + 0.1 * n, workers=1) for n in (10, 80)]
    best = cpu_finder(write_trials(rows)).find_optimal_for(2, 60)
    assert best.predicted and best.stations == 60 and best.workers == 2
    assert best.seconds == pytest.approx(7.0)
    assert best.seconds_low < 7.0 < best.seconds_high
    assert best.ram_mb == pytest.approx(560, rel=0.1)
    assert {trial.stations for trial in best.basis} == {10, 20, 40, 80}
    assert "predicted" in str(best) and "80 stations with 2 CPUs" in str(best)
    assert best.runner_up is not None and best.runner_up.predicted


def test_between_measured_cpu_counts_a_prediction_is_offered(write_trials: Write) -> None:
    rows = [ours(n, cpus, 1 + n / cpus) for n in (50, 100) for cpus in (2, 8)]
    best = cpu_finder(write_trials(rows)).find_optimal_for(4, 100)
    assert best.predicted and (best.cpus, best.workers) == (4, 4)
    assert best.seconds == pytest.approx(26.0)
    assert best.seconds_low < 13.5 and best.seconds_high > 51
    assert best.pick_settings()["cpu_ids"] == [0, 1, 2, 3]


def test_batches_may_differ_between_cpu_counts(write_trials: Write) -> None:
    rows = [
        ours(100, cpus, seconds, settings={"batch_size": batch})
        for cpus, batch, seconds in ((2, 64, 51.0), (2, 128, 53.0), (8, 64, 15.0), (8, 256, 13.5))
    ]
    best = cpu_finder(write_trials(rows)).find_optimal_for(4, 100)
    assert best.seconds == pytest.approx(26.0) and "batch_size" not in best.settings


@pytest.mark.parametrize(("cpus", "stations"), [(2, 200), (2, 5), (4, 100), (1, 100)])
def test_too_far_away_nothing_is_predicted(write_trials: Write, cpus: int, stations: int) -> None:
    rows = [ours(n, 2, 1 + 0.1 * n) for n in (10, 100)]
    with pytest.raises(SettingsError, match="none can be predicted") as caught:
        cpu_finder(write_trials(rows)).find_optimal_for(cpus, stations)
    assert "nearest measured" in str(caught.value) and "line 3" in str(caught.value)


def test_a_single_station_count_predicts_nothing(write_trials: Write) -> None:
    with pytest.raises(SettingsError, match="two station counts"):
        cpu_finder(write_trials([ours(100, 2, 5.0)])).find_optimal_for(2, 90)


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


@pytest.mark.parametrize(("memory", "cpus"), [(700, 1), (2999, 2), (3000, 4), (1e6, 8)])
def test_fastest_under_a_memory_limit(write_trials: Write, memory: float, cpus: int) -> None:
    best = cpu_finder(write_trials(LADDER)).find_fastest_under(memory_mb=memory)
    assert best.cpus == cpus and best.ram_mb is not None and best.ram_mb <= memory


def test_unknown_memory_is_not_within_a_limit(write_trials: Write) -> None:
    rows = [*LADDER, ours(100, 2, 0.5, ram=0, workers=1)]
    assert cpu_finder(write_trials(rows)).find_fastest_under(memory_mb=1e6).cpus == 8
    assert cpu_finder(write_trials(rows)).find_fastest_under().seconds == 0.5


def test_nothing_within_the_limits_names_what_needs_least(write_trials: Write) -> None:
    with pytest.raises(SettingsError, match="700 MB"):
        cpu_finder(write_trials(LADDER)).find_fastest_under(memory_mb=100)


def test_smallest_for_a_deadline(write_trials: Write) -> None:
    finder = cpu_finder(write_trials(LADDER))
    for deadline, cpus in ((1000, 1), (20.1, 2), (11.2, 2), (11.05, 4), (4.1, 8)):
        best = finder.find_smallest_for(deadline_s=deadline, station_count=100)
        assert best.cpus == cpus and best.seconds_high <= deadline, deadline
    with pytest.raises(SettingsError, match="nothing keeps 3 s") as caught:
        finder.find_smallest_for(3, 100)
    assert "8 CPUs" in str(caught.value)


def test_smallest_for_a_deadline_between_station_counts(write_trials: Write) -> None:
    rows = [ours(n, cpus, 1 + n / cpus / 5, ram=n) for n in (50, 100, 150) for cpus in (1, 2, 4)]
    best = cpu_finder(write_trials(rows)).find_smallest_for(15, 120)
    assert best.predicted and best.cpus == 2 and best.seconds == pytest.approx(13.0)
    assert best.seconds_high <= 15


def test_gpus(write_trials: Write) -> None:
    rows = [
        ours(100, 2, 5.0, gpus=(0,), ram=2000),
        ours(100, 2, 3.0, gpus=(0, 1), ram=3000),
        ours(50, 2, 2.6, gpus=(0,)),
        ours(100, 4, 1.0),
    ]
    finder = OptimalGPUConfigurationFinder(write_trials(rows, "gpu"))
    assert finder.find_best_overall_usecase().gpus == (0, 1)
    assert finder.find_optimal_for(2, [1, 0], 100).seconds == 3.0
    assert finder.find_optimal_for(num_cpus=2, gpu_list=[0], station_count=80).predicted
    assert finder.find_fastest_under(gpus=1).gpus == (0,)
    assert finder.find_fastest_under(gpus=[0, 3]).gpus == (0,)
    assert finder.find_smallest_for(60, 100).gpus == (0,)
    with pytest.raises(SettingsError, match=r"GPUs \[2\].*\[0\], \[0, 1\]"):
        finder.find_optimal_for(2, [2], 100)
