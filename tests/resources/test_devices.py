"""Devices: what a text names, for torch, the driver, Ray and the service."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import pytest
from fake_gpus import FakeCuda, FakeDriver

from eqcctpro.config import ExecutionConfig, PickConfig
from eqcctpro.errors import ResourceError, RuntimeUnavailableError, SettingsError
from eqcctpro.orchestration import cluster
from eqcctpro.orchestration.placement import check_gpus, place_workers
from eqcctpro.resources.devices import Device, only_visible, resolve
from eqcctpro.resources.footprints import Footprint, find_footprint, save_footprints
from eqcctpro.resources.hardware import Gpu, Hardware
from eqcctpro.resources.nvml import read_gpus
from eqcctpro.runtimes.shrinking import is_exhaustion
from eqcctpro.serving.gpus import device_here, gpu_share
from eqcctpro.serving.settings import ServeSettings

torch = pytest.importorskip("torch")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with two GPUs, of which the second one on the bus is CUDA's first."""

    def install(
        visible: str | None, *, uuids: tuple[str, ...] = ("GPU-b1", "GPU-a0"), **driver: Any
    ) -> FakeCuda:
        fake = FakeCuda(uuids)
        monkeypatch.setattr(torch, "cuda", fake)
        monkeypatch.setitem(sys.modules, "pynvml", FakeDriver(**driver))
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return fake

    return install


class TestResolve:
    def test_the_cpu(self) -> None:
        assert resolve("cpu").text == "cpu"

    def test_a_number_is_always_there(self, machine: Any) -> None:
        machine(None)
        assert resolve("cuda").text == "cuda:0"
        found = resolve("cuda:1")
        assert (found.text, found.uuid, found.card) == ("cuda:1", "GPU-a0", "Card of torch 1")

    @pytest.mark.parametrize(
        ("text", "said"),
        [("cuda:2", "2 CUDA device"), ("cuda:0,1", "one GPU"), ("gpu", "also those of AMD"),
         ("cuda:", "no device|not a device"), ("mps", "of a Mac"), ("tpu", "not a device")],
    )  # fmt: skip
    def test_what_is_not_there(self, machine: Any, text: str, said: str) -> None:
        machine(None)
        with pytest.raises(RuntimeUnavailableError, match=said):
            resolve(text)

    def test_a_build_without_gpus(self, machine: Any) -> None:
        machine(None, uuids=())
        with pytest.raises(RuntimeUnavailableError, match="finds no CUDA device for 'cuda'"):
            resolve("cuda")


class TestNumbers:
    def test_of_the_driver_before_torch_has_opened_them(self, machine: Any) -> None:
        machine(None)
        assert [gpu.uuid for gpu in read_gpus()[0]] == ["GPU-a0", "GPU-b1"]

    def test_are_those_of_torch_as_soon_as_it_has(self, machine: Any) -> None:
        machine(None)
        resolve("cuda")
        assert [(gpu.index, gpu.uuid, gpu.total_mb) for gpu in read_gpus()[0]] == [
            (0, "GPU-b1", 2000),
            (1, "GPU-a0", 1000),
        ]

    @pytest.mark.parametrize(
        ("visible", "shown"),
        [(None, ["MIG-10"]), ("MIG-11", ["MIG-11"]), ("MIG-11,MIG-10", ["MIG-11", "MIG-10"]),
         ("GPU-a0", ["GPU-a0"])],
    )  # fmt: skip
    def test_of_parts_of_a_gpu(
        self, machine: Any, monkeypatch: pytest.MonkeyPatch, visible: str | None, shown: list[str]
    ) -> None:
        machine(visible, parts=2)
        if visible is None:  # the only GPU is divided
            driver = sys.modules["pynvml"]
            monkeypatch.setattr(driver, "nvmlDeviceGetCount", lambda: 1)
            monkeypatch.setattr(driver, "nvmlDeviceGetHandleByIndex", lambda _: 1)
        found = read_gpus()[0]
        assert [gpu.uuid for gpu in found] == shown
        assert found[0].total_mb == (500 if shown[0].startswith("MIG") else 1000)

    def test_a_card_that_does_not_tell_its_memory_hides_no_other(self, machine: Any) -> None:
        machine(None, broken="memory")
        assert [gpu.uuid for gpu in read_gpus()[0]] == ["GPU-a0"]
        resolve("cuda")  # torch tells it
        assert [(gpu.uuid, gpu.total_mb) for gpu in read_gpus()[0]] == [
            ("GPU-b1", 3000),
            ("GPU-a0", 1000),
        ]

    def test_without_the_library_torch_is_asked(
        self, machine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine(None)
        monkeypatch.setitem(sys.modules, "pynvml", None)
        assert read_gpus()[0] == ()
        config = PickConfig.checked(
            input=".", output=".", model="EQTransformer/original", device="cuda:1"
        )
        plan = place_workers(config).plan
        assert plan is not None and plan.gpu_ids == (1,)
        assert plan.vram_pool_mb == (pytest.approx(1000 - 0.05 * 3000),)

    def test_a_gpu_that_nobody_knows(self, machine: Any) -> None:
        machine(None)
        config = PickConfig.checked(input=".", output=".", model="PhaseNet/stead", device="cuda:7")
        with pytest.raises(RuntimeUnavailableError, match="2 CUDA device"):
            check_gpus(config, Hardware(1, (0,), None, 1e4, 1e4))


class TestOtherProcesses:
    @pytest.mark.parametrize(
        ("before", "indices", "seen"),
        [(None, [1], "1"), ("3", [0], "3"), ("1,0", [1], "0"), ("5, 7 ,9", [2, 0], "9,5"),
         ("GPU-b1,GPU-a0", [1], "GPU-a0"), ("MIG-11", [0], "MIG-11")],
    )  # fmt: skip
    def test_numbers_count_within_what_is_visible(
        self, machine: Any, before: str | None, indices: list[int], seen: str
    ) -> None:
        machine(before)
        with only_visible(indices) as entries:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == seen == ",".join(entries)
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before

    def test_without_gpus_nothing_changes(self, machine: Any) -> None:
        machine("3")
        with only_visible([]):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"

    def test_it_is_put_back_after_an_error(self, machine: Any) -> None:
        machine("3")
        with pytest.raises(KeyError), only_visible([0]):
            raise KeyError
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        with pytest.raises(RuntimeUnavailableError, match="shows 1"), only_visible([1]):
            pass

    def test_amd(self, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        machine("3")
        monkeypatch.setattr(torch.version, "hip", "6.2")
        monkeypatch.setenv("HIP_VISIBLE_DEVICES", "4,6")
        with only_visible([1]):
            assert os.environ["HIP_VISIBLE_DEVICES"] == "6"
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        assert os.environ["HIP_VISIBLE_DEVICES"] == "4,6"

    def test_ray_is_started_with_them_and_nobody_else_sees_it(
        self, machine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ray = pytest.importorskip("ray")
        machine("3,5")
        seen: dict[str, Any] = {}

        def init(**options: Any) -> None:
            seen.update(options, visible=os.environ["CUDA_VISIBLE_DEVICES"])

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(cluster, "servers_required", lambda _: cluster.ExitStack())
        with cluster.ExitStack() as stack:
            wanted = cluster._Wanted(None, 2, (1,), None)
            cluster._connect(ray, wanted, stack)
            assert (seen["visible"], seen["num_gpus"]) == ("5", 1)
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


class TestRefused:
    @pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
    @pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
    def test_runtimes_of_the_cpu(self, runtime: str, address: str | None) -> None:
        mode = "local" if address is None else "modelactor"
        with pytest.raises(SettingsError, match="used on the CPU only; GPUs are used by torch"):
            ExecutionConfig.checked(runtime=runtime, device="cuda", address=address, mode=mode)
        with pytest.raises(SettingsError, match="used on the CPU only"):
            ServeSettings.checked(
                {"models": [{"name": "A/b", "runtime": runtime, "device": "cuda"}]}
            )

    @pytest.mark.parametrize(
        ("settings", "said"),
        [({"precision": "fp16"}, "needs a GPU"), ({"precision": "tf32"}, "needs a GPU"),
         ({"precision": "bf16", "runtime": "torch"}, "needs the runtime openvino"),
         ({"precision": "tf32", "device": "mps"}, "NVIDIA"),
         ({"precision": "fp16", "device": "cuda", "runtime": "tensorflow"}, "runtime torch"),
         ({"device": "mps", "mode": "modelactor"}, "for one process"),
         ({"device": "cuda:0,0", "mode": "modelactor"}, "named twice"),
         ({"device": "rocm"}, "also those of AMD")],
    )  # fmt: skip
    def test_what_a_device_does_not_have(self, settings: dict[str, str], said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            ExecutionConfig.checked(**settings)

    def test_what_it_has(self) -> None:
        for precision in ("f32", "tf32", "fp16", "bf16"):
            assert ExecutionConfig.checked(device="cuda", precision=precision).gpu_ids == (0,)
        assert ExecutionConfig.checked(precision="bf16").precision == "bf16"


class TestService:
    def settings(self, *devices: str, mode: str = "staged", **replicas: Any) -> ServeSettings:
        models = [
            {"name": f"EQTransformer/{n}", "device": device} for n, device in enumerate(devices)
        ]
        return ServeSettings.checked({"models": models, "mode": mode, "replicas": replicas})

    @pytest.mark.parametrize(
        ("devices", "mode", "replicas", "share"),
        [(("cuda", "cuda:0"), "staged", {}, 0.5), (("cuda", "cpu"), "staged", {}, 1.0),
         (("cuda:0", "cuda:1"), "staged", {"networks": 3}, 0.3333),
         (("cpu", "cuda:1"), "replicated", {"count": 2}, 0.5), (("cpu",), "single", {}, 0.0),
         (("cuda:1",), "single", {}, 1.0), (("cuda", "cuda:0"), "staged", {"gpus": 0.25}, 0.25)],
    )  # fmt: skip
    def test_processes_share_the_gpus(
        self, devices: tuple[str, ...], mode: str, replicas: dict[str, Any], share: float
    ) -> None:
        assert gpu_share(self.settings(*devices, mode=mode, **replicas)) == share

    def test_more_than_there_is_is_refused_and_not_waited_for(self) -> None:
        with pytest.raises(SettingsError, match="2 processes with 1 of a GPU each do not fit 1"):
            gpu_share(self.settings("cuda", "cuda", gpus=1.0))

    @pytest.mark.parametrize(
        ("booked", "device", "here"),
        [(["1"], "cuda:1", "cuda:0"), ([], "cuda:1", "cuda:0"), ([], "cuda:4", "cuda:4"),
         (["1"], "cpu", "cpu")],
    )  # fmt: skip
    def test_a_process_of_ray_sees_its_gpu_as_the_first(
        self, monkeypatch: pytest.MonkeyPatch, booked: list[str], device: str, here: str
    ) -> None:
        context = types.SimpleNamespace(get_accelerator_ids=lambda: {"GPU": booked})
        ray = types.SimpleNamespace(
            is_initialized=lambda: True, get_runtime_context=lambda: context
        )
        settings = self.settings("cuda:1", mode="single")
        assert device_here(device, settings) == device  # not a process of Ray
        monkeypatch.setitem(sys.modules, "ray", ray)
        assert device_here(device, settings) == here


@pytest.mark.parametrize(
    ("said", "memory"),
    [("CUDA out of memory. Tried to allocate 2.00 GiB", True),
     ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
     ("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
     ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True),
     ("CUDA error: out of memory", True), ("cudaErrorMemoryAllocation", True),
     ("HIP out of memory", True), ("hipErrorOutOfMemory", True),
     ("MPS backend out of memory (MPS allocated: 1 GB)", True),
     ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", True),
     ("CUDA error: an illegal memory access was encountered", False),
     ("CUDA error: device-side assert triggered", False),
     ("The size of tensor a (3) must match the size of tensor b (4)", False)],
)  # fmt: skip
def test_exhausted_memory_by_any_name(said: str, memory: bool) -> None:
    assert is_exhaustion(RuntimeError(said)) is memory


def test_exhausted_memory_by_its_class() -> None:
    assert is_exhaustion(torch.OutOfMemoryError("")) and not is_exhaustion(ResourceError("x"))


def test_footprints_are_those_of_a_card(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQCCTPRO_CONFIG", str(tmp_path))
    sizes = {"H100": 900.0, "T4": 700.0, "": 800.0}
    save_footprints(
        [
            Footprint("PhaseNet/stead", "torch", "cuda", 2000.0, vram_mb=size, card=card)
            for card, size in sizes.items()
        ]
    )
    found = {
        card: find_footprint("PhaseNet/stead", "torch", "cuda", card)
        for card in ("H100", "T4", "L40", None)
    }
    assert {card: item.vram_mb for card, item in found.items() if item} == {
        "H100": 900, "T4": 700, "L40": 800, None: 900,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("free_mb", "vram_mb", "windows"),
    [(80_000.0, None, 2048), (8_000.0, None, 2048), (1_000.0, None, 512), (80_000.0, 500.0, 256)],
)
def test_batches_fit_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_mb: float, vram_mb: float | None, windows: int
) -> None:
    from eqcctpro.models.picker import Picker, WindowSettings
    from eqcctpro.runtimes import select

    picker = Picker(
        "PhaseNet", "x", "0", 100.0, "ZNE", 3001, "array", (0, 3001), 3001, ("P",), ("P",), None,
        WindowSettings(1500, 1, "avg", (0, 0)),
    )  # fmt: skip
    gpu = Gpu(1, "Card", "GPU-a", 81_000.0, free_mb, 81_000.0 - free_mb)
    monkeypatch.setattr(select, "read_gpus", lambda: ((gpu,), ""))
    assert select._batch_that_fits(picker, Device("cuda", 1), vram_mb) == windows


def test_what_torch_may_allocate_is_bounded_on_the_gpu_that_is_used(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of torch 2.4 on, a device without a number is no device to limit."""
    from slow_queue import SlowQueue

    from eqcctpro.runtimes import device_runtime

    fake = machine(None)
    limits: list[tuple[int, float]] = []

    def limit(fraction: float, device: Any) -> None:
        assert isinstance(device, int), "torch refuses a device without a number"
        limits.append((device, fraction))

    fake.set_per_process_memory_fraction = limit
    network = torch.nn.Identity()
    monkeypatch.setattr(network, "to", lambda _: network)
    lanes: list[int] = []
    monkeypatch.setattr(device_runtime, "Lane", lambda *_: lanes.append(1))
    before = torch.backends.cudnn.deterministic
    try:
        for text, index in (("cuda", 0), ("cuda:1", 1)):
            runtime = device_runtime.DeviceRuntime(
                network, components=3, in_samples=10, batch_size=4, device=text, vram_mb=750.0,
                queue=SlowQueue(),
            )  # fmt: skip
            assert runtime.device == f"cuda:{index}"
            assert limits[-1] == (index, 750 / 3000)
            assert not torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.deterministic
            runtime.close()
            assert limits[-1] == (index, 1.0)
    finally:
        torch.backends.cudnn.deterministic = before
    assert len(lanes) == 4
