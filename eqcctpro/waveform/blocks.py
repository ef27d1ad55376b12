"""The segments of one instrument as arrays with one row per component.

A block is a stretch of time in which at least one component has data (or, in
strict mode, all of them); what other components lack in it is filled with zeros.
Sample positions follow SeisBench's arithmetic to the last bit, including its
truncation of fractional sample numbers, since a shift by one sample changes
probabilities by more than the parity that we promise.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from eqcctpro.times import NS_PER_S, samples_in
from eqcctpro.waveform.clock import Clock, one_clock, stretch
from eqcctpro.waveform.segments import SAME_TIME_NS, Segment

__all__ = ["Block", "assemble_blocks", "component_rows"]

# SeisBench accepts either member of a pair for the other.
INTERCHANGEABLE = (("1", "N"), ("2", "E"))


@dataclass(frozen=True, slots=True)
class Block:
    """Gap-filled waveforms of one instrument.

    Attributes
    ----------
    start_ns : int
        Time of the first sample.
    sampling_rate : float
        Hz.
    data : ndarray of float32, shape (components, samples)
        Counts, in the order of the model's components.
    origin_ns : int
        Where the continuous record begins that this is a part of.
    clock : ndarray of int64 or None
        Corrections of the times of samples; see `eqcctpro.waveform.clock`.
    """

    start_ns: int
    sampling_rate: float
    data: NDArray[np.float32]
    origin_ns: int
    clock: Clock | None = None


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A segment whose start lies on the sampling grid of whole seconds."""

    row: int
    start_ns: int
    end_ns: int
    shift_s: float
    segment: Segment


@lru_cache(maxsize=16)
def component_rows(components: str, *, flexible: bool = True) -> Mapping[str, int]:
    """Row of each component letter that a model accepts.

    Parameters
    ----------
    components : str
        The model's component order, for example ``"ZNE"``.
    flexible : bool
        Accept 1 for N and 2 for E, and the reverse.
    """
    rows = {letter: row for row, letter in enumerate(components)}
    if flexible:
        for first, second in INTERCHANGEABLE:
            if first in rows:
                rows[second] = rows[first]
            elif second in rows:
                rows[first] = rows[second]
    return MappingProxyType(rows)


def assemble_blocks(
    segments: Sequence[Segment],
    rows: Mapping[str, int],
    n_rows: int,
    *,
    strict: bool = False,
    truncated: bool = True,
) -> list[Block]:
    """Build the blocks of one instrument.

    Parameters
    ----------
    segments : sequence of Segment
        Of one instrument, with one sampling rate, without contradictions.
    rows : mapping
        From :func:`component_rows`; other components are left out.
    n_rows : int
        Components of the model.
    strict : bool
        Only keep the time that all components cover.
    truncated : bool
        Whether positions of samples are truncated as SeisBench does it, so that they depend on
        where a block begins; otherwise they are rounded.

    Returns
    -------
    list of Block
        In order of time; blocks may be too short for a window.
    """
    segments, clock = _on_one_clock(segments)
    aligned = [
        _align(segment, row)
        for segment in segments
        # SeisBench loses pieces of one sample when it slices; so do we.
        if (row := rows.get(segment.code.component)) is not None and len(segment.samples) > 1
    ]
    blocks = []
    spans = _covered(aligned, n_rows, strict)
    if len(spans) == 1 and not strict and clock is None:  # as of nearly all
        return [_fill(aligned, n_rows, strict=strict, truncated=truncated)]
    for (start_ns, end_ns), touching in zip(spans, _touching(aligned, spans), strict=True):
        inside = [clip for piece in touching if (clip := _clip(piece, start_ns, end_ns))]
        if inside:
            block = _fill(inside, n_rows, strict=strict, truncated=truncated)
            blocks.append(block if clock is None else _with_clock(block, clock))
    return blocks


def _on_one_clock(segments: Sequence[Segment]) -> tuple[Sequence[Segment], Clock | None]:
    """Segments with nominal starts, and the clock from these to true times, if they have any."""
    if all([segment.clock is None for segment in segments]):
        return segments, None
    starts, clock = one_clock(
        [segment.start_ns for segment in segments],
        [round(len(segment.samples) * segment.interval_ns) for segment in segments],
        [segment.clock for segment in segments],
    )
    moved = [
        replace(
            segment,
            start_ns=start,
            anchor_ns=start - (segment.start_ns - segment.origin_ns),
            clock=None,
        )
        for segment, start in zip(segments, starts, strict=True)
    ]
    return moved, clock


def _with_clock(block: Block, clock: Clock) -> Block:
    """A block with the true time of its first sample and corrections from there."""
    rows = stretch(clock, block.start_ns, block.start_ns + _span_ns(block))
    shift = int(rows[0, 1])
    rows -= rows[0]
    return replace(
        block,
        start_ns=block.start_ns + shift,
        origin_ns=block.origin_ns + shift,
        clock=rows if rows[:, 1].any() else None,
    )


def _span_ns(block: Block) -> int:
    return round(block.data.shape[1] * NS_PER_S / block.sampling_rate)


def _align(segment: Segment, row: int) -> _Aligned:
    place = _on_grid(segment.start_ns, len(segment.samples), segment.sampling_rate)
    return _Aligned(row, *place, segment)


@lru_cache(maxsize=1024)  # the components of a station nearly always begin and end together
def _on_grid(start_ns: int, n_samples: int, rate: float) -> tuple[int, int, float]:
    """First and last sample on the grid, ns, and how much later the first one is, s."""
    true_start = start_ns / NS_PER_S
    start = float(round(true_start * rate)) / rate
    aligned_ns = round(start * NS_PER_S)
    end_ns = aligned_ns + round((n_samples - 1) * (1.0 / rate) * NS_PER_S)
    return aligned_ns, end_ns, true_start - start


def _covered(pieces: Sequence[_Aligned], n_rows: int, strict: bool) -> list[tuple[int, int]]:
    if not pieces:
        return []
    if not strict:
        return _union([(piece.start_ns, piece.end_ns) for piece in pieces])
    shared = _union([(p.start_ns, p.end_ns) for p in pieces if p.row == 0])
    for row in range(1, n_rows):
        shared = _intersect(
            shared, _union([(p.start_ns, p.end_ns) for p in pieces if p.row == row])
        )
    return shared


def _union(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + SAME_TIME_NS:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _intersect(
    left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Intersection of two unions of spans, in order."""
    spans, first, second = [], 0, 0
    while first < len(left) and second < len(right):
        a, b = left[first], right[second]
        if a[0] + SAME_TIME_NS < b[1] and b[0] + SAME_TIME_NS < a[1]:
            spans.append((max(a[0], b[0]), min(a[1], b[1])))
        if a[1] < b[1]:
            first += 1
        else:
            second += 1
    return spans


def _touching(pieces: Sequence[_Aligned], spans: Sequence[tuple[int, int]]) -> list[list[_Aligned]]:
    """The pieces, in their order, that reach into each of some spans, which are apart."""
    found: list[list[_Aligned]] = [[] for _ in spans]
    ends = [end for _, end in spans]
    for piece in pieces:
        at = bisect_left(ends, piece.start_ns - SAME_TIME_NS)
        while at < len(spans) and spans[at][0] <= piece.end_ns + SAME_TIME_NS:
            found[at].append(piece)
            at += 1
    return found


def _clip(piece: _Aligned, start_ns: int, end_ns: int) -> _Aligned | None:
    if piece.end_ns < start_ns - SAME_TIME_NS or piece.start_ns > end_ns + SAME_TIME_NS:
        return None
    if piece.start_ns >= start_ns - SAME_TIME_NS and piece.end_ns <= end_ns + SAME_TIME_NS:
        return piece
    interval = piece.segment.interval_ns
    first = max(round((start_ns - piece.start_ns) / interval), 0)
    last = min(round((end_ns - piece.start_ns) / interval) + 1, len(piece.segment.samples))
    if last - first < 2:
        return None
    start = piece.start_ns + round(first * interval)
    # Its beginning, if it was cut before, stays what it was.
    segment = replace(piece.segment.part(first, last), anchor_ns=piece.segment.anchor_ns)
    return _Aligned(
        piece.row, start, start + round((last - first - 1) * interval), piece.shift_s, segment
    )


def _fill(pieces: Sequence[_Aligned], n_rows: int, *, strict: bool, truncated: bool) -> Block:
    rate = pieces[0].segment.sampling_rate
    count = _truncated_samples if truncated else samples_in
    # The whole record decides what truncation does to a piece of it; where only the time that all
    # components cover is kept, they begin together.
    of_record = truncated and not strict
    before_ns = [piece.segment.start_ns - piece.segment.origin_ns for piece in pieces]
    counted_ns = before_ns if of_record else [0] * len(pieces)
    begins_ns = [p.start_ns - before for p, before in zip(pieces, counted_ns, strict=True)]
    anchor_ns = min(begins_ns)
    firsts = [
        (count(begin - anchor_ns, rate) if begin > anchor_ns else 0)
        + (samples_in(before, rate) if before else 0)
        for begin, before in zip(begins_ns, counted_ns, strict=True)
    ]
    column = min(firsts)
    end_ns = max([piece.end_ns for piece in pieces])
    n_samples = max(count(end_ns - anchor_ns, rate) + 1 - column, 1)
    # One more column takes the sample that truncation may push past the end.
    data = np.zeros((n_rows, n_samples + 1), dtype=np.float32)
    for piece, at in zip(pieces, firsts, strict=True):
        first = at - column
        samples = piece.segment.samples
        last = min(first + len(samples), n_samples + 1)
        data[piece.row, first:last] = samples[: last - first]
    shifts_s = [piece.shift_s for piece in pieces]
    shift_s = math.fsum(shifts_s) / len(shifts_s)
    cut_off_ns = round(column * NS_PER_S / rate)
    start_ns = anchor_ns + cut_off_ns + round(shift_s * NS_PER_S)
    if not of_record:
        cut_off_ns = max(before_ns)
    return Block(start_ns, rate, data[:, :n_samples], start_ns - cut_off_ns)


def _truncated_samples(span_ns: int, rate: float) -> int:
    """Samples in a span as SeisBench counts them: microseconds, times rate, truncated."""
    return int(round(span_ns / 1e9, 6) * rate)
