"""Python, operating system, cores, memory, disks and GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from eqcctpro.doctor.check import Check, Status
from eqcctpro.resources.cgroups import cgroup_cores, cgroup_memory
from eqcctpro.resources.nvml import read_gpus

__all__ = ["machine_checks"]

_GIB = 2**30
_LITTLE_RAM = 2 * _GIB
_LITTLE_DISK = 2 * _GIB
_LITTLE_SHM = 300 * 2**20
"""Below this, Ray keeps its object store of 256 MiB in files instead of shared memory."""

_OLDEST_PYTHON = (3, 11)
_SHARED_MEMORY = Path("/dev/shm")


def machine_checks() -> Iterator[Check]:
    """Look at this machine; nothing here starts, allocates or leaves anything."""
    yield _python()
    yield Check("system", "ok", f"{platform.platform()}, {platform.machine()}")
    yield _cores()
    yield _memory()
    yield from _gpus()
    yield _disk("temporary folder", Path(tempfile.gettempdir()), _LITTLE_DISK)
    if _SHARED_MEMORY.is_dir():
        yield _disk("shared memory", _SHARED_MEMORY, _LITTLE_SHM)


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < _OLDEST_PYTHON:
        return Check("python", "fail", found, "EQCCTPro needs Python 3.11 or newer")
    return Check("python", "ok", found)


def _cores() -> Check:
    total = os.cpu_count() or 1
    found = f"{total}"
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
        if usable < total:
            found += f", {usable} of them for this process (CPU affinity)"
    limit = cgroup_cores()
    if limit is not None and limit < total:
        found += f", limited to {limit:g} by the control group"
    return Check("cores", "ok", found)


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    free = memory.available
    found = f"{memory.total / _GIB:.1f} GiB, {memory.available / _GIB:.1f} GiB available"
    group = cgroup_memory()
    if group is not None and group.limit < memory.total:
        found += f", limited to {group.limit / _GIB:.1f} GiB by the control group"
        free = min(free, group.available)
    if free < _LITTLE_RAM:
        return Check("memory", "warn", found, "use --mode local, or fewer workers")
    return Check("memory", "ok", found)


def _gpus() -> Iterator[Check]:
    gpus, reason = read_gpus()
    if not gpus and find_spec("pynvml") is None:
        yield from _gpus_of_torch()
        return
    if not gpus:
        status: Status = "warn" if "does not answer" in reason else "ok"
        yield Check("gpu", status, f"none ({reason})", "see nvidia-smi" if status == "warn" else "")
        return
    status, hint = _usable_by_torch()
    for gpu in gpus:
        found = f"cuda:{gpu.index} {gpu.name}, {gpu.total_mb / 1024:.1f} GiB"
        yield Check("gpu", status, f"{found}, {gpu.free_mb / 1024:.1f} GiB free", hint)


def _usable_by_torch() -> tuple[Status, str]:
    try:
        import torch
    except (ImportError, OSError):
        return "warn", "torch does not load, see below"
    if torch.cuda.is_available():
        return "ok", ""
    return "warn", f"torch {torch.__version__} cannot use it: install a build of torch with CUDA"


def _gpus_of_torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError):
        yield Check("gpu", "ok", "none known (neither nvidia-ml-py nor torch loads)")
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        memory = torch.cuda.get_device_properties(index).total_memory / _GIB
        yield Check(
            "gpu", "ok", f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory:.1f} GiB"
        )
    if not count:
        yield Check("gpu", "ok", "none")


def _disk(topic: str, folder: Path, enough: int) -> Check:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Check(
            topic, "warn", f"{folder}: {error.strerror}", "set TMPDIR to a folder that exists"
        )
    found = f"{folder}: {usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free"
    if not os.access(folder, os.W_OK):
        return Check(topic, "warn", f"{found}, cannot be written", "set TMPDIR to another folder")
    if usage.free < enough:
        return Check(topic, "warn", found, f"the Ray modes want {enough / _GIB:.1f} GiB; make room")
    return Check(topic, "ok", found)
