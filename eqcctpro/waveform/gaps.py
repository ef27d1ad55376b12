"""Gaps between the pieces of a channel, filled as by ObsPy's ``Stream.merge(fill_value=...)``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from eqcctpro.errors import InputError
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.clock import Clock, stretch
from eqcctpro.waveform.segments import ChannelCode, Segment, of_one_each

__all__ = ["LONGEST_GAP_S", "Filled", "GapFilling", "fill_gaps", "filled_in_words"]

GapFilling = Literal["none", "zero", "interpolate"]

#: Gaps that are filled, unless the user says otherwise: about a window of most models.
LONGEST_GAP_S = 60.0
#: Longer gaps are never filled, whatever the user says.
MOST_GAP_S = 86_400.0
# Samples that filling adds to a channel where it has fewer of its own: a day at 100 Hz.
MOST_ADDED = 8_640_000

#: First and last sample of stretches without a gap, nanoseconds since 1970, by channel.
Spans = Mapping[ChannelCode, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Filled:
    """A gap that was filled.

    Attributes
    ----------
    code : ChannelCode
    n_samples : int
        Samples that were missing.
    seconds : float
    """

    code: ChannelCode
    n_samples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Placed:
    """A piece and the sample of the filled record that it begins at."""

    piece: Segment
    first: int

    @property
    def end(self) -> int:
        return self.first + len(self.piece.samples)


def fill_gaps(
    segments: Sequence[Segment],
    how: GapFilling,
    longest_s: float,
    spans: Spans | None = None,
) -> tuple[list[Segment], list[Filled]]:
    """Join the pieces of each channel over the gaps between them.

    A piece that lies between the sampling points of the one before is moved to the nearest of
    these, by half a sample at most.  Of two pieces that share the time of one sample, that of the
    later one is kept.  Pieces with different sampling rates are not joined.

    Parameters
    ----------
    segments : sequence of Segment
        Without contradictions.
    how : {"none", "zero", "interpolate"}
        Zeros, or a straight line between the samples on both sides, in the type of the samples.
    longest_s : float
        Longer gaps stay gaps.
    spans : mapping, optional
        What else is known to be in the files that the segments were cut from, so that the joined
        record begins where it would if all of it had been read.

    Raises
    ------
    InputError
        More would be filled than is there, and more than a day at 100 Hz.
    """
    if how == "none" or (of_one_each(segments) and not spans):
        return list(segments), []
    groups: dict[tuple[ChannelCode, float], list[Segment]] = {}
    for segment in segments:
        groups.setdefault((segment.code, segment.sampling_rate), []).append(segment)
    joined: list[Segment] = []
    found: list[Filled] = []
    for (code, rate), pieces in groups.items():
        runs = _runs(sorted(pieces, key=lambda piece: piece.start_ns), longest_s)
        missing = [
            right.first - left.end
            for run in runs
            for left, right in pairwise(run)
            if right.first > left.end
        ]
        _require_bounded(code, rate, sum(missing), sum(len(piece.samples) for piece in pieces))
        found.extend(Filled(code, n, n / rate) for n in missing)
        wholes = [run[0].piece if len(run) == 1 else _joined(run, how) for run in runs]
        # Only the first one may have begun before what was read, and the last one go on behind it.
        known = (spans or {}).get(code, ())
        wholes[0] = _from_its_beginning(wholes[0], longest_s, known)
        wholes[-1] = _to_its_end(wholes[-1], longest_s, known)
        joined.extend(wholes)
    return sorted(joined, key=lambda piece: (piece.code, piece.start_ns)), found


def filled_in_words(found: Sequence[Filled], how: GapFilling) -> list[str]:
    """A note on what was filled, if anything was."""
    if not found:
        return []
    gaps = "1 gap" if len(found) == 1 else f"{len(found)} gaps"
    with_what = "zeros" if how == "zero" else "straight lines"
    seconds = sum(gap.seconds for gap in found)
    channels = ", ".join(sorted({gap.code.channel for gap in found}))
    return [f"filled {gaps} with {with_what}, {seconds:.6g} s in all, of {channels}"]


def _runs(pieces: Sequence[Segment], longest_s: float) -> list[list[_Placed]]:
    """Pieces that become one record, each with its place in it."""
    runs: list[list[_Placed]] = []
    drifts = False  # whether a piece of the run has a clock
    for piece in pieces:
        missing = _missing(runs[-1], piece, drifts=drifts) if runs else -2
        if missing < -1 or missing > longest_s * piece.sampling_rate + 1e-6:
            runs.append([_Placed(piece, 0)])
            drifts = False
        else:
            runs[-1].append(_Placed(piece, runs[-1][-1].end + missing))
        drifts = drifts or piece.clock is not None
    return runs


def _missing(run: Sequence[_Placed], piece: Segment, *, drifts: bool) -> int:
    """Samples that are missing between a run and the piece after it; negative where they overlap.

    Counted as ObsPy does, in microseconds and from where the nominal rate puts the last sample,
    unless the time stamps of the records leave that rate.
    """
    start, last = run[0].piece, run[-1]
    end_ns = last.piece.end_ns
    if not drifts:
        end_ns = start.start_ns + round((last.end - 1) * start.interval_ns)
    behind_s = round((piece.start_ns - end_ns) / NS_PER_S, 6)
    return math.floor(behind_s * piece.sampling_rate + 0.5) - 1


def _require_bounded(code: ChannelCode, rate: float, added: int, there: int) -> None:
    if added > max(there, MOST_ADDED):
        raise InputError(
            f"{code}: its gaps add up to {added / rate:.0f} s ({added} samples), more than can be "
            f"filled: it has {there} samples",
            hint="fill shorter gaps only (longest_gap), or cut time into chunks (timechunk)",
        )


def _joined(run: Sequence[_Placed], how: GapFilling) -> Segment:
    first = run[0].piece
    samples = np.zeros(run[-1].end, dtype=np.result_type(*(one.piece.samples for one in run)))
    for placed in run:  # of a sample that two of them have, the later one's
        samples[placed.first : placed.end] = placed.piece.samples
    if how == "interpolate":
        for left, right in pairwise(run):
            missing = right.first - left.end
            if missing > 0:
                line = np.linspace(samples[left.end - 1], samples[right.first], missing + 2)
                samples[left.end : right.first] = line[1:-1]
    behind = run[-1].piece.samples_behind
    return replace(first, samples=samples, clock=_clock(run), samples_behind=behind, record=None)


def _clock(run: Sequence[_Placed]) -> Clock | None:
    """The clock of a joined record, or None where no piece of it has one."""
    if all(placed.piece.clock is None for placed in run):
        return None
    start, interval = run[0].piece.start_ns, run[0].piece.interval_ns
    parts = []
    for placed in run:
        rows = placed.piece.clock
        rows = np.zeros((1, 2), dtype=np.int64) if rows is None else rows
        before = round(placed.first * interval)
        late = placed.piece.start_ns - start - before
        rows = stretch(rows, 0, round(len(placed.piece.samples) * interval) - 1)
        parts.append(rows + np.array([before, late], dtype=np.int64))
    return np.concatenate(parts)


def _from_its_beginning(
    whole: Segment, longest_s: float, spans: Sequence[tuple[int, int]]
) -> Segment:
    """A joined record that knows where it begins, counted back in samples over filled gaps."""
    interval = whole.interval_ns
    begins = min((s for s, e in spans if s <= whole.start_ns <= e), default=whole.origin_ns)
    nominal = begins if whole.anchor_ns is None else whole.anchor_ns
    before = round((whole.start_ns - nominal) / interval)
    for start, end in sorted(spans, reverse=True):
        if start >= begins:
            continue
        missing = round((begins - end) / interval) - 1
        if missing > longest_s * whole.sampling_rate + 1e-6:
            break
        before += missing + round((end - start) / interval) + 1
        begins = start
    if before == 0:
        return whole
    return replace(whole, anchor_ns=whole.start_ns - round(before * interval))


def _to_its_end(whole: Segment, longest_s: float, spans: Sequence[tuple[int, int]]) -> Segment:
    """A joined record that knows how many samples of it are behind, over filled gaps."""
    interval = whole.interval_ns
    ends, behind = whole.time_of(len(whole.samples) - 1 + whole.samples_behind), 0
    ends = max((e for s, e in spans if s <= whole.end_ns <= e), default=ends)
    for start, end in sorted(spans):
        if end <= ends:
            continue
        missing = round((start - ends) / interval) - 1
        if missing > longest_s * whole.sampling_rate + 1e-6:
            break
        behind += missing + round((end - start) / interval) + 1
        ends = end
    if behind == 0:
        return whole
    return replace(whole, samples_behind=whole.samples_behind + behind, record=None)
