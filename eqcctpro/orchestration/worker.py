"""Worker: specification, picking of bundles, and results; the same in every mode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from eqcctpro.archive.plan import StationTask
from eqcctpro.archive.remote import use_storage_options
from eqcctpro.errors import OutputError
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.picks.annotations import curve_file, write_curves
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.opening import pipeline_on
from eqcctpro.pipeline.records import PickOutcome, PickResult
from eqcctpro.sources.feeder import Feeder
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.sources.task_waveforms import JoinedPieces, TaskPiece

__all__ = ["BundleResult", "PickWorker", "TaskPicker", "WorkerSpec", "open_pipeline"]


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs to build its pipeline.

    Attributes
    ----------
    weights : WeightFiles
    settings : TaskSettings
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
    settings: TaskSettings
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
    outcomes : dict of int to PickOutcome
        Of the tasks that have ended, by their indices in the plan.
    picks, detections : TaskPicks
    seconds : dict
        Per stage.
    adaptations : list of str
        What the worker or its runtime changed to go on with less memory.
    """

    outcomes: dict[int, PickOutcome]
    picks: TaskPicks = field(default_factory=TaskPicks.empty)
    detections: TaskPicks = field(default_factory=TaskPicks.empty)
    seconds: dict[str, float] = field(default_factory=dict)
    adaptations: list[str] = field(default_factory=list)

    @classmethod
    def nothing(cls, adaptation: str) -> BundleResult:
        """Result without tasks, which only reports an adaptation."""
        return cls({}, adaptations=[adaptation])

    @classmethod
    def gather(
        cls,
        results: Sequence[PickResult],
        seconds: Mapping[str, float] | None = None,
        adaptations: Sequence[str] = (),
    ) -> BundleResult:
        """Join the results of single tasks, which are their tickets."""
        return cls(
            {result.ticket.index: result.outcome for result in results},
            TaskPicks.of([(result.ticket.index, result.picks) for result in results]),
            TaskPicks.of([(result.ticket.index, result.detections) for result in results]),
            dict(seconds or {}),
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
    return pipeline_on(picker, runtime, spec.settings)


class TaskPicker:
    """Picks station tasks with a pipeline: reads ahead, joins pieces, and writes curves.

    Parameters
    ----------
    pipeline : Pipeline
    settings : TaskSettings
        Until others are given.
    """

    def __init__(self, pipeline: Pipeline, settings: TaskSettings) -> None:
        self.pipeline = pipeline
        self._settings = settings
        self._pieces = JoinedPieces()
        self._holds = False

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: TaskSettings | None = None,
        *,
        more: bool = False,
        held: dict[str, bytes] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[PickResult]]:
        """Pick station tasks; results come as tasks finish, which may be out of order.

        Parameters
        ----------
        tasks : sequence of StationTask
        settings : TaskSettings, optional
            Other ones than before.
        more : bool
            More tasks follow with the same settings, or none if need be: windows that
            do not fill a batch wait for their windows, and batches under way stay so.
        held : dict of str to bytes, optional
            Contents of files by their paths, as they were when the plan was made; they are
            taken out.
        stop : callable
            Whether a station task that is picked in pieces is to be left as it is.

        Yields
        ------
        list of PickResult
            Of tasks that finish together, with the task as the ticket: one for every task that is
            not left, and for every one held back earlier; those that are held back now come with
            the next tasks.
        """
        pipeline = self.pipeline
        self._settings = pipeline.settings = settings = settings or self._settings
        if not self._holds:
            use_storage_options(settings.storage)
            self._pieces.clear()
            pipeline.reset()
        self._holds = False  # an error in this run leaves nothing to go on from
        feeder = Feeder(tasks, pipeline.picker, settings, held, stop)
        for ticket, prepared in feeder:
            pipeline.feed(ticket, prepared)
            if finished := list(self._finished()):
                yield finished
        if not more:
            pipeline.drain()
        if finished := list(self._finished()):
            yield finished
        pipeline.stages.add(feeder.seconds)
        self._holds = more

    def _finished(self) -> Iterator[PickResult]:
        """Results of whole tasks, their curves written.

        A task whose curves cannot be written has failed, and no other.
        """
        for result in self.pipeline.finished():
            if isinstance(result.ticket, TaskPiece):
                joined = self._pieces.add(result)
                if joined is None:
                    continue
                result = joined
            folder, outcome = self._settings.annotations, result.outcome
            if folder is not None and outcome.status == "done":
                task: StationTask = result.ticket
                codes = (task.network, task.station, task.location, task.instrument)
                try:
                    write_curves(
                        curve_file(folder, codes, task.chunk.name),
                        codes,
                        task.chunk.own,
                        self.pipeline.picker.labels,
                        result.curves,
                    )
                except OutputError as error:
                    failed = PickOutcome.failure(error, outcome.notes, outcome.counts)
                    result = PickResult(task, failed)
                result.curves = []
            yield result


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
        self._picker: TaskPicker | None = None

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

    def _loaded(self) -> TaskPicker:
        if self._picker is None:
            self._settle()
            bind_to_cores(self._spec.cpu_ids)
            self._picker = TaskPicker(open_pipeline(self._spec), self._spec.settings)
        return self._picker

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
        settings: TaskSettings | None = None,
        *,
        more: bool = False,
    ) -> BundleResult:
        """Pick a bundle, with new settings if they are given.

        Every task ends with an outcome.  Where `more` are to come, the last ones may be held
        back until the next call, which may be one without tasks, so that batches are full
        and the network goes on while a result is on its way.
        """
        picker = self._loaded()
        pipeline = picker.pipeline
        before = dict(pipeline.stages.seconds)
        results = picker.pick(tasks, settings, more=more)
        return BundleResult.gather(
            [result for some in results for result in some],
            pipeline.stages.since(before),
            pipeline.runtime.take_notes(),
        )


def bind_to_cores(cpu_ids: Sequence[int] | None) -> tuple[int, ...] | None:
    """Bind this process to cores where the system can; returns the earlier binding."""
    if cpu_ids is None or not hasattr(os, "sched_setaffinity"):
        return None
    earlier = tuple(sorted(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, cpu_ids)
    return earlier
