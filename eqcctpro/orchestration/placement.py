"""Which worker runs where: cores, threads and GPU shares."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from eqcctpro.config import PickConfig
from eqcctpro.errors import SettingsError

__all__ = ["Placement", "available_cores", "place_workers"]


# Peak memory of a worker on 60 s records, MB of 2**20 bytes (docs/performance.md).
WORKER_MB = 400
TORCH_WORKER_MB = 1000


def available_cores() -> list[int]:
    """Ids of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class Placement:
    """Where the workers of a run are.

    Attributes
    ----------
    workers : int
    threads : int
        Threads of each worker's runtime.
    cores : int
        Cores that Ray may use when this run starts it.
    gpu_ids : tuple of int
        CUDA devices, shared evenly; empty on the CPU.
    gpu_fraction : float
        Share of one GPU that each worker takes.
    cpus_per_worker : float
        What Ray books for each worker.
    limits : tuple of str
        Why there are fewer workers than were asked for.
    """

    workers: int
    threads: int
    cores: int
    gpu_ids: tuple[int, ...]
    gpu_fraction: float
    cpus_per_worker: float
    limits: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The device of a worker, as the worker itself numbers it."""
        # Ray shows each worker the GPU that it booked, and only that one.
        return "cuda:0" if self.gpu_ids else "cpu"

    @property
    def ray_options(self) -> dict[str, Any]:
        """Options of a worker's Ray actor or task."""
        return {"num_cpus": self.cpus_per_worker, "num_gpus": self.gpu_fraction}


def place_workers(config: PickConfig) -> Placement:
    """Share cores and GPUs among the workers that are asked for.

    Raises
    ------
    SettingsError
        A core that `cpu_ids` names is not there, or GPU shares exceed the GPUs.
    """
    mine = available_cores()
    if config.cpu_ids is not None:
        strange = sorted(set(config.cpu_ids) - set(mine))
        if strange:
            raise SettingsError(
                f"cpu_ids: cores {strange} are not available", hint=f"there are {mine}"
            )
    cores = len(set(config.cpu_ids)) if config.cpu_ids else len(mine)
    gpus = config.gpu_ids
    workers, limits = _within_memory(config, config.workers or (len(gpus) if gpus else cores))
    threads = config.threads or max(cores // workers, 1)
    return Placement(
        workers=workers,
        threads=threads,
        cores=cores,
        gpu_ids=gpus,
        gpu_fraction=_gpu_fraction(config, workers),
        cpus_per_worker=min(1.0, int(cores / workers * 100) / 100),
        limits=limits,
    )


def _within_memory(config: PickConfig, requested: int) -> tuple[int, tuple[str, ...]]:
    """As many of the requested workers as the memory holds, and why not all."""
    if config.mode == "local" or config.address is not None or config.ignore_ram_cap:
        return requested, ()
    import psutil

    each = TORCH_WORKER_MB if config.runtime == "torch" or config.gpu_ids else WORKER_MB
    pool = config.ram_safety_cap * psutil.virtual_memory().available / 2**20
    workers = min(requested, max(1, int(pool / each)))
    if workers == requested:
        return requested, ()
    sentence = (
        f"Requested {requested} workers, created {workers} "
        f"(RAM limited to {pool:.0f} MB, {each} MB/worker)"
    )
    return workers, (sentence,)


def _gpu_fraction(config: PickConfig, workers: int) -> float:
    gpus = len(config.gpu_ids)
    if not gpus:
        return 0.0
    per_gpu = -(-workers // gpus)
    # Ray books four decimals; rounding down keeps the last worker startable.
    fair = 1.0 if per_gpu == 1 else int(10_000 / per_gpu) / 10_000
    fraction = config.gpu_fraction or fair
    if int(1 / fraction + 1e-9) * gpus < workers:
        raise SettingsError(
            f"gpu_fraction: {workers} workers with {fraction} of a GPU each do not fit {gpus} GPUs",
            hint=f"use at most {fair}, or fewer workers",
        )
    return fraction
