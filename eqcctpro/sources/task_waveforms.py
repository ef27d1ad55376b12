"""Waveforms of station tasks, whole or in pieces of time, and the joined results of pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from eqcctpro.archive.tasks import StationTask
from eqcctpro.archive.timechunks import read_span
from eqcctpro.picks.annotations import BlockCurves
from eqcctpro.picks.borders import settle
from eqcctpro.picks.raw import RawPicks
from eqcctpro.pipeline.prepare import StationWaveforms, clean_segments
from eqcctpro.pipeline.records import PickOutcome, PickResult, SampleCounts
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.spans import FOREVER_NS, Span
from eqcctpro.waveform.decode import DecodedFile
from eqcctpro.waveform.filters import Detrend, parse_step
from eqcctpro.waveform.segments import ChannelCode, Segment, trim

__all__ = [
    "JoinedPieces",
    "TaskPiece",
    "has_gaps",
    "load_segments",
    "pieces_of",
    "task_waveforms",
    "why_whole",
]


class TaskPiece(NamedTuple):
    """A piece of time of a station task, which is picked by itself.

    Attributes
    ----------
    whole : StationTask
    number : int
        Among the pieces.
    task : StationTask
        The same task with the files and the time chunk of the piece.
    """

    whole: StationTask
    number: int
    task: StationTask


def task_waveforms(
    task: StationTask, decoded: Sequence[DecodedFile], settings: PipelineSettings
) -> StationWaveforms:
    """Waveforms of a task's instrument in the time that its chunk reads.

    Parameters
    ----------
    task : StationTask
    decoded : sequence of DecodedFile
    settings : PipelineSettings
    """
    waveforms = StationWaveforms(
        _segments_of(task, decoded, settings.context_ns),
        task.chunk.own,
        notes=[note for file in decoded for note in file.warnings],
    )
    preparation = settings.preparation
    if preparation.margin_ns:
        waveforms.limits = read_span(task.chunk, settings.picked_context_ns)
    if preparation.fill_gaps != "none":
        recorded: dict[ChannelCode, list[tuple[int, int]]] = {}
        for file in decoded:
            for code, spans in file.held().items():
                recorded.setdefault(code, []).extend(spans)
        waveforms.recorded = recorded
    return waveforms


def load_segments(
    task: StationTask, decoded: Sequence[DecodedFile], context_ns: int
) -> list[Segment]:
    """Cleaned segments of a task's instrument.

    Parameters
    ----------
    task : StationTask
    decoded : sequence of DecodedFile
    context_ns : int
        Data wanted around what the chunk owns.
    """
    return clean_segments(_segments_of(task, decoded, context_ns), [])


def _segments_of(
    task: StationTask, decoded: Sequence[DecodedFile], context_ns: int
) -> list[Segment]:
    span = read_span(task.chunk, context_ns)
    return [
        part
        for file in decoded
        for segment in file.segments
        if _is_of(segment.code, task) and (part := trim(segment, *span)) is not None
    ]


def has_gaps(task: StationTask, decoded: Sequence[DecodedFile], context_ns: int) -> bool:
    """True if a task's files lack samples of a channel in the time that its chunk owns.

    So do channels that hold no more than `context_ns`, which may be less than a window.
    """
    start_ns, end_ns = task.chunk.own_start_ns, task.chunk.own_end_ns
    channels: dict[ChannelCode, list[Segment]] = {}
    for file in decoded:
        for segment in file.segments:
            if _is_of(segment.code, task):
                channels.setdefault(segment.code, []).append(segment)
    for pieces in channels.values():
        latest = start_ns
        if max(p.end_ns for p in pieces) - min(p.start_ns for p in pieces) <= context_ns:
            return True
        for piece in sorted(pieces, key=lambda piece: piece.start_ns):
            # Half a sample more than from one to the next.
            missing = latest != -FOREVER_NS and piece.start_ns - latest > 1.5 * piece.interval_ns
            if missing and latest < end_ns:
                return True
            latest = max(latest, piece.end_ns)
        if end_ns != FOREVER_NS and end_ns - latest > 1.5 * pieces[0].interval_ns:
            return True
    return False


def _is_of(code: ChannelCode, task: StationTask) -> bool:
    """True if a channel belongs to a task's instrument or to its hydrophone."""
    return code[:3] == (task.network, task.station, task.location) and code.instrument in (
        *(task.instrument, task.hydrophone or task.instrument),
    )


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


def pieces_of(task: StationTask) -> Iterator[TaskPiece]:
    """The pieces of a station task that has some, in the order of time."""
    chunk, last = task.chunk, len(task.pieces) - 1
    beside = task.stamps[len(task.files) :]
    for number, piece in enumerate(task.pieces):
        part = replace(
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
        yield TaskPiece(task, number, part)


class JoinedPieces:
    """Joins the results of pieces to those of their station tasks."""

    def __init__(self) -> None:
        self._open: dict[int, dict[int, PickResult]] = {}
        self._failed: set[int] = set()

    def clear(self) -> None:
        """Forget all that is not complete."""
        self._open.clear()
        self._failed.clear()

    def add(self, result: PickResult) -> PickResult | None:
        """Take the result of a piece; that of its station task where it completes it.

        Parameters
        ----------
        result : PickResult
            Its ticket is a `TaskPiece`, that of what is returned a `StationTask`.  A piece that
            failed ends the task.
        """
        piece: TaskPiece = result.ticket
        task, index = piece.whole, piece.whole.index
        if index in self._failed:
            return None
        if result.curves:
            result.curves = _owned_curves(result.curves, piece.task.chunk.own)
        parts = self._open.setdefault(index, {})
        parts[piece.number] = result
        failed = result.outcome.status == "failed"
        if failed:
            self._failed.add(index)
        elif len(parts) < len(task.pieces):
            return None
        del self._open[index]
        results = [parts[number] for number in sorted(parts)]
        if failed:
            counts = _counts([one.outcome for one in results]).failed
            return PickResult(task, replace(result.outcome, counts=counts))
        return _joined(task, results)


def _joined(task: StationTask, results: Sequence[PickResult]) -> PickResult:
    outcomes = [result.outcome for result in results]
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    # Of what is nowhere to be picked, the piece with most of it says why.
    first = done[0] if done else max(outcomes, key=lambda outcome: outcome.n_samples)
    notes = Counter(note for outcome in outcomes for note in outcome.notes)
    joined = replace(
        first,
        notes=(*notes, f"picked in {len(results)} pieces of time, for want of memory"),
        n_windows=sum(outcome.n_windows for outcome in outcomes),
        n_samples=sum(outcome.n_samples for outcome in outcomes),
        n_outside=sum(outcome.n_outside for outcome in outcomes),
        highest_p=_highest([outcome.highest_p for outcome in outcomes]),
        highest_s=_highest([outcome.highest_s for outcome in outcomes]),
        seconds=sum(outcome.seconds for outcome in outcomes),
        counts=_counts(outcomes),
    )
    return PickResult(
        task,
        joined,
        _settled(task, [result.picks for result in results]),
        _settled(task, [result.detections for result in results]),
        list(chain.from_iterable(result.curves for result in results)),
    )


def _settled(task: StationTask, found: Sequence[RawPicks]) -> RawPicks:
    """Picks of all pieces, each once; those beyond the borders of the task stay."""
    own = np.array([piece[:2] for piece in task.pieces], dtype=np.int64)
    own[0, 0], own[-1, 1] = -FOREVER_NS, FOREVER_NS
    of_piece = np.repeat(np.arange(len(found)), [len(one) for one in found])
    return settle(RawPicks.concatenate(found), own[of_piece])


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _counts(outcomes: Sequence[PickOutcome]) -> SampleCounts:
    left_out: Counter[str] = Counter()
    for outcome in outcomes:
        left_out.update(dict(outcome.counts.left_out))
    return SampleCounts(
        sum(outcome.counts.held for outcome in outcomes),
        sum(outcome.counts.picked for outcome in outcomes),
        sum(outcome.counts.data_ns for outcome in outcomes),
        tuple(sorted(left_out.items())),
    )


def _owned_curves(curves: Sequence[BlockCurves], own: Span) -> list[BlockCurves]:
    """Curves in the time that a piece owns, which joins that of its neighbours."""
    owned = []
    for curve in curves:
        first, last = curve.within(own)
        if first < last:
            start = curve.start_ns + round(first * curve.interval_ns)
            owned.append(BlockCurves(start, curve.interval_ns, curve.values[:, first:last].copy()))
    return owned
