"""Worker: specification, picking of bundles, and results; the same in every mode."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from eqcctpro.archive.plan import StationTask
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.picks.raw import RawPicks
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.records import TaskRecord, TaskResult
from eqcctpro.pipeline.settings import PipelineSettings

__all__ = ["BundleResult", "PickWorker", "WorkerSpec", "open_pipeline"]


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs to build its pipeline.

    Attributes
    ----------
    weights : WeightFiles
    settings : PipelineSettings
    runtime : str
    device : str
        ``"cpu"`` or one device, such as ``"cuda:0"``.
    batch_size, threads : int or None
        None leaves the choice to the runtime.
    cpu_ids : tuple of int or None
        Cores that the worker's process is bound to.
    expected_windows : int or None
        Size of the run, for choosing a runtime.
    inter_threads : int or None
        Operators that TensorFlow executes at a time.
    vram_mb : float or None
        GPU memory that the runtime may allocate, MB of 2**20 bytes.
    precision : str
        Arithmetic of the network on a CPU.
    folder : str or None
        Where relative paths are meant from, on a machine that may be another one; None on
        the machine of the run.
    """

    weights: WeightFiles
    settings: PipelineSettings
    runtime: str = "auto"
    device: str = "cpu"
    batch_size: int | None = None
    threads: int | None = None
    cpu_ids: tuple[int, ...] | None = None
    expected_windows: int | None = None
    inter_threads: int | None = None
    vram_mb: float | None = None
    precision: str = "f32"
    folder: str | None = None


@dataclass(frozen=True)
class BundleResult:
    """Result of a bundle of station tasks.

    Attributes
    ----------
    records : list of TaskRecord
        One for each task that has ended.
    picks, detections : RawPicks
    seconds : dict
        Per stage.
    adaptations : list of str
        What the worker or its runtime changed to go on with less memory.
    """

    records: list[TaskRecord]
    picks: RawPicks
    detections: RawPicks
    seconds: dict[str, float] = field(default_factory=dict)
    adaptations: list[str] = field(default_factory=list)

    @classmethod
    def nothing(cls, adaptation: str) -> BundleResult:
        """Result without tasks, which only reports an adaptation."""
        return cls([], RawPicks.empty(), RawPicks.empty(), adaptations=[adaptation])

    @classmethod
    def gather(
        cls,
        results: Sequence[TaskResult],
        seconds: dict[str, float],
        adaptations: Sequence[str] = (),
    ) -> BundleResult:
        """Join the results of single tasks."""
        return cls(
            [result.record for result in results],
            RawPicks.concatenate([result.picks for result in results]),
            RawPicks.concatenate([result.detections for result in results]),
            seconds,
            list(adaptations),
        )


def open_pipeline(spec: WorkerSpec) -> Pipeline:
    """Load the model and make a pipeline with it.

    Raises
    ------
    ModelError
        The model, its weights or its runtime cannot be used.
    """
    from eqcctpro.runtimes.select import open_picker

    picker, runtime = open_picker(
        spec.weights,
        runtime=spec.runtime,
        device=spec.device,
        batch_size=spec.batch_size,
        threads=spec.threads,
        expected_windows=spec.expected_windows,
        inter_threads=spec.inter_threads,
        vram_mb=spec.vram_mb,
        precision=spec.precision,
    )
    return Pipeline(picker, runtime, spec.settings)


class PickWorker:
    """Worker that picks bundle after bundle with one pipeline.

    Parameters
    ----------
    spec : WorkerSpec
    """

    def __init__(self, spec: WorkerSpec) -> None:
        # Nothing is loaded here: what a method raises reaches the driver as it is, while an
        # actor whose constructor raises is only reported dead.
        self._spec = spec
        self._pipeline: Pipeline | None = None

    def load(self) -> float:
        """Bind to cores and load the model if that was not done yet; returns seconds.

        Raises
        ------
        ModelError
            The model, its weights or its runtime cannot be used.
        """
        started = time.perf_counter()
        self._loaded()
        return time.perf_counter() - started

    def _loaded(self) -> Pipeline:
        if self._pipeline is None:
            self._settle()
            bind_to_cores(self._spec.cpu_ids)
            self._pipeline = open_pipeline(self._spec)
        return self._pipeline

    def _settle(self) -> None:
        """Find on this machine what the run's machine named."""
        folder = self._spec.folder
        if folder is None:
            return
        from eqcctpro.models.elsewhere import weights_here

        self._spec = replace(self._spec, weights=weights_here(self._spec.weights))
        # It need not be here: then all paths are absolute, as the check of this node knows.
        with suppress(OSError):
            os.chdir(folder)

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: PipelineSettings | None = None,
        *,
        more: bool = False,
    ) -> BundleResult:
        """Pick a bundle, with new settings if they are given.

        Every task ends with a record.  Where `more` are to come, the last ones may be held
        back until the next call, which may be one without tasks, so that batches are full
        and the network goes on while a result is on its way.
        """
        pipeline = self._loaded()
        pipeline.settings = settings or pipeline.settings
        before = dict(pipeline.stages.seconds)
        results = list(pipeline.run(tasks, more=more))
        seconds = {
            stage: value - before.get(stage, 0.0)
            for stage, value in pipeline.stages.seconds.items()
        }
        return BundleResult.gather(results, seconds, pipeline.runtime.take_notes())


def bind_to_cores(cpu_ids: Sequence[int] | None) -> tuple[int, ...] | None:
    """Bind this process to cores where the system can; returns the earlier binding."""
    if cpu_ids is None or not hasattr(os, "sched_setaffinity"):
        return None
    earlier = tuple(sorted(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, cpu_ids)
    return earlier
