"""Choice of the fastest runtime for a model on this machine: measured once and cached."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata as packages
from pathlib import Path

import numpy as np

from eqcctpro.models.cache import cache_folder, write_atomically
from eqcctpro.models.export import Export
from eqcctpro.models.picker import Picker
from eqcctpro.runtimes.base import Runtime
from eqcctpro.runtimes.slices import available_cores

__all__ = ["Cost", "calibrated", "calibration_path", "fastest"]

#: Rounds of one batch each, interleaved between runtimes; the quickest of each counts.
ROUNDS = 4

_log = logging.getLogger("eqcctpro")


@dataclass(frozen=True)
class Cost:
    """Load time and time per window of a runtime for a model.

    Attributes
    ----------
    load : float
        Seconds until the first batch can run, with everything cached.
    window : float
        Seconds for a window in a full batch.
    """

    load: float
    window: float

    def of(self, windows: int) -> float:
        """Seconds for a job of so many windows."""
        return self.load + windows * self.window


def fastest(costs: Mapping[str, Cost], windows: int) -> str:
    """Name of the runtime that takes the least time for a job of so many windows."""
    return min(costs, key=lambda kind: costs[kind].of(windows))


def calibrated(
    export: Export,
    openers: Mapping[str, Callable[[], Runtime]],
    threads: int | None,
) -> dict[str, Cost]:
    """Cost of each runtime on this machine, from the cache or measured now.

    Parameters
    ----------
    export : Export
        The model.
    openers : mapping of str to callable
        Opens each runtime that is installed, in the batch size that it would be used in.
    threads : int or None
        Threads that the runtimes are opened with.
    """
    path = calibration_path(export, tuple(openers), threads)
    costs = _read(path)
    if costs is None:
        costs = _measure(export.picker, openers)
        _log.info("calibrated %s: %s", export.picker.name, _summary(costs))
        text = json.dumps({kind: asdict(cost) for kind, cost in costs.items()}, indent=1)
        try:
            write_atomically(path, text)
        except OSError as error:
            _log.warning("calibration of %s is not kept: %s", export.picker.name, error)
    return costs


def calibration_path(export: Export, kinds: tuple[str, ...], threads: int | None) -> Path:
    """File that remembers a model's costs on this machine with these releases."""
    releases = [f"{kind} {packages.version(kind)}" for kind in sorted(kinds)]
    about = [export.key, _processor(), str(threads or available_cores()), *releases]
    name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:32]
    return cache_folder("calibrations") / f"{name}.json"


def _measure(picker: Picker, openers: Mapping[str, Callable[[], Runtime]]) -> dict[str, Cost]:
    """Time every runtime on noise; they take turns, so that a busy moment hits all."""
    random = np.random.default_rng(7)
    runtimes, loads, batches = {}, {}, {}
    for kind, opener in openers.items():
        opener().close()  # fills caches of compiled networks, as for every later run
        start = time.perf_counter()
        runtimes[kind] = opener()
        loads[kind] = time.perf_counter() - start
        shape = (runtimes[kind].batch_size, len(picker.components), picker.in_samples)
        batches[kind] = 1e3 * random.standard_normal(shape, np.float32)
        runtimes[kind].predict(batches[kind])
    seconds = {kind: float("inf") for kind in runtimes}
    for _ in range(ROUNDS):
        for kind, runtime in runtimes.items():
            start = time.perf_counter()
            runtime.predict(batches[kind])
            taken = (time.perf_counter() - start) / runtime.batch_size
            seconds[kind] = min(seconds[kind], taken)
    for runtime in runtimes.values():
        runtime.close()
    return {kind: Cost(loads[kind], seconds[kind]) for kind in runtimes}


def _read(path: Path) -> dict[str, Cost] | None:
    try:
        text = path.read_text(encoding="utf-8")
        return {
            str(kind): Cost(float(cost["load"]), float(cost["window"]))
            for kind, cost in json.loads(text).items()
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("calibration %s cannot be used, measuring again: %s", path, error)
        return None


def _summary(costs: Mapping[str, Cost]) -> str:
    return ", ".join(
        f"{kind} {cost.window * 1e3:.2f} ms a window, {cost.load:.2f} s to load"
        for kind, cost in costs.items()
    )


def _processor() -> str:
    """Model of the processor, as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return f"{platform.machine()} {platform.processor()}"
