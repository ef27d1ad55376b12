"""Resource use of a process and its children, sampled while they work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from eqcctpro.resources.nvml import GpuActivity, gpu_activity, process_vram_mb

__all__ = [
    "ResourceSampler",
    "ResourceUse",
    "process_pss_mb",
    "tree_pss_mb",
    "tree_rss_mb",
]

MB = 2**20

#: A sampler takes at most this share of one core.
SHARE = 0.01

#: Seconds for which the list of a tree's processes is good.
_TREE_S = 0.5

#: PSS is read again when resident memory has grown by this much over the last reading.
_GROWN = 1.01

#: Moments that a history keeps; when there are more, every second one goes.
_MOMENTS = 600

#: Processes of Ray that have titles as workers have them.
_RAY_AGENTS = (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def tree_pss_mb(pid: int | None = None) -> float:
    """Proportional set size of a process and all its descendants, in MB of 2**20 bytes.

    Pages that processes share are counted once; where the system has no PSS
    (other than Linux), resident memory is summed instead.
    """
    return sum(map(_pss, _tree(pid))) / MB


def tree_rss_mb(pid: int | None = None) -> float:
    """Resident memory of a process and all its descendants, in MB of 2**20 bytes."""
    return sum(map(_rss, _tree(pid))) / MB


def process_pss_mb(process: psutil.Process) -> float:
    """Proportional set size of one process, MB of 2**20 bytes; 0 if it has ended."""
    return _pss(process) / MB


def _tree(pid: int | None) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        if _is_childless(root.pid):
            return [root]
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _is_childless(pid: int) -> bool:
    """Return True if a process has no children; a fast check that only Linux offers."""
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        return not any((thread / "children").read_bytes() for thread in threads)
    except OSError:
        return False  # another system, another kernel, or a thread that has just ended


def _pss(process: psutil.Process) -> int:
    """Bytes; 0 for a process that has ended meanwhile."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_bytes().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")), 0)
    except FileNotFoundError:
        if Path("/proc/self/smaps_rollup").exists():
            return 0
    except OSError:
        return _rss(process)
    try:
        info = process.memory_full_info()
        return int(getattr(info, "pss", None) or info.rss)
    except psutil.Error:
        return 0


def _rss(process: psutil.Process) -> int:
    try:
        return int(Path(f"/proc/{process.pid}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError):
        pass
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@dataclass
class ResourceUse:
    """Resources used by a process tree while it was watched; memory in MB of 2**20 bytes.

    Attributes
    ----------
    peak_pss_mb, peak_rss_mb : float
        Highest sums over the tree; PSS counts shared pages once, RSS in every process.
    start_pss_mb, start_rss_mb : float
        The sums when watching began.
    root_rss_mb : float
        Highest resident memory of the root process alone.
    processes : int
        Most processes at a time.
    ray_workers : int
        Most Ray worker processes at a time: actors, tasks, and idle ones.
    gpu_processes : int
        Most processes at a time that held GPU memory.
    cpu_s : float
        Processor time of all processes, children that ended included.
    seconds : float
        How long it was watched.
    peak_vram_mb : dict of int to float
        GPU memory of the tree's processes, by GPU.
    gpu_utilisation : dict of int to float
        Mean percent of the time in which the GPU worked, for whomever.
    gpu_energy_j : dict of int to float
        What the GPU took, for whomever.
    history : list of dict
        Moments on the way: ``seconds`` since watching began, resident memory ``ram_mb``,
        processor time ``cpu_s`` so far, and of each GPU ``gpu0_percent`` and ``gpu0_mb``.
    """

    peak_pss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    start_pss_mb: float = 0.0
    start_rss_mb: float = 0.0
    root_rss_mb: float = 0.0
    processes: int = 0
    ray_workers: int = 0
    gpu_processes: int = 0
    cpu_s: float = 0.0
    seconds: float = 0.0
    peak_vram_mb: dict[int, float] = field(default_factory=dict)
    gpu_utilisation: dict[int, float] = field(default_factory=dict)
    gpu_energy_j: dict[int, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def and_then(self, later: ResourceUse) -> ResourceUse:
        """Combine this use with a later one of the same tree, without the history."""
        first = self if self.seconds else replace(later, seconds=0.0, cpu_s=0.0, gpu_energy_j={})
        joined = {
            item.name: max(getattr(first, item.name), getattr(later, item.name))
            for item in fields(self)
            if isinstance(getattr(self, item.name), int | float)
        }
        joined |= {"start_pss_mb": first.start_pss_mb, "start_rss_mb": first.start_rss_mb}
        joined |= {"cpu_s": first.cpu_s + later.cpu_s, "seconds": first.seconds + later.seconds}
        energy = {
            gpu: first.gpu_energy_j.get(gpu, 0.0) + joules
            for gpu, joules in later.gpu_energy_j.items()
        }
        vram = {
            gpu: max(first.peak_vram_mb.get(gpu, 0.0), mb) for gpu, mb in later.peak_vram_mb.items()
        }
        return ResourceUse(
            **joined,
            peak_vram_mb=first.peak_vram_mb | vram,
            gpu_utilisation=later.gpu_utilisation,
            gpu_energy_j=first.gpu_energy_j | energy,
        )

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file, rounded; without the history."""
        return {
            name: {str(key): round(item, 1) for key, item in value.items()}
            if isinstance(value, dict)
            else round(value, 1)
            for name, value in asdict(self).items()
            if name != "history"
        }


class ResourceSampler:
    """Watches a process tree from a thread; a context manager.

    Resident memory is read at every sample, and proportional memory only when it has grown,
    because the kernel walks all pages for it.  Samples get rarer where they cost more than
    `share` of a core.

    Parameters
    ----------
    pid : int, optional
        Root of the tree; this process by default.
    interval_s : float
        Seconds between samples, at least.
    gpus : bool
        Also read GPU memory, utilisation and energy.
    share : float
        Of one core that sampling may take.
    after : ResourceSampler, optional
        One that watched the same tree before: its last reading of proportional memory counts
        as long as resident memory is the same.

    Attributes
    ----------
    use : ResourceUse
        Complete when the context has ended; before that, as far as it goes.
    seen : set of psutil.Process
        Every process that was in the tree at a sample.
    """

    def __init__(
        self,
        pid: int | None = None,
        interval_s: float = 0.25,
        *,
        gpus: bool = False,
        share: float = SHARE,
        after: ResourceSampler | None = None,
    ) -> None:
        self.use = ResourceUse()
        self.seen: set[psutil.Process] = set()
        self._share = share
        self._pid = pid
        self._interval_s = interval_s
        self._gpus = gpus
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eqcctpro-sampler", daemon=True)
        self._tree: list[psutil.Process] = []
        self._tree_until = 0.0
        self._every_s = _TREE_S
        self._rss_at_pss, self._pss_mb = (0, 0.0) if after is None else after.last_reading
        self._cpu: dict[int, float] = {}
        self._utilisation: dict[int, list[float]] = {}
        self._activity_before: list[GpuActivity] = []

    @property
    def peak_mb(self) -> float:
        """Highest proportional set size seen, in MB of 2**20 bytes."""
        return self.use.peak_pss_mb

    @property
    def last_reading(self) -> tuple[int, float]:
        """Resident memory in bytes when proportional memory was last read, and that in MB."""
        return self._rss_at_pss, self._pss_mb

    def __enter__(self) -> ResourceSampler:
        return self.start()

    def start(self) -> ResourceSampler:
        """Begin to watch."""
        self._started = self._ended = time.perf_counter()
        self._thread.start()
        return self

    def stop(self) -> None:
        """End watching; the last sample may still be taken when this returns."""
        self._ended = time.perf_counter()
        self._stop.set()

    def wait(self) -> ResourceUse:
        """Wait for the last sample; return the resources used."""
        self._thread.join()
        return self.use

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self.wait()

    def _begin(self) -> None:
        tree = _tree(self._pid)
        self._cpu_before = _cpu_seconds(tree)
        # A short run may be over before the first sample.
        self.use.ray_workers = sum(map(_is_ray_worker, tree[1:]))
        rss = sum(map(_rss, tree))
        if not self._rss_at_pss / _GROWN <= rss <= self._rss_at_pss * _GROWN:
            self._read_pss(tree, rss)
        self.use.start_pss_mb = self.use.peak_pss_mb = self._pss_mb
        self.use.start_rss_mb = rss / MB
        self._activity_before = gpu_activity() if self._gpus else []

    def _conclude(self) -> None:
        self._sample()
        self.use.seconds = self._ended - self._started
        self.use.cpu_s = sum(self._cpu.values()) - sum(self._cpu_before.values())
        self.use.gpu_utilisation = {
            index: sum(values) / len(values) for index, values in self._utilisation.items()
        }
        before = {item.index: item.energy_j for item in self._activity_before}
        for item in gpu_activity() if self._gpus else []:
            earlier = before.get(item.index)
            if item.energy_j is not None and earlier is not None:
                self.use.gpu_energy_j[item.index] = item.energy_j - earlier

    def _run(self) -> None:
        self._begin()
        wait = 0.0
        while not self._stop.wait(wait):
            started = time.thread_time()
            self._sample()
            wait = max(self._interval_s, (time.thread_time() - started) / self._share)
        self._conclude()

    def _sample(self) -> None:
        now = time.perf_counter()
        anew = now >= self._tree_until or self._stop.is_set()
        if anew:
            self._tree, self._tree_until = _tree(self._pid), now + self._every_s
            self.seen.update(self._tree)
            # A process's own time goes to its parent when it ends and is waited for.
            self._cpu.update(_cpu_seconds(self._tree))
            workers = sum(map(_is_ray_worker, self._tree[1:]))
            self.use.ray_workers = max(self.use.ray_workers, workers)
        each = [_rss(process) for process in self._tree]
        rss = sum(each)
        use = self.use
        use.root_rss_mb = max(use.root_rss_mb, next(iter(each), 0) / MB)
        use.processes = max(use.processes, len(self._tree))
        use.peak_rss_mb = max(use.peak_rss_mb, rss / MB)
        if rss > self._rss_at_pss * _GROWN:
            self._read_pss(self._tree, rss)
            use.peak_pss_mb = max(use.peak_pss_mb, self._pss_mb)
        gpus = self._sample_gpus(self._tree) if self._gpus else {}
        if anew:
            cpu_s = sum(self._cpu.values()) - sum(self._cpu_before.values())
            moment = {"seconds": now - self._started, "ram_mb": rss / MB, "cpu_s": cpu_s, **gpus}
            use.history.append({name: round(value, 2) for name, value in moment.items()})
            if len(use.history) > _MOMENTS:
                del use.history[1:-1:2]
                self._every_s *= 2

    def _read_pss(self, tree: list[psutil.Process], rss: int) -> None:
        self._rss_at_pss, self._pss_mb = rss, sum(map(_pss, tree)) / MB

    def look_at_gpus(self) -> None:
        """Sample the GPUs now: what is short on them may lie between two samples."""
        if self._gpus:
            self._sample_gpus(_tree(self._pid))

    def _sample_gpus(self, tree: Sequence[psutil.Process]) -> dict[str, float]:
        """Sample memory and utilisation of the GPUs; return them for the history."""
        moment: dict[str, float] = {}
        held = process_vram_mb({process.pid for process in tree})
        holders = {pid for processes in held.values() for pid in processes}
        self.use.gpu_processes = max(self.use.gpu_processes, len(holders))
        for index, value in ((index, sum(each.values())) for index, each in held.items()):
            self.use.peak_vram_mb[index] = max(self.use.peak_vram_mb.get(index, 0.0), value)
            moment[f"gpu{index}_mb"] = value
        for item in gpu_activity():
            if item.utilisation is not None:
                self._utilisation.setdefault(item.index, []).append(item.utilisation)
                moment[f"gpu{item.index}_percent"] = item.utilisation
        return moment


def _is_ray_worker(process: psutil.Process) -> bool:
    """True if a process is a Ray worker: one that runs an actor or tasks, or is idle."""
    try:
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return False
    # Ray renames a worker once it is ready; the raylet's own arguments hold the script's name too.
    starting = any(part.endswith(b"default_worker.py") for part in line.split(b"\0")[1:3])
    return starting or (line.startswith(b"ray::") and not line.startswith(_RAY_AGENTS))


def _cpu_seconds(processes: list[psutil.Process]) -> dict[int, float]:
    seconds = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds[process.pid] = times.user + times.system
    return seconds
