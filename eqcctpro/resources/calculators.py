"""Number of workers that fit into memory: pure functions of hardware, footprint and settings.

All memory is in MB of 2**20 bytes.  Buffers, headrooms and factors are those of EQCCTPro
0.8.2; ``docs/resources.md`` says where the rules differ from its rules, and why.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from eqcctpro.errors import ResourceError
from eqcctpro.resources.footprints import Footprint
from eqcctpro.resources.hardware import Gpu, Hardware
from eqcctpro.resources.published_footprints import ripper_factor

__all__ = ["RAM_BUFFER_MB", "VRAM_BUFFER_MB", "MemorySettings", "WorkerPlan", "plan_workers"]

Mode = Literal["local", "modelactor", "ripper"]

#: What published footprints leave out of a worker: frameworks at work, full batches.
RAM_BUFFER_MB = 1536.0
VRAM_BUFFER_MB = 1024.0

#: Share of the GPU memory that tasks of mode ripper leave, because they start together.
RIPPER_HEADROOM = 0.10

#: Ray books four decimals of a GPU.
_SHARE_STEPS = 10_000

_NOUNS = {"local": "worker", "modelactor": "actor", "ripper": "task"}


@dataclass(frozen=True)
class MemorySettings:
    """Memory limits and headrooms set by the user.

    Attributes
    ----------
    vram_mb : float or None
        GPU memory of each worker; None takes what the footprint says.
    max_vram_mb : float or None
        GPU memory of all workers on all GPUs; an even part of it on each.
    gpu_vram_safety_cap : float
        Share of each GPU that may be full, whoever fills it; above 0, at most 0.99.
    cudnn_headroom : float
        Share of the workers' GPU memory that is left for cuDNN's workspaces where several
        workers share a GPU; mode ripper leaves 0.10.  At most 0.80.
    ram_safety_cap : float
        Share of the available memory that may be filled; at most 0.98.
    ignore_ram_cap : bool
        Whether workers are started however little memory there is.
    """

    vram_mb: float | None = None
    max_vram_mb: float | None = None
    gpu_vram_safety_cap: float = 0.95
    cudnn_headroom: float = 0.25
    ram_safety_cap: float = 0.90
    ignore_ram_cap: bool = False


@dataclass(frozen=True)
class WorkerPlan:
    """Number of workers, their distribution over GPUs, and the memory of each.

    Attributes
    ----------
    mode : {"local", "modelactor", "ripper"}
    requested, workers : int
        Asked for, and possible; 0 when not one fits.
    in_flight : int
        Stations that may be predicted at a time.
    ram_per_worker_mb : float
        What each worker is expected to need at most.
    ram_pool_mb : float
        What all of them may take.
    gpu_ids : tuple of int
    workers_per_gpu, capacity_per_gpu : tuple of int
        Planned, and safe.
    theoretical_per_gpu : tuple of float
        How many would fit without headroom.
    gpu_shares : tuple of float
        Share of its GPU that each worker takes; 0 on a GPU without workers.
    vram_per_worker_mb : float
        What each worker is expected to need at most.
    vram_limit_mb : tuple of float
        What a worker on each GPU is allowed: an even part of what is safe to use.
    vram_context_mb : float
        The part of it that CUDA takes for itself.
    vram_pool_mb : tuple of float
        What all workers on each GPU may take.
    overhead_mb : float
        What everything that is no worker is expected to take: the driver and Ray.
    footprint : str
        Where the expectation comes from.
    sentences : tuple of str
        Why there are fewer workers than were asked for, and what else to know.
    """

    mode: Mode
    requested: int
    workers: int
    in_flight: int
    ram_per_worker_mb: float
    ram_pool_mb: float
    gpu_ids: tuple[int, ...] = ()
    workers_per_gpu: tuple[int, ...] = ()
    capacity_per_gpu: tuple[int, ...] = ()
    theoretical_per_gpu: tuple[float, ...] = ()
    gpu_shares: tuple[float, ...] = ()
    vram_per_worker_mb: float = 0.0
    vram_limit_mb: tuple[float, ...] = ()
    vram_context_mb: float = 0.0
    vram_pool_mb: tuple[float, ...] = ()
    overhead_mb: float = 0.0
    footprint: str = ""
    sentences: tuple[str, ...] = ()

    @property
    def planned_ram_mb(self) -> float:
        """Expected upper bound of the run's memory: workers, driver and Ray."""
        return self.workers * self.ram_per_worker_mb + self.overhead_mb

    def published_request_mb(self) -> tuple[float, float | None]:
        """Memory and GPU memory of a worker as EQCCTPro 0.8.2 counts them: with its buffers.

        A plan after published footprints has them already, but for the one process of mode local;
        EQCCTPro's Ripper tasks have a factor in place of the buffer on GPUs.
        """
        published = self.footprint == "published"
        ram = self.ram_per_worker_mb
        if not published or self.mode == "local":
            ram += RAM_BUFFER_MB
        if not self.gpu_ids:
            return ram, None
        buffered = published or self.mode == "ripper"
        return ram, self.vram_per_worker_mb + (0.0 if buffered else VRAM_BUFFER_MB)

    def require_room(self) -> None:
        """Refuse a plan without room for a single worker.

        Raises
        ------
        ResourceError
            With the numbers.
        """
        if self.workers == 0:
            raise ResourceError(" ".join(self.sentences), hint=_what_to_do(self))

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file, rounded."""
        return {
            name: [_rounded(item) for item in value]
            if isinstance(value, tuple)
            else _rounded(value)
            for name, value in asdict(self).items()
        }


def plan_workers(
    hardware: Hardware,
    footprint: Footprint,
    settings: MemorySettings,
    *,
    mode: Mode,
    requested: int,
    gpu_ids: tuple[int, ...] = (),
    batch_size: int | None = None,
    waveforms_mb: float = 0.0,
    overhead_mb: float = 0.0,
) -> WorkerPlan:
    """Compute how many of the requested workers fit into memory.

    Parameters
    ----------
    hardware : Hardware
    footprint : Footprint
        Of one worker on the device that `gpu_ids` means.
    settings : MemorySettings
    mode : {"local", "modelactor", "ripper"}
    requested : int
        At least 1.
    gpu_ids : tuple of int
        GPUs to share out; none plans for the CPU.
    batch_size : int, optional
        Windows in a batch; None takes what the footprint was measured with.
    waveforms_mb : float
        What a worker needs for the waveforms of its largest station task, beyond the
        footprint.
    overhead_mb : float
        What everything that is no worker takes.

    Returns
    -------
    WorkerPlan
        With 0 workers, and sentences that say why, if not even one fits.
    """
    host = _ram(hardware, footprint, settings, mode, batch_size, waveforms_mb, overhead_mb)
    if footprint.device == "cuda":
        chosen = _chosen(hardware, gpu_ids)
        if isinstance(chosen, str):
            return WorkerPlan(mode, requested, 0, 0, host.each, host.pool, sentences=(chosen,))
        plan = _on_gpus(chosen, host, footprint, settings, mode, requested, batch_size)
        return replace(plan, overhead_mb=overhead_mb)
    workers = min(requested, host.capacity)
    return WorkerPlan(
        mode=mode,
        requested=requested,
        workers=workers,
        in_flight=workers,
        ram_per_worker_mb=host.each,
        ram_pool_mb=host.pool,
        overhead_mb=overhead_mb,
        footprint=footprint.source,
        sentences=_capped(mode, requested, workers, "RAM", host.pool, host.each),
    )


@dataclass(frozen=True)
class _Room:
    """Memory of a device or machine, and the number of workers that it holds."""

    pool: float
    each: float
    capacity: int
    theoretical: float = 0.0
    usable: float = 0.0


def _ram(
    hardware: Hardware,
    footprint: Footprint,
    settings: MemorySettings,
    mode: Mode,
    batch_size: int | None,
    waveforms_mb: float,
    overhead_mb: float,
) -> _Room:
    bare = footprint.ram_for(batch_size) + waveforms_mb
    # One process that uses its own memory alone has all of it as a buffer.
    buffered = footprint.source == "published" and mode != "local"
    each = bare + (RAM_BUFFER_MB if buffered else 0.0)
    pool = max(0.0, settings.ram_safety_cap * hardware.ram_available_mb - overhead_mb)
    if settings.ignore_ram_cap:
        return _Room(pool, each, _SHARE_STEPS**2)
    capacity = math.floor(pool / each)
    if capacity == 0 and bare <= pool:
        return _Room(pool, bare, 1)
    return _Room(pool, each, capacity)


def _chosen(hardware: Hardware, gpu_ids: tuple[int, ...]) -> tuple[Gpu, ...] | str:
    """The GPUs of those numbers, or why they cannot be used."""
    if not hardware.gpus:
        return f"No GPU can be used: {hardware.gpu_note or 'there is none'}."
    there = {gpu.index: gpu for gpu in hardware.gpus}
    if not gpu_ids:
        return "No GPU was chosen."
    missing = [index for index in gpu_ids if index not in there]
    if missing:
        return f"GPU {', '.join(map(str, missing))} is not there; there are {sorted(there)}."
    return tuple(there[index] for index in gpu_ids)


def _on_gpus(
    gpus: tuple[Gpu, ...],
    host: _Room,
    footprint: Footprint,
    settings: MemorySettings,
    mode: Mode,
    requested: int,
    batch_size: int | None,
) -> WorkerPlan:
    bare = footprint.vram_for(batch_size)
    each = settings.vram_mb or _expected_vram(footprint, mode, bare)
    rooms = [_vram(gpu, len(gpus), bare, each, settings, mode) for gpu in gpus]
    capacities = [room.capacity for room in rooms]
    workers = min(requested, sum(capacities), host.capacity)
    counts = _spread(capacities, workers)
    pool = sum(room.pool for room in rooms)
    if workers == sum(capacities):
        smallest = min((room.each for room in rooms if room.capacity), default=each)
        sentences = _capped(mode, requested, workers, "VRAM", pool, smallest)
        if settings.vram_mb is not None and settings.vram_mb < bare:
            sentences = (
                f"vram_mb: {settings.vram_mb:.0f} MB is less than the {bare:.0f} MB that "
                f"{footprint.model} needs.",
            )
    else:
        sentences = _capped(mode, requested, workers, "RAM", host.pool, host.each)
    return WorkerPlan(
        mode=mode,
        requested=requested,
        workers=workers,
        in_flight=workers,
        ram_per_worker_mb=host.each,
        ram_pool_mb=host.pool,
        gpu_ids=tuple(gpu.index for gpu in gpus),
        workers_per_gpu=tuple(counts),
        capacity_per_gpu=tuple(capacities),
        theoretical_per_gpu=tuple(room.theoretical for room in rooms),
        gpu_shares=tuple(_share(count) for count in counts),
        vram_per_worker_mb=each,
        vram_limit_mb=tuple(
            _limit(room, count, settings) for room, count in zip(rooms, counts, strict=True)
        ),
        vram_context_mb=footprint.vram_context_mb,
        vram_pool_mb=tuple(room.pool for room in rooms),
        footprint=footprint.source,
        sentences=sentences,
    )


def _expected_vram(footprint: Footprint, mode: Mode, bare: float) -> float:
    """Upper bound of a worker's GPU memory, with what published footprints leave out."""
    if footprint.source != "published":
        return bare
    if mode == "ripper":
        return bare * ripper_factor(footprint.parent)
    return bare + VRAM_BUFFER_MB


def _vram(
    gpu: Gpu, gpus: int, bare: float, each: float, settings: MemorySettings, mode: Mode
) -> _Room:
    # What others leave free, less the part that has to stay free.
    pool = gpu.free_mb - (1.0 - settings.gpu_vram_safety_cap) * gpu.total_mb
    if settings.max_vram_mb is not None:
        pool = min(pool, settings.max_vram_mb / gpus)
    pool = max(pool, 0.0)
    headroom = RIPPER_HEADROOM if mode == "ripper" else settings.cudnn_headroom
    usable = pool * (1.0 - headroom)
    if settings.vram_mb is not None and settings.vram_mb < bare:
        return _Room(pool, each, 0, 0.0, usable)
    # A worker that has its GPU for itself needs no room for the peaks of others.
    alone = settings.vram_mb or bare
    capacity = min(math.floor(usable / each), _SHARE_STEPS)
    if capacity == 0 and alone <= pool:
        return _Room(pool, min(each, pool), 1, pool / each, pool)
    return _Room(pool, each, capacity, pool / each, usable)


def _spread(capacities: list[int], workers: int) -> list[int]:
    """Workers for each GPU, so that all are about equally full."""
    total = sum(capacities)
    if total == 0:
        return [0] * len(capacities)
    counts = [workers * capacity // total for capacity in capacities]
    for _ in range(workers - sum(counts)):
        index = min(
            (index for index, count in enumerate(counts) if count < capacities[index]),
            key=lambda index: (counts[index] / capacities[index], index),
        )
        counts[index] += 1
    return counts


def _share(count: int) -> float:
    """Rounded down, so that the last worker of a GPU still finds its share."""
    return (_SHARE_STEPS // count) / _SHARE_STEPS if count else 0.0


def _limit(room: _Room, count: int, settings: MemorySettings) -> float:
    if count == 0:
        return 0.0
    return settings.vram_mb or (room.pool if count == 1 else room.usable / count)


def _capped(
    mode: Mode, requested: int, workers: int, what: str, pool: float, each: float
) -> tuple[str, ...]:
    if workers == requested:
        return ()
    noun = _NOUNS[mode]
    number = noun if requested == 1 else f"{noun}s"
    numbers = f"{what} limited to {pool:.0f} MB, {each:.0f} MB/{noun}"
    return (f"Requested {requested} {number}, created {workers} ({numbers})",)


def _what_to_do(plan: WorkerPlan) -> str:
    text = " ".join(plan.sentences)
    if "vram_mb" in text:
        return "raise vram_mb, or leave it out"
    if "VRAM" in text:
        return "free GPU memory, choose another GPU, or raise max_vram_mb"
    if "GPU" in text:
        return "use the device cpu, or see eqcctpro doctor"
    return "free memory, raise ram_safety_cap or the limit, or choose a smaller batch_size"


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
