"""Tuning: the best of a sweep with a fraction of its trials."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eqcctpro.config import PickConfig
from eqcctpro.config_files import load_config_file
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.evaluation.configuration import BestConfiguration
from eqcctpro.evaluation.grid import TrialSpec
from eqcctpro.evaluation.settings import EvaluationConfig
from eqcctpro.evaluation.subject import Outcome
from eqcctpro.evaluation.sweep import Sweep
from eqcctpro.evaluation.trial import TrialResult
from eqcctpro.evaluation.tuning import Tuner

RUNTIMES = ("openvino", "onnxruntime", "torch")
BATCHES = (16, 32, 64, 128, 256)
WORKERS = (1, 2, 3, 4)


@pytest.fixture
def config(network: Path, tmp_path: Path) -> Callable[..., EvaluationConfig]:
    """An evaluation with a space of its own in a folder of its own."""

    def make(name: str, **changes: Any) -> EvaluationConfig:
        pick = PickConfig.checked(
            input=network,
            output=tmp_path / name,
            model="PhaseNet/original",
            mode="modelactor",
            cpu_ids=tuple(os.sched_getaffinity(0)),
        )
        axes: dict[str, Any] = {
            "cpu_counts": (len(os.sched_getaffinity(0)),),
            "station_counts": (4,),
            "modes": ("local", "modelactor", "ripper"),
            "runtimes": RUNTIMES,
            "batch_sizes": BATCHES,
            "concurrency": WORKERS,
        }
        return EvaluationConfig.checked(pick=pick, csv_dir=tmp_path / name, **{**axes, **changes})

    return make


def machine(seed: int) -> Callable[..., TrialResult]:
    """A made-up machine: every axis has one best value, and repeats differ by 2 %."""
    rng = random.Random(seed)
    runtime = {name: rng.uniform(1, 3) for name in RUNTIMES}
    best_batch, steep = rng.choice(BATCHES), rng.uniform(0.05, 0.4)
    best_workers = rng.choice(WORKERS)
    mode = {"local": rng.uniform(0.8, 1.6), "modelactor": 1.0, "ripper": rng.uniform(1.3, 4)}

    def run(spec: TrialSpec, *_: Any, **__: Any) -> TrialResult:
        run = spec.config
        seconds = 1e-2 * len(spec.station_set.stations) * runtime[run.runtime] * mode[run.mode]
        seconds *= 1 + steep * abs(math.log2((run.batch_size or 1) / best_batch))
        seconds *= 1 + 0.2 * abs((run.workers or best_workers) - best_workers)
        repeats = [
            Outcome(seconds * rng.uniform(0.99, 1.01), {}, 4, 0, 0, {"P": 1}) for _ in range(3)
        ]
        return TrialResult(spec, {"workers": run.workers}, [], repeats, 1.0, 0.5)

    return run


def as_measured(options: Sequence[BestConfiguration], *_: Any) -> list[BestConfiguration]:
    """A repetition that finds the times of the trials again."""
    return list(options)


@pytest.mark.parametrize("seed", range(8))
def test_within_5_percent_of_the_sweep_with_a_quarter_of_its_trials(
    config: Callable[..., EvaluationConfig], seed: int
) -> None:
    sweep = Sweep(config("sweep"))
    run = machine(seed)
    times = [run(spec).median().seconds for spec in sweep.specs]
    report = Tuner(config("tune")).run(runner=machine(seed), settle=as_measured)
    assert report.space == len(sweep.specs) == 135
    assert report.trials <= report.space / 4
    assert report.best.seconds <= 1.05 * min(times)


def test_configurations_that_fail_are_passed_over(
    config: Callable[..., EvaluationConfig],
) -> None:
    works = machine(0)

    def run(spec: TrialSpec, *_: Any, **__: Any) -> TrialResult:
        if spec.config.runtime == "torch" or (spec.config.batch_size or 0) > 64:
            return TrialResult(spec, error="out of memory")
        return works(spec)

    report = Tuner(config("tune")).run(runner=run, settle=as_measured)
    assert report.best.settings["batch_size"] <= 64
    assert report.best.settings["runtime"] != "torch"
    with pytest.raises(InputError, match="no configuration works: broken"):
        Tuner(config("all")).run(runner=lambda spec, *_, **__: TrialResult(spec, error="broken"))


def test_trials_of_an_earlier_tuning_are_not_run_again(
    config: Callable[..., EvaluationConfig],
) -> None:
    first = Tuner(config("tune")).run(runner=machine(3), settle=as_measured)

    def never(*_: Any, **__: Any) -> TrialResult:
        raise AssertionError

    again = Tuner(config("tune")).run(runner=never)
    assert (again.best.seconds, again.trials) == (first.best.seconds, first.trials)


def test_what_is_close_is_measured_again_in_turns(
    config: Callable[..., EvaluationConfig],
) -> None:
    asked = []

    def settle(options: Sequence[BestConfiguration], *_: Any) -> list[BestConfiguration]:
        asked.append([(option.mode, option.settings["runtime"]) for option in options])
        first, *others = options
        return [replace(first, seconds=9.0), *(replace(one, seconds=1.0) for one in others)]

    axes = {"modes": ("local", "modelactor"), "runtimes": ("openvino", "onnxruntime")}

    def run(spec: TrialSpec, *_: Any, **__: Any) -> TrialResult:
        slower = 1.1 if spec.config.mode == "local" else 1.0
        slower *= 1.5 if spec.config.runtime == "onnxruntime" else 1.0
        repeats = [Outcome(slower, {}, 4, 0, 0, {"P": 1}) for _ in range(3)]
        return TrialResult(spec, {"workers": spec.config.workers}, [], repeats, 1.0, 0.5)

    report = Tuner(config("tune", **axes)).run(runner=run, settle=settle)
    assert asked == [[("modelactor", "openvino"), ("local", "openvino")]]
    assert (report.best.mode, report.best.seconds) == ("local", 1.0)
    assert report.best.runner_up is not None
    assert report.best.runner_up.seconds == 9.0
    assert [note[:12] for note in report.notes] == ["in turns 1 s", "in turns 9 s"]
    again = Tuner(config("tune", **axes)).run(runner=run, settle=settle)
    assert (again.best.mode, len(asked)) == ("local", 1)
    # What cannot be repeated leaves the trials' answer.
    failed = Tuner(config("other", **axes)).run(runner=run, settle=lambda *_: [])
    assert failed.best.mode == "modelactor"


@pytest.mark.slow
def test_deadlines(config: Callable[..., EvaluationConfig]) -> None:
    times = {"station_counts": (2, 4)}
    seconds = (
        Tuner(config("a", **times)).run(runner=machine(1), settle=as_measured).best.seconds_high
    )
    kept = Tuner(config("a", **times), deadline_s=2 * seconds).run(
        runner=machine(1), settle=as_measured
    )
    assert kept.keeps_deadline
    assert kept.smallest is not None
    assert kept.smallest.seconds_high <= 2 * seconds
    assert "4 stations keep the deadline" in kept.verdict()
    missed = Tuner(config("a", **times), deadline_s=seconds / 2).run(
        runner=machine(1), settle=as_measured
    )
    assert not missed.keeps_deadline
    assert missed.smallest is None
    assert "miss the deadline" in missed.verdict()
    assert "about 2 stations would keep it" in missed.verdict()


@pytest.mark.parametrize(("stations", "words"), [(5, "predicted"), (400, "in proportion")])
def test_more_stations_than_there_are(
    config: Callable[..., EvaluationConfig], stations: int, words: str
) -> None:
    tuner = Tuner(config("a", station_counts=(2, 4)), stations=stations, deadline_s=100)
    report = tuner.run(runner=machine(1), settle=as_measured)
    answer = report.for_stations
    assert answer.predicted
    assert answer.stations == stations
    expected = report.best.seconds * stations / 4
    assert answer.seconds_low < expected < answer.seconds_high
    assert any(words in note for note in report.notes)
    assert "(predicted)" in report.verdict()


@pytest.mark.slow
def test_command_ends_with_a_configuration_that_pick_takes(
    network: Path, imported_model: str, tmp_path: Path, cli: Any
) -> None:
    options = ["--model", imported_model, "--mode", "local", "--runtime", "openvino"]
    options += ["--batch-size", "4,8", "--repeats", "1", "--deadline", "60"]
    result = cli("tune", str(network), "-o", str(tmp_path / "tuned"), *options)
    assert result.exit_code == 0, result.output
    assert "6 stations keep the deadline of 60 s" in result.output
    assert "2 configurations; all of them would take about" in result.output
    answer = tmp_path / "tuned" / "tuned.json"
    assert load_config_file(answer)["batch_size"] in (4, 8)
    picked = cli("pick", str(network), "-o", str(tmp_path / "out"), "--config", str(answer))
    assert picked.exit_code == 0, picked.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["batch_size"] == load_config_file(answer)["batch_size"]
    late = cli("tune", str(network), "-o", str(tmp_path / "tuned"), *options[:-1], "0.001")
    assert late.exit_code == 11


@pytest.mark.parametrize("given", [{"concurrency_step": True}, {"station_counts": [4, True]}])
def test_true_is_no_number(config: Callable[..., EvaluationConfig], given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="True is no number"):
        config("wrong", **given)
