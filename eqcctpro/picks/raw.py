"""Picks as arrays, before they are rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RawPicks"]


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
        return _NOTHING

    @classmethod
    def concatenate(cls, parts: list[RawPicks]) -> RawPicks:
        """All picks of several parts, in their order."""
        parts = [part for part in parts if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else cls.empty()
        return cls(
            np.concatenate([part.task for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.time_ns for part in parts]),
            np.concatenate([part.start_ns for part in parts]),
            np.concatenate([part.end_ns for part in parts]),
            np.concatenate([part.probability for part in parts]),
        )

    def take(self, which: NDArray[Any] | slice) -> RawPicks:
        """The picks that a slice, or an index or boolean array, names."""
        return RawPicks(
            self.task[which],
            self.label[which],
            self.time_ns[which],
            self.start_ns[which],
            self.end_ns[which],
            self.probability[which],
        )


_NO_TIMES = np.empty(0, dtype=np.int64)
_NOTHING = RawPicks(
    np.empty(0, dtype=np.int32),
    np.empty(0, dtype=np.int16),
    *(_NO_TIMES, _NO_TIMES, _NO_TIMES),
    np.empty(0, dtype=np.float32),
)
