"""Outcomes of all station tasks of a run, as columns: plans of 10**5 stations stay small."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from eqcctpro.pipeline.records import PickOutcome, SampleCounts, Status

__all__ = ["TaskRecords"]

STATUSES: tuple[Status, ...] = get_args(Status)
NOT_ENDED = len(STATUSES)

_NUMBERS = 6


class TaskRecords(Mapping[int, PickOutcome]):
    """Outcomes of station tasks, by their index in the plan.

    Parameters
    ----------
    n_tasks : int
        Of the plan.
    outcomes : mapping of int to PickOutcome, optional
        What is known from before.
    """

    def __init__(self, n_tasks: int, outcomes: Mapping[int, PickOutcome] | None = None) -> None:
        self._statuses = bytearray([NOT_ENDED]) * n_tasks
        # Windows, samples, picks outside of the run's span, samples that the task has, those
        # of them that are picked, and nanoseconds of data, of each task.
        self._numbers = array("q", bytes(8 * _NUMBERS * n_tasks))
        # Highest probability of P and of S, and seconds, of each task.
        self._measures = array("f", [math.nan, math.nan, 0.0] * n_tasks)
        # Reason, error and notes, of tasks that have any or ended as empty or failed: few.
        self._texts: dict[int, tuple[str, str, tuple[str, ...]]] = {}
        # Samples that are not picked, of tasks that have any.
        self._left_out: dict[int, tuple[tuple[str, int], ...]] = {}
        self._n_ended = 0
        self.add(outcomes or {})

    def add(self, outcomes: Mapping[int, PickOutcome]) -> None:
        """Add outcomes; a later outcome of a task replaces the earlier one."""
        for task, record in outcomes.items():
            self._n_ended += self._statuses[task] == NOT_ENDED
            self._statuses[task] = STATUSES.index(record.status)
            counts = record.counts
            at = _NUMBERS * task
            numbers = [record.n_windows, record.n_samples, record.n_outside]
            numbers += [counts.held, counts.picked, counts.data_ns]
            self._numbers[at : at + _NUMBERS] = array("q", numbers)
            at = 3 * task
            self._measures[at] = math.nan if record.highest_p is None else record.highest_p
            self._measures[at + 1] = math.nan if record.highest_s is None else record.highest_s
            self._measures[at + 2] = record.seconds
            if record.status != "done" or record.reason or record.error or record.notes:
                self._texts[task] = (record.reason, record.error, record.notes)
            else:
                self._texts.pop(task, None)
            if counts.left_out:
                self._left_out[task] = counts.left_out
            else:
                self._left_out.pop(task, None)

    def __len__(self) -> int:
        return self._n_ended

    def __iter__(self) -> Iterator[int]:
        return (task for task, status in enumerate(self._statuses) if status != NOT_ENDED)

    def __getitem__(self, task: int) -> PickOutcome:
        if not 0 <= task < len(self._statuses) or self._statuses[task] == NOT_ENDED:
            raise KeyError(task)
        reason, error, notes = self._texts.get(task, ("", "", ()))
        at = _NUMBERS * task
        windows, samples, outside, held, picked, data_ns = self._numbers[at : at + _NUMBERS]
        p, s, seconds = self._measures[3 * task : 3 * task + 3]
        highest = (None if math.isnan(p) else p, None if math.isnan(s) else s)
        status = STATUSES[self._statuses[task]]
        numbers = (windows, samples, outside)
        counts = SampleCounts(held, picked, data_ns, self._left_out.get(task, ()))
        return PickOutcome(status, reason, error, notes, *numbers, *highest, seconds, counts)

    def counts(self) -> dict[str, int]:
        """Number of tasks by status."""
        return {status: self._statuses.count(n) for n, status in enumerate(STATUSES)}

    def ended(self, *statuses: Status) -> Iterator[int]:
        """Tasks with one of some statuses, in the plan's order."""
        wanted = {STATUSES.index(status) for status in statuses}
        return (task for task, status in enumerate(self._statuses) if status in wanted)

    def with_texts(self) -> dict[int, PickOutcome]:
        """Outcomes that have a reason or notes, in the plan's order."""
        return {task: self[task] for task in sorted(self._texts)}

    def totals(self) -> dict[str, int]:
        """Sums over all tasks: windows, samples, and picks outside of the run's span."""
        sums = self._columns().sum(axis=0).tolist()
        return dict(zip(("n_windows", "n_samples", "n_outside"), sums, strict=False))

    def sample_counts(self) -> SampleCounts:
        """Sums of the sample counts of all tasks; `data_ns` of the sum has no meaning."""
        held, picked, data_ns = self._columns()[:, 3:].sum(axis=0).tolist()
        left_out: Counter[str] = Counter()
        for causes in self._left_out.values():
            left_out.update(dict(causes))
        return SampleCounts(held, picked, data_ns, tuple(sorted(left_out.items())))

    def data_ns(self, tasks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Duration of the samples of some tasks, ns."""
        return self._columns()[tasks, 5]

    def unknown(self) -> list[int]:
        """Tasks that failed before their samples were counted."""
        held = self._columns()[:, 3]
        return [task for task in self.ended("failed") if not held[task]]

    def _columns(self) -> NDArray[np.int64]:
        return np.array(self._numbers, dtype=np.int64).reshape(-1, _NUMBERS)
