"""Outcome of each station task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eqcctpro.picks.raw import RawPicks

__all__ = [
    "NOT_COUNTED",
    "NOT_PICKED_BECAUSE",
    "BlockCurves",
    "SampleCounts",
    "StageSeconds",
    "Status",
    "TaskRecord",
    "TaskResult",
]

Status = Literal["done", "empty", "failed"]

#: Why samples are not picked, in words for a user.
NOT_PICKED_BECAUSE = {
    "doubled": "other records hold the same",
    "contradicting": "records contradict each other",
    "not_a_number": "not a number",
    "component_not_used": "of a component that the model does not use",
    "components_missing": "other components are missing",
    "all_zero": "of stations with zeros only",
    "shorter_than_window": "in stretches shorter than a window",
    "failed": "of stations that failed",
}


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Samples of one station task in the time that its chunk owns, as its records hold them.

    Attributes
    ----------
    held : int
        Samples of all channels of its instrument.
    picked : int
        Those that windows cover.
    data_ns : int
        Time of which some channel has samples, ns.
    left_out : tuple of (str, int)
        Those that are not picked, by the names of `NOT_PICKED_BECAUSE`.
    """

    held: int = 0
    picked: int = 0
    data_ns: int = 0
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def failed(self) -> SampleCounts:
        """The same of a task that has failed: none of its samples are picked."""
        left_out = (("failed", self.held),) if self.held else ()
        return SampleCounts(self.held, 0, self.data_ns, left_out)


#: Of a task of which nothing is known.
NOT_COUNTED = SampleCounts()


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
    n_outside : int
        Picks before the run's start or from its end on, dropped by rule.
    highest_p, highest_s : float or None
        Highest probability of any phase whose name begins with P or S, in the time that the
        task's picks are reported of; None where no window reaches.
    seconds : float
        That reading and preparing it took.
    counts : SampleCounts
        Zeros where a task failed before that was known.
    """

    task: int
    status: Status
    reason: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()
    n_windows: int = 0
    n_samples: int = 0
    n_outside: int = 0
    highest_p: float | None = None
    highest_s: float | None = None
    seconds: float = field(default=0.0, compare=False)
    counts: SampleCounts = NOT_COUNTED


@dataclass(frozen=True, slots=True)
class BlockCurves:
    """Curves of one stretch of data without a gap.

    Attributes
    ----------
    start_ns : int
        Time of the first value.
    interval_ns : float
        Between values.
    values : ndarray of float32, shape (labels, samples)
        Probabilities of all of the picker's labels; NaN where no window reaches.  Where a model
        picks on single windows, which are not joined, the highest of all windows.
    """

    start_ns: int
    interval_ns: float
    values: NDArray[np.float32]

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """Time of every value."""
        steps = np.arange(self.values.shape[1]) * self.interval_ns
        return self.start_ns + np.round(steps).astype(np.int64)

    def owned(self, first_ns: int, end_ns: int) -> tuple[int, int]:
        """First value in a half-open span of time, and the first behind it."""
        length = self.values.shape[1]
        first, last = (
            math.ceil((edge - self.start_ns) / self.interval_ns) for edge in (first_ns, end_ns)
        )
        return min(max(first, 0), length), min(max(last, 0), length)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Outcome, picks and detections of one station task.

    Attributes
    ----------
    record : TaskRecord
    picks, detections : RawPicks
        Also those shortly beyond the chunk's borders; the borders are settled when
        all chunks are known.
    curves : list of BlockCurves
        Where they were asked for.
    """

    record: TaskRecord
    picks: RawPicks = field(default_factory=RawPicks.empty)
    detections: RawPicks = field(default_factory=RawPicks.empty)
    curves: list[BlockCurves] = field(default_factory=list)


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
