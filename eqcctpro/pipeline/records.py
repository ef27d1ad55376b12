"""What became of each station task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["RawPicks", "StageSeconds", "TaskRecord", "TaskResult"]

Status = Literal["done", "empty", "failed"]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The end of one station task.

    Attributes
    ----------
    task : int
        Index in the plan.
    status : {"done", "empty", "failed"}
    reason : str
        Why it is empty, or the error's message; empty text when done.
    error : str
        Class of the error, or empty text.
    notes : tuple of str
        What was done to the data: gaps filled, components missing, resampling.
    n_windows : int
        Windows that the network saw.
    n_samples : int
        Decoded samples.
    """

    task: int
    status: Status
    reason: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()
    n_windows: int = 0
    n_samples: int = 0


@dataclass(frozen=True, slots=True)
class RawPicks:
    """Picks or detections as columns of equal length.

    Attributes
    ----------
    task : ndarray of int32
        Index of the station task in the plan.
    label : ndarray of int16
        Index into the picker's labels.
    time_ns, start_ns, end_ns : ndarray of int64
        Peak, trigger on and trigger off.
    probability : ndarray of float32
    """

    task: NDArray[np.int32]
    label: NDArray[np.int16]
    time_ns: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    probability: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.time_ns)

    @classmethod
    def empty(cls) -> RawPicks:
        """No picks."""
        times = [np.empty(0, dtype=np.int64) for _ in range(3)]
        return cls(
            np.empty(0, dtype=np.int32),
            np.empty(0, dtype=np.int16),
            *times,
            np.empty(0, dtype=np.float32),
        )

    @classmethod
    def concatenate(cls, parts: list[RawPicks]) -> RawPicks:
        """All picks of several parts, in their order."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.empty()
        names = ("task", "label", "time_ns", "start_ns", "end_ns", "probability")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, which: NDArray[Any]) -> RawPicks:
        """The picks that an index or boolean array names."""
        return RawPicks(
            self.task[which],
            self.label[which],
            self.time_ns[which],
            self.start_ns[which],
            self.end_ns[which],
            self.probability[which],
        )


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Record and findings of one station task.

    Attributes
    ----------
    record : TaskRecord
    picks, detections : RawPicks
        Also those shortly beyond the chunk's borders; the borders are settled when
        all chunks are known.
    """

    record: TaskRecord
    picks: RawPicks = field(default_factory=RawPicks.empty)
    detections: RawPicks = field(default_factory=RawPicks.empty)


@dataclass
class StageSeconds:
    """Seconds spent per stage; decoding and preparing overlap with inference."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("decode", "prepare", "infer", "pick"), 0.0)
    )

    def add(self, other: Mapping[str, float]) -> None:
        """Add the seconds of another worker."""
        for stage, value in other.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value
