"""Loaded models of a replica, one engine for each served model."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eqcctpro.config import ExecutionConfig, ModelConfig
from eqcctpro.errors import RuntimeUnavailableError
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.orchestration.model_choice import describe, find_run_weights
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.opening import pipeline_on
from eqcctpro.pipeline.prepare import Prepared
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.runtimes.select import open_picker
from eqcctpro.serving.example import example_segments
from eqcctpro.serving.gpus import device_here
from eqcctpro.serving.online import BatchReport, OnlinePicker
from eqcctpro.serving.settings import ModelSettings, ServeSettings
from eqcctpro.serving.stations import lay_out
from eqcctpro.waveform.decode import DecodedFile

__all__ = ["Engine", "ServedModel", "find_model", "open_engine", "warm"]

# A service picks far more windows than any run: what runs fastest matters, not what loads fastest.
_WINDOWS = 1_000_000


@dataclass(frozen=True)
class ServedModel:
    """Description of a served model, which need not be loaded.

    Attributes
    ----------
    name : str
        As clients call it.
    choice : ModelSettings
    weights : WeightFiles
    picker : Picker
    settings : PipelineSettings
    """

    name: str
    choice: ModelSettings
    weights: WeightFiles
    picker: Picker
    settings: PipelineSettings


@dataclass
class Engine:
    """A loaded model that picks.

    Attributes
    ----------
    model : ServedModel
    online : OnlinePicker
    warm_s : float
        What the first pick took.
    missing : str or None
        Why it cannot pick at the moment, though nothing is wrong with it.
    network : str or None
        The deployment that executes it, if it is not this process.
    since : float
        When it was begun to be served; seconds since 1970.
    behind : str or None
        Why this process does not have the version that others serve.
    """

    model: ServedModel
    online: OnlinePicker
    warm_s: float = 0.0
    missing: str | None = None
    network: str | None = None
    since: float = field(default_factory=time.time)
    behind: str | None = None
    _users: int = 0
    _retired: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def runtime(self) -> Runtime:
        """Runtime that executes the network."""
        return self.online.pipeline.runtime

    def facts(self) -> dict[str, Any]:
        """Facts of the model, for clients."""
        picker, settings, runtime = self.model.picker, self.model.settings, self.runtime
        return {
            "name": self.model.name,
            "weights": self.model.weights.name,
            "weights_sha256": picker.weights_sha256,
            "sampling_rate": picker.sampling_rate,
            "components": picker.recorded,
            "window_samples": picker.in_samples,
            "overlap": settings.windows.overlap,
            "phases": list(picker.phases),
            "detection": picker.detection_label is not None,
            "thresholds": settings.thresholds,
            "runtime": runtime.kind,
            "device": runtime.device,
            "max_batch_size": runtime.batch_size,
            "state": "READY" if self.missing is None else "UNAVAILABLE",
            "reason": self.missing or self.behind,
            "since": self.since,
        }

    def enter(self) -> bool:
        """Start to use the engine; false if it is being unloaded."""
        with self._lock:
            self._users += not self._retired
            return not self._retired

    def leave(self) -> None:
        """End a use of the engine."""
        with self._lock:
            self._users -= 1

    def retire(self) -> bool:
        """Refuse new uses of the engine, if it is not in use now."""
        with self._lock:
            self._retired = not self._users
            return self._retired

    def close(self) -> None:
        """Release the model and its threads."""
        self.online.close()
        self.runtime.close()


def find_model(
    choice: ModelSettings,
    *,
    fetch: bool = True,
    found: Callable[[WeightFiles], None] = lambda _: None,
) -> ServedModel:
    """Find the weights of a model and describe it.

    Parameters
    ----------
    choice : ModelSettings
    fetch : bool
        Whether weights may be downloaded.
    found : callable, optional
        Called with the weights before anything of them is read; may raise.

    Raises
    ------
    ModelError
        There are no such weights, or they cannot be read.
    SettingsError
        A threshold or argument does not fit the model.
    """
    config = ModelConfig.checked(
        model=choice.weights or choice.name,
        p_threshold=choice.p_threshold,
        s_threshold=choice.s_threshold,
        detection_threshold=choice.detection_threshold,
        bandpass=choice.bandpass,
        model_arguments=choice.arguments,
    )
    ExecutionConfig.checked(
        runtime=choice.runtime, device=choice.device, precision=choice.precision
    )
    weights = find_run_weights(config, fetch=fetch)
    found(weights)
    picker, settings = describe(config, weights)
    return ServedModel(choice.name, choice, weights, picker, settings)


def open_engine(
    model: ServedModel,
    settings: ServeSettings,
    *,
    report: Callable[[BatchReport], None] | None = None,
    open_runtime: Callable[[], Runtime] | None = None,
) -> Engine:
    """Load a model and test it by picking the example.

    Parameters
    ----------
    model : ServedModel
    settings : ServeSettings
    report : callable, optional
        For each batch.
    open_runtime : callable, optional
        In place of one in this process.

    Raises
    ------
    ModelError
        The model cannot be loaded, or finds nothing in the example.
    """

    def ready_pipeline() -> Pipeline:
        runtime = open_runtime() if open_runtime is not None else _open_runtime(model, settings)
        opened = pipeline_on(model.picker, runtime, model.settings)
        try:
            warm(opened)
        except BaseException:  # one that is loaded while the service runs would stay in memory
            runtime.close()
            raise
        return opened

    def pipeline() -> Pipeline:
        nice = settings.replicas.network_nice
        with ThreadPoolExecutor(1, initializer=_step_back, initargs=(nice,)) as behind:
            return behind.submit(ready_pipeline).result()

    started = time.perf_counter()
    online = OnlinePicker(
        pipeline,
        max_wait_s=settings.batching.max_wait_ms / 1000,
        turn_s=settings.batching.turn_ms / 1000,
        aging_s=settings.batching.aging_s,
        forward_timeout_s=settings.limits.forward_timeout_s,
        report=report,
    )
    return Engine(model, online, time.perf_counter() - started)


def _step_back(nice: int) -> None:
    """Let this thread, and those that it starts, wait for others where cores are short.

    The network's threads take all cores there are; those that read requests and pick need them
    only for moments, and everybody waits for these.
    """
    if nice and sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + nice, 19))


def _open_runtime(model: ServedModel, settings: ServeSettings) -> Runtime:
    choice = model.choice
    _, runtime = open_picker(
        model.weights,
        runtime=choice.runtime,
        device=device_here(choice.device, settings),
        batch_size=settings.batching.max_batch_size,
        slice_windows="adaptive",
        threads=settings.replicas.threads,
        expected_windows=_WINDOWS,
        precision=choice.precision,
    )
    return runtime


def warm(pipeline: Pipeline) -> float:
    """Pick the example once alone and once in a full batch; returns seconds of the first.

    Raises
    ------
    RuntimeUnavailableError
        The runtime fails, or what it finds is no probability.
    """
    picker, settings = pipeline.picker, pipeline.settings
    started = time.perf_counter()
    try:
        _pick_example(pipeline, picker, settings, 1)
        first = time.perf_counter() - started
        _pick_example(pipeline, picker, settings, pipeline.runtime.batch_size)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise RuntimeUnavailableError(
            f"{picker.name} does not run on {pipeline.runtime.kind}: {error}",
            hint="eqcctpro doctor tests what runs here",
        ) from error
    return first


def _pick_example(
    pipeline: Pipeline, picker: Picker, settings: PipelineSettings, windows: int
) -> None:
    pipeline.reset()
    laid = lay_out(
        DecodedFile(example_segments(picker)), picker, settings, max_samples=10**9, keep_curves=True
    )
    station: Prepared = laid.prepared[0]
    if station.ended is not None:
        raise RuntimeUnavailableError(f"{picker.name}: the example: {station.ended.reason}")
    for _ in range(max(1, windows // max(station.n_windows, 1))):
        pipeline.feed(None, station)
    pipeline.drain()
    for result in pipeline.finished():
        highest = [float(np.nanmax(piece.values)) for piece in result.curves]
        if not highest or not all(0 <= value <= 1.001 for value in highest):
            raise RuntimeUnavailableError(
                f"{picker.name}: what it says of the example are no probabilities",
                hint="eqcctpro models verify compares weights with what they should be",
            )
