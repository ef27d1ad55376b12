"""Runs on clusters of several Ray nodes, all on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from disturbed_runs import SLOW_WORKERS

import eqcctpro
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, InputError, ResourceError, SettingsError, WorkerError
from eqcctpro.orchestration.clusterplan import place_on_nodes
from eqcctpro.orchestration.nodecheck import NodeReport, check_nodes, needs_of
from eqcctpro.orchestration.nodes import Homes, Node, worker_nodes
from eqcctpro.orchestration.run import run_picking
from eqcctpro.orchestration.session import PickSession
from eqcctpro.resources.footprints import Footprint
from eqcctpro.resources.hardware import Gpu, Hardware
from eqcctpro.synthetic.network import synthetic_network

ray = pytest.importorskip("ray")

HERE = Path(__file__).parent
STATIONS = 24
PAUSE_S = 0.15
NAMES = ("picks.csv", "picks.parquet", "detections.csv", "detections.parquet")


# Planning needs no Ray.


def node(number: int, cores: int, gpus: int = 0) -> Node:
    return Node(f"id{number}", f"host{number}", f"10.0.0.{number}", 4000, cores, gpus)


def report(ram_mb: float, processor: str = "one", gpus: int = 0) -> NodeReport:
    cards = tuple(Gpu(index, "card", f"id{index}", 80_000, 80_000, 0) for index in range(gpus))
    hardware = Hardware(64, tuple(range(64)), None, ram_mb, ram_mb, gpus=cards)
    return NodeReport((), hardware, processor)


def settings(**values: Any) -> PickConfig:
    given = {"mode": "modelactor", "address": "10.0.0.1:6379", "model": "PhaseNet/original"}
    return PickConfig.checked(input="in", output="out", **(given | values))


FOOTPRINT = Footprint("PhaseNet/original", "openvino", "cpu", ram_mb=500.0, source="calibrated")


def placed(config: PickConfig, *machines: tuple[int, float]) -> Any:
    nodes = [node(number, cores) for number, (cores, _) in enumerate(machines)]
    reports = {f"id{number}": report(ram) for number, (_, ram) in enumerate(machines)}
    return place_on_nodes(config, nodes, reports, footprint=FOOTPRINT)


def test_workers_are_spread_by_cores_and_memory() -> None:
    placement, shares = placed(settings(), (16, 64_000), (8, 64_000), (4, 1_200))
    assert [share.workers for share in shares] == [16, 8, 2]
    assert placement.workers == 26 and placement.threads == 1
    assert "node host2 (10.0.0.2): Requested 4 actors, created 2" in placement.limits[0]
    # The first workers are on all nodes, so that the first bundles go everywhere.
    assert placement.homes[:3] == ("id0", "id1", "id2")

    placement, shares = placed(settings(workers=6), (16, 64_000), (8, 64_000))
    assert [share.workers for share in shares] == [4, 2] and placement.threads == 4
    assert [share.room for share in shares] == [6, 6], "room for workers of a lost node"

    placement, shares = placed(settings(workers=6), (3, 64_000), (1, 64_000))
    assert placement.workers == 6 and placement.cpus_per_worker == 0.6


def test_no_node_with_memory_is_refused_with_the_numbers() -> None:
    with pytest.raises(ResourceError, match=r"host0 .*RAM limited to 90 MB, 500 MB/actor"):
        placed(settings(workers=1), (4, 100))


def test_gpus_of_nodes_are_shared() -> None:
    nodes = [node(0, 8, gpus=2), node(1, 8, gpus=1)]
    reports = {"id0": report(64_000, gpus=2), "id1": report(64_000, gpus=1)}
    placement, shares = place_on_nodes(settings(device="cuda", workers=6), nodes, reports)
    assert [share.workers for share in shares] == [4, 2]
    assert placement.gpu_fraction == 0.5 and 10_000 < placement.vram_limits_mb[0] < 40_000
    with pytest.raises(SettingsError, match="gpu_fraction"):
        config = settings(device="cuda", workers=6, gpu_fraction=0.6)
        place_on_nodes(config, nodes, reports)


def test_different_processors_are_mentioned() -> None:
    nodes = [node(0, 2), node(1, 2)]
    reports = {"id0": report(9_000, "Xeon"), "id1": report(9_000, "EPYC")}
    placement, _ = place_on_nodes(settings(), nodes, reports, footprint=FOOTPRINT)
    assert "different processors (EPYC, Xeon)" in placement.limits[0]


@pytest.mark.parametrize("wrong", [{"cpu_ids": (0,)}, {"device": "cuda:0,1"}])
def test_settings_of_one_machine_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="cluster"):
        settings(**wrong)


# With nodes.


def start_cluster(**head: Any) -> Any:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
    return cluster


def slow_environment(pause_s: float = PAUSE_S, *folders: Path) -> dict[str, str]:
    """Of a node whose workers take their time, so that a fault hits them while they pick."""
    path = [*map(str, folders), str(SLOW_WORKERS), os.environ.get("PYTHONPATH", "")]
    return {"EQCCTPRO_TEST_PAUSE_S": str(pause_s), "PYTHONPATH": os.pathsep.join(path)}


def add_node(cluster: Any, cores: int = 1, pause_s: float = PAUSE_S) -> Any:
    return cluster.add_node(num_cpus=cores, env_vars=slow_environment(pause_s))


def raylet_pid(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and another node, with one core each."""
    found = start_cluster(num_cpus=1, env_vars=slow_environment())
    add_node(found)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "archive"
    synthetic_network(folder, stations=STATIONS, duration_s=75.0)
    return folder


Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(
    archive: Path, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., PickConfig]:
    """The settings of a run over the archive."""

    def configured(**values: Any) -> PickConfig:
        common: dict[str, Any] = {
            "input": archive,
            "output": tmp_path_factory.mktemp("out"),
            "model": imported_model,
            "runtime": "openvino",
            "overview": False,
        }
        if "address" in values:
            common |= {"mode": "modelactor", "ignore_ram_cap": True}
        return PickConfig.checked(**(common | values))

    return configured


@pytest.fixture(scope="module")
def calm(run: Run) -> dict[str, bytes]:
    """What an undisturbed run in one process writes."""
    config = run()
    assert run_picking(config).counts["picks"] > STATIONS
    return results(config.output)


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


def once_picking(log: Path, act: Callable[[], None], after_s: float = 0.4) -> threading.Thread:
    """Do something in a thread when the actors have been at work for some time."""

    def wait() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if log.exists() and "actors ready" in log.read_text():
                break
            time.sleep(0.02)
        time.sleep(after_s)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def kill_node(cluster: Any, node: Any) -> None:
    """What a power cut does to a node: nothing of it has a chance to say anything."""
    raylet = psutil.Process(raylet_pid(node))
    for process in [raylet, *raylet.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.worker_nodes.discard(node)


@pytest.mark.slow
def test_a_lost_node_costs_nothing(cluster: Any, run: Run, calm: dict[str, bytes]) -> None:
    (lost,) = cluster.worker_nodes
    config = run(address=cluster.address)
    killer = once_picking(config.output / "run.log", lambda: kill_node(cluster, lost))
    result = run_picking(config)
    killer.join()
    assert not ray.is_initialized()
    assert result.summary["tasks"] == {"done": STATIONS, "empty": 0, "failed": 0}
    assert [node["workers"] for node in result.summary["nodes"]] == [1, 1]
    (note,) = [text for text in result.summary["adaptations"] if "was lost" in text]
    assert "1 go on" in note
    assert results(config.output) == calm


def other_version(folder: Path) -> Path:
    """A copy of the package that says that it is another version."""
    copy = folder / "other"
    shutil.copytree(
        Path(eqcctpro.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__")
    )
    home = copy / "__init__.py"
    home.write_text(home.read_text().replace(eqcctpro.__version__, "0.9.0"))
    return copy


def node_elsewhere(address: str, hidden: Path, package: Path) -> subprocess.Popen[bytes]:
    """A node with an empty folder where this process sees one with files, and another package."""
    script = (
        f"mount -t tmpfs none {hidden} && "
        f"mount --bind {package} {Path(eqcctpro.__file__).parent} && "
        f"exec {sys.executable} -m ray.scripts.scripts start "
        f"--address={address} --num-cpus=1 --block --disable-usage-stats "
        "--object-store-memory=100000000"
    )
    return subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def may_mount() -> bool:
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    return bool(
        shutil.which("unshare")
        and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.slow
def test_a_node_that_cannot_take_part_is_named_before_work_starts(
    cluster: Any, run: Run, archive: Path, tmp_path: Path
) -> None:
    other = other_version(tmp_path)
    if not may_mount():
        pytest.skip("needs the right to mount, to show a node another file system")
    before = living(cluster)
    strange = node_elsewhere(cluster.address, archive, other)
    try:
        wait_for_another(cluster, before)
        config = run(address=cluster.address)
        began = time.monotonic()
        with pytest.raises(EQCCTProError) as caught:
            run_picking(config)
        seconds = time.monotonic() - began
    finally:
        os.killpg(strange.pid, signal.SIGKILL)
        strange.wait()
    message = str(caught.value)
    assert f"eqcctpro is 0.9.0, not {eqcctpro.__version__}" in message
    assert "cannot read" in message and ".mseed: No such file" in message
    assert message.startswith("node ") and "install the same packages" in message
    assert not list(config.output.glob("picks*")) and seconds < 60


def living(cluster: Any) -> set[str]:
    return {entry["NodeID"] for entry in cluster.global_state.node_table() if entry["Alive"]}


def wait_for_another(cluster: Any, before: set[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if living(cluster) - before:
            return
        time.sleep(0.1)
    pytest.fail("the node does not join")


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("mode", ["modelactor", "ripper"])
def test_nodes_may_be_lost_at_any_time(
    cluster: Any, run: Run, calm: dict[str, bytes], mode: str, seed: int
) -> None:
    if not cluster.worker_nodes:
        add_node(cluster)
    (lost,) = cluster.worker_nodes
    config = run(address=cluster.address, mode=mode)
    log = config.output / "run.log"
    if mode == "ripper":
        timer = threading.Timer(4.0 + seed, lambda: kill_node(cluster, lost))
        timer.start()
    else:
        timer = once_picking(log, lambda: kill_node(cluster, lost), after_s=0.3 * seed)  # type: ignore[assignment]
    result = run_picking(config)
    timer.join()
    assert result.summary["tasks"] == {"done": STATIONS, "empty": 0, "failed": 0}
    assert results(config.output) == calm


@pytest.mark.exhaustive
def test_a_run_whose_nodes_are_all_lost_ends_and_goes_on_later(
    run: Run, calm: dict[str, bytes]
) -> None:
    headless = start_cluster(num_cpus=0)
    add_node(headless)
    add_node(headless)
    config = run(address=headless.address)

    def kill_all() -> None:
        for node in list(headless.worker_nodes):
            kill_node(headless, node)

    killer = once_picking(config.output / "run.log", kill_all, after_s=1.2)
    with pytest.raises(WorkerError, match="all workers are lost"):
        run_picking(config)
    killer.join()
    assert not (config.output / "picks.csv").exists()
    add_node(headless)
    assert run_picking(config).summary["tasks"]["done"] == STATIONS
    assert results(config.output) == calm
    headless.shutdown()


@pytest.mark.exhaustive
def test_a_session_looks_at_later_inputs_too(cluster: Any, run: Run, tmp_path: Path) -> None:
    synthetic_network(tmp_path / "later", stations=2, duration_s=75.0)
    config = run(address=cluster.address)
    with PickSession(config) as session:
        session.run()
        result = session.run(input=tmp_path / "later", output=tmp_path / "out")
    assert result.counts["done"] == 2


@pytest.mark.exhaustive
def test_another_file_on_a_node_is_named(cluster: Any, archive: Path) -> None:
    from eqcctpro.orchestration.cluster import ray_session

    some = next(archive.rglob("*.mseed"))
    stamp = some.stat()
    weights = made_up_weights(archive.parent)
    with ray_session(address=cluster.address, cpus=0, gpu_ids=(), temp_dir=None) as connected:
        nodes = worker_nodes(connected)
        fine = (stamp.st_size, stamp.st_mtime_ns)
        assert check_nodes(connected, nodes, needs_of(weights, (), [(str(some), fine)]))
        for wrong, words in (
            ((stamp.st_size + 512, stamp.st_mtime_ns), "another file there"),
            ((stamp.st_size, stamp.st_mtime_ns - 1), "changed at another time"),
        ):
            with pytest.raises(InputError, match=words):
                check_nodes(connected, nodes, needs_of(weights, (), [(str(some), wrong)]))
        (archive.parent / "weights.pt").write_bytes(b"other")
        with pytest.raises(EQCCTProError, match="are others there"):
            check_nodes(connected, nodes, needs_of(weights, (), []))


def made_up_weights(folder: Path) -> Any:
    from eqcctpro.models.checksums import file_sha256
    from eqcctpro.models.weight_files import WeightFiles

    path = folder / "weights.pt"
    path.write_bytes(b"some")
    return WeightFiles("PhaseNet", "mine", path, None, "1", file_sha256(path), "path")


def test_workers_of_a_lost_node_move_to_nodes_with_room() -> None:
    class FakeRay:
        """Lists nodes; what is asked of Ray here is no more."""

        _private = SimpleNamespace(worker=SimpleNamespace())  # this process has started no Ray

        def __init__(self) -> None:
            self.alive = {"id0", "id1", "id2"}

        def nodes(self) -> list[dict[str, Any]]:
            return [{"NodeID": name, "Alive": name in self.alive} for name in ("id0", "id1", "id2")]

    fake = FakeRay()
    nodes = [node(number, 2) for number in range(3)]
    homes = Homes(fake, nodes, {"id0": 2, "id1": 2, "id2": 1}, ["id0", "id1", "id2"], knock=False)
    assert not homes.is_lost(0)
    fake.alive.remove("id0")
    assert homes.is_lost(0) and homes.move(0)
    assert homes.name(0).startswith("host1"), "the one with room"
    fake.alive.remove("id2")
    assert homes.is_lost(2) and not homes.move(2), "no room is left"
    assert homes.name(2) == "this machine"


def run_root(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)


@pytest.fixture
def machine_elsewhere() -> Iterator[str]:
    """A network namespace with a cable to this one; its name."""
    name = f"eqp{os.getpid() % 10_000}"
    try:
        run_root(f"ip netns add {name}")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to make network namespaces")
    try:
        run_root(
            f"ip link add {name} type veth peer name eth1 netns {name}",
            f"ip addr add 10.231.7.1/24 dev {name}",
            f"ip link set {name} up",
            f"ip -n {name} addr add 10.231.7.2/24 dev eth1",
            f"ip -n {name} link set eth1 up",
            f"ip -n {name} link set lo up",
        )
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_machine_whose_cable_is_pulled(
    machine_elsewhere: str, run: Run, calm: dict[str, bytes]
) -> None:
    """Its workers live on and work, but nothing of it arrives any more."""
    head = start_cluster(num_cpus=1, env_vars=slow_environment(), node_ip_address="10.231.7.1")
    there = subprocess.Popen(
        [
            *(
                "ip",
                "netns",
                "exec",
                machine_elsewhere,
                sys.executable,
                "-m",
                "ray.scripts.scripts",
            ),
            *("start", f"--address={head.address}", "--num-cpus=1", "--block"),
            *("--node-ip-address=10.231.7.2", "--object-store-memory=100000000"),
        ],
        env={**os.environ, **slow_environment()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_another(head, living(head))
        config = run(address=head.address)
        pull = f"ip link set {machine_elsewhere} down"
        puller = once_picking(config.output / "run.log", lambda: run_root(pull))
        result = run_picking(config)
        puller.join()
        assert [node["workers"] for node in result.summary["nodes"]] == [1, 1]
        assert any("was lost" in text for text in result.summary["adaptations"])
        assert results(config.output) == calm
    finally:
        os.killpg(there.pid, signal.SIGKILL)
        there.wait()
        for left in psutil.process_iter(["cmdline"]):
            if "10.231.7.2" in " ".join(left.info["cmdline"] or ()):
                left.kill()
        ray.shutdown()
        head.shutdown()
