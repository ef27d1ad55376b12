"""Python, operating system, cores, memory, disks and GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from eqcctpro.doctor.check import Check, Status

__all__ = ["cgroup_cores", "cgroup_memory", "machine_checks"]

_GIB = 2**30
_LITTLE_RAM = 2 * _GIB
_LITTLE_DISK = 2 * _GIB
_LITTLE_SHM = 300 * 2**20
"""Below this, Ray keeps its object store of 256 MiB in files instead of shared memory."""

_OLDEST_PYTHON = (3, 11)
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
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
    limit = cgroup_memory()
    if limit is not None and limit < memory.total:
        found += f", limited to {limit / _GIB:.1f} GiB by the control group"
        free = min(free, limit)
    if free < _LITTLE_RAM:
        return Check("memory", "warn", found, "use --mode local, or fewer workers")
    return Check("memory", "ok", found)


def cgroup_cores(root: Path = _CGROUP, own: Path = _OWN_CGROUP) -> float | None:
    """Cores that the control groups of this process grant, or None without a limit.

    Parameters
    ----------
    root : Path
        Where control groups are mounted; versions 1 and 2 are understood.
    own : Path
        Says which groups this process is in.
    """
    limits = []
    for group in _groups(root, own, "cpu"):
        quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
        quota = quota or _read(group / "cpu.cfs_quota_us") or ""
        period = period or _read(group / "cpu.cfs_period_us") or ""
        # "max" and -1 mean no limit.
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def cgroup_memory(root: Path = _CGROUP, own: Path = _OWN_CGROUP) -> int | None:
    """Bytes that the control groups of this process grant, or None without a limit.

    Parameters are those of :func:`cgroup_cores`.
    """
    limits = []
    for group in _groups(root, own, "memory"):
        text = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes") or ""
        # Version 1 says "no limit" with a number near 2**63.
        if text.isdigit() and int(text) < 2**60:
            limits.append(int(text))
    return min(limits, default=None)


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups that this process is in, inner ones first, with their parents."""
    for line in (_read(own) or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # version 2: one tree for everything
            base = root
        elif controller in controllers.split(","):
            base = root / controller
        else:
            continue
        inner = base / path.lstrip("/")
        # In a container the path may be the host's and not exist; its root always does.
        yield from (group for group in (inner, *inner.parents) if group.is_relative_to(base))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _gpus() -> Iterator[Check]:
    try:
        import pynvml
    except ImportError:
        yield from _gpus_of_torch()
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield Check("gpu", "ok", f"none ({error})")
        return
    try:
        names = [_describe(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        yield Check("gpu", "warn", f"the driver does not answer: {error}", "see nvidia-smi")
        return
    finally:
        pynvml.nvmlShutdown()
    status, hint = _usable_by_torch() if names else ("ok", "")
    for name in names:
        yield Check("gpu", status, name, hint)
    if not names:
        yield Check("gpu", "ok", "none")


def _describe(pynvml: object, index: int) -> str:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)  # type: ignore[attr-defined]
    name = pynvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)  # type: ignore[attr-defined]
    text = name.decode() if isinstance(name, bytes) else name
    return f"cuda:{index} {text}, {memory.total / _GIB:.1f} GiB, {memory.free / _GIB:.1f} GiB free"


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
