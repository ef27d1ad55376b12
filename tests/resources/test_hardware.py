"""What the machine is said to have: real, in fake control groups, and with a fake driver."""

from __future__ import annotations

import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_gpus import FakeDriver

from eqcctpro.errors import SettingsError
from eqcctpro.resources.cgroups import GroupMemory, cgroup_memory
from eqcctpro.resources.hardware import BUDGET_VARIABLE, read_hardware
from eqcctpro.resources.nvml import gpu_activity, process_vram_mb, read_gpus
from eqcctpro.resources.sampler import ResourceSampler, tree_pss_mb

MB = 2**20


def groups(folder: Path, own: str, files: dict[str, str]) -> dict[str, Path]:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (folder / "own").write_text(f"{own}\n")
    return {"root": folder / "cgroup", "own": folder / "own"}


class TestMemory:
    def test_of_this_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(BUDGET_VARIABLE, raising=False)
        found = read_hardware(root=tmp_path, own=tmp_path / "none")
        assert found.ram_total_mb == pytest.approx(psutil.virtual_memory().total / MB)
        assert 0 < found.ram_available_mb < found.ram_total_mb
        assert found.cores >= len(found.affinity) >= 1
        assert found.ram_bound == "machine"

    def test_a_version_2_group_and_its_cache(self, tmp_path: Path) -> None:
        where = groups(
            tmp_path,
            "0::/user/me",
            {
                "user/me/memory.max": f"{64 * MB}",
                "user/me/memory.current": f"{40 * MB}",
                "user/me/memory.stat": f"anon 1\ninactive_file {10 * MB}\nactive_file 5",
                "user/me/cpu.max": "150000 100000",
            },
        )
        found = read_hardware(**where)
        assert (found.ram_total_mb, found.ram_available_mb) == (64, 34)
        assert found.ram_bound == "control group"
        assert found.core_limit == 1.5

    def test_a_version_1_group(self, tmp_path: Path) -> None:
        where = groups(
            tmp_path,
            "5:memory:/docker/0a1b",
            {
                "memory/memory.limit_in_bytes": f"{100 * MB}",
                "memory/memory.usage_in_bytes": f"{90 * MB}",
                "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MB}",
            },
        )
        assert cgroup_memory(**where) == GroupMemory(100 * MB, 30 * MB)

    def test_the_fullest_group_counts_even_if_another_is_smaller(self, tmp_path: Path) -> None:
        where = groups(
            tmp_path,
            "0::/a/b",
            {
                "a/memory.max": f"{400 * MB}",
                "a/memory.current": f"{395 * MB}",
                "a/b/memory.max": f"{100 * MB}",
                "a/b/memory.current": f"{10 * MB}",
            },
        )
        assert cgroup_memory(**where) == GroupMemory(100 * MB, 5 * MB)

    def test_more_used_than_granted_leaves_nothing(self, tmp_path: Path) -> None:
        where = groups(
            tmp_path,
            "0::/",
            {"memory.max": f"{10 * MB}", "memory.current": f"{11 * MB}", "memory.stat": ""},
        )
        assert cgroup_memory(**where) == GroupMemory(10 * MB, 0)

    def test_a_group_without_limit_does_not_bind(self, tmp_path: Path) -> None:
        where = groups(tmp_path, "0::/", {"memory.max": "max", "memory.current": "1"})
        assert cgroup_memory(**where) is None

    def test_the_budget_counts_what_is_used_already(self, monkeypatch: pytest.MonkeyPatch) -> None:
        budget = tree_pss_mb() + 300
        monkeypatch.setenv(BUDGET_VARIABLE, f"{budget}")
        found = read_hardware()
        assert found.ram_bound == "budget"
        assert found.ram_available_mb == pytest.approx(300, abs=60)
        assert found.ram_total_mb == pytest.approx(budget)

    @pytest.mark.parametrize("text", ["much", "-1", "0", "nan", "inf"])
    def test_a_budget_that_is_none(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv(BUDGET_VARIABLE, text)
        with pytest.raises(SettingsError, match=BUDGET_VARIABLE):
            read_hardware()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(**options: str) -> FakeDriver:
        fake = FakeDriver(**options)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return fake

    return install


class TestGpus:
    def test_without_the_library_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        assert read_gpus() == ((), "nvidia-ml-py is not installed")
        assert process_vram_mb({1}) == {}
        assert gpu_activity() == []

    def test_without_a_driver_there_are_none(self, driver: Any) -> None:
        driver(broken="init")
        gpus, reason = read_gpus()
        assert gpus == () and "no NVIDIA driver" in reason
        assert read_hardware().gpu_note == reason

    def test_a_driver_that_does_not_answer(self, driver: Any) -> None:
        fake = driver(broken="count")
        gpus, reason = read_gpus()
        assert gpus == () and "does not answer" in reason
        assert fake.open == 0

    def test_memory_of_each(self, driver: Any) -> None:
        fake = driver()
        gpus, reason = read_gpus()
        assert reason == "" and fake.open == 0
        assert [(gpu.index, gpu.name, gpu.total_mb, gpu.free_mb) for gpu in gpus] == [
            (0, "Card 0", 1000, 900),
            (1, "Card 1", 2000, 500),
        ]
        assert gpus[1].used_mb == 1500

    @pytest.mark.parametrize(
        ("visible", "names"),
        [("1", ["Card 1"]), ("1,0", ["Card 1", "Card 0"]), ("GPU-b1", ["Card 1"]),
         ("", []), ("0,7,1", ["Card 0"])],
    )  # fmt: skip
    def test_numbers_are_those_of_cuda(self, driver: Any, visible: str, names: list[str]) -> None:
        driver()
        gpus, _ = read_gpus({"CUDA_VISIBLE_DEVICES": visible})
        assert [gpu.name for gpu in gpus] == names
        assert [gpu.index for gpu in gpus] == list(range(len(names)))

    def test_memory_of_processes(self, driver: Any) -> None:
        driver()
        held = process_vram_mb({10, 11})
        assert {gpu: sum(each.values()) for gpu, each in held.items()} == {0: 150.0}
        assert set(held[0]) == {10, 11}

    def test_activity_where_a_card_counts_no_energy(self, driver: Any) -> None:
        driver()
        assert [(a.utilisation, a.energy_j) for a in gpu_activity()] == [(40, 5), (41, 10)]
        driver(broken="energy")
        assert [(a.utilisation, a.energy_j) for a in gpu_activity()] == [(40, None), (41, None)]


class TestSampler:
    @pytest.mark.slow
    def test_a_peak_of_a_child_that_is_over_is_seen(self) -> None:
        # A tree of its own: other tests' children come and go in the tree of this process.
        child = "import time; x = bytearray(200 * 2**20); time.sleep(1.5); del x; time.sleep(0.5)"
        parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        with (
            subprocess.Popen([sys.executable, "-c", parent]) as process,
            ResourceSampler(process.pid, interval_s=0.1) as sampler,
        ):
            process.wait()
        assert 190 < sampler.use.peak_pss_mb < 280
        assert sampler.use.peak_rss_mb >= sampler.use.peak_pss_mb
        assert sampler.use.processes == 2
        assert sampler.use.seconds >= 2

    def test_processor_time(self) -> None:
        started = time.process_time()
        with ResourceSampler() as sampler:
            while time.process_time() < started + 0.5:
                pass
        assert sampler.use.cpu_s == pytest.approx(time.process_time() - started, abs=0.1)

    @pytest.mark.slow
    def test_samples_get_rarer_where_they_cost_more(
        self, driver: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        samples = 0

        def costly(handle: int) -> list[Any]:
            nonlocal samples
            samples += handle == 0
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass
            return []

        monkeypatch.setattr(driver(), "nvmlDeviceGetComputeRunningProcesses", costly)
        with ResourceSampler(interval_s=0.01, gpus=True, share=0.1):
            time.sleep(1.5)
        # Two cards, 0.05 s each: a second between two samples.
        assert 2 <= samples <= 4

    def test_gpu_memory_energy_and_utilisation(
        self, driver: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = driver()
        me = psutil.Process().pid
        monkeypatch.setattr(
            fake,
            "nvmlDeviceGetComputeRunningProcesses",
            lambda handle: [types.SimpleNamespace(pid=me, usedGpuMemory=(handle + 1) * 64 * MB)],
        )
        ticks = iter(range(10**6))
        monkeypatch.setattr(
            fake, "nvmlDeviceGetTotalEnergyConsumption", lambda _: 1000 * next(ticks)
        )
        with ResourceSampler(interval_s=0.05, gpus=True) as sampler:
            time.sleep(0.3)
        with ResourceSampler(interval_s=100.0, gpus=True) as seldom:
            time.sleep(0.2)
            monkeypatch.setattr(
                fake,
                "nvmlDeviceGetComputeRunningProcesses",
                lambda _: [types.SimpleNamespace(pid=me, usedGpuMemory=300 * MB)],
            )
            seldom.look_at_gpus()
            monkeypatch.setattr(fake, "nvmlDeviceGetComputeRunningProcesses", lambda _: [])
        assert seldom.use.peak_vram_mb == {0: 300, 1: 300}
        assert sampler.use.peak_vram_mb == {0: 64, 1: 128}
        assert sampler.use.gpu_utilisation == {0: 40, 1: 41}
        assert sampler.use.gpu_energy_j[0] > 0
        assert sampler.use.as_dict()["peak_vram_mb"] == {"0": 64, "1": 128}
