"""What became of all station tasks of a run, as columns: plans of 10**5 stations stay small."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

import numpy as np

from eqcctpro.pipeline.records import Status, TaskRecord

__all__ = ["TaskRecords"]

STATUSES: tuple[Status, ...] = get_args(Status)
NOT_ENDED = len(STATUSES)


class TaskRecords(Mapping[int, TaskRecord]):
    """The end of station tasks, by their index in the plan.

    Parameters
    ----------
    n_tasks : int
        Of the plan.
    records : iterable of TaskRecord
        What is known from before.
    """

    def __init__(self, n_tasks: int, records: Iterable[TaskRecord] = ()) -> None:
        self._statuses = bytearray([NOT_ENDED]) * n_tasks
        # Windows, samples and picks outside of the run's span, of each task.
        self._numbers = array("q", bytes(24 * n_tasks))
        # Highest probability of P and of S, and seconds, of each task.
        self._measures = array("f", [math.nan, math.nan, 0.0] * n_tasks)
        # Reason, error and notes, of tasks that have any or ended as empty or failed: few.
        self._texts: dict[int, tuple[str, str, tuple[str, ...]]] = {}
        self._n_ended = 0
        self.add(records)

    def add(self, records: Iterable[TaskRecord]) -> None:
        """Take records; one of a task that has one takes its place."""
        for record in records:
            task = record.task
            self._n_ended += self._statuses[task] == NOT_ENDED
            self._statuses[task] = STATUSES.index(record.status)
            at = 3 * task
            self._numbers[at] = record.n_windows
            self._numbers[at + 1] = record.n_samples
            self._numbers[at + 2] = record.n_outside
            self._measures[at] = math.nan if record.highest_p is None else record.highest_p
            self._measures[at + 1] = math.nan if record.highest_s is None else record.highest_s
            self._measures[at + 2] = record.seconds
            if record.status != "done" or record.reason or record.error or record.notes:
                self._texts[task] = (record.reason, record.error, record.notes)
            else:
                self._texts.pop(task, None)

    def __len__(self) -> int:
        return self._n_ended

    def __iter__(self) -> Iterator[int]:
        return (task for task, status in enumerate(self._statuses) if status != NOT_ENDED)

    def __getitem__(self, task: int) -> TaskRecord:
        if not 0 <= task < len(self._statuses) or self._statuses[task] == NOT_ENDED:
            raise KeyError(task)
        reason, error, notes = self._texts.get(task, ("", "", ()))
        windows, samples, outside = self._numbers[3 * task : 3 * task + 3]
        p, s, seconds = self._measures[3 * task : 3 * task + 3]
        highest = (None if math.isnan(p) else p, None if math.isnan(s) else s)
        status = STATUSES[self._statuses[task]]
        numbers = (windows, samples, outside)
        return TaskRecord(task, status, reason, error, notes, *numbers, *highest, seconds)

    def counts(self) -> dict[str, int]:
        """How many tasks ended in which way."""
        return {status: self._statuses.count(n) for n, status in enumerate(STATUSES)}

    def ended(self, *statuses: Status) -> Iterator[int]:
        """Tasks that ended in one of some ways, in the plan's order."""
        wanted = {STATUSES.index(status) for status in statuses}
        return (task for task, status in enumerate(self._statuses) if status in wanted)

    def with_texts(self) -> list[TaskRecord]:
        """Records that are not done or have notes, in the plan's order."""
        return [self[task] for task in sorted(self._texts)]

    def totals(self) -> dict[str, int]:
        """Windows, samples and picks outside of the run's span, of all tasks."""
        sums = np.array(self._numbers, dtype=np.int64).reshape(-1, 3).sum(axis=0).tolist()
        return dict(zip(("n_windows", "n_samples", "n_outside"), sums, strict=True))
