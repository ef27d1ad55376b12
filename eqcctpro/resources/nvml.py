"""GPU queries through NVIDIA's management library, or torch where that does not answer.

A GPU is named by the number that CUDA gives it: its place in ``CUDA_VISIBLE_DEVICES``.  Where that
is not set, CUDA begins with the fastest GPU and the library goes along the bus, so that GPUs are
matched by their UUIDs as soon as torch has opened them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Gpu",
    "GpuActivity",
    "full_uuid",
    "gpu_activity",
    "process_vram_mb",
    "read_gpus",
    "visible_entries",
    "visible_variable",
]

_MB = 2**20


@dataclass(frozen=True)
class Gpu:
    """One GPU and its memory, MB of 2**20 bytes.

    Attributes
    ----------
    index : int
        CUDA's number for it in this process.
    name, uuid : str
    total_mb, free_mb, used_mb : float
        `used_mb` is everybody's use together.
    """

    index: int
    name: str
    uuid: str
    total_mb: float
    free_mb: float
    used_mb: float


@dataclass(frozen=True)
class GpuActivity:
    """Utilisation and energy counter of a GPU.

    Attributes
    ----------
    index : int
    utilisation : float or None
        Percent of the last sampling period in which a kernel ran; None where the
        device does not say.
    energy_j : float or None
        Joules since the driver was loaded; None where the device does not count them.
    """

    index: int
    utilisation: float | None
    energy_j: float | None


def read_gpus(environment: Mapping[str, str] | None = None) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that CUDA shows to this process, and if there are none, why.

    Parameters
    ----------
    environment : mapping, optional
        Where ``CUDA_VISIBLE_DEVICES`` is looked up; ``os.environ`` by default.

    Returns
    -------
    gpus : tuple of Gpu
    reason : str
        Empty when there are GPUs.
    """
    reasons: list[str] = []
    gpus: list[Gpu] = []
    with _session() as nvml:
        if isinstance(nvml, str):
            reasons.append(nvml)
        else:
            try:
                visible = list(_visible(nvml, environment))
            except nvml.NVMLError as error:
                visible = []
                reasons.append(f"the NVIDIA driver does not answer: {error}")
            for index, handle in visible:
                try:
                    gpus.append(_describe(nvml, index, handle))
                except nvml.NVMLError as error:
                    reasons.append(f"GPU {index} does not tell its memory: {error}")
    known = {gpu.index for gpu in gpus}
    if environment is None:
        gpus += _gpus_of_torch(known)
    if gpus:
        return tuple(sorted(gpus, key=lambda gpu: gpu.index)), ""
    return (), "; ".join(reasons) or "no GPU is visible"


def process_vram_mb(pids: Collection[int]) -> dict[int, dict[int, float]]:
    """MB of GPU memory that processes hold, by the GPU's number and the process's.

    Parameters
    ----------
    pids : collection of int
        Processes as this machine numbers them; inside a container the driver may number
        them otherwise, and then nothing is found.
    """
    used: dict[int, dict[int, float]] = {}
    with _session() as nvml:
        if isinstance(nvml, str):
            return used
        for index, handle in _seen(nvml):
            processes = _or_none(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
            for process in processes or ():
                if process.pid in pids and process.usedGpuMemory:
                    held = used.setdefault(index, {})
                    mb = process.usedGpuMemory / _MB
                    held[process.pid] = held.get(process.pid, 0.0) + mb
    return used


def gpu_activity() -> list[GpuActivity]:
    """Utilisation and energy of every visible GPU."""
    with _session() as nvml:
        if isinstance(nvml, str):
            return []
        found = []
        for index, handle in _seen(nvml):
            rates = _or_none(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
            energy_mj = _or_none(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
            found.append(
                GpuActivity(
                    index,
                    None if rates is None else float(rates.gpu),
                    None if energy_mj is None else energy_mj / 1000.0,
                )
            )
    return found


def _seen(nvml: Any) -> list[tuple[int, Any]]:
    """The GPUs that CUDA shows; none where the driver does not answer."""
    try:
        return list(_visible(nvml, None))
    except nvml.NVMLError:
        return []


def _or_none(nvml: Any, read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except nvml.NVMLError:
        return None


@contextmanager
def _session() -> Iterator[Any]:
    """The library, initialised, or a sentence that says why it is not there."""
    try:
        import pynvml
    except ImportError:
        yield "nvidia-ml-py is not installed"
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield f"there is no NVIDIA driver ({error})"
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def visible_variable() -> str:
    """Name of the environment variable that says which GPUs a process sees."""
    torch = sys.modules.get("torch")
    hip = torch is not None and getattr(torch.version, "hip", None)
    return "HIP_VISIBLE_DEVICES" if hip else "CUDA_VISIBLE_DEVICES"


def visible_entries(environment: Mapping[str, str] | None = None) -> list[str] | None:
    """Entries of that variable; None where it is not set."""
    chosen = (os.environ if environment is None else environment).get(visible_variable())
    if chosen is None:
        return None
    return [part.strip() for part in chosen.split(",") if part.strip()]


def full_uuid(value: Any) -> str:
    """UUID of a GPU as the driver writes it; torch leaves the beginning out."""
    text = _text(value) if isinstance(value, bytes) else str(value or "")
    return text if not text or text.startswith(("GPU-", "MIG-")) else f"GPU-{text}"


def _visible(nvml: Any, environment: Mapping[str, str] | None) -> Iterator[tuple[int, Any]]:
    """CUDA's number and NVML's handle of each GPU, or part of one, that CUDA shows."""
    count = nvml.nvmlDeviceGetCount()
    whole = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    opened = _in_torch_order(nvml, whole) if environment is None else None
    if opened is not None:
        yield from enumerate(opened)
        return
    entries = visible_entries(environment)
    if entries is None:
        yield from enumerate(_undivided(nvml, whole))
        return
    parts: list[Any] = []
    if any(name.startswith("MIG-") for name in entries):
        parts = [part for handle in whole for part in _parts(nvml, handle)]
    uuids = [(full_uuid(nvml.nvmlDeviceGetUUID(handle)), handle) for handle in [*whole, *parts]]
    for index, name in enumerate(entries):
        if name.isdigit() and int(name) < count:
            yield index, whole[int(name)]
            continue
        matches = [handle for uuid, handle in uuids if uuid.startswith(name)]
        if len(matches) != 1:
            return  # CUDA ignores what follows an unknown name, too
        yield index, matches[0]


def _in_torch_order(nvml: Any, whole: list[Any]) -> list[Any] | None:
    """Handles in the order of torch's numbers; None where it has not opened exactly these.

    Of a part of a GPU (MIG), torch tells the UUID of the whole.
    """
    torch = _opened_torch()
    if torch is None or any(_parts(nvml, handle) for handle in whole):
        return None
    uuids = {full_uuid(nvml.nvmlDeviceGetUUID(handle)): handle for handle in whole}
    order = [_torch_uuid(torch, index) for index in range(torch.cuda.device_count())]
    return [uuids[uuid] for uuid in order] if set(order) <= set(uuids) else None


def _undivided(nvml: Any, whole: list[Any]) -> list[Any]:
    """GPUs that CUDA shows by itself: of divided ones (MIG) one part, if there are no others."""
    divided = {index: parts for index, one in enumerate(whole) if (parts := _parts(nvml, one))}
    others = [handle for index, handle in enumerate(whole) if index not in divided]
    return others if others or not divided else [next(iter(divided.values()))[0]]


def _parts(nvml: Any, handle: Any) -> list[Any]:
    """Parts of a GPU that is divided (MIG)."""
    most = _or_none(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    found = [
        _or_none(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, at) for at in range(most)
    ]
    return [part for part in found if part is not None]


def _opened_torch() -> Any:
    """Torch, if it has opened CUDA's devices in this process; asking it would open them."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


def _torch_uuid(torch: Any, index: int) -> str:
    return full_uuid(getattr(torch.cuda.get_device_properties(index), "uuid", ""))


def _gpus_of_torch(known: Collection[int]) -> list[Gpu]:
    """Further GPUs that torch has opened, for a machine whose driver NVML cannot ask."""
    torch = _opened_torch()
    found = []
    for index in range(torch.cuda.device_count() if torch is not None else 0):
        if index not in known:
            free, total = (size / _MB for size in torch.cuda.mem_get_info(index))
            name = str(torch.cuda.get_device_properties(index).name)
            uuid = _torch_uuid(torch, index)
            found.append(Gpu(index, name, uuid, total, free, total - free))
    return found


def _describe(nvml: Any, index: int, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        total_mb=memory.total / _MB,
        free_mb=memory.free / _MB,
        used_mb=memory.used / _MB,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
