"""Station tasks that are picked in pieces of time, one after the other, as if at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from eqcctpro.archive.tasks import StationTask
from eqcctpro.picks.borders import settle
from eqcctpro.picks.raw import RawPicks
from eqcctpro.pipeline.records import BlockCurves, SampleCounts, TaskRecord, TaskResult
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.blocks import Block
from eqcctpro.waveform.filters import Detrend, parse_step
from eqcctpro.waveform.segments import Segment

__all__ = ["JoinedPieces", "RunningRecords", "owned_curves", "pieces_of", "why_whole"]

# How far beside the sampling points of what it goes on from a piece may lie, in samples.
MISALIGNMENT = 0.5


def why_whole(settings: PipelineSettings, rates: Sequence[float]) -> str | None:
    """Why records must be picked at once for the picks of whole ones; None where pieces do.

    Parameters
    ----------
    settings : PipelineSettings
    rates : sequence of float
        Sampling rates of the records, Hz.
    """
    for text in settings.preparation.filters:
        if isinstance(parse_step(text), Detrend):
            return f"{text} fits all of a record"
    target = settings.conditioning.sampling_rate
    if settings.grid == "absolute" or target is None:
        return None
    for rate in rates:
        if rate % target:
            return f"records of {rate:g} Hz are resampled as a whole"
    return None


def pieces_of(task: StationTask) -> Iterator[StationTask]:
    """The pieces of a station task, as station tasks of the same index; itself if it has none."""
    if not task.pieces:
        yield task
        return
    chunk, last = task.chunk, len(task.pieces) - 1
    beside = task.stamps[len(task.files) :]
    for number, piece in enumerate(task.pieces):
        yield replace(
            task,
            chunk=replace(
                chunk,
                read_start_ns=piece.start_ns if number else chunk.read_start_ns,
                read_end_ns=piece.end_ns if number < last else chunk.read_end_ns,
                own_start_ns=piece.start_ns,
                own_end_ns=piece.end_ns,
            ),
            files=tuple([task.files[at] for at in piece.files]),
            stamps=(*[task.stamps[at] for at in piece.files], *beside),
            pieces=(),
        )


class RunningRecords:
    """Start of records and blocks that continue from one piece of a task to the next.

    A record may have begun in a file that a later piece does not read, and a block where a
    component went on that has a gap since.
    """

    def __init__(self) -> None:
        self._segments: list[tuple[Segment, int]] = []
        self._blocks: list[tuple[Block, int]] = []

    def segments(self, segments: Sequence[Segment]) -> list[Segment]:
        """Segments that go on with those of the piece before, from where these began."""
        moved = []
        for segment in segments:
            for known, length in self._segments:
                if known.code != segment.code or known.sampling_rate != segment.sampling_rate:
                    continue
                position = known.position_of(segment.start_ns)
                if -MISALIGNMENT <= position <= length + MISALIGNMENT:
                    before = known.samples_before + round(position)
                    anchor = segment.start_ns - round(before * segment.interval_ns)
                    segment = replace(segment, anchor_ns=anchor)
                    break
            moved.append(segment)
        self._segments = [
            (replace(one, samples=one.samples[:0].copy(), record=None), len(one.samples))
            for one in moved
        ]
        return moved

    def blocks(self, blocks: Sequence[Block]) -> list[Block]:
        """The same of blocks."""
        moved = []
        for block in blocks:
            for known, length in self._blocks:
                rate = block.sampling_rate
                position = (block.start_ns - known.start_ns) * rate / NS_PER_S
                if known.sampling_rate == rate and -MISALIGNMENT <= position <= length:
                    block = replace(block, origin_ns=known.origin_ns)
                    break
            moved.append(block)
        self._blocks = [
            (replace(one, data=one.data[:, :0].copy()), one.data.shape[1]) for one in moved
        ]
        return moved


@dataclass
class _Parts:
    """Results of the pieces of one station task, by their numbers."""

    task: StationTask
    results: dict[int, TaskResult] = field(default_factory=dict)


class JoinedPieces:
    """Joins the results of pieces to those of their station tasks."""

    def __init__(self) -> None:
        self._open: dict[int, _Parts] = {}
        self._failed: set[int] = set()

    def clear(self) -> None:
        """Forget all that is not complete."""
        self._open.clear()
        self._failed.clear()

    def add(self, task: StationTask, number: int, result: TaskResult) -> TaskResult | None:
        """Take the result of a piece; that of the task where it completes it.

        Parameters
        ----------
        task : StationTask
            The whole one.
        number : int
            Of the piece.
        result : TaskResult
            A piece that failed ends the task.
        """
        if task.index in self._failed:
            return None
        parts = self._open.setdefault(task.index, _Parts(task))
        parts.results[number] = result
        failed = result.record.status == "failed"
        if failed:
            self._failed.add(task.index)
        elif len(parts.results) < len(task.pieces):
            return None
        del self._open[task.index]
        results = [parts.results[at] for at in sorted(parts.results)]
        if failed:
            counts = _counts([one.record for one in results]).failed
            return TaskResult(replace(result.record, counts=counts))
        return _joined(task, results)


def _joined(task: StationTask, results: Sequence[TaskResult]) -> TaskResult:
    records = [result.record for result in results]
    done = [record for record in records if record.status == "done"]
    # Of what is nowhere to be picked, the piece with most of it says why.
    first = done[0] if done else max(records, key=lambda record: record.n_samples)
    notes = Counter(note for record in records for note in record.notes)
    record = replace(
        first,
        notes=(*notes, f"picked in {len(results)} pieces of time, for want of memory"),
        n_windows=sum(record.n_windows for record in records),
        n_samples=sum(record.n_samples for record in records),
        n_outside=sum(record.n_outside for record in records),
        highest_p=_highest([record.highest_p for record in records]),
        highest_s=_highest([record.highest_s for record in records]),
        seconds=sum(record.seconds for record in records),
        counts=_counts(records),
    )
    return TaskResult(
        record,
        _settled(task, [result.picks for result in results]),
        _settled(task, [result.detections for result in results]),
        list(chain.from_iterable(result.curves for result in results)),
    )


def _settled(task: StationTask, found: Sequence[RawPicks]) -> RawPicks:
    """Findings of all pieces, each once; those beyond the borders of the task stay."""
    raw = RawPicks.concatenate(list(found))
    own = np.array([piece[:2] for piece in task.pieces], dtype=np.int64)
    own[0, 0], own[-1, 1] = -FOREVER_NS, FOREVER_NS
    of_piece = np.repeat(np.arange(len(found)), [len(one) for one in found])
    own_start, own_end = own[of_piece].T
    return settle(raw, own_start, own_end, lambda _: "")


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _counts(records: Sequence[TaskRecord]) -> SampleCounts:
    left_out: Counter[str] = Counter()
    for record in records:
        left_out.update(dict(record.counts.left_out))
    return SampleCounts(
        sum(record.counts.held for record in records),
        sum(record.counts.picked for record in records),
        sum(record.counts.data_ns for record in records),
        tuple(sorted(left_out.items())),
    )


def owned_curves(curves: Sequence[BlockCurves], task: StationTask) -> list[BlockCurves]:
    """Curves in the time that a piece owns, which joins that of its neighbours."""
    owned = []
    for curve in curves:
        first, last = curve.owned(task.chunk.own_start_ns, task.chunk.own_end_ns)
        if first < last:
            start = curve.start_ns + round(first * curve.interval_ns)
            owned.append(BlockCurves(start, curve.interval_ns, curve.values[:, first:last].copy()))
    return owned
