"""Picks as arrays, before they are rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["RawPicks", "TaskPicks"]


@dataclass(frozen=True, slots=True)
class RawPicks:
    """Picks or detections as columns of equal length.

    Attributes
    ----------
    label : ndarray of int16
        Index into the picker's labels.
    time_ns, start_ns, end_ns : ndarray of int64
        Peak, trigger on and trigger off.
    probability : ndarray of float32
    """

    label: NDArray[np.int16]
    time_ns: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    probability: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.time_ns)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns in the order of the attributes."""
        return (self.label, self.time_ns, self.start_ns, self.end_ns, self.probability)

    @classmethod
    def empty(cls) -> Self:
        """No picks."""
        nothing: Self = _NOTHING[cls]
        return nothing

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All picks of several parts, in their order."""
        parts = [part for part in parts if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else cls.empty()
        each = zip(*[part.columns() for part in parts], strict=True)
        return cls(*map(np.concatenate, each))

    def take(self, which: NDArray[Any] | slice) -> Self:
        """The picks that a slice, or an index or boolean array, names."""
        return type(self)(*[column[which] for column in self.columns()])


@dataclass(frozen=True, slots=True)
class TaskPicks(RawPicks):
    """Picks or detections of several station tasks.

    Attributes
    ----------
    task : ndarray of int32
        Index of the station task in the plan.
    """

    task: NDArray[np.int32]

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns in the order of the attributes."""
        return (*RawPicks.columns(self), self.task)

    @classmethod
    def of(cls, parts: Sequence[tuple[int, RawPicks]]) -> Self:
        """Picks of station tasks, each with its index, in their order."""
        parts = [(task, picks) for task, picks in parts if len(picks)]
        if not parts:
            return cls.empty()
        tasks = np.array([task for task, _ in parts], dtype=np.int32)
        found = RawPicks.concatenate([picks for _, picks in parts])
        of_task = np.repeat(tasks, [len(picks) for _, picks in parts])
        columns: list[Any] = [*found.columns(), of_task]
        return cls(*columns)


_NO_TIMES = np.empty(0, dtype=np.int64)
_NO_PICKS = (
    np.empty(0, dtype=np.int16),
    *(_NO_TIMES, _NO_TIMES, _NO_TIMES),
    np.empty(0, dtype=np.float32),
)
# Nearly every station has none, and arrays of nothing are all alike.
_NOTHING: dict[type[RawPicks], Any] = {
    RawPicks: RawPicks(*_NO_PICKS),
    TaskPicks: TaskPicks(*_NO_PICKS, np.empty(0, dtype=np.int32)),
}
