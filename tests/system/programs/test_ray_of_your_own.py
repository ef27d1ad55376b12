"""Programs with a Ray of their own, with runs in several threads, and with forks."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from user_program import as_script

from eqcctpro.config import PickConfig
from eqcctpro.errors import SettingsError, WorkerError
from eqcctpro.notices import WorkerWarning
from eqcctpro.orchestration import foreign_ray
from eqcctpro.orchestration.cluster import _is_at
from eqcctpro.orchestration.foreign_ray import Waiting, fit_to_ray
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.ray_folders import ray_folder, sessions_removed, writable_token
from eqcctpro.orchestration.runlog import run_log
from eqcctpro.orchestration.session import PickSession
from eqcctpro.picks.writers import atomic_file

pytest.importorskip("ray")

START = """
import multiprocessing, os, threading, time, warnings
from pathlib import Path
from eqcctpro import EQCCTProError, PickConfig, PickSession, RunEQCCTPro

def run(output, mode="modelactor", workers=2, **settings):
    if mode != "local":
        settings["number_of_concurrent_station_predictions"] = workers
    return RunEQCCTPro(
        input_dir="archive", output_dir=output, mode=mode, runtime="openvino", batch_size=4,
        model_type="seisbench", seisbench_parent_model="EQTransformer",
        seisbench_child_model="original", overview=False, **settings,
    ).run_eqcctpro()

def picks(output):
    return (Path(output) / "picks.csv").read_text()

def refused(output, **settings):
    began = time.monotonic()
    try:
        run(output, **settings)
    except EQCCTProError as error:
        return str(error), time.monotonic() - began

def in_fork(mode):
    ours, theirs = multiprocessing.Pipe()
    if os.fork() == 0:
        try:
            theirs.send(len(run("forked", mode).picks))
        except EQCCTProError as error:
            theirs.send(str(error))
        os._exit(0)
    return ours.recv() if ours.poll(60) else "hangs"

import ray
expected = len(run("expected", "local").picks)
"""


@pytest.fixture
def folder(network: Path, imported_model: str, tmp_path: Path) -> Path:
    """A working folder with an archive in it."""
    assert network.parent == tmp_path
    return tmp_path


@pytest.mark.slow
def test_a_ray_that_the_program_has_started(folder: Path) -> None:
    job = """
    import tempfile
    from eqcctpro.orchestration import foreign_ray
    folder = tempfile.TemporaryDirectory(prefix="eqp-", dir="/tmp", ignore_cleanup_errors=True)
    place = folder.name
    ray.init(num_cpus=1, include_dashboard=False, _temp_dir=place)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        actors = run("actors")
        tasks = run("tasks", "ripper")
    refusals = [
        refused("other", address="127.0.0.1:1"),
        refused("other", tmp_dir="elsewhere"),
    ]
    same = run("same", tmp_dir=place, workers=1)
    forked = in_fork("modelactor")

    @ray.remote(num_cpus=1)
    class Busy:
        def ready(self):
            return True

    busy = Busy.remote()
    ray.get(busy.ready.remote())
    foreign_ray.PATIENCE_SECONDS, foreign_ray.FIRST_NOTICE_SECONDS = 2.0, 1.0
    refusals.append(refused("other"))
    say(
        expected=expected, picks=[len(r.picks) for r in (actors, tasks, same)],
        workers=[r.summary["workers"] for r in (actors, tasks)], limits=actors.summary["limits"],
        warned=[(w.category.__name__, str(w.message), w.filename) for w in given],
        refusals=refusals, forked=forked, running=ray.is_initialized(),
        same_picks=[picks(name) == picks("expected") for name in ("actors", "tasks")],
    )
    ray.shutdown()
    """
    said = as_script(START + job.replace("\n    ", "\n"), folder).result
    assert said["picks"] == [said["expected"]] * 3 and said["expected"] > 20
    assert said["same_picks"] == [True, True]
    assert said["workers"] == [1, 1]
    assert "Requested 2 workers, given 1" in said["limits"][0]
    assert "1 of 1 CPUs free" in said["limits"][0]
    assert [kind for kind, *_ in said["warned"]] == ["WorkerWarning"] * 2
    assert all(Path(file).name == "script.py" for *_, file in said["warned"])
    (address, _), (tmp_dir, _), (busy, seconds) = said["refusals"]
    assert "address='127.0.0.1:1': this process is already connected to Ray" in address
    assert "ray.shutdown()" in address
    assert "tmp_dir='elsewhere'" in tmp_dir and "with the folder /tmp/eqp-" in tmp_dir
    assert "no room for a worker in 2 s: it has 0 of 1 CPUs free" in busy and seconds < 30
    assert "forked from one that had used Ray" in said["forked"] and "spawn" in said["forked"]
    assert said["running"] is True


@pytest.mark.slow
def test_runs_in_threads_and_in_an_executor_share_one_ray(folder: Path) -> None:
    job = """
    import asyncio, signal
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append('mine'))
    results, failures = {}, []

    def work(name, mode):
        try:
            results[name] = len(run(name, mode).picks)
        except BaseException as error:
            failures.append(f"{name}: {error!r}")

    def session():
        with PickSession(PickConfig(
            input="archive", output="session", model="EQTransformer/original", overview=False,
            mode="modelactor", workers=1, runtime="openvino", batch_size=4,
        )) as opened:
            results["session"] = len(opened.run().picks)
            results["again"] = len(opened.run(output="again").picks)

    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            loop.run_in_executor(None, work, "actors", "modelactor"),
            loop.run_in_executor(None, work, "tasks", "ripper"),
            loop.run_in_executor(None, work, "local", "local"),
            loop.run_in_executor(None, session),
        )

    asyncio.run(main())
    between = ray.is_initialized()
    work("after", "modelactor")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    say(
        expected=expected, results=results, failures=failures,
        running=[between, ray.is_initialized()],
        same=[picks(name) == picks("expected") for name in results],
        logs=[(Path(name) / "run.log").read_text().count(" picks in ") for name in results],
        heard=heard, forked=in_fork("modelactor"),
        in_process=in_fork("local"),
    )
    """
    ended = as_script(START + job.replace("\n    ", "\n"), folder)
    said = ended.result
    assert said["failures"] == []
    assert len(said["results"]) == 6 and set(said["results"].values()) == {said["expected"]}
    assert all(said["same"])
    assert said["running"] == [False, False], "the last run shuts down what the first started"
    assert said["logs"] == [1] * 6, "each log is of its own run"
    assert said["heard"] == ["mine"], "a program's handlers stay"
    assert "forked from one that had used Ray" in said["forked"]
    assert said["in_process"] == said["expected"], "without Ray, forks work"
    assert "SIGTERM handler is not set" not in ended.err


@pytest.mark.exhaustive
def test_folders_that_ray_could_not_use(folder: Path) -> None:
    """Neither a home that cannot be written, nor a name that Ray's sockets cannot have."""
    place = folder / "Ordner für Ray" / ("x" * 90)
    job = f"""
    result = run("out", tmp_dir={str(place)!r})
    say(picks=len(result.picks), expected=expected, sessions=os.listdir({str(place)!r}))
    """
    cache = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
    ended = as_script(
        START + job.replace("\n    ", "\n"),
        folder,
        HOME="/dev/null/home",
        XDG_CACHE_HOME=cache,
        RAY_AUTH_TOKEN="",
    )
    said = ended.result
    assert said["picks"] == said["expected"]
    assert any(name.startswith("session_") for name in said["sessions"])


# Without Ray.


def test_a_long_or_foreign_name_is_replaced_by_a_link(tmp_path: Path) -> None:
    place = tmp_path / "é" / ("x" * 120)
    with ray_folder(place) as name:
        assert name.isascii() and len(name) < 41
        assert Path(name).resolve() == place.resolve()
    assert place.is_dir() and not Path(name).is_symlink()
    with tempfile.TemporaryDirectory(dir="/tmp") as short, ray_folder(Path(short)) as name:
        assert name == short
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"tmp_dir: Ray cannot write to .*file/below"):  # noqa: SIM117
        with ray_folder(tmp_path / "file" / "below"):
            pass


def test_a_token_is_made_where_home_cannot_hold_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with writable_token():
        assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("HOME", "/dev/null/home")
    with writable_token():
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


class SomeRay:
    """What a Ray says that it has."""

    _private = SimpleNamespace(worker=SimpleNamespace())  # this process has started no Ray

    def __init__(self, total: dict[str, float], free: dict[str, float]) -> None:
        self._total, self._free = total, free

    def cluster_resources(self) -> dict[str, float]:
        return self._total

    def available_resources(self) -> dict[str, float]:
        return self._free


def placed(**changes: Any) -> Placement:
    values: dict[str, Any] = {"workers": 5, "threads": 1, "cores": 4, "gpu_ids": ()}
    return Placement(**{**values, "gpu_fraction": 0.0, "cpus_per_worker": 0.8, **changes})


@pytest.mark.filterwarnings("ignore::eqcctpro.notices.WorkerWarning")
def test_workers_are_fitted_to_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_ray, "SETTLE_SECONDS", 0.1)
    assert fit_to_ray(SomeRay({"CPU": 8}, {"CPU": 8}), placed(), threads=None) == placed()
    fitted = fit_to_ray(SomeRay({"CPU": 3}, {"CPU": 3}), placed(), threads=2)
    assert (fitted.workers, fitted.threads, fitted.cpus_per_worker) == (3, 1, 1.0)
    # Somebody else has two of three.
    fitted = fit_to_ray(SomeRay({"CPU": 3}, {"CPU": 1}), placed(), threads=None)
    assert fitted.workers == 1 and "1 of 3 CPUs free" in fitted.limits[0]
    few = fit_to_ray(SomeRay({"CPU": 3}, {"CPU": 3}), placed(workers=1, threads=4), threads=None)
    assert (few.workers, few.threads, few.limits) == (1, 3, ())
    on_gpu = placed(gpu_ids=(0, 1), gpu_fraction=0.5, vram_limits_mb=(9.0,) * 5)
    fitted = fit_to_ray(SomeRay({"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}), on_gpu, threads=None)
    assert fitted.workers == 2 and fitted.vram_limits_mb == (9.0, 9.0)


def test_a_ray_without_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_ray, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(WorkerError, match=r"has no CPUs .*ray.shutdown"):
        fit_to_ray(SomeRay({}, {}), placed(), threads=None)
    with pytest.raises(WorkerError, match="has 0 GPUs"):
        fit_to_ray(SomeRay({"CPU": 4}, {"CPU": 4}), placed(gpu_fraction=0.5), threads=None)
    with pytest.raises(WorkerError, match="no room for a worker in 0 s: it has 0 of 2 CPUs"):
        fit_to_ray(SomeRay({"CPU": 2}, {}), placed(), threads=None)


def test_waiting_is_said_at_longer_and_longer_intervals(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting(0.0)
    with pytest.warns(WorkerWarning, match="still") as given:
        for _ in range(2):
            assert waiting.is_due()
            waiting.say("still waiting")
    assert len(given) == 1 and len(caplog.records) == 2
    assert not Waiting(60.0).is_due()


def test_addresses_of_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connected:
        class Context:
            gcs_address = "127.0.0.1:6379"

        get_runtime_context = Context

    same = ("auto", "127.0.0.1:6379", "localhost:6379")
    assert all(_is_at(Connected, address) for address in same)
    assert not any(_is_at(Connected, a) for a in ("local", "127.0.0.1:6380", "192.0.2.1:6379"))


def test_logs_of_runs_in_threads_are_apart(tmp_path: Path) -> None:
    level, step = logging.getLogger("eqcctpro").level, threading.Barrier(2)

    def work(name: str) -> None:
        with run_log([tmp_path / name]) as log:
            step.wait()
            log.logger.info("of %s", name)
            beside = threading.Thread(target=log.logger.info, args=(f"beside {name}",))
            beside.start()
            beside.join()
            step.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, other in (("one", "two"), ("two", "one")):
        text = (tmp_path / name).read_text()
        assert f"of {name}" in text and f"of {other}" not in text
        assert f"beside {name}" in text, "what runs started in turn is not lost"
    assert logging.getLogger("eqcctpro").level == level


def test_files_have_the_users_usual_permissions(tmp_path: Path) -> None:
    earlier = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "file") as file:
            file.write(b"x")
    finally:
        os.umask(earlier)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_torch_keeps_the_threads_of_whoever_calls(tmp_path: Path) -> None:
    # In a process of its own: other tests may have left a runtime open.
    ended = as_script(
        """
        import threading
        import numpy as np
        import torch
        from eqcctpro.runtimes.torch_runtime import TorchRuntime

        windows = np.ones((2, 3, 400), np.float32)
        torch.set_num_threads(2)
        runtimes = [TorchRuntime(torch.nn.ReLU(), batch_size=4, threads=2) for _ in range(2)]
        inside = [one._pool.submit(torch.get_num_threads).result() for one in runtimes]
        outside = []
        for one in runtimes:
            assert np.array_equal(one.predict(windows), windows)
            outside.append(torch.get_num_threads())
            one.close()
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        say(inside=inside, outside=outside, later=later)
        """,
        tmp_path,
    )
    assert ended.result == {"inside": [1, 1], "outside": [2, 2], "later": [2]}


@pytest.mark.slow
def test_a_session_runs_for_one_thread_at_a_time(
    network: Path, imported_model: str, tmp_path: Path
) -> None:
    config = PickConfig.checked(
        input=network, output=tmp_path / "0", model=imported_model, overview=False
    )
    found: dict[int, int] = {}
    with PickSession(config) as session:

        def work(number: int) -> None:
            found[number] = len(session.run(output=tmp_path / str(number)).picks)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 3 and len(set(found.values())) == 1 and found[0] > 20
    assert len({(tmp_path / str(n) / "picks.csv").read_bytes() for n in range(3)}) == 1


@pytest.mark.slow
def test_nothing_is_left_of_a_session_that_is_still_written_to(tmp_path: Path) -> None:
    """As by a process of Ray that was only being started when the others were killed."""
    logs = tmp_path / f"session_2026-01-01_{os.getpid()}" / "logs"
    ends = time.monotonic() + 0.7

    def write() -> None:
        number = 0
        with suppress(FileNotFoundError):
            while time.monotonic() < ends:
                (logs / str(number)).touch()
                number += 1

    writer = threading.Thread(target=write)
    with sessions_removed(tmp_path):
        logs.mkdir(parents=True)
        writer.start()
    writer.join()
    assert not logs.parent.exists()
