"""Stand-ins for a driver and a torch with GPUs, on machines that have none."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

MB = 2**20


class FakeDriver(types.ModuleType):
    """As much of pynvml as is used, for two GPUs; of the second one, `parts` may be parts (MIG).

    What is `broken` is not supported: ``"memory"`` of the second GPU alone.
    """

    class NVMLError(Exception):
        pass

    def __init__(self, *, broken: str = "", parts: int = 0) -> None:
        super().__init__("pynvml")
        self.parts = parts
        self.broken = broken
        self.open = 0

    def _answer(self, name: str, value: Any) -> Any:
        if self.broken == name:
            raise self.NVMLError(f"{name} is not supported")
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer("init", None)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return int(self._answer("count", 2))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:  # noqa: N802
        if not self.parts:
            raise self.NVMLError("not supported")
        return 7 if handle == 1 else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, at: int) -> int:  # noqa: N802
        if at >= self.parts:
            raise self.NVMLError("not found")
        return 10 * handle + at

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        if handle >= 10:
            return b"Card 1 MIG"
        return f"Card {handle}".encode()

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"MIG-{handle}" if handle >= 10 else f"GPU-{'ab'[handle]}{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if self.broken == "memory" and handle:
            raise self.NVMLError("not supported")
        sizes = (500, 400) if handle >= 10 else [(1000, 900), (2000, 500)][handle]
        free, total = sizes[1] * MB, sizes[0] * MB
        return types.SimpleNamespace(total=total, free=free, used=total - free)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> Any:  # noqa: N802
        both = [(10, 100 * MB), (11, 50 * MB), (99, 7 * MB)]
        unknown = [(10, None)]
        return [
            types.SimpleNamespace(pid=pid, usedGpuMemory=used)
            for pid, used in (both if handle == 0 else unknown)
        ]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return types.SimpleNamespace(gpu=40 + handle)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        return int(self._answer("energy", 5000 * (handle + 1)))


class FakeCuda(types.SimpleNamespace):
    """As much of `torch.cuda` as devices are found with."""

    def __init__(self, uuids: Sequence[str], *, memory_mb: float = 3000.0) -> None:
        super().__init__()
        self.uuids = list(uuids)
        self.memory_mb = memory_mb
        self.opened = False

    def is_available(self) -> bool:
        return bool(self.uuids)

    def is_initialized(self) -> bool:
        return self.opened

    def device_count(self) -> int:
        return len(self.uuids)

    def get_device_properties(self, index: int) -> Any:
        self.opened = True
        # Torch leaves the beginning of a UUID out.
        uuid = self.uuids[index].removeprefix("GPU-")
        return types.SimpleNamespace(
            uuid=uuid, name=f"Card of torch {index}", total_memory=self.memory_mb * MB
        )

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return int((self.memory_mb - 1000 * index) / 2 * MB), int(self.memory_mb * MB)
