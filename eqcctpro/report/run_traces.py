"""Traces of a run's station tasks, as pictures of the run show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from eqcctpro.archive.plan import Plan, StationTask
from eqcctpro.errors import InputError
from eqcctpro.places import Place
from eqcctpro.report.traces import OverviewTrace, decimated, highpassed
from eqcctpro.roots import Roots
from eqcctpro.sources.files import FileCache
from eqcctpro.sources.task_waveforms import load_segments, pieces_of

__all__ = ["busiest_chunk", "vertical_traces"]

# Of each piece of a station: more than a picture has columns, with two extremes each.
PIECE_SAMPLES = 4096


def busiest_chunk(plan: Plan, picks: pa.Table) -> str:
    """Name of the time chunk with the most picks."""
    counts = Counter(picks["timechunk"].to_pylist())
    names = dict.fromkeys(task.chunk.name for task in plan.tasks.headings())
    return max(names, key=lambda name: counts[name])


def vertical_traces(task: StationTask, roots: Sequence[Place] = ()) -> list[OverviewTrace]:
    """The vertical component of a task, or the first one it has; of files in these roots.

    Of a task that is picked in pieces, for memory does not hold it, only what a picture shows of
    each piece is kept.
    """
    if task.pieces:
        return [
            decimated(highpassed(trace), PIECE_SAMPLES)
            for piece in pieces_of(task)
            for trace in _vertical_of(piece.task, roots)
        ]
    return _vertical_of(task, roots)


def _vertical_of(task: StationTask, roots: Sequence[Place]) -> list[OverviewTrace]:
    try:
        decoded = FileCache(roots=Roots(roots)).read(task, None, 0)
    except InputError:
        return []  # its record says what is wrong with it
    segments = load_segments(task, decoded, 0)
    codes = sorted({segment.code for segment in segments}, key=lambda c: (c.component != "Z", c))
    return [
        OverviewTrace(
            str(segment.code),
            segment.start_ns,
            segment.sampling_rate,
            segment.samples,
            f"{task.network}.{task.station}",
        )
        for segment in segments
        if segment.code == codes[0]
    ]
