"""Memory on a real GPU: readings, limits, and batches that do not fit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eqcctpro.config import PickConfig
from eqcctpro.errors import ResourceError
from eqcctpro.orchestration.placement import place_workers
from eqcctpro.orchestration.probe import measure_footprint
from eqcctpro.orchestration.run import run_picking
from eqcctpro.resources.nvml import read_gpus
from eqcctpro.synthetic.network import synthetic_network

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if not read_gpus()[0]:
        pytest.skip(f"GPUs cannot be read: {read_gpus()[1]}")
    monkeypatch.setenv("EQCCTPRO_CONFIG", str(tmp_path / "configuration"))
    yield torch
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_readings_are_those_of_nvidia_smi() -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("there is no nvidia-smi")
    query = "--query-gpu=uuid,memory.total,memory.used"
    said = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = {row.split(", ")[0]: row.split(", ")[1:] for row in said.splitlines()}
    for gpu in read_gpus()[0]:
        total, used = map(float, rows[gpu.uuid])
        assert gpu.total_mb == pytest.approx(total, abs=2)
        assert gpu.used_mb == pytest.approx(used, abs=1024)


class Greedy:
    """Makes a network that takes so much memory for each window."""

    @staticmethod
    def module(torch: Any, mb: int) -> Any:
        class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
            def forward(self, windows: Any) -> Any:
                waste = torch.zeros((len(windows), mb, 2**18), device=windows.device)
                return windows[:, :1, :2].transpose(1, 2) * 2 + waste[:, :1, :1]

        return Network()


def test_a_batch_beyond_the_limit_is_halved(cuda: Any) -> None:
    from eqcctpro.runtimes.device_runtime import DeviceRuntime

    windows = np.random.default_rng(0).normal(size=(64, 3, 100)).astype(np.float32)
    shape = {"components": 3, "in_samples": 100, "batch_size": 64}
    runtime = DeviceRuntime(Greedy.module(cuda, 32), **shape, device="cuda", vram_mb=512)
    curves = runtime.predict(windows).copy()
    notes = runtime.take_notes()
    runtime.close()
    np.testing.assert_allclose(curves[:, :, 0], windows[:, 0, :2] * 2)
    assert notes[0].startswith("memory was exhausted by 64 windows at once")
    assert runtime.take_notes() == []


def test_one_window_beyond_the_limit_is_refused(cuda: Any) -> None:
    from eqcctpro.runtimes.device_runtime import DeviceRuntime

    shape = {"components": 3, "in_samples": 100, "batch_size": 4}
    runtime = DeviceRuntime(Greedy.module(cuda, 900), **shape, device="cuda", vram_mb=256)
    with pytest.raises(ResourceError, match="one window"):
        runtime.predict(np.zeros((4, 3, 100), np.float32))
    runtime.close()


def test_a_worker_is_measured(imported_model: str) -> None:
    measured = measure_footprint(imported_model, runtime="torch", device="cuda", batch_size=64)
    assert measured.device == "cuda"
    assert measured.vram_mb > measured.vram_context_mb > 50


@pytest.mark.slow
def test_actors_that_share_a_gpu(tmp_path: Path, imported_model: str) -> None:
    synthetic_network(tmp_path / "in", stations=40, duration_s=120.0)

    def run(**settings: Any) -> Any:
        return run_picking(
            PickConfig.checked(
                input=tmp_path / "in", output=tmp_path / "out", model=imported_model,
                overview=False, **settings,
            )
        )  # fmt: skip

    alone = run(device="cuda")
    shared = run(device="cuda", mode="modelactor", workers=3)
    assert shared.summary["memory_plan"]["workers_per_gpu"] == [3]
    assert shared.table.num_rows == alone.table.num_rows > 0


def test_a_plan_for_this_gpu() -> None:
    config = PickConfig.checked(
        input="in", output="out", model="PhaseNet/original", mode="modelactor",
        device="cuda", workers=10_000,
    )  # fmt: skip
    plan = place_workers(config).plan
    assert plan is not None and 1 <= plan.workers < 10_000
    gpu = read_gpus()[0][0]
    assert plan.workers * plan.vram_per_worker_mb <= gpu.free_mb
