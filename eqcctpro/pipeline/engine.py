"""The pipeline: station tasks in, picks out, windows of many stations in one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import StationTask
from eqcctpro.archive.timechunks import Timechunk
from eqcctpro.models.picker import Picker
from eqcctpro.picks.raw import RawPicks
from eqcctpro.picks.trigger import Triggers, find_triggers
from eqcctpro.picks.window_peak import WindowPeaks
from eqcctpro.pipeline.feeder import Feeder
from eqcctpro.pipeline.prepare import Prepared
from eqcctpro.pipeline.records import StageSeconds, TaskRecord, TaskResult
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.blocks import Block
from eqcctpro.windows.stacking import CurveStack

__all__ = ["BORDER_GUARD_NS", "Pipeline"]

# Picks this close to a border are reported by both neighbours, which are then compared.
BORDER_GUARD_NS = NS_PER_S


@dataclass(slots=True)
class _OpenTask:
    prepared: Prepared
    missing_blocks: int
    n_outside: int = 0
    picks: list[RawPicks] = field(default_factory=list)
    detections: list[RawPicks] = field(default_factory=list)


@dataclass(slots=True)
class _OpenBlock:
    owner: _OpenTask
    start_ns: int
    sampling_rate: float
    stack: CurveStack | WindowPeaks


class Pipeline:
    """Decodes, cuts, predicts, stacks and picks; the same object in every mode.

    Parameters
    ----------
    picker : Picker
    runtime : Runtime
    settings : PipelineSettings
    """

    def __init__(self, picker: Picker, runtime: Runtime, settings: PipelineSettings) -> None:
        self.picker = picker
        self.runtime = runtime
        self.settings = settings
        self.stages = StageSeconds()
        shape = (runtime.batch_size, len(picker.components), picker.in_samples)
        self._batch = np.empty(shape, dtype=np.float32)
        self._filled = 0
        self._claims: list[tuple[_OpenBlock, int]] = []
        self._finished: deque[TaskResult] = deque()

    def run(self, tasks: Sequence[StationTask]) -> Iterator[TaskResult]:
        """Pick station tasks; results come as tasks finish, which may be out of order.

        Yields
        ------
        TaskResult
            One for every task.
        """
        self._filled = 0  # an earlier run may have ended in an error
        self._claims.clear()
        self._finished.clear()
        feeder = Feeder(tasks, self.picker, self.settings)
        for prepared in feeder:
            if prepared.record is not None:
                yield TaskResult(prepared.record)
                continue
            self._enqueue(prepared)
            while self._finished:
                yield self._finished.popleft()
        self._flush()
        while self._finished:
            yield self._finished.popleft()
        self.stages.add(feeder.seconds)

    def _enqueue(self, prepared: Prepared) -> None:
        owner = _OpenTask(prepared, len(prepared.blocks))
        for block, offsets in prepared.blocks:
            stack = self._stack(block, offsets)
            opened = _OpenBlock(owner, block.start_ns, block.sampling_rate, stack)
            self._pack(block, offsets, opened)

    def _stack(self, block: Block, offsets: NDArray[np.intp]) -> CurveStack | WindowPeaks:
        """What collects the predictions of a block's windows."""
        if self.settings.windows.picking == "window_peak":
            return WindowPeaks(
                offsets,
                [self._threshold(label) for label in self.picker.labels],
                block.sampling_rate,
            )
        return CurveStack(self.picker, self.settings.windows, offsets)

    def _threshold(self, label: str) -> float | None:
        """Threshold of a curve; None if it is not picked."""
        if label == self.picker.detection_label:
            return self.settings.thresholds["Detection"]
        return self.settings.thresholds[label] if label in self.picker.phases else None

    def _pack(self, block: Block, offsets: NDArray[np.intp], opened: _OpenBlock) -> None:
        length = self.picker.in_samples
        first = 0
        while first < len(offsets):
            room = min(self.runtime.batch_size - self._filled, len(offsets) - first)
            for row, offset in enumerate(offsets[first : first + room].tolist(), self._filled):
                self._batch[row] = block.data[:, offset : offset + length]
            self._claims.append((opened, room))
            self._filled += room
            first += room
            if self._filled == self.runtime.batch_size:
                self._flush()

    def _flush(self) -> None:
        if not self._filled:
            return
        started = time.perf_counter()
        predictions = self.runtime.predict(self._batch[: self._filled])
        inferred = time.perf_counter()
        position = 0
        for block, n in self._claims:
            block.stack.add(predictions[position : position + n])
            position += n
            if block.stack.complete:
                self._close(block)
        self._claims.clear()
        self._filled = 0
        self.stages.seconds["infer"] += inferred - started
        self.stages.seconds["pick"] += time.perf_counter() - inferred

    def _close(self, block: _OpenBlock) -> None:
        owner = block.owner
        task = owner.prepared.task
        for index, triggers in self._triggers(block.stack):
            found = self._timed(block, triggers)
            if found is not None:
                raw = _columns(task.index, index, found)
                is_detection = self.picker.labels[index] == self.picker.detection_label
                (owner.detections if is_detection else owner.picks).append(raw)
        owner.missing_blocks -= 1
        if owner.missing_blocks == 0:
            self._finished.append(_finish(owner))

    def _triggers(self, stack: CurveStack | WindowPeaks) -> Iterator[tuple[int, Triggers]]:
        """Index and triggers of every label that is picked."""
        curve = stack.finish() if isinstance(stack, CurveStack) else None
        for index, label in enumerate(self.picker.labels):
            threshold = self._threshold(label)
            if threshold is None:
                continue
            if isinstance(stack, WindowPeaks):
                yield index, stack.triggers(index)
            elif curve is not None:
                yield index, find_triggers(np.ascontiguousarray(curve[:, index]), threshold)

    def _timed(self, block: _OpenBlock, triggers: Triggers) -> tuple[NDArray[np.int64], ...] | None:
        """Times and probability of the picks that belong to the task and the run."""
        if not len(triggers.peak):
            return None
        origin_ns, interval_ns = self._curve_times(block)
        times = [
            origin_ns + np.round(samples * interval_ns).astype(np.int64)
            for samples in (triggers.peak, triggers.onset, triggers.end)
        ]
        outside = _outside(times[0], self.settings)
        block.owner.n_outside += int(np.count_nonzero(outside))
        wanted = _within(times[0], block.owner.prepared.task.chunk) & ~outside
        if not wanted.any():
            return None
        return times[0][wanted], times[1][wanted], times[2][wanted], triggers.value[wanted]  # type: ignore[return-value]

    def _curve_times(self, block: _OpenBlock) -> tuple[int, float]:
        """Time of a curve's first sample, and nanoseconds between its samples."""
        rate = block.sampling_rate
        if self.picker.output == "point":
            shift = self.picker.pred_sample[1]
            interval = self.settings.windows.stride * NS_PER_S / rate
        else:
            shift = self.picker.pred_sample[0]
            interval = NS_PER_S / (rate * block.stack.rate_factor)
        return block.start_ns + round(shift * NS_PER_S / rate), interval


def _within(times_ns: NDArray[np.int64], chunk: Timechunk) -> NDArray[np.bool_]:
    return (times_ns >= chunk.own_start_ns - BORDER_GUARD_NS) & (
        times_ns < chunk.own_end_ns + BORDER_GUARD_NS
    )


def _outside(times_ns: NDArray[np.int64], settings: PipelineSettings) -> NDArray[np.bool_]:
    outside = np.zeros(len(times_ns), dtype=bool)
    if settings.start_ns is not None:
        outside |= times_ns < settings.start_ns
    if settings.end_ns is not None:
        outside |= times_ns >= settings.end_ns
    return outside


def _columns(task: int, label: int, found: tuple[NDArray[np.int64], ...]) -> RawPicks:
    peak, onset, end, value = found
    return RawPicks(
        np.full(len(peak), task, dtype=np.int32),
        np.full(len(peak), label, dtype=np.int16),
        peak,
        onset,
        end,
        value.astype(np.float32),
    )


def _finish(owner: _OpenTask) -> TaskResult:
    prepared = owner.prepared
    record = TaskRecord(
        prepared.task.index,
        "done",
        notes=tuple(prepared.notes),
        n_windows=prepared.n_windows,
        n_samples=prepared.n_samples,
        n_outside=owner.n_outside,
    )
    return TaskResult(
        record, RawPicks.concatenate(owner.picks), RawPicks.concatenate(owner.detections)
    )
