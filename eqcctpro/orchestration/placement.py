"""Placement of workers: cores, threads, memory and GPU shares of each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import Any, Literal

from eqcctpro.config import PickConfig
from eqcctpro.errors import OutputError, RuntimeUnavailableError, SettingsError
from eqcctpro.orchestration.model_choice import check_runtimes
from eqcctpro.resources.calculators import MemorySettings, WorkerPlan, plan_workers
from eqcctpro.resources.devices import resolve
from eqcctpro.resources.footprints import (
    Footprint,
    find_footprint,
    save_footprints,
    worst_footprint,
)
from eqcctpro.resources.hardware import Hardware, read_hardware, require_cores, usable_cores

__all__ = [
    "Placement",
    "check_gpus",
    "check_machine",
    "find_run_footprint",
    "memory_settings",
    "place_workers",
    "this_machine",
]

# Ray's own processes for one machine, and a driver that has opened the model once, MB
# (docs/resources.md).  torch stays loaded in the driver.
RAY_MB = 300.0
DRIVER_MB = 150.0
TORCH_DRIVER_MB = 400.0

# GPU shares of workers differ by no more than this when Ray may choose their GPUs.
ALIKE = 1

# Threads that footprints were measured with.
MEASURED_THREADS = 2

_EXPORTED = ("openvino", "onnxruntime")

_log = logging.getLogger("eqcctpro")


@dataclass(frozen=True)
class Placement:
    """Placement of a run's workers on cores, GPUs and nodes.

    Attributes
    ----------
    workers : int
    threads : int
        Threads of each worker's runtime.
    cores : int
        Cores that Ray may use when this run starts it.
    gpu_ids : tuple of int
        CUDA devices; empty on the CPU.
    gpu_fraction : float
        Share of one GPU that Ray books for each worker; 0 where `slots` places them.
    cpus_per_worker : float
        What Ray books for each worker.
    limits : tuple of str
        Why there are fewer workers or threads than were asked for.
    slots : tuple of int
        Position in `gpu_ids` of each worker's GPU, where Ray cannot choose because GPUs
        hold different numbers of workers; empty elsewhere.
    vram_limits_mb : tuple of float
        GPU memory that the framework of each worker may allocate; empty on the CPU.
    plan : WorkerPlan or None
        The memory plan; None where the memory is another machine's, or a model's footprint
        is not known yet.
    homes : tuple of str
        Of each worker the node of the cluster that it runs on, by Ray's name for it; empty
        where Ray runs on this machine alone.
    """

    workers: int
    threads: int
    cores: int
    gpu_ids: tuple[int, ...]
    gpu_fraction: float
    cpus_per_worker: float
    limits: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()
    vram_limits_mb: tuple[float, ...] = ()
    plan: WorkerPlan | None = None
    homes: tuple[str, ...] = ()

    def device(self, worker: int) -> str:
        """The device of a worker, as the worker itself numbers it."""
        if not self.gpu_ids:
            return "cpu"
        # Ray shows each worker the GPU that it booked, and only that one.
        return f"cuda:{self.slots[worker] if self.slots else 0}"

    def vram_limit(self, worker: int) -> float | None:
        """GPU memory that a worker's framework may allocate, MB; None does not limit it."""
        return self.vram_limits_mb[worker] if self.vram_limits_mb else None

    @property
    def ray_options(self) -> dict[str, Any]:
        """Options of a worker's Ray actor or task."""
        return {"num_cpus": self.cpus_per_worker, "num_gpus": self.gpu_fraction}


def place_workers(
    config: PickConfig, *, waveforms_mb: float = 0.0, hardware: Hardware | None = None
) -> Placement:
    """Distribute this machine's cores, memory and GPUs among the requested workers.

    Parameters
    ----------
    config : PickConfig
    waveforms_mb : float
        What a worker needs for the waveforms of its largest station task, beyond what a
        short one needs.
    hardware : Hardware, optional
        This machine, read now, by default.

    Raises
    ------
    SettingsError
        A core that `cpu_ids` names is not there, or GPU shares exceed the GPUs.
    RuntimeUnavailableError
        A GPU is not there.
    ResourceError
        There is not enough memory for a single worker.
    """
    require_cores(config.cpu_ids)
    cores = len(set(config.cpu_ids)) if config.cpu_ids else usable_cores()
    gpus = config.gpu_ids
    requested = 1 if config.mode == "local" else config.workers or len(gpus) or cores
    plan = _memory_plan(config, requested, waveforms_mb, hardware)
    workers, limits = requested, []
    if plan is not None:
        plan.require_room()
        workers, limits = plan.workers, list(plan.sentences)
    fair = max(cores // workers, 1)
    threads = config.threads or fair
    if config.mode != "local" and threads > fair:
        limits.append(
            f"Requested {threads} threads a worker, given {fair} ({cores} cores, {workers} workers)"
        )
        threads = fair
    slots = _slots(plan, config)
    return Placement(
        workers=workers,
        threads=threads,
        cores=cores,
        gpu_ids=gpus,
        gpu_fraction=0.0 if slots or config.mode == "local" else _gpu_fraction(config, workers),
        cpus_per_worker=min(1.0, int(cores / workers * 100) / 100),
        limits=tuple(limits),
        slots=slots,
        vram_limits_mb=_vram_limits(plan, slots),
        plan=plan,
    )


def check_machine(config: PickConfig, *, waveforms_mb: float) -> None:
    """Check before workers start that this machine has the resources a run asks for.

    A run on a cluster learns that from its nodes.

    Parameters
    ----------
    config : PickConfig
    waveforms_mb : float
        As for `place_workers`.

    Raises
    ------
    EQCCTProError
        As `check_runtimes` and `place_workers`.
    """
    if config.address is None:
        check_runtimes(config)
        place_workers(config, waveforms_mb=waveforms_mb)


def _memory_plan(
    config: PickConfig, requested: int, waveforms_mb: float, hardware: Hardware | None
) -> WorkerPlan | None:
    if config.gpu_ids and hardware is None and config.runtime != "tensorflow":
        for index in config.gpu_ids:  # torch opens them, so that their order and memory are known
            resolve(f"cuda:{index}")
    machine = hardware or this_machine()
    if config.gpu_ids:
        check_gpus(config, machine)
    footprint = find_run_footprint(config, machine)
    if footprint is None:
        return None
    on_ray = config.mode != "local"
    driver = TORCH_DRIVER_MB if footprint.runtime == "torch" else DRIVER_MB
    return plan_workers(
        machine,
        footprint,
        memory_settings(config),
        mode=config.mode,
        requested=requested,
        gpu_ids=config.gpu_ids,
        batch_size=_batch_size(config, footprint, requested),
        waveforms_mb=waveforms_mb,
        overhead_mb=RAY_MB + driver if on_ray else 0.0,
    )


def this_machine() -> Hardware:
    """Hardware of this machine, read now."""
    return read_hardware()


def memory_settings(config: PickConfig) -> MemorySettings:
    """Memory settings of a run's configuration."""
    return MemorySettings(
        vram_mb=config.vram_mb,
        max_vram_mb=config.max_vram_mb,
        gpu_vram_safety_cap=config.gpu_vram_safety_cap,
        cudnn_headroom=config.cudnn_headroom,
        ram_safety_cap=config.ram_safety_cap,
        ignore_ram_cap=config.ignore_ram_cap,
    )


def _batch_size(config: PickConfig, footprint: Footprint, workers: int) -> int | None:
    """Windows in a worker's batch, which grows with its threads; None if that is not known."""
    if config.batch_size is not None or footprint.batch_size is None or config.gpu_ids:
        return config.batch_size
    cores = len(set(config.cpu_ids)) if config.cpu_ids else usable_cores()
    threads = config.threads or max(cores // workers, 1)
    return footprint.batch_size * max(threads, MEASURED_THREADS) // MEASURED_THREADS


def check_gpus(config: PickConfig, machine: Hardware) -> None:
    """Refuse GPUs that do not exist, in an error that suits the runtime.

    Raises
    ------
    RuntimeUnavailableError
    """
    there = {gpu.index for gpu in machine.gpus}
    missing = sorted(set(config.gpu_ids) - there)
    if not missing:
        return
    if config.runtime != "tensorflow" and find_spec("torch") is not None:
        resolve(f"cuda:{missing[-1]}")
    reason = f" ({machine.gpu_note})" if machine.gpu_note else ""
    raise RuntimeUnavailableError(
        f"GPU {', '.join(map(str, missing))} cannot be asked for its memory; "
        f"known GPUs: {sorted(there)}{reason}",
        hint="pip install 'eqcctpro[gpu]', and see eqcctpro doctor",
    )


def find_run_footprint(config: PickConfig, machine: Hardware | None = None) -> Footprint | None:
    """Memory footprint of a worker of this run; measured now if the model's is unknown.

    None where that cannot be found out here: in mode local on the CPU, which needs no plan,
    and for the GPUs of a cluster.  What was measured on a GPU counts for cards of its name.
    """
    cards = _cards(config, machine)
    device: Literal["cpu", "cuda"] = "cuda" if config.gpu_ids else "cpu"
    runtimes: tuple[str, ...] = (config.runtime,)
    if config.runtime == "auto":
        installed = tuple(kind for kind in _EXPORTED if find_spec(kind) is not None)
        runtimes = ("torch",) if config.gpu_ids else installed or ("torch",)
    known = worst_footprint(config.model, runtimes, device, tuple(cards) or (None,))
    if known is not None or (config.mode == "local" and not config.gpu_ids):
        return known
    if config.address is not None and config.gpu_ids:
        return None  # they need not be in this machine
    from eqcctpro.orchestration.probe import measure_footprint

    _log.info("measuring the memory of a worker with %s, once", config.model)
    measured = []
    places = cards or {None: f"cuda:{config.gpu_ids[0]}" if config.gpu_ids else "cpu"}
    for runtime, (card, where) in product(runtimes, places.items()):
        if find_footprint(config.model, runtime, device, card) is None:
            measured.append(
                measure_footprint(
                    config.model, runtime=runtime, device=where, arguments=config.model_arguments
                )
            )
    try:
        save_footprints(measured)
    except OutputError as error:
        _log.warning("%s: it will be measured again", error)
    return max(measured, key=lambda footprint: footprint.ram_mb)


def _cards(config: PickConfig, machine: Hardware | None) -> dict[str | None, str]:
    """A device of each kind of card that a run uses on this machine, by the name of the card."""
    names = {gpu.index: gpu.name for gpu in machine.gpus} if machine is not None else {}
    cards: dict[str | None, str] = {}
    for index in config.gpu_ids:
        if index in names:
            cards.setdefault(names[index], f"cuda:{index}")
    return cards


def _slots(plan: WorkerPlan | None, config: PickConfig) -> tuple[int, ...]:
    """Positions of the workers' GPUs, if Ray cannot spread them as planned."""
    if plan is None or not plan.gpu_ids or config.mode == "local" or config.gpu_fraction:
        return ()
    counts = plan.workers_per_gpu
    if max(counts) - min(counts) <= ALIKE:
        return ()
    # One for each GPU in turn, so that the first workers already use all of them.
    return tuple(
        position
        for turn in range(max(counts))
        for position, count in enumerate(counts)
        if turn < count
    )


def _vram_limits(plan: WorkerPlan | None, slots: tuple[int, ...]) -> tuple[float, ...]:
    if plan is None or not plan.gpu_ids:
        return ()
    limits = [max(limit - plan.vram_context_mb, 0.0) for limit in plan.vram_limit_mb]
    if slots:
        return tuple(limits[position] for position in slots)
    used = [limit for limit, count in zip(limits, plan.workers_per_gpu, strict=True) if count]
    return (min(used),) * plan.workers


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
