"""A machine with two GPUs, for all of its processes; the CPU does their work.

``$FAKE_GPUS`` is a folder in which a process leaves a file for each GPU whose memory it holds.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["GPUS", "HELD_MB", "TOTAL_MB", "UTILISATION", "WATTS", "install"]

GPUS, TOTAL_MB, HELD_MB = 2, 24_000.0, 900.0
UTILISATION, WATTS = (37, 59), (50, 70)
_MB = 2**20


def _folder() -> Path:
    return Path(os.environ["FAKE_GPUS"])


def _visible() -> list[int]:
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(range(GPUS)) if text is None else [int(one) for one in text.split(",") if one]


def _holders(gpu: int) -> list[Any]:
    found = []
    for path in _folder().glob(f"*-{gpu}"):
        pid = int(path.name.partition("-")[0])
        if Path(f"/proc/{pid}").exists():
            found.append(types.SimpleNamespace(pid=pid, usedGpuMemory=int(HELD_MB * _MB)))
    return found


class Driver(types.ModuleType):
    """As much of pynvml as is used."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return GPUS

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMaxMigDeviceCount(self, _: int) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetName(self, _: int) -> str:  # noqa: N802
        return "Stand-in"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        used = len(_holders(handle)) * HELD_MB
        sizes = {"total": TOTAL_MB, "free": TOTAL_MB - used, "used": used}
        return types.SimpleNamespace(**{name: int(mb * _MB) for name, mb in sizes.items()})

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return _holders(handle)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return types.SimpleNamespace(gpu=UTILISATION[handle])

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        return int(time.monotonic() * WATTS[handle] * 1000)


def _devices(module: Any) -> None:
    def found(_: Any, text: str, index: int) -> Any:
        if index >= len(_visible()):
            raise module.RuntimeUnavailableError(f"there is no {text!r}")
        gpu = _visible()[index]
        return module.Device("cuda", index, f"GPU-{gpu}", "Stand-in")

    module._gpu = found


def _runtime(module: Any) -> None:
    begin, close = module.DeviceRuntime.__init__, module.DeviceRuntime.close

    def begun(self: Any, network: Any, *, device: str, vram_mb: float | None, **rest: Any) -> None:
        found = module.resolve(device)
        begin(self, network, device="cpu", **(rest | {"batch_size": 32, "part": 8}))
        self.device = found.text
        self._file = _folder() / f"{os.getpid()}-{found.uuid.removeprefix('GPU-')}"
        self._file.write_text(f"{vram_mb}")

    def closed(self: Any) -> None:
        close(self)
        self._file.unlink(missing_ok=True)

    module.DeviceRuntime.__init__, module.DeviceRuntime.close = begun, closed


_PATCHES: dict[str, Callable[[Any], None]] = {
    "eqcctpro.resources.devices": _devices,
    "eqcctpro.runtimes.device_runtime": _runtime,
}


class _Patching(importlib.abc.MetaPathFinder):
    """Changes modules as soon as they are imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def patched(module: Any) -> None:
            execute(module)
            _PATCHES[name](module)

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Have this process see the GPUs."""
    sys.modules["pynvml"] = Driver("pynvml")
    sys.meta_path.insert(0, _Patching())
