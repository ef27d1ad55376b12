"""Runs obey their memory: they stay under a limit, or refuse before they start."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from eqcctpro.config import PickConfig
from eqcctpro.errors import ResourceError, SettingsError
from eqcctpro.notices import SettingsWarning
from eqcctpro.orchestration.dispatch import MemoryDeaths
from eqcctpro.orchestration.placement import place_workers
from eqcctpro.resources.hardware import BUDGET_VARIABLE, Gpu, Hardware
from eqcctpro.runtimes.shrinking import ShrinkingBatch
from eqcctpro.synthetic.tiling import tile_network

STATIONS = 200


@pytest.fixture(scope="module")
def network(
    generated_network: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("network") / "archive"
    return tile_network(generated_network[0], folder, stations=STATIONS)


@pytest.fixture(scope="module")
def pick(
    network: Path, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[subprocess.CompletedProcess[str], Path]]:
    """Pick the network in a process of its own, with a budget of so many MB."""
    configuration = tmp_path_factory.mktemp("configuration")

    def run(budget_mb: float, *options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        output = tmp_path_factory.mktemp("out")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "eqcctpro", "pick", str(network), "-o", str(output)),
                *("--model", imported_model, "--format", "csv", "--no-overview", *options),
            ],
            env={
                **os.environ,
                BUDGET_VARIABLE: str(budget_mb),
                "EQCCTPRO_CONFIG": str(configuration),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done, output

    # The export is made once, and takes more memory than picking.
    run(100_000, "--runtime", "openvino", "--stations", "*.T0001")
    return run


def summary(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return content


@pytest.mark.slow
class TestUnderALimit:
    @pytest.mark.parametrize(
        ("mode", "budget_mb", "workers"), [("local", 400, 1), ("modelactor", 1400, 3)]
    )
    def test_a_network_of_200_stations_is_picked_within_it(
        self, pick: Any, mode: str, budget_mb: int, workers: int
    ) -> None:
        asked = () if mode == "local" else ("--workers", "12")
        done, output = pick(budget_mb, "--runtime", "openvino", "--mode", mode, *asked)
        assert done.returncode == 0, done.stderr
        found = summary(output)
        assert found["tasks"] == {"done": STATIONS, "empty": 0, "failed": 0}
        assert 1 <= found["workers"] <= workers
        assert 0 < found["resources"]["peak_pss_mb"] < budget_mb
        assert found["memory_plan"]["footprint"] == "shipped"
        if mode == "modelactor":
            assert "Requested 12 actors, created" in found["limits"][0]

    @pytest.mark.parametrize("mode", ["local", "modelactor", "ripper"])
    def test_too_little_for_one_worker_is_refused_before_the_start(
        self, pick: Any, mode: str
    ) -> None:
        done, output = pick(200, "--runtime", "openvino", "--mode", mode)
        assert done.returncode == 7, done.stderr
        assert "created 0 (RAM limited to" in done.stderr and " MB/" in done.stderr
        assert "hint: free memory" in done.stderr
        assert not (output / "picks.csv").exists()
        assert "ready" not in (output / "run.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_the_kernel_grants_no_more_than_one_worker_needs(
    network: Path, imported_model: str, tmp_path: Path, pick: Any
) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (520 * 2**20, 520 * 2**20))

    done = subprocess.run(
        [
            *(sys.executable, "-m", "eqcctpro", "pick", str(network), "-o", str(tmp_path)),
            *("--model", imported_model, "--runtime", "openvino", "--threads", "1"),
            *("--format", "csv", "--no-overview"),
        ],
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path)["tasks"] == {"done": STATIONS, "empty": 0, "failed": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["modelactor", pytest.param("ripper", marks=pytest.mark.exhaustive)]
)
def test_a_worker_killed_for_memory_is_not_replaced(
    mode: str, network: Path, imported_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eqcctpro.orchestration import dispatch
    from eqcctpro.orchestration.run import run_picking

    # The kernel's count is said to grow with every death.
    deaths = itertools.count()
    monkeypatch.setattr(dispatch, "memory_kills", lambda: next(deaths))
    name = "PickWorker.pick" if mode == "modelactor" else "ray::rip"
    killer = threading.Thread(target=_kill_one, args=(name,), daemon=True)
    killer.start()
    result = run_picking(
        PickConfig.checked(
            input=network, output=tmp_path, model=imported_model, mode=mode, workers=2,
            runtime="torch", batch_size=1, formats=("csv",), overview=False, ignore_ram_cap=True,
            stations=("*.T000*", "*.T001*"),
        )
    )  # fmt: skip
    killer.join(timeout=60)
    assert result.counts["failed"] == 0 and result.counts["done"] == 32
    assert len(result.summary["adaptations"]) == 1
    assert "killed for memory, 1 " in result.summary["adaptations"][0]


def _kill_one(name: str) -> None:
    """Kill a Ray worker of this process when it is at work."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if name in " ".join(process.cmdline() or [process.name()]):
                    process.kill()
                    return
        time.sleep(0.05)


def configured(**settings: Any) -> PickConfig:
    defaults = {"input": "in", "output": "out", "model": "EQCCT/original", "mode": "modelactor"}
    return PickConfig.checked(**(defaults | settings))


def with_gpus(*sizes: float) -> Hardware:
    return Hardware(
        cores=2,
        affinity=(0, 1),
        core_limit=None,
        ram_total_mb=1e6,
        ram_available_mb=1e6,
        gpus=tuple(Gpu(n, "GPU", f"GPU-{n}", size, size, 0.0) for n, size in enumerate(sizes)),
    )


class TestPlacement:
    @pytest.fixture(autouse=True)
    def no_calibration(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EQCCTPRO_CONFIG", str(tmp_path))

    def test_alike_gpus_are_left_to_ray(self) -> None:
        config = configured(device="cuda:0,1", workers=100, max_vram_mb=93_100)
        placement = place_workers(config, hardware=with_gpus(81_920, 81_920))
        assert placement.workers == 24 and placement.slots == ()
        assert placement.gpu_fraction == 0.0833
        assert placement.device(23) == "cuda:0"
        # Their part of what is safe to use, without what CUDA takes in each process.
        assert placement.vram_limit(0) == pytest.approx(46_550 * 0.75 / 12 - 450)

    def test_unlike_gpus_get_workers_by_their_size(self) -> None:
        config = configured(device="cuda:0,1", workers=100)
        placement = place_workers(config, hardware=with_gpus(81_920, 24_576))
        assert placement.workers == 27 and placement.gpu_fraction == 0
        assert [placement.slots.count(position) for position in (0, 1)] == [21, 6]
        assert [placement.device(n) for n in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
        small, large = placement.vram_limit(1), placement.vram_limit(0)
        assert small is not None and large is not None
        assert 6 * (small + 450) <= 24_576 and 21 * (large + 450) <= 81_920

    def test_one_process_may_fill_its_gpu_to_the_cap(self) -> None:
        config = configured(device="cuda", mode="local", gpu_vram_safety_cap=0.5)
        placement = place_workers(config, hardware=with_gpus(20_000))
        assert placement.vram_limit(0) == 20_000 * 0.5 - 450

    def test_threads_never_exceed_the_cores(self) -> None:
        config = configured(workers=2, threads=64, runtime="openvino")
        placement = place_workers(config, hardware=with_gpus())
        assert placement.workers * placement.threads <= max(placement.cores, 2)
        assert "Requested 64 threads a worker" in placement.limits[-1]

    def test_memory_of_long_records_is_planned_for(self) -> None:
        config = configured(workers=4, runtime="openvino", ram_safety_cap=0.5)
        machine = Hardware(2, (0, 1), None, 8000.0, 8000.0)
        assert place_workers(config, hardware=machine).workers == 4
        assert place_workers(config, waveforms_mb=1700.0, hardware=machine).workers == 1
        with pytest.raises(ResourceError, match="RAM limited to 3550 MB"):
            place_workers(config, waveforms_mb=9000.0, hardware=machine)

    def test_an_unknown_model_is_measured_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from eqcctpro.orchestration import probe
        from eqcctpro.resources.footprints import Footprint

        asked: list[str] = []

        def measure(model: str, **_: Any) -> Footprint:
            asked.append(model)
            return Footprint(model, "torch", "cpu", 1000.0, batch_size=32)

        monkeypatch.setattr(probe, "measure_footprint", measure)
        config = configured(model="CRED/original", runtime="torch", workers=50)
        machine = Hardware(2, (0, 1), None, 8000.0, 8000.0)
        for _ in range(2):
            plan = place_workers(config, hardware=machine).plan
            assert plan is not None and plan.footprint == "calibrated"
            assert plan.workers == int((0.9 * 8000 - 700) / 1000)
        assert asked == ["CRED/original"]

    @pytest.mark.parametrize(
        "settings",
        [{"vram_mb": 1000}, {"max_vram_mb": 1000}, {"gpu_vram_safety_cap": 0.5},
         {"cudnn_headroom": 0.5}],
    )  # fmt: skip
    def test_settings_of_gpus_have_no_effect_without_one(self, settings: dict[str, float]) -> None:
        (name,) = settings
        with pytest.warns(SettingsWarning, match=f"{name}=.* has no effect: this run uses no GPU"):
            config = configured(**settings)
        assert getattr(config, name) == PickConfig.model_fields[name].default

    @pytest.mark.parametrize(
        "settings",
        [{"gpu_vram_safety_cap": 1.0}, {"gpu_vram_safety_cap": 0}, {"cudnn_headroom": 0.81},
         {"cudnn_headroom": -0.1}, {"ram_safety_cap": 0.99}, {"max_vram_mb": 0}],
    )  # fmt: skip
    def test_settings_out_of_range(self, settings: dict[str, float]) -> None:
        with pytest.raises(SettingsError, match=next(iter(settings))):
            configured(device="cuda", **settings)


class Memory:
    """Executes windows as long as they are few enough."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.calls: list[int] = []
        self.released = 0
        self._out = np.empty((64, 2), np.float32)

    def run(self, windows: np.ndarray) -> np.ndarray:
        self.calls.append(len(windows))
        if len(windows) > self.room:
            raise RuntimeError("out of memory")
        self._out[: len(windows)] = windows[:, 0, :2] * 2
        return self._out[: len(windows)]

    def release(self) -> None:
        self.released += 1


class TestShrinkingBatches:
    windows = np.random.default_rng(0).normal(size=(50, 3, 8)).astype(np.float32)

    def shrinking(self, memory: Memory) -> ShrinkingBatch:
        return ShrinkingBatch(memory.run, 64, lambda error: "memory" in str(error), memory.release)

    def test_results_are_those_of_the_whole_batch(self) -> None:
        memory = Memory(room=13)
        batch = self.shrinking(memory)
        assert np.array_equal(batch.predict(self.windows), self.windows[:, 0, :2] * 2)
        assert memory.calls == [50, 25, 12, 12, 12, 12, 2]
        assert memory.released == 2

    def test_the_smaller_size_is_kept_and_told(self) -> None:
        memory = Memory(room=13)
        batch = self.shrinking(memory)
        batch.predict(self.windows)
        memory.calls.clear()
        batch.predict(self.windows)
        assert batch.size == 12 and memory.calls[0] == 12
        assert batch.notes == [
            "memory was exhausted by 50 windows at once, now 25",
            "memory was exhausted by 25 windows at once, now 12",
        ]

    def test_not_even_one_window(self) -> None:
        with pytest.raises(ResourceError, match="one window does not fit"):
            self.shrinking(Memory(room=0)).predict(self.windows)

    def test_other_errors_pass(self) -> None:
        def broken(windows: np.ndarray) -> np.ndarray:
            raise RuntimeError("wrong shape")

        batch = ShrinkingBatch(broken, 64, lambda error: "memory" in str(error), lambda: None)
        with pytest.raises(RuntimeError, match="wrong shape"):
            batch.predict(self.windows)
        assert batch.size == 64


class TestDeathsForMemory:
    def test_ray_says_so(self) -> None:
        ray = pytest.importorskip("ray")
        deaths = MemoryDeaths(ray)
        assert deaths.was_one(ray.exceptions.OutOfMemoryError("no memory"))
        # An actor's death comes with Ray's words for it.
        assert deaths.was_one(
            Exception("2 worker(s) were killed due to the node running low on memory")
        )
        assert not deaths.was_one(ray.exceptions.WorkerCrashedError())

    def test_the_kernel_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from eqcctpro.orchestration import dispatch

        ray = pytest.importorskip("ray")
        counts = iter([4, 4, 5, 5])
        monkeypatch.setattr(dispatch, "memory_kills", lambda: next(counts))
        deaths = MemoryDeaths(ray)
        death = ray.exceptions.ActorDiedError()
        assert [deaths.was_one(death) for _ in range(3)] == [False, True, False]
