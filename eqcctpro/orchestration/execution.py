"""Execution of a plan, and collection of its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain

import numpy as np

from eqcctpro.archive.plan import Plan, Tasks
from eqcctpro.orchestration.keeping import NoJournal
from eqcctpro.orchestration.task_records import TaskRecords
from eqcctpro.orchestration.worker import BundleResult
from eqcctpro.orchestration.workers import Workers
from eqcctpro.picks.borders import settle
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.pipeline.records import StageSeconds
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse
from eqcctpro.sources.task_settings import TaskSettings

__all__ = ["Execution"]

# Parts in which picks are collected.
MOST_PARTS = 1000


class Execution:
    """Execution of one plan by workers; collects their results.

    Parameters
    ----------
    plan : Plan
    workers : Workers
    settings : TaskSettings
        What is picked with, no default left open.
    journal : NoJournal, optional
        What is known from before, and where results are kept.
    open_chunks : int, optional
        Time chunks that may be worked on at once.
    gpus : bool
        Also watch the GPUs.
    watched : ResourceSampler, optional
        What watched the run before, with the same workers.
    sampler : ResourceSampler, optional
        What watches several executions already; by default one of its own is started.

    Attributes
    ----------
    records : TaskRecords
    stages : StageSeconds
    model_loads : int
        Tasks that loaded the model, in mode ripper.
    adaptations : list of str
        What was changed on the way to go on with less memory.
    sampler : ResourceSampler
        Watches the run.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        settings: TaskSettings,
        *,
        journal: NoJournal | None = None,
        open_chunks: int | None = None,
        gpus: bool = False,
        watched: ResourceSampler | None = None,
        sampler: ResourceSampler | None = None,
    ) -> None:
        self.plan = plan
        self.workers = workers
        self.journal = journal or NoJournal(plan.tasks)
        restored = self.journal.hand_over()
        self.records = TaskRecords(len(plan.tasks), restored.outcomes)
        self.stages = StageSeconds()
        self.model_loads = 0
        self.adaptations: list[str] = []
        self.sampler = sampler or ResourceSampler(gpus=gpus, after=watched)
        self._begun = False
        self._watched_already = sampler is not None
        self.settings = settings
        self._open_chunks = open_chunks
        self._picks: list[TaskPicks] = [restored.findings.picks]
        self._detections: list[TaskPicks] = [restored.findings.detections]

    def results(self, stop: Callable[[], bool] = lambda: False) -> Iterator[BundleResult]:
        """Yield every bundle's result, after its picks have been stored.

        Parameters
        ----------
        stop : callable
            Whether nothing new is to be started.
        """
        source = self._source(stop)
        if left_out := self.journal.left_out:
            source = chain([BundleResult(left_out)], source)
        with ExitStack() as stack:
            if not self._watched_already:
                self.sampler.start()
                stack.callback(self.sampler.stop)
            self._begun = True
            for bundle in source:
                self.journal.add(bundle)
                self.records.add(bundle.outcomes)
                _collect(self._picks, bundle.picks)
                _collect(self._detections, bundle.detections)
                self.stages.add(bundle.seconds)
                self.model_loads += "load" in bundle.seconds
                self.adaptations += bundle.adaptations
                yield bundle

    @property
    def use(self) -> ResourceUse:
        """Resources used by the run's processes; complete once the run has ended."""
        return self.sampler.wait() if self._begun else ResourceUse()

    def _source(self, stop: Callable[[], bool]) -> Iterator[BundleResult]:
        journal = self.journal
        results = self.workers.pick(
            journal.watched(stop),
            self.settings,
            open_chunks=self._open_chunks,
            stop=stop,
            held=self.plan.files.held,
        )
        if not journal.suspects:
            return results
        alone = self.workers.pick_singly(journal.suspects, self.settings, stop=stop)
        return chain(results, alone)

    @property
    def complete(self) -> bool:
        """True if every station task of the plan has ended."""
        return len(self.records) == len(self.plan.tasks)

    def take_found(self) -> tuple[TaskPicks, TaskPicks]:
        """Picks and detections in the plan's order, without duplicates at chunk borders.

        They are handed over, and not kept.
        """
        tasks = self.plan.tasks
        picks, detections = (_settled(found, tasks) for found in self.take_reported())
        return picks, detections

    def take_reported(self) -> tuple[TaskPicks, TaskPicks]:
        """Picks and detections as both neighbours of a border report them, in the plan's order.

        They are handed over, and not kept.
        """
        picks, detections = (
            _in_order(TaskPicks.concatenate(found)) for found in (self._picks, self._detections)
        )
        self._picks, self._detections = [], []
        return picks, detections


def _collect(parts: list[TaskPicks], new: TaskPicks) -> None:
    """Store picks; small parts are concatenated now and then, to save memory."""
    if len(new):
        parts.append(new)
    if len(parts) >= MOST_PARTS:
        parts[:] = [TaskPicks.concatenate(parts)]


def _settled(raw: TaskPicks, tasks: Tasks) -> TaskPicks:
    """Picks near the borders between chunks, each arrival once."""

    def station(pick: int) -> tuple[str, str]:
        task = tasks[int(raw.task[pick])]
        return task.name, task.folder

    return settle(raw, tasks.owned()[raw.task], station)


def _in_order(picks: TaskPicks) -> TaskPicks:
    """Sort by station task; picks of one task keep their order."""
    if np.all(picks.task[:-1] <= picks.task[1:]):
        return picks
    return picks.take(np.argsort(picks.task, kind="stable"))
