"""Cores, memory and GPUs of this machine, as much of them as this process may use."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.errors import SettingsError
from eqcctpro.resources.cgroups import CGROUP_ROOT, OWN_GROUPS, cgroup_cores, cgroup_memory
from eqcctpro.resources.nvml import Gpu, read_gpus

__all__ = [
    "BUDGET_VARIABLE",
    "Gpu",
    "Hardware",
    "available_cores",
    "available_memory_mb",
    "memory_kills",
    "read_hardware",
    "require_cores",
    "usable_cores",
]

#: MB of memory that this process and its children may use, whatever the machine has.
BUDGET_VARIABLE = "EQCCTPRO_RAM_BUDGET_MB"

_MB = 2**20
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True)
class Hardware:
    """Cores, memory and GPUs that this process may use; memory in MB of 2**20 bytes.

    Attributes
    ----------
    cores : int
        Cores of the machine.
    affinity : tuple of int
        Ids of those that this process may use.
    core_limit : float or None
        What the control groups grant of them, in cores of processor time.
    ram_total_mb, ram_available_mb : float
        The smallest of the machine's memory, what the control groups grant, what the limits of
        the process (``ulimit``) leave, and the budget in ``EQCCTPRO_RAM_BUDGET_MB``.
    ram_bound : str
        Which of them decides: ``"machine"``, ``"control group"``, ``"process limit"`` or
        ``"budget"``.
    gpus : tuple of Gpu
        Empty on a machine without a GPU or its driver.
    gpu_note : str
        Why there are none.
    """

    cores: int
    affinity: tuple[int, ...]
    core_limit: float | None
    ram_total_mb: float
    ram_available_mb: float
    ram_bound: str = "machine"
    gpus: tuple[Gpu, ...] = ()
    gpu_note: str = ""


def read_hardware(*, root: Path = CGROUP_ROOT, own: Path = OWN_GROUPS) -> Hardware:
    """Look at this machine; a machine without a GPU is a normal one.

    Parameters
    ----------
    root, own : Path
        Where control groups are mounted, and the file that names those of this process.

    Raises
    ------
    SettingsError
        ``EQCCTPRO_RAM_BUDGET_MB`` is not a positive number.
    """
    total, available, bound = _memory(root, own)
    gpus, note = read_gpus()
    return Hardware(
        cores=os.cpu_count() or 1,
        affinity=tuple(available_cores()),
        core_limit=cgroup_cores(root, own),
        ram_total_mb=total,
        ram_available_mb=available,
        ram_bound=bound,
        gpus=gpus,
        gpu_note=note,
    )


def available_cores() -> list[int]:
    """Ids of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_memory_mb() -> float:
    """Memory that this process may still take, MB of 2**20 bytes.

    Raises
    ------
    SettingsError
        ``EQCCTPRO_RAM_BUDGET_MB`` is not a positive number.
    """
    return _memory(CGROUP_ROOT, OWN_GROUPS)[1]


def require_cores(cpu_ids: Sequence[int] | None, name: str = "cpu_ids") -> None:
    """Refuse cores that this process may not use.

    Parameters
    ----------
    cpu_ids : sequence of int or None
    name : str
        What the user called them.

    Raises
    ------
    SettingsError
    """
    mine = available_cores()
    if strange := sorted(set(cpu_ids or ()) - set(mine)):
        raise SettingsError(
            f"{name}: cores {strange} are not available",
            hint=f"this process may use {mine}; without {name} it uses all of them",
        )


def usable_cores() -> int:
    """Number of cores this process may keep busy: its own, or fewer by control groups' limit."""
    limit = cgroup_cores()
    cores = len(available_cores())
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def memory_kills() -> int:
    """Number of processes the machine has killed for lack of memory since it started.

    Compared before and after a worker's death, it tells that death from others; always 0
    where the system does not count.
    """
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _memory(root: Path, own: Path) -> tuple[float, float, str]:
    """Total and available MB, and what bounds the available."""
    import psutil

    machine = psutil.virtual_memory()
    total, available, bound = machine.total / _MB, machine.available / _MB, "machine"
    group = cgroup_memory(root, own)
    if group is not None:
        total = min(total, group.limit / _MB)
        if group.available / _MB < available:
            available, bound = group.available / _MB, "control group"
    for limit, used in _process_limits():
        total = min(total, limit / _MB)
        left = max(0.0, (limit - used) / _MB)
        if left < available:
            available, bound = left, "process limit"
    budget = _budget_mb()
    if budget is not None:
        from eqcctpro.resources.sampler import tree_pss_mb

        total = min(total, budget)
        left = max(0.0, budget - tree_pss_mb())
        if left < available:
            available, bound = left, "budget"
    return total, available, bound


def _process_limits() -> Iterator[tuple[int, int]]:
    """Limits of this process's memory, and what it has of it, bytes."""
    if sys.platform == "win32":
        return
    import resource

    import psutil

    used = psutil.Process().memory_info()
    # Address space, and what of it is data.
    for kind, name in ((resource.RLIMIT_AS, "vms"), (resource.RLIMIT_DATA, "data")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit, getattr(used, name, used.vms)


def _budget_mb() -> float | None:
    text = os.environ.get(BUDGET_VARIABLE, "").strip()
    if not text:
        return None
    try:
        budget = float(text)
    except ValueError:
        budget = 0.0
    if not 0 < budget < float("inf"):
        raise SettingsError(
            f"{BUDGET_VARIABLE}: {text!r} is not a positive number",
            hint="give megabytes, or unset it",
        )
    return budget
