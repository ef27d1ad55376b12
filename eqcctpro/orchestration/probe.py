"""Measurement of a worker's memory, in a fresh process that works as a worker does.

Run as a module it is that process, which takes requests in JSON and answers with measurements.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eqcctpro.child import ChildDiedError, ChildProcess, Parent
from eqcctpro.errors import EQCCTProError, WorkerError
from eqcctpro.resources.allocator import return_free_memory
from eqcctpro.resources.devices import resolve
from eqcctpro.resources.footprints import Footprint
from eqcctpro.resources.nvml import process_vram_mb, read_gpus
from eqcctpro.resources.sampler import ResourceSampler, tree_pss_mb

__all__ = ["THREADS", "measure_footprint"]

#: Seconds after which a process that measures is given up.
_TIMEOUT_S = 600.0

_STATIONS, _SECONDS = 12, 120.0

#: Threads that footprints are measured with; batches of exported models grow with more.
THREADS = 2


def measure_footprint(
    model: str,
    *,
    runtime: str = "torch",
    device: str = "cpu",
    batch_size: int | None = None,
    threads: int = THREADS,
    arguments: Mapping[str, Any] | None = None,
) -> Footprint:
    """Load a model, predict full batches and pick a small network, in a fresh process.

    Parameters
    ----------
    model : str
        ``Parent/child``.
    runtime, device, batch_size, threads
        As for :func:`eqcctpro.runtimes.select.open_picker`.
    arguments : mapping, optional
        Arguments of the model, of which those count that describe its weights.

    Raises
    ------
    WorkerError
        The process failed; the message holds what it said last.
    """
    asked = {"model": model, "model_arguments": dict(arguments or {})}
    if runtime not in ("torch", "tensorflow"):
        # Exporting a model takes more memory than running it, and happens once.
        _ask({**asked, "runtime": runtime, "only_export": True})
    request = {
        **asked,
        "runtime": runtime,
        "device": device,
        "batch_size": batch_size,
        "threads": threads,
    }
    return Footprint(**_ask(request))


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """Run the measurement in a fresh process; return its reply."""
    model, runtime = request["model"], request["runtime"]
    child = ChildProcess(__name__)
    try:
        child.send(json.dumps(request).encode())
        answer: dict[str, Any] = json.loads(child.receive(_TIMEOUT_S))
    except TimeoutError as error:
        raise WorkerError(f"measuring {model} took more than {_TIMEOUT_S:.0f} s") from error
    except ChildDiedError as error:
        answer = {"error": str(error)}
    finally:
        child.kill()
    if said := answer.get("error"):
        raise WorkerError(
            f"measuring {model} on {runtime} failed: {said}",
            hint="see that eqcctpro doctor picks with this model",
        )
    return answer


class _Stages:
    """Highest memory of stages of work in this process."""

    def __init__(self, device: str) -> None:
        self._gpu = device.startswith("cuda")
        self._before = {gpu.index: gpu.used_mb for gpu in read_gpus()[0]} if self._gpu else {}

    def during(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """Run `work`; return its result and the highest PSS meanwhile, MB."""
        return_free_memory()  # what earlier work has left over would hide what this one needs
        with ResourceSampler(interval_s=0.02, share=0.5) as sampler:
            result = work()
            held = tree_pss_mb()
        return result, max(sampler.use.peak_pss_mb, held)

    def vram(self) -> float:
        """Current GPU memory of this process, MB."""
        if not self._gpu:
            return 0.0
        own = process_vram_mb({os.getpid()})
        if own:
            return max(sum(held.values()) for held in own.values())
        # In a container the driver may know this process by another number.
        now = {gpu.index: gpu.used_mb for gpu in read_gpus()[0]}
        return max((now[index] - self._before.get(index, 0.0) for index in now), default=0.0)


def _measure(request: dict[str, Any]) -> Footprint:
    from eqcctpro.archive.plan import InputSettings, make_plan
    from eqcctpro.config import ModelConfig
    from eqcctpro.orchestration.model_choice import describe, find_run_weights
    from eqcctpro.orchestration.worker import TaskPicker, WorkerSpec, open_pipeline
    from eqcctpro.sources.task_settings import TaskSettings
    from eqcctpro.synthetic.network import synthetic_network

    device: str = request["device"]
    asked = {name: request[name] for name in ("model", "model_arguments")}
    config = ModelConfig.checked(**asked)
    weights = find_run_weights(config)
    _, settings = describe(config, weights)
    spec = WorkerSpec(
        weights,
        TaskSettings.of(settings),
        runtime=request["runtime"],
        device=device,
        batch_size=request["batch_size"],
        threads=request["threads"],
    )
    stages = _Stages(device)
    pipeline, load_mb = stages.during(lambda: open_pipeline(spec))
    runtime, picker = pipeline.runtime, pipeline.picker
    shape = (runtime.batch_size, len(picker.components), picker.in_samples)
    windows = np.random.default_rng(0).normal(0, 1000, shape).astype(np.float32)
    _, first_mb = stages.during(lambda: runtime.predict(windows[:1]))
    _, one_mb = stages.during(lambda: runtime.predict(windows[:1]))  # the first one prepares
    context_mb = stages.vram() - _reserved_mb(device)
    one_vram = stages.vram()
    _, full_mb = stages.during(lambda: [runtime.predict(windows) for _ in range(3)])
    full_vram = stages.vram()
    with tempfile.TemporaryDirectory(prefix="eqcctpro-calibrate-") as folder:
        synthetic_network(Path(folder) / "in", stations=_STATIONS, duration_s=_SECONDS)
        tasks = make_plan(InputSettings((Path(folder) / "in",))).tasks
        _, pick_mb = stages.during(lambda: list(TaskPicker(pipeline, spec.settings).pick(tasks)))
    more = max(runtime.batch_size - 1, 1)
    kind: Literal["cpu", "cuda"] = "cuda" if device.startswith("cuda") else "cpu"
    return Footprint(
        model=request["model"],
        runtime=runtime.kind,
        device=kind,
        ram_mb=round(max(load_mb, first_mb, one_mb, full_mb, pick_mb), 1),
        load_mb=round(load_mb, 1),
        ram_per_window_mb=round(max(full_mb - one_mb, 0.0) / more, 3),
        vram_mb=round(max(full_vram, stages.vram()), 1),
        vram_context_mb=round(max(context_mb, 0.0), 1),
        vram_per_window_mb=round(max(full_vram - one_vram, 0.0) / more, 3),
        batch_size=runtime.batch_size,
        card=resolve(device).card if kind == "cuda" and runtime.kind == "torch" else "",
    )


def _reserved_mb(device: str) -> float:
    """GPU memory reserved by torch's allocator, MB."""
    torch = sys.modules.get("torch")
    if not device.startswith("cuda") or torch is None:
        return 0.0
    return float(torch.cuda.memory_reserved(device)) / 2**20


def _export(request: dict[str, Any]) -> dict[str, Any]:
    from eqcctpro.config import ModelConfig
    from eqcctpro.orchestration.model_choice import find_run_weights
    from eqcctpro.runtimes.select import open_picker

    asked = {name: request[name] for name in ("model", "model_arguments")}
    weights = find_run_weights(ModelConfig.checked(**asked))
    open_picker(weights, runtime=request["runtime"], batch_size=1, threads=1)[1].close()
    return {}


def _main() -> None:
    parent = Parent()
    for message in parent.requests():
        request = json.loads(message)
        try:
            answer = _export(request) if "only_export" in request else asdict(_measure(request))
        except EQCCTProError as error:
            answer = {"error": str(error)}
        parent.reply(json.dumps(answer).encode())


if __name__ == "__main__":
    _main()
