"""The Python interface works wherever a user's program calls it from."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from user_program import WAYS, as_script, program

# A picking run, then a benchmark of one trial, at the top level of a program.
JOB = """
with open("started.txt", "a") as marks:
    marks.write("started\\n")

from eqcctpro import EvaluateSystem, RunEQCCTPro

common = dict(
    input_dir="archive",
    model_type="seisbench",
    seisbench_parent_model="EQTransformer",
    seisbench_child_model="original",
)
run = RunEQCCTPro(output_dir="out", mode="local", runtime="openvino", overview=False, **common)
result = run.run_eqcctpro()
report = EvaluateSystem(
    eval_mode="cpu", output_dir="trials", csv_dir="csv", station_counts=(3,), modes=("local",),
    runtimes=("openvino",), min_cpu_amount={cores}, repeats=1, **common
).evaluate()
say(picks=len(result.picks), succeeded=report.succeeded, errors=report.errors)
""".replace("{cores}", str(len(os.sched_getaffinity(0))))


@pytest.fixture
def folder(network: Path, imported_model: str, tmp_path: Path) -> Path:
    """A working folder with an archive in it."""
    assert network.parent == tmp_path
    return tmp_path


def trial(folder: Path) -> dict[str, str]:
    """The only row of the benchmark in a folder."""
    with (folder / "csv" / "cpu_test_results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return row


_MARKS: dict[str, Any] = {"script": (), "notebook": pytest.mark.slow, "thread": pytest.mark.slow}


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=_MARKS.get(way, pytest.mark.exhaustive)) for way in WAYS],
)
def test_a_run_and_a_benchmark(way: str, folder: Path) -> None:
    ended = WAYS[way](JOB, folder)
    said = ended.result
    assert said["picks"] >= 10
    assert (said["succeeded"], said["errors"]) == (1, [])
    assert (folder / "started.txt").read_text() == "started\n"  # nothing ran the program again
    assert "1 measured" in ended.err
    assert trial(folder)["Trial Success"] == "1"
    assert int(trial(folder)["P Picks"]) >= 3


@pytest.mark.exhaustive
def test_what_a_program_has_loaded_is_in_no_measurement(folder: Path) -> None:
    loaded = "import torch, obspy, seisbench.models\nballast = bytearray(300 * 2**20)\n"
    assert as_script(loaded + JOB, folder).result["succeeded"] == 1
    assert float(trial(folder)["Peak PSS (MB)"]) < 250


@pytest.mark.slow
def test_files_beside_a_program_do_not_take_the_place_of_modules(folder: Path) -> None:
    for name in ("json.py", "numpy.py", "statistics.py", "eqcctpro.py"):
        (folder / name).write_text("raise SystemExit('a file of the user was imported')\n")
    job = f"import sys\nsys.path.remove({str(folder)!r})\n" + JOB
    assert as_script(job, folder).result["succeeded"] == 1


@pytest.mark.slow
def test_every_trial_fails(folder: Path) -> None:
    job = JOB.replace("repeats=1", "repeats=1, trial_timeout_s=0.01")
    ended = as_script(job.replace("run.run_eqcctpro()", "None"), folder)
    assert ended.code == 1
    assert "EvaluationError: the only trial failed: " in ended.err.splitlines()[-1]
    assert ended.err.count("FAILED: ") == 2  # when it failed, and at the end
    assert trial(folder)["Trial Success"] == "0"
    assert ended.said == []


@pytest.mark.slow
def test_weights_that_are_not_there(folder: Path) -> None:
    job = JOB.replace('"original"', '"nosuchweights"').replace("run.run_eqcctpro()", "None")
    ended = as_script(job, folder)
    assert ended.code == 1
    assert "nosuchweights" in ended.err.splitlines()[-1]
    assert not (folder / "csv" / "cpu_test_results.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["local", pytest.param("modelactor", marks=pytest.mark.exhaustive)]
)
def test_a_trial_ends_with_a_program_that_is_killed(folder: Path, mode: str) -> None:
    job = (
        JOB.replace("repeats=1", "repeats=100, warm_ups=10")
        .replace("run.run_eqcctpro()", "None")
        .replace('modes=("local",)', f'modes=("{mode}",), concurrency_values=(1,)')
    )
    (folder / "script.py").write_text(program(job))
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        family = _family_at_work(process.pid, folder, on_ray=mode == "modelactor")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def _family_at_work(pid: int, folder: Path, *, on_ray: bool) -> list[psutil.Process]:
    """Descendants of a process once a trial picks."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        family = psutil.Process(pid).children(recursive=True)
        if family and list(folder.glob("trials/trials/*/picks.csv")):
            assert not on_ray or any("raylet" in process.name() for process in family)
            return family
        time.sleep(0.1)
    raise AssertionError("no trial has begun")


@pytest.mark.slow
def test_what_is_not_picked_is_said(folder: Path) -> None:
    (chunk,) = (folder / "archive").iterdir()
    (chunk / "DEM01" / "broken.mseed").write_bytes(b"no waveform" * 100)
    for path in (chunk / "DEM02").iterdir():
        path.write_bytes(path.read_bytes()[:512])
    job = JOB.partition("report =")[0] + "\nsay(counts=result.counts)\n"
    ended = as_script(job, folder)
    counts = ended.result["counts"]
    assert (counts["files_failed"], counts["empty"] + counts["failed"]) == (1, 1)
    assert counts["done"] == 5
    assert "broken.mseed" in ended.err
    assert "DEM02" in ended.err
