"""The three modes: the same picks, Ray's life, and what happens when a worker dies."""

from __future__ import annotations

import ipaddress
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import SettingsError
from eqcctpro.orchestration.bundles import make_bundles
from eqcctpro.orchestration.dispatch import BundleQueue
from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
from eqcctpro.orchestration.session import PickSession
from eqcctpro.orchestration.worker import PickWorker, WorkerSpec
from eqcctpro.resources.sampler import tree_pss_mb

ray = pytest.importorskip("ray")

SLOW = pytest.mark.slow
TWO_CHUNKS = {"start": "2024-12-15T12:00:00", "end": "2024-12-15T12:02:00", "timechunk": 1.0}


@pytest.fixture(autouse=True)
def no_cluster_before_or_after() -> Iterator[None]:
    assert not ray.is_initialized()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def archive(generated_network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up network, with a station that is too short and one that cannot be read."""
    folder = Path(shutil.copytree(generated_network[0], tmp_path_factory.mktemp("modes") / "in"))
    (chunk,) = folder.iterdir()
    short = chunk / "SHORT"
    short.mkdir()
    whole = next((chunk / "DEM01").glob("*HHZ*")).read_bytes()
    # The station's code is in every record's header.
    (short / "z.mseed").write_bytes(whole[:1024].replace(b"DEM01", b"SHORT"))
    (chunk / "DEM02" / "bad.mseed").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def picked(
    pick: Any, imported_model: str, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    def run(mode: str, runtime: str, **settings: Any) -> Any:
        # One batch size, since sums in another order round otherwise.
        return pick(
            archive, model=imported_model, mode=mode, runtime=runtime, batch_size=4, **settings
        )

    return run


@pytest.fixture(scope="module")
def local(picked: Any) -> Callable[[str], Any]:
    known: dict[str, Any] = {}

    def run(runtime: str) -> Any:
        if runtime not in known:
            known[runtime] = picked("local", runtime)
        return known[runtime]

    return run


def text(result: Any, kind: str = "picks_csv") -> bytes:
    return Path(result.paths[kind]).read_bytes()


def assert_identical(result: Any, expected: Any) -> None:
    assert expected.counts["picks"] > 20
    assert result.table == expected.table, "to the last bit, which CSV does not show"
    assert text(result) == text(expected)
    assert text(result, "detections_csv") == text(expected, "detections_csv")
    for item in ("tasks", "empty", "failed", "files_failed", "notes", "run_id", "runtime"):
        assert result.summary[item] == expected.summary[item], item
    assert result.tasks.drop_columns(["seconds"]) == expected.tasks.drop_columns(["seconds"])
    assert result.counts["empty"] == result.counts["files_failed"] == 1


@pytest.mark.parametrize(
    ("mode", "runtime"),
    [
        # Those of a run that loses a worker are compared in orchestration/test_worker_loss.py.
        pytest.param("modelactor", "torch", marks=pytest.mark.exhaustive),
        pytest.param("ripper", "openvino", marks=SLOW),
    ],
)
def test_modes_give_identical_picks(picked: Any, local: Any, mode: str, runtime: str) -> None:
    result = picked(mode, runtime, workers=2, ignore_ram_cap=True)
    assert not ray.is_initialized(), "the run started Ray, so it shuts Ray down"
    assert_identical(result, local(runtime))
    assert result.summary["workers"] == 2 and result.summary["mode"] == mode


@pytest.mark.exhaustive
def test_ray_that_was_there_before_is_left_running(picked: Any, local: Any) -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    nodes = ray.nodes()
    for mode, runtime, workers in [
        *(("modelactor", "openvino", 5), ("ripper", "torch", 2)),
    ]:
        result = picked(mode, runtime, workers=workers, ignore_ram_cap=True)
        assert_identical(result, local(runtime))
        assert result.summary["workers"] == workers
        assert ray.is_initialized() and ray.nodes()[0]["NodeID"] == nodes[0]["NodeID"]


@SLOW
@pytest.mark.parametrize(
    "mode",
    ["modelactor", pytest.param("ripper", marks=pytest.mark.exhaustive)],
)
def test_a_station_that_kills_its_worker_fails_alone(picked: Any, local: Any, mode: str) -> None:
    def die_at_dem03() -> None:
        import os

        from eqcctpro.sources import feeder

        sound = feeder.prepare

        def prepare(waveforms: Any, *rest: Any) -> Any:
            if waveforms.segments[0].code.station == "DEM03":
                os._exit(1)
            return sound(waveforms, *rest)

        feeder.prepare = prepare

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level="ERROR",
        runtime_env={"worker_process_setup_hook": die_at_dem03},
    )
    result = picked(mode, "openvino", workers=2)
    (failed,) = result.summary["failed"]
    assert failed["station"] == "XX.DEM03.00.HH" and failed["error"] == "QuarantinedError"
    assert "2 workers died" in failed["reason"]
    assert result.summary["quarantined"] == 1
    assert result.summary["tasks"] == {"done": 5, "empty": 1, "failed": 1}
    assert result.summary["balanced"] and result.exit_code == 10
    expected = [row for row in local("openvino").table.to_pylist() if row["station"] != "DEM03"]
    assert result.table.to_pylist() == expected


@SLOW
def test_concurrent_time_chunks_change_no_pick(picked: Any) -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    expected = picked("local", "openvino", **TWO_CHUNKS).table.drop_columns(["run_id"])
    for mode, chunks in (("modelactor", 1), ("ripper", 2)):
        result = picked(mode, "openvino", workers=2, concurrent_timechunks=chunks, **TWO_CHUNKS)
        assert result.summary["plan"]["timechunks"] == 2
        # The plan's order is another one, which says nothing about the picks.
        assert result.table.drop_columns(["run_id"]) == expected


@pytest.mark.parametrize("limit", [1, 2, None])
def test_no_more_time_chunks_than_allowed_are_open(archive: Path, limit: int | None) -> None:
    plan = make_plan(
        InputSettings(
            (archive,),
            start_ns=1_734_264_000_000_000_000,
            end_ns=1_734_264_120_000_000_000,
            timechunk_min=0.5,
            chunk_major=limit is not None,
        )
    )
    assert len(plan.chunks) == 4
    bundles = make_bundles(plan.tasks, 3, within_chunks=limit is not None)
    queue = BundleQueue(bundles, limit)
    chance = random.Random(0)
    flying: list[Any] = []
    seen: list[int] = []
    most = 0
    while queue or flying:
        while len(flying) < 5 and (bundle := queue.take()) is not None:
            flying.append(bundle)
            seen += [task.index for task in bundle]
        assert flying, "nothing runs, and nothing may be taken: a deadlock"
        open_chunks = {task.chunk.index for bundle in flying for task in bundle}
        most = max(most, len(open_chunks))
        queue.done(flying.pop(chance.randrange(len(flying))))
    assert seen == [task.index for task in plan.tasks]
    assert most <= (limit or len(plan.chunks)) and (limit == 1 or most > 1)


def test_bundles_of_a_dead_worker_come_back_one_by_one(archive: Path) -> None:
    plan = make_plan(InputSettings((archive,)))
    queue = BundleQueue(make_bundles(plan.tasks, 1))
    first = queue.take()
    assert first is not None
    queue.put_back(first)
    again = [queue.take() for _ in first]
    assert again == [[task] for task in first]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_what_a_worker_holds_back_comes_with_its_next_bundle(
    archive: Path, imported_model: str, batch_size: int, tmp_path: Path
) -> None:
    config = PickConfig.checked(input=archive, output=tmp_path, model=imported_model)
    weights = find_run_weights(config)
    _, settings = describe_run(config, weights)
    tasks = make_plan(InputSettings((archive,), context_ns=settings.context_ns)).tasks
    spec = WorkerSpec(weights, settings, runtime="onnxruntime", batch_size=batch_size, threads=1)
    worker = PickWorker(spec)
    whole = worker.pick(tasks)
    assert sorted(whole.outcomes) == [task.index for task in tasks]
    answers = [worker.pick([task], more=True) for task in tasks]
    assert sum(len(answer.outcomes) for answer in answers) < len(tasks)
    answers.append(worker.pick([]))
    assert {task: how for a in answers for task, how in a.outcomes.items()} == whole.outcomes
    assert sum(len(answer.outcomes) for answer in answers) == len(tasks)
    # What waits when a run breaks off is not mixed into the next one.
    worker.pick(tasks[:1], more=True)
    with pytest.raises(AttributeError):
        worker.pick([None], more=True)  # type: ignore[list-item]
    again = worker.pick(tasks)
    assert len(again.outcomes) == len(tasks)
    assert len(again.picks) == len(whole.picks) == sum(len(a.picks) for a in answers) > 20


class TestCores:
    @pytest.mark.slow
    def test_local_mode_is_bound_to_the_cores_and_let_free_again(
        self, picked: Any, local: Any
    ) -> None:
        if not hasattr(os, "sched_getaffinity"):
            pytest.skip("this system has no affinity")
        before = os.sched_getaffinity(0)
        result = picked("local", "torch", cpu_ids=(min(before),))
        assert text(result) == text(local("torch"))
        assert os.sched_getaffinity(0) == before

    def test_a_core_that_is_not_there(self, picked: Any) -> None:
        with pytest.raises(SettingsError, match="cpu_ids: cores \\[4095\\]"):
            picked("local", "torch", cpu_ids=(4095,))

    @SLOW
    def test_memory_limits_the_workers_and_the_run_says_so(
        self, picked: Any, local: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Room for Ray and one worker beside this process.
        monkeypatch.setenv("EQCCTPRO_RAM_BUDGET_MB", f"{tree_pss_mb() + 850:.0f}")
        result = picked("modelactor", "openvino", workers=3)
        assert result.summary["workers"] == 1
        assert "Requested 3 actors, created 1 (RAM limited to" in result.summary["limits"][0]
        assert text(result) == text(local("openvino"))


@SLOW
def test_a_cluster_that_does_not_answer(
    cli_process: Any, generated_network: Any, imported_model: str, tmp_path: Path
) -> None:
    done = cli_process(
        *("pick", generated_network[0], "-o", tmp_path / "out", "--model", imported_model),
        *("--mode", "modelactor", "--address", "127.0.0.1:1", "--no-overview"),
        RAY_gcs_server_request_timeout_seconds="2",
    )
    assert done.returncode == 6, done.stderr
    assert "127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr


@SLOW
def test_a_private_ray_is_not_reachable_from_elsewhere_and_has_few_processes(
    archive: Path, imported_model: str, tmp_path: Path
) -> None:
    config = PickConfig.checked(
        input=archive, output=tmp_path, model=imported_model, mode="modelactor", workers=1
    )
    others = set(psutil.Process().children(recursive=True))  # a browser of another test
    with PickSession(config) as session:
        session.open()
        addresses, commands = set(), ""
        folder = Path(ray._private.worker._global_node.get_session_dir_path())
        family = [one for one in psutil.Process().children(recursive=True) if one not in others]
        assert (folder / "logs").is_dir()
        for process in family:
            with suppress(psutil.NoSuchProcess):  # one that has just ended
                commands += " ".join(process.cmdline())
                addresses |= {
                    connection.laddr.ip
                    for connection in process.net_connections(kind="inet")
                    if connection.status == psutil.CONN_LISTEN
                }
    assert addresses and all(
        ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback for address in addresses
    ), addresses
    # What costs time at the start and at the end, and is of no use to a run.
    assert "raylet" in commands and "gcs_server" in commands
    for left_out in ("autoscaler", "log_monitor.py", "dashboard/dashboard.py"):
        assert left_out not in commands
    assert not folder.exists() and not psutil.wait_procs(family, timeout=5)[1]
