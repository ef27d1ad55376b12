"""Carries out a plan and keeps what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from eqcctpro.archive.plan import Plan
from eqcctpro.orchestration.worker import BundleResult
from eqcctpro.orchestration.workers import Workers
from eqcctpro.picks.borders import settle_borders
from eqcctpro.picks.raw import RawPicks
from eqcctpro.pipeline.records import StageSeconds, TaskRecord
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse
from eqcctpro.times import NS_PER_S

__all__ = ["Execution", "waveforms_mb"]

# What a sample takes from decoding to curves, with the next station waiting, in bytes, and
# what of it the footprint of a worker covers, in MB (docs/resources.md).
BYTES_A_SAMPLE = 30
COVERED_MB = 5.0
# Parts in which findings are held.
MOST_PARTS = 1000
# Records do not say how dense they are before they are read.
USUAL_RATE_HZ = 100.0


class Execution:
    """One plan, carried out by workers; keeps what comes back.

    Parameters
    ----------
    plan : Plan
    workers : Workers
    settings : PipelineSettings
    open_chunks : int, optional
        Time chunks that may be worked on at once.
    gpus : bool
        Also watch the GPUs.

    Attributes
    ----------
    records : dict of int to TaskRecord
        By the task's index in the plan.
    stages : StageSeconds
    adaptations : list of str
        What was changed on the way to go on with less memory.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        settings: PipelineSettings,
        *,
        open_chunks: int | None = None,
        gpus: bool = False,
    ) -> None:
        self.plan = plan
        self.workers = workers
        self.records: dict[int, TaskRecord] = {}
        self.stages = StageSeconds()
        self.adaptations: list[str] = []
        self._sampler: ResourceSampler | None = None
        self._settings = settings
        self._open_chunks = open_chunks
        self._gpus = gpus
        self._picks: list[RawPicks] = []
        self._detections: list[RawPicks] = []

    def results(self) -> Iterator[BundleResult]:
        """Every bundle, after its findings have been kept."""
        source = self.workers.pick(self.plan.tasks, self._settings, open_chunks=self._open_chunks)
        with ExitStack() as stack:
            self._sampler = ResourceSampler(gpus=self._gpus).start()
            stack.callback(self._sampler.stop)
            for bundle in source:
                self.records.update((record.task, record) for record in bundle.records)
                _collect(self._picks, bundle.picks)
                _collect(self._detections, bundle.detections)
                self.stages.add(bundle.seconds)
                self.adaptations += bundle.adaptations
                yield bundle

    @property
    def use(self) -> ResourceUse:
        """What the run's processes took, once it has ended."""
        return ResourceUse() if self._sampler is None else self._sampler.wait()

    def raw(self) -> tuple[RawPicks, RawPicks]:
        """Picks and detections, with the borders between chunks settled."""
        picks = settle_borders(RawPicks.concatenate(self._picks), self.plan.tasks)
        detections = settle_borders(RawPicks.concatenate(self._detections), self.plan.tasks)
        return picks, detections


def _collect(parts: list[RawPicks], new: RawPicks) -> None:
    """Keep findings, now and then as one part, since a part of few picks is mostly wrapping."""
    if len(new):
        parts.append(new)
    if len(parts) >= MOST_PARTS:
        parts[:] = [RawPicks.concatenate(parts)]


def waveforms_mb(plan: Plan) -> float:
    """What the largest station task takes beyond short ones, MB, from the records' times."""
    seconds = {
        file.path: sum(extent.end_ns - extent.start_ns for extent in file.channels) / NS_PER_S
        for file in plan.files
    }
    largest = max(sum(seconds.get(path, 0.0) for path in task.files) for task in plan.tasks)
    taken = largest * USUAL_RATE_HZ * BYTES_A_SAMPLE / 2**20
    return max(0.0, taken - COVERED_MB)
