"""GPU queries through NVIDIA's management library; without a driver, there are no GPUs.

A GPU is named by the number that CUDA gives it: its place in ``CUDA_VISIBLE_DEVICES``,
or in the order of the bus where that is not set.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Gpu", "GpuActivity", "gpu_activity", "process_vram_mb", "read_gpus"]

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
    with _session() as nvml:
        if isinstance(nvml, str):
            return (), nvml
        try:
            gpus = tuple(_describe(nvml, *item) for item in _visible(nvml, environment))
        except nvml.NVMLError as error:
            return (), f"the NVIDIA driver does not answer: {error}"
    return gpus, "" if gpus else "no GPU is visible"


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
        try:
            for index, handle in _visible(nvml, None):
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    if process.pid in pids and process.usedGpuMemory:
                        held = used.setdefault(index, {})
                        mb = process.usedGpuMemory / _MB
                        held[process.pid] = held.get(process.pid, 0.0) + mb
        except nvml.NVMLError:
            return used
    return used


def gpu_activity() -> list[GpuActivity]:
    """Utilisation and energy of every visible GPU."""
    with _session() as nvml:
        if isinstance(nvml, str):
            return []
        try:
            return [
                GpuActivity(
                    index,
                    _or_none(
                        nvml, lambda h=handle: float(nvml.nvmlDeviceGetUtilizationRates(h).gpu)
                    ),
                    _or_none(
                        nvml,
                        lambda h=handle: nvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1000.0,
                    ),
                )
                for index, handle in _visible(nvml, None)
            ]
        except nvml.NVMLError:
            return []


def _or_none(nvml: Any, read: Any) -> float | None:
    try:
        value: float = read()
    except nvml.NVMLError:
        return None
    return value


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


def _visible(nvml: Any, environment: Mapping[str, str] | None) -> Iterator[tuple[int, Any]]:
    """CUDA's number and NVML's handle of each GPU that CUDA shows."""
    chosen = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    count = nvml.nvmlDeviceGetCount()
    if chosen is None:
        yield from ((index, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count))
        return
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    for index, name in enumerate(part.strip() for part in chosen.split(",")):
        if name.isdigit() and int(name) < count:
            yield index, handles[int(name)]
            continue
        matches = [n for n, uuid in enumerate(uuids) if name and uuid.startswith(name)]
        if len(matches) != 1:
            return  # CUDA ignores what follows an unknown name, too
        yield index, handles[matches[0]]


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
