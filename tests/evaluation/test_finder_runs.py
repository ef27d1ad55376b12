"""The finders: running the answer, from Python and the command line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finder_tables import (
    LADDER,
    SUCCESS,
    Write,
    cpu_finder,
    ours,
)

from eqcctpro import (
    RunEQCCTPro,
)
from eqcctpro.errors import InputError, RuntimeUnavailableError, SettingsError

BASE = {
    "input_dir": "in",
    "output_dir": "out",
    "model_type": "seisbench",
    "seisbench_parent_model": "EQTransformer",
    "seisbench_child_model": "original",
}


def test_a_run_takes_the_best_configuration(write_trials: Write) -> None:
    folder = write_trials([ours(100, 1, 4.0, workers=3, settings={"inter_threads": 1})])
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


def test_what_is_overridden_is_logged(
    write_trials: Write, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_trials([ours(100, 1, 4.0, mode="local", **{"Machine": "another"})])
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


def test_a_configuration_can_be_given(write_trials: Write) -> None:
    best = cpu_finder(write_trials([ours(100, 1, 4.0)])).find_best_overall_usecase()
    run = RunEQCCTPro(**BASE, configuration=best)
    assert run.configuration is best and run.config.workers == 1 and run.overridden == {}
    with pytest.raises(SettingsError, match="exclude each other"):
        RunEQCCTPro(**BASE, configuration=best, best_usecase_config=True, csv_dir="x")
    by_parameters = RunEQCCTPro(input_dir="in", output_dir="out", **best.parameters())
    assert by_parameters.config.workers == run.config.workers


def test_cores_that_are_not_here(write_trials: Write, caplog: pytest.LogCaptureFixture) -> None:
    best = cpu_finder(write_trials([ours(100, 1, 4.0, settings={"cpu_ids": [9999]})]))
    config = RunEQCCTPro(**BASE, configuration=best.find_best_overall_usecase()).config
    assert config.cpu_ids is not None and len(config.cpu_ids) == 1 and 9999 not in config.cpu_ids
    assert "cores [9999] are not all here" in caplog.text
    many = cpu_finder(write_trials([ours(100, 10_000, 4.0)])).find_best_overall_usecase()
    with pytest.raises(SettingsError, match="needs 10000 cores"):
        RunEQCCTPro(**BASE, configuration=many)


def test_gpus_that_are_not_here(write_trials: Write) -> None:
    folder = write_trials([ours(100, 1, 4.0, gpus=(98, 99))], "gpu")
    with pytest.raises(RuntimeUnavailableError, match="needs GPU 98, 99"):
        RunEQCCTPro(**BASE, use_gpu=True, best_usecase_config=True, csv_dir=folder)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"best_usecase_config": True}, "needs csv_dir"),
        ({"csv_dir": "nowhere", "best_usecase_config": True}, "cpu_test_results.csv is not there"),
    ],
)
def test_a_configuration_that_cannot_be_found(given: dict[str, Any], says: str) -> None:
    with pytest.raises((SettingsError, InputError), match=says):
        RunEQCCTPro(**BASE, **given)


@pytest.mark.slow
def test_a_run_with_the_best_configuration_really_uses_it(
    write_trials: Write, imported_model: str, labelled: Path, tmp_path: Path
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
        csv_dir=write_trials(rows),
        overview=False,
    )
    result = run.run_eqcctpro()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["mode"] == summary["settings"]["mode"] == "local"
    assert summary["runtime"] == "torch" and summary["threads_per_worker"] == 1
    assert summary["settings"]["batch_size"] == 7 and summary["settings"]["cpu_ids"] == [0]
    assert result.counts["failed"] == 0 and result.counts["picks"] > 0


# ------------------------------------------------------------------------------- the command line


@pytest.mark.slow
def test_command_line(write_trials: Write, cli: Callable[..., Any]) -> None:
    folder = write_trials(LADDER)
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
    write_trials: Write, cli: Callable[..., Any]
) -> None:
    rows = [ours(100, 2, 5.0), ours(100, 2, 1.0, model="PhaseNet/stead"), ours(9, 1, 1.0)]
    done = cli("optimal", write_trials([*rows[:2], rows[2] | {SUCCESS: "?"}]))
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "EQTransformer/original",
        "PhaseNet/stead",
    ]
    assert "note: cpu_test_results.csv, line 4 cannot be used" in done.stderr


def test_command_line_finds_gpu_results(write_trials: Write, cli: Callable[..., Any]) -> None:
    folder = write_trials([ours(100, 2, 5.0, gpus=(0, 1))], "gpu")
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
    write_trials: Write, cli: Callable[..., Any], options: tuple[Any, ...], says: str
) -> None:
    done = cli("optimal", write_trials(LADDER), *options)
    assert done.exit_code in {2, 3} and says in done.stderr
