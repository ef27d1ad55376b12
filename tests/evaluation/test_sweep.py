"""Sweeps: what is measured, what is kept, and what a killed one leaves."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from eqcctpro import EvaluateSystem, PickConfig, SettingsWarning
from eqcctpro.errors import (
    EQCCTProError,
    EvaluationError,
    InputError,
    SettingsError,
    UnknownModelError,
    WeightsNotFoundError,
)
from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER, PUBLISHED_COLUMNS
from eqcctpro.evaluation.grid import TrialSpec, concurrency_steps, published_station_counts
from eqcctpro.evaluation.sweep import Sweep
from eqcctpro.evaluation.trial import TrialResult, run_trial
from eqcctpro.evaluation.trial_store import TrialStore

SLOW = pytest.mark.slow


@pytest.fixture
def settings(network: Path, imported_model: str, tmp_path: Path) -> dict[str, Any]:
    """A small evaluation in this process's mode, quick to run."""
    parent, child = imported_model.split("/")
    return {
        "eval_mode": "cpu",
        "input_dir": network,
        "output_dir": tmp_path / "out",
        "csv_dir": tmp_path / "csv",
        "model_type": "seisbench",
        "seisbench_parent_model": parent,
        "seisbench_child_model": child,
        "station_counts": (2, 4),
        "modes": ("local",),
        "runtimes": ("openvino",),
        "min_cpu_amount": len(os.sched_getaffinity(0)),
        "repeats": 2,
    }


def rows_of(settings: dict[str, Any]) -> list[dict[str, str]]:
    with (settings["csv_dir"] / "cpu_test_results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Runner:
    """Answers for trials at once, with what a test wants."""

    def __init__(self, answer: Callable[[TrialSpec], dict[str, Any]] = lambda _: {}) -> None:
        self.specs: list[TrialSpec] = []
        self.answer = answer

    def __call__(self, spec: TrialSpec, *_: Any, **__: Any) -> TrialResult:
        from eqcctpro.evaluation.subject import Outcome

        self.specs.append(spec)
        stations = len(spec.station_set.stations)
        repeats = [Outcome(s * stations, {"infer": s}, stations, 0, 0, {"P": 1}) for s in (1, 3, 2)]
        result = TrialResult(spec, {"workers": spec.config.workers}, [], repeats, 9.0, 2.0)
        return replace(result, **self.answer(spec))


class TestPlan:
    @pytest.mark.parametrize(
        ("most", "start", "step", "counts"),
        [
            # As EQCCTPro 0.8.2's generate_station_list answers.
            (28, 1, 1, (10, 15, 20, 25, 26, 27, 28)),
            (30, 1, 1, (10, 15, 20, 25, 30)),
            (12, 1, 1, (10, 11, 12)),
            (10, 1, 1, (10,)),
            (7, 1, 1, (7,)),
            (7, 3, 2, (7,)),
            (1, 1, 1, (1,)),
            (230, 50, 25, (50, 75, 100, 125, 150, 175, 200, 225)),
            (12, 1, 5, (1, 6, 11)),
        ],
    )
    def test_station_counts_are_those_of_eqcctpro(
        self, settings: dict[str, Any], most: int, start: int, step: int, counts: tuple[int, ...]
    ) -> None:
        assert published_station_counts(most, start, step) == counts
        del settings["station_counts"]
        steps = {"starting_amount_of_stations": start, "station_list_step_size": step}
        config = EvaluateSystem(**settings, stations2use=most, **steps).config
        assert config.station_counts == counts

    def test_station_counts_without_a_largest_one(self, settings: dict[str, Any]) -> None:
        del settings["station_counts"]
        assert EvaluateSystem(**settings).config.station_counts == tuple(range(10, 101, 5))
        config = EvaluateSystem(
            **settings, starting_amount_of_stations=20, station_list_step_size=30
        ).config
        assert config.station_counts == (20, 50, 80)
        # All that there are, where the input holds fewer.
        assert [len(one.station_set.stations) for one in Sweep(config).specs] == [6]

    def test_concurrency_steps(self) -> None:
        assert concurrency_steps(10, "percent") == (2, 4, 6, 8, 10)
        assert concurrency_steps(10, "percent", 5) == (5, 6, 8, 10)
        assert concurrency_steps(4, "percent", 5) == (4,)
        assert concurrency_steps(2, "percent") == (1, 2)
        assert concurrency_steps(12, "max") == (12,)
        assert concurrency_steps(3, (1, 2, 8)) == (1, 2)
        assert concurrency_steps(3, (5,)) == (3,)
        assert concurrency_steps(5, "percent", 1, 3) == (1, 4, 5)
        assert concurrency_steps(12, "percent", 2, 5) == (2, 7, 12)

    @pytest.mark.parametrize(
        ("given", "workers"),
        [
            ({}, [1, 2, 3, 4, 5]),
            ({"min_conc_stations": 3}, [3, 4, 5]),
            ({"conc_station_tasks_step_size": 3}, [1, 4, 5]),
            ({"conc_station_tasks_step_size": 2, "min_conc_stations": 2}, [2, 4, 5]),
            ({"conc_station_tasks_max_only": True}, [5]),
            ({"concurrency_values": (2,)}, [2]),
        ],
    )
    def test_stations_at_once(
        self, settings: dict[str, Any], given: dict[str, Any], workers: list[int]
    ) -> None:
        settings |= {"modes": ("modelactor",), "station_counts": (5,)}
        specs = Sweep(EvaluateSystem(**settings, **given).config).specs
        assert [spec.config.workers for spec in specs] == workers

    @pytest.mark.slow
    def test_the_memory_cap_of_ripper_is_that_of_no_other_mode(
        self, settings: dict[str, Any]
    ) -> None:
        settings |= {"station_counts": (2,), "concurrency_values": (1,)}
        both = {"modes": ("modelactor", "ripper"), "ripper_ignore_cpu_ram_cap": True}
        specs = Sweep(EvaluateSystem(**(settings | both)).config).specs
        assert {spec.config.mode: spec.config.ignore_ram_cap for spec in specs} == {
            "modelactor": False,
            "ripper": True,
        }
        alone = {"modes": None, "ripper_ignore_cpu_ram_cap": True}
        with pytest.warns(SettingsWarning, match="no Ripper tasks"):
            config = EvaluateSystem(**(settings | alone)).config
        assert [spec.config.ignore_ram_cap for spec in Sweep(config).specs] == [False]
        every = {"modes": None, "ignore_cpu_ram_cap": True}
        specs = Sweep(EvaluateSystem(**(settings | every)).config).specs
        assert [spec.config.ignore_ram_cap for spec in specs] == [True]

    def test_what_has_no_effect_is_one_warning(self, settings: dict[str, Any]) -> None:
        given = {
            "selected_gpus": [0],
            "max_vram_mb": 48000,
            "cudnn_headroom": 0.3,
            "inter_threads": 2,
            "stations2use": 3,
            "concurrency_values": (1,),
            "min_conc_stations": 2,
            "conc_station_tasks_max_only": True,
            "model_arguments": {"copy": False},
        }
        with pytest.warns(SettingsWarning) as caught:
            evaluation = EvaluateSystem(**settings, **given)
        (warning,) = caught
        for name in (*(set(given) - {"concurrency_values", "model_arguments"}), "copy"):
            assert f"{name}=" in str(warning.message), name
        assert warning.filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Sweep(evaluation.config)  # and it is not said again

    def test_a_trial_with_tensorflow_keeps_its_operators_at_a_time(
        self, settings: dict[str, Any]
    ) -> None:
        settings |= {"station_counts": (2,), "inter_threads": 2}
        with pytest.warns(SettingsWarning, match="inter_threads=2 has no effect"):
            config = EvaluateSystem(**settings).config
        values = config.pick.model_dump(exclude_unset=True)
        pick = PickConfig.checked(**(values | {"runtime": "tensorflow", "inter_threads": 2}))
        runtimes = ("openvino", "tensorflow")
        config = config.model_copy(update={"pick": pick, "runtimes": runtimes})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            specs = Sweep(config).specs
        assert {spec.config.runtime: spec.config.inter_threads for spec in specs} == {
            "openvino": None,
            "tensorflow": 2,
        }

    def test_a_wrong_model_is_refused_before_any_trial(self, settings: dict[str, Any]) -> None:
        with pytest.raises(UnknownModelError, match="PhaseNot"):
            EvaluateSystem(**(settings | {"seisbench_parent_model": "PhaseNot"}))
        with pytest.raises(WeightsNotFoundError, match="no weight file"):
            EvaluateSystem(**(settings | {"seisbench_child_model": "./none.pt"}))
        absent = EvaluateSystem(**(settings | {"seisbench_child_model": "not_there"}))
        with pytest.raises(WeightsNotFoundError, match="not_there"):
            absent.evaluate(quiet=True)
        assert not (settings["csv_dir"] / "cpu_test_results.csv").exists()

    def test_names_of_earlier_releases(self, settings: dict[str, Any]) -> None:
        del settings["eval_mode"], settings["runtimes"]
        old = {"mode": "gpu", "set_vram_mb": 24750, "used_cpu_test_step_size": 1}
        with pytest.warns(DeprecationWarning) as caught:
            config = EvaluateSystem(**settings, **old, selected_gpus=[0]).config
        assert [str(one.message) for one in caught] == [
            "mode is now eval_mode",
            "set_vram_mb is now max_vram_mb",
            "used_cpu_test_step_size is now cpu_test_step_size",
        ]
        assert (config.eval_mode, config.pick.max_vram_mb) == ("gpu", 24750)
        with pytest.raises(SettingsError, match="no parameter moed"):
            EvaluateSystem(**settings, moed="cpu")
        with pytest.raises(SettingsError, match="mode and eval_mode are the same parameter"):
            EvaluateSystem("cpu", **settings, mode="gpu")
        with pytest.raises(SettingsError, match="eval_mode must be given"):
            EvaluateSystem(**settings)

    def test_one_folder_serves_as_both(self, settings: dict[str, Any]) -> None:
        del settings["output_dir"]
        assert EvaluateSystem(**settings).config.pick.output == settings["csv_dir"]

    def test_all_configurations_of_a_cell_pick_the_same_stations(
        self, settings: dict[str, Any]
    ) -> None:
        settings |= {"modes": ("local", "modelactor"), "runtimes": ("openvino", "torch")}
        specs = Sweep(EvaluateSystem(**settings).config).specs
        sets = {}
        for spec in specs:
            stations = spec.station_set.stations
            assert sets.setdefault(spec.cell_id, stations) == stations
        assert sorted(map(len, sets.values())) == [2, 4]
        small, large = sorted(sets.values(), key=len)
        assert set(small) < set(large)
        assert len({spec.configuration_id for spec in specs}) == len(specs)
        others = Sweep(EvaluateSystem(**settings, seed=1).config).specs
        assert others[0].station_set.stations != specs[0].station_set.stations

    def test_what_affects_a_trial_makes_it_another(self, settings: dict[str, Any]) -> None:
        def ids(**changes: Any) -> set[str]:
            config = EvaluateSystem(**{**settings, **changes}).config
            return {spec.configuration_id for spec in Sweep(config).specs}

        same = ids()
        assert ids(repeats=5) == same
        for change in (
            {"P_threshold": 0.7},
            {"modes": ("modelactor",)},
            {"runtimes": ("torch",)},
            {"batch_sizes": (8,)},
            {"model_arguments": {"overlap": 0.5}},
            {"ram_safety_cap": 0.5},
        ):
            assert not ids(**change) & same, change

    def test_timechunks_at_once(self, settings: dict[str, Any]) -> None:
        settings |= {"modes": ("modelactor",), "concurrency_values": (1,), "station_counts": (2,)}
        settings |= {"start_time": "2024-12-15 12:00:00", "end_time": "2024-12-15 12:02:00"}
        specs = Sweep(EvaluateSystem(**settings, timechunk_dt=1).config).specs
        assert [spec.config.concurrent_timechunks for spec in specs] == [1, 2]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"eval_mode": "tpu"}, "eval_mode: 'tpu'"),
            ({"eval_mode": "gpu", "runtimes": ("auto",)}, r"CUDA|GPU"),
            ({"eval_mode": "gpu"}, "openvino runs on the CPU only"),
            ({"repeats": 0}, "repeats"),
            ({"modes": ("both",)}, "modes"),
            ({"station_counts": (0,)}, "station_counts"),
            ({"exact_resume_match": False}, "exact_resume_match"),
            ({"min_cpu_amount": 999}, "min_cpu_amount"),
            ({"start_time": "2024-12-15 12:00:00"}, "start_time and end_time"),
            ({"baselines": ("excel",)}, "excel"),
            ({"cpu_id_list": [0, 9999]}, r"cores \[9999\] are not available"),
            ({"min_conc_stations": 0}, "min_conc_stations"),
            ({"timechunk_dt": 5}, "timechunk_dt and waveform_overlap need start_time"),
            ({"runtimes": ("openvino", "tensorflow")}, "tensorflow runs EQCCT only"),
            ({"output_dir": None, "csv_dir": None}, "output_dir must be given"),
            (
                {"station_counts": None, "starting_amount_of_stations": 200},
                "starting_amount_of_stations: 200 of at most 100",
            ),
        ],
    )
    def test_wrong_settings_are_refused_before_anything_runs(
        self, settings: dict[str, Any], change: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(Exception, match=words) as caught:
            Sweep(EvaluateSystem(**{**settings, **change}).config).run(runner=Runner())
        assert "EQCCTProError" in [kind.__name__ for kind in type(caught.value).__mro__]
        assert not (settings["csv_dir"] / "cpu_test_results.csv").exists()


class TestRealTrials:
    @pytest.mark.slow
    def test_rows_say_what_was_measured(self, settings: dict[str, Any]) -> None:
        report = EvaluateSystem(**settings).evaluate()
        assert (report.succeeded, report.failed) == (2, 0)
        rows = rows_of(settings)
        assert tuple(rows[0]) == CANONICAL_CSV_HEADER
        assert CANONICAL_CSV_HEADER[:38] == PUBLISHED_COLUMNS
        assert [row["Number of Stations Used"] for row in rows] == ["2", "4"]
        for row in rows:
            assert row["Trial Success"] == "1"
            median, total = (
                float(row[f"Total {name} (s)"]) for name in ("Run time for Picker", "Trial Time")
            )
            assert float(row["Picker Time Min (s)"]) <= median <= float(row["Picker Time Max (s)"])
            assert total > median + float(row["Start Time (s)"])
            assert row["Actor Creation Time (s)"] == row["Avg Model Load Time (s)"] == ""
            assert 0 < float(row["Model Load Time (s)"]) <= float(row["Start Time (s)"])
            assert row["Comments"] == "" and row["Num Worker Processes"] == "0"
            stages = [float(row[f"{s} Time (s)"]) for s in ("Plan", "Inference", "Pick", "Write")]
            assert 0 < sum(stages) <= median
            assert 50 < float(row["Peak PSS (MB)"]) <= float(row["Process Tree RAM (MB)"]) < 1000
            assert 50 < float(row["Peak RAM (MB)"]) <= float(row["Process Tree RAM (MB)"])
            assert json.loads(row["Settings (JSON)"])["runtime"] == row["Runtime"] == "openvino"
            assert int(row["P Picks"]) >= int(row["Number of Stations Used"])
        lines = (settings["csv_dir"] / "cpu_test_repeats.jsonl").read_text().splitlines()
        kinds = [[run["kind"] for run in json.loads(line)["repeats"]] for line in lines]
        assert kinds == [["warm-up", "repeat", "repeat"]] * 2
        assert (settings["csv_dir"] / "optimal_configurations_cpu.csv").exists()

    @SLOW
    @pytest.mark.parametrize(
        "mode", ["modelactor", pytest.param("ripper", marks=pytest.mark.exhaustive)]
    )
    def test_modes_on_ray(self, settings: dict[str, Any], mode: str) -> None:
        settings |= {"modes": (mode,), "station_counts": (4,), "concurrency_values": (2,)}
        report = EvaluateSystem(**settings).evaluate()
        assert report.errors == []
        (row,) = rows_of(settings)
        assert row["Mode"] == mode
        assert row["Number of Concurrent Station Tasks"] == "2"
        assert row["N ModelActors"] == ("2" if mode == "modelactor" else "0")
        ripper = mode == "ripper"
        assert row["Actual Ripper Concurrent Tasks"] == ("2" if ripper else "")
        assert row["Comments"] == ("[RIPPER MODE] Task-based approach (no ModelActors)" * ripper)
        # Actors are created once and Ripper tasks load the model: each has one of the times.
        created, loaded = row["Actor Creation Time (s)"], row["Avg Model Load Time (s)"]
        assert (created == "", loaded == "") == (ripper, not ripper)
        assert float(created or loaded) > 0.05
        assert 0.05 < float(row["Model Load Time (s)"]) < float(row["Total Trial Time (s)"])
        # Ray's own processes are no workers.
        assert 2 <= int(row["Num Worker Processes"]) < int(row["Processes"]) - 2
        tree, request = (
            float(row[f"{name} RAM (MB)"]) for name in ("Process Tree", "Total Requested")
        )
        assert request == pytest.approx(2 * (float(row["Requested RAM per Actor (MB)"]) + 256))
        assert float(row["RAM Overhead (MB)"]) == pytest.approx(tree - request, abs=1)
        assert float(row["RAM Utilization (%)"]) == pytest.approx(100 * tree / request, rel=1e-3)
        # What is planned covers the driver and Ray too.
        assert 20 < float(row["PSS Utilization (%)"]) < 110

    @pytest.mark.slow
    def test_a_file_that_cannot_be_read_is_named_and_left_out(
        self, settings: dict[str, Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        chunk = next(settings["input_dir"].iterdir())
        (chunk / "DEM01" / "broken.mseed").write_bytes(b"no waveform" * 100)
        settings |= {"station_counts": (6,), "repeats": 1}
        report = EvaluateSystem(**settings).evaluate()
        assert (report.succeeded, report.failed) == (1, 0)
        assert "broken.mseed" in report.notes[0]
        assert "broken.mseed" in capfd.readouterr().err
        assert "broken.mseed" in (settings["output_dir"] / "evaluation.log").read_text()
        assert rows_of(settings)[0]["Number of Stations Used"] == "6"

    @pytest.mark.slow
    def test_a_damaged_station_among_good_ones(self, settings: dict[str, Any]) -> None:
        chunk = next(settings["input_dir"].iterdir())
        for file in (chunk / "DEM02").iterdir():
            content = bytearray(file.read_bytes())
            for record in range(0, len(content), 512):
                content[record + 64 : record + 512] = b"\xff" * 448  # headers stay whole
            file.write_bytes(content)
        settings |= {"station_counts": (6,), "repeats": 1}
        report = EvaluateSystem(**settings).evaluate()
        (row,) = rows_of(settings)
        assert (report.succeeded, row["Trial Success"], row["Error Message"]) == (1, "1", "")
        assert row["Station Tasks Failed"] == "1" and row["Station Tasks Done"] == "5"
        assert "DEM02" in row["Notes"] and "unreadable" in row["Notes"] and row["Comments"] == ""

    @pytest.mark.slow
    def test_every_trial_fails(
        self, settings: dict[str, Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        settings |= {"trial_timeout_s": 0.01, "station_counts": (2, 4)}
        with pytest.raises(EvaluationError, match=r"all 2 trials failed: .*longer than .*2 trials"):
            EvaluateSystem(**settings).evaluate()
        assert capfd.readouterr().err.count("FAILED") == 4  # as they fail, and at the end
        assert "longer than" in rows_of(settings)[0]["Error Message"]

    def test_a_model_that_is_not_there(self, settings: dict[str, Any]) -> None:
        settings |= {"seisbench_child_model": "nosuchweights", "station_counts": (2, 4)}
        with pytest.raises(EQCCTProError, match="nosuchweights"):
            EvaluateSystem(**settings).evaluate()
        assert not (settings["csv_dir"] / "cpu_test_results.csv").exists()

    @pytest.mark.slow
    def test_nothing_is_written_elsewhere_or_deleted(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        mine = settings["output_dir"] / "important_outputs"
        mine.mkdir(parents=True)
        (mine / "X_prediction_results.csv").write_text("mine")
        before = sorted(settings["input_dir"].rglob("*"))
        EvaluateSystem(**{**settings, "station_counts": (2,), "repeats": 1}).evaluate()
        assert sorted(settings["input_dir"].rglob("*")) == before
        assert (mine / "X_prediction_results.csv").read_text() == "mine"
        assert {path.name for path in tmp_path.iterdir()} <= {"archive", "out", "csv"}


class TestTrialProcess:
    def spec(self, settings: dict[str, Any]) -> TrialSpec:
        return Sweep(EvaluateSystem(**settings).config).specs[0]

    def test_that_dies(self, settings: dict[str, Any], tmp_path: Path) -> None:
        spec, others = self.spec(settings), _children()
        killer = threading.Thread(target=_kill_the_next_child, args=(others,))
        killer.start()
        result = run_trial(spec, tmp_path / "t", repeats=1)
        killer.join()
        assert not result.success
        assert "the trial's process died: " in result.error and "killed" in result.error

    @pytest.mark.slow
    def test_that_takes_too_long(self, settings: dict[str, Any], tmp_path: Path) -> None:
        spec, others = self.spec(settings), _children()
        result = run_trial(spec, tmp_path / "t", repeats=100, timeout_s=1)
        assert "longer than 1 s" in result.error
        assert _children() <= others


def _children() -> set[psutil.Process]:
    """Processes below this one; tests before this may have left some that have ended."""
    return set(psutil.Process().children(recursive=True))


def _kill_the_next_child(others: set[psutil.Process]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for child in _children() - others:
            child.kill()
            return
        time.sleep(0.05)


class TestResume:
    @pytest.mark.slow
    def test_finished_trials_are_not_run_again(self, settings: dict[str, Any]) -> None:
        settings["runtimes"] = ("openvino", "torch")
        first = Runner()
        Sweep(EvaluateSystem(**settings).config).run(runner=first)
        assert len(first.specs) == 4
        again = Runner()
        report = Sweep(EvaluateSystem(**settings).config).run(runner=again)
        assert (len(again.specs), report.finished_before) == (0, 4)
        more = Runner()
        Sweep(EvaluateSystem(**{**settings, "P_threshold": 0.5}).config).run(runner=more)
        assert len(more.specs) == 4

    @pytest.mark.slow
    def test_failed_trials_are_run_again(self, settings: dict[str, Any]) -> None:
        fails = Runner(lambda _: {"error": 'a, "b"\nc', "repeats": []})
        for _ in range(2):
            with pytest.raises(EvaluationError, match=r'all 2 trials failed: a, "b"\nc \(2 trials'):
                Sweep(EvaluateSystem(**settings).config).run(runner=fails)
        assert len(fails.specs) == 4
        assert rows_of(settings)[0]["Error Message"] == 'a, "b" c'
        left = {**settings, "retry_failed": False}
        with pytest.raises(EvaluationError, match="all 2 trials failed"):
            Sweep(EvaluateSystem(**left).config).run(runner=fails)
        some = Runner(
            lambda spec: (
                {"error": "small", "repeats": []} if len(spec.station_set.stations) < 3 else {}
            )
        )
        report = Sweep(EvaluateSystem(**settings).config).run(runner=some)
        assert (report.succeeded, report.failed) == (1, 1)
        assert any(line.startswith("FAILED: ") and "small" in line for line in report.conclusion())
        report = Sweep(EvaluateSystem(**left).config).run(runner=some)
        assert (report.finished_before, report.failed_before, report.done) == (1, 1, 2)
        assert ["done before" in one for one in report.skipped] == [False, True]
        retry = Runner()
        assert Sweep(EvaluateSystem(**settings).config).run(runner=retry).succeeded == 1
        assert len(retry.specs) == 1 and len(rows_of(settings)) == 7
        assert Sweep(EvaluateSystem(**settings).config).run(runner=retry).finished_before == 2

    @pytest.mark.slow
    def test_the_log_holds_all_sweeps(self, settings: dict[str, Any], tmp_path: Path) -> None:
        settings |= {"log_filepath": tmp_path / "sweep.log", "repeats": 1}
        EvaluateSystem(**settings).evaluate(quiet=True)
        EvaluateSystem(**settings).evaluate(quiet=True)
        log = (tmp_path / "sweep.log").read_text()
        assert log.count("2 trials, 2 to run") == log.count("2 trials, 0 to run") == 1
        assert log.count(" stations/s, ") == 2

    def test_the_median_is_in_the_row_and_every_repeat_beside_it(
        self, settings: dict[str, Any]
    ) -> None:
        Sweep(EvaluateSystem(**settings).config).run(runner=Runner())
        row = rows_of(settings)[1]
        assert float(row["Total Run time for Picker (s)"]) == 8.0
        assert float(row["Picker Time Spread (%)"]) == 100.0
        assert float(row["Total Trial Time (s)"]) == 10.0

    def test_what_memory_caps_to_the_same_runs_once(self, settings: dict[str, Any]) -> None:
        capped = Runner(lambda spec: {"facts": {"workers": min(spec.config.workers or 1, 3)}})
        settings |= {"modes": ("modelactor",), "station_counts": (6,)}
        settings["concurrency_values"] = (2, 4, 5, 6)
        report = Sweep(EvaluateSystem(**settings).config).run(runner=capped)
        assert [spec.config.workers for spec in capped.specs] == [2, 4]
        assert report.merged == 2
        again = Runner(capped.answer)
        assert Sweep(EvaluateSystem(**settings).config).run(runner=again).merged == 2
        assert again.specs == []

    @pytest.mark.exhaustive
    def test_killed_at_any_moment_it_goes_on_where_it_was(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        settings |= {"station_counts": (1, 2, 3, 4), "repeats": 1}
        script = tmp_path / "sweep.py"
        given = {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}
        script.write_text(
            "from eqcctpro import EvaluateSystem\n"
            f"if __name__ == '__main__':\n    EvaluateSystem(**{given!r}).evaluate()\n"
        )
        rng = random.Random(1)
        known: list[dict[str, str]] = []
        csv_path = settings["csv_dir"] / "cpu_test_results.csv"
        for _ in range(4):
            process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
            time.sleep(rng.uniform(1.0, 5.0))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            rows = rows_of(settings) if csv_path.exists() else []
            assert rows[: len(known)] == known
            known = rows
        report = EvaluateSystem(**settings).evaluate()
        rows = rows_of(settings)
        assert rows[: len(known)] == known
        assert report.finished_before == len(known)
        assert [row["Number of Stations Used"] for row in rows] == ["1", "2", "3", "4"]
        assert all(row["Trial Success"] == "1" for row in rows)


class TestStore:
    @pytest.mark.slow
    def test_two_writers(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from eqcctpro.evaluation.trial_store import TrialStore\n"
            f"store = TrialStore(Path({str(tmp_path)!r}), 'cpu')\n"
            "for i in range(25): store.append({'Mode': sys.argv[1], 'Comments': 'x' * 5000}, [])\n"
        )
        processes = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
        assert [process.wait() for process in processes] == [0, 0]
        rows = TrialStore(tmp_path, "cpu").rows()
        assert sorted(int(row["Trial Number"]) for row in rows) == list(range(1, 51))
        assert all(row["Comments"] == "x" * 5000 for row in rows)

    def test_a_torn_line_is_lost_alone(self, tmp_path: Path) -> None:
        store = TrialStore(tmp_path, "cpu")
        store.append({"Mode": "local"}, [])
        whole = store.path.read_bytes()
        store.append({"Mode": "ripper"}, [])
        for cut in (1, 20):
            store.path.write_bytes(store.path.read_bytes()[:-cut])
            assert [row["Mode"] for row in store.rows()] == ["local"]
        assert store.append({"Mode": "modelactor"}, []) == 2
        assert store.path.read_bytes().startswith(whole)
        assert [row["Mode"] for row in store.rows()] == ["local", "modelactor"]

    def test_a_file_of_eqcctpro_gets_our_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "cpu_test_results.csv"
        values = [str(number) for number in range(3, 41)]
        lines = [",".join(f'"{v}"' for v in line) for line in (PUBLISHED_COLUMNS, values)]
        path.write_text("\n".join(lines) + "\n")
        assert TrialStore(tmp_path, "cpu").append({"Mode": "local"}, []) == 4
        old, new = TrialStore(tmp_path, "cpu").rows()
        assert [old[column] for column in PUBLISHED_COLUMNS] == values
        assert (old["Mode"], new["Mode"]) == ("", "local")

    def test_another_file_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "cpu_test_results.csv"
        path.write_text("a,b\n1,2\n")
        with pytest.raises(InputError, match="not a file of trials"):
            TrialStore(tmp_path, "cpu").append({}, [])
        assert path.read_text() == "a,b\n1,2\n"


class TestCommand:
    def options(self, settings: dict[str, Any]) -> list[str]:
        where = ["-o", str(settings["output_dir"]), "--csv-dir", str(settings["csv_dir"])]
        model = f"{settings['seisbench_parent_model']}/{settings['seisbench_child_model']}"
        return [str(settings["input_dir"]), *where, "--model", model, "--stations", "2,3"]

    def test_dry_run_measures_nothing(self, settings: dict[str, Any], cli: Any) -> None:
        result = cli("evaluate", *self.options(settings), "--mode", "local", "--dry-run")
        assert result.exit_code == 0
        assert "2 trials; about" in result.output
        assert "3 stations" in result.output
        assert not (settings["csv_dir"] / "cpu_test_results.csv").exists()

    @pytest.mark.slow
    def test_trials_are_shown_and_counted(self, settings: dict[str, Any], cli: Any) -> None:
        options = [*self.options(settings), "--mode", "local", "--repeats", "1"]
        result = cli("evaluate", *options)
        assert result.exit_code == 0, result.output
        assert "[2/2, 0 s left]" in result.output
        assert "trials: 2 measured" in result.output
        assert "2 of them done; about 0 s to go" in cli("evaluate", *options).output

    def test_wrong_numbers(self, settings: dict[str, Any], cli: Any) -> None:
        result = cli("evaluate", *self.options(settings), "--cpus", "two")
        assert result.exit_code == 2
        assert "--cpus 'two'" in result.output


@pytest.mark.exhaustive
def test_seisbench_is_measured_by_the_same_clock(settings: dict[str, Any]) -> None:
    settings |= {"baselines": ("seisbench-classify-merged",), "station_counts": (2,)}
    report = EvaluateSystem(**{**settings, "repeats": 1}).evaluate()
    assert report.errors == []
    baseline, ours = rows_of(settings)
    assert (baseline["Mode"], baseline["Baseline"]) == ("baseline", "seisbench-classify-merged")
    assert baseline["Cell ID"] == ours["Cell ID"]
    assert float(baseline["Total Run time for Picker (s)"]) > 0
    assert baseline["P Picks"] == ours["P Picks"]


def test_settings_error_names_the_input(settings: dict[str, Any], tmp_path: Path) -> None:
    shutil.rmtree(settings["input_dir"])
    with pytest.raises(InputError, match="does not exist"):
        EvaluateSystem(**settings).evaluate()
    with pytest.raises(SettingsError, match="start_time and end_time"):
        EvaluateSystem(**settings, start_time="2024-12-15 12:00:00")
