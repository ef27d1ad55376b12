"""Continuous pieces of one channel, and how pieces that belong together are joined.

The rules for joining are those that SeisBench reaches through ObsPy's ``Stream.merge(-1)``:
adjacent pieces and overlaps with equal samples become one piece.  What happens to pieces that
cover the same time with different samples is in `eqcctpro.waveform.conflicts`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eqcctpro.codes import component_of, instrument_of
from eqcctpro.miniseed.headers import LEAST_DRIFT_TICKS, TICKS_PER_S
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.clock import (
    Clock,
    correction_at,
    leap_second_within,
    nominal_behind,
    stretch,
)

__all__ = [
    "SAME_TIME_NS",
    "ChannelCode",
    "Record",
    "Segment",
    "join_at_leap_seconds",
    "merge_segments",
    "of_one_each",
    "split_at_nan",
    "sums_to_a_number",
    "trim",
    "within",
]

# ObsPy's Stream._cleanup: pieces misaligned by less than this share of a sample join.
MISALIGNMENT_THRESHOLD = 1e-2
# libmseed, and with it ObsPy, joins records that follow each other within half a sample.
RECORD_TOLERANCE = 0.5
# Time stamps of miniSEED 2 may be one digit off.
LEAST_DRIFT_NS = LEAST_DRIFT_TICKS * NS_PER_S / TICKS_PER_S
#: ObsPy compares times in whole microseconds.  Positions on the grid of samples are floats of
#: seconds since 1970, which lie up to 240 ns beside it.
SAME_TIME_NS = 500
# How far behind a leap second a record ends at most that begins in it.
LONGEST_RECORD_NS = 120 * NS_PER_S


class ChannelCode(NamedTuple):
    """Network, station, location and channel code of a record."""

    network: str
    station: str
    location: str
    channel: str

    @property
    def instrument(self) -> str:
        """Band and instrument code: the channel code without its component."""
        return instrument_of(self.channel)

    @property
    def component(self) -> str:
        """The last letter of the channel code, or an empty string."""
        return component_of(self.channel)

    def __str__(self) -> str:
        return ".".join(self)


class Record:
    """All samples of a continuous record, for what can only be made of all of them.

    Parameters
    ----------
    parts : sequence of ndarray
        Samples that follow each other.

    Attributes
    ----------
    n_samples : int
    resampled : dict of float to ndarray of float32
        What was made of them, by the sampling rate.
    """

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = tuple(parts)
        self.n_samples = sum(map(len, self._parts))
        self.resampled: dict[float, NDArray[np.float32]] = {}

    @property
    def samples(self) -> NDArray[Any]:
        """The samples as one array."""
        return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)

    def followed_by(self, other: Record) -> Record:
        """The record that goes on with another one where it ends."""
        return Record(self._parts + other._parts)


@dataclass(frozen=True, slots=True)
class Segment:
    """Samples of one channel without a gap.

    Attributes
    ----------
    code : ChannelCode
    start_ns : int
        Time of the first sample, nanoseconds since 1970 UTC.
    sampling_rate : float
        Hz.
    samples : ndarray, shape (n,)
        Counts, in the type that the records hold.
    anchor_ns : int or None
        Where the continuous record begins that this is a part of, counted back at the nominal
        rate; None where it was not cut.
    samples_behind : int
        How many samples of the continuous record follow that were cut off.
    record : Record or None
        That record, where it is held in memory.
    drift : float
        By how much of itself the time from the first to the last sample is longer than by the
        nominal rate, as the first and the last record tell.
    quality : int
        Version of the records: 4 for M, 3 for Q, 2 for D and 1 for R in miniSEED 2.
    clock : ndarray of int64 or None
        Corrections of the times of samples; see `eqcctpro.waveform.clock`.  None where the
        nominal rate is never wrong by more than half a sample.
    """

    code: ChannelCode
    start_ns: int
    sampling_rate: float
    samples: NDArray[Any]
    anchor_ns: int | None = None
    quality: int = 0
    clock: Clock | None = None
    samples_behind: int = 0
    record: Record | None = None
    drift: float = 0.0

    @property
    def origin_ns(self) -> int:
        """Time of the first sample of the continuous record, ns."""
        return self.start_ns if self.anchor_ns is None else self.anchor_ns

    @property
    def samples_before(self) -> int:
        """Number of samples of the continuous record that come before and were cut off."""
        return round((self.start_ns - self.origin_ns) / self.interval_ns)

    @property
    def record_length(self) -> int:
        """Number of samples of the continuous record."""
        return self.samples_before + len(self.samples) + self.samples_behind

    @property
    def end_ns(self) -> int:
        """Time of the last sample."""
        last = len(self.samples) - 1
        if self.clock is None:  # as of nearly all, of which this is asked often
            return self.start_ns + round(last * 1e9 / self.sampling_rate)
        return self.time_of(last)

    @property
    def interval_ns(self) -> float:
        """Nanoseconds between two samples."""
        return 1e9 / self.sampling_rate

    def time_of(self, sample: int) -> int:
        """Time of a sample, by the nearest record before it; also of the one after the last."""
        nominal = round(sample * 1e9 / self.sampling_rate)
        if self.clock is not None:
            nominal += correction_at(self.clock, nominal)
        return self.start_ns + nominal

    def following_ns(self) -> int:
        """Time of the sample after the last, by the last record."""
        if self.clock is not None or not self.drift:
            return self.time_of(len(self.samples))
        length_ns = (len(self.samples) - 1) * self.interval_ns
        return self.start_ns + round(length_ns * (1 + self.drift) + self.interval_ns)

    def shows_drift(self) -> bool:
        """True if its records tell that the clock does not keep the nominal rate."""
        if self.clock is not None:
            return True
        off_ns = self.drift * (len(self.samples) - 1) * self.interval_ns
        return abs(off_ns) > LEAST_DRIFT_NS

    def position_of(self, time_ns: int) -> float:
        """Samples from the first one to a time, as a fraction; also of times outside."""
        behind = time_ns - self.start_ns
        if self.clock is not None:
            return nominal_behind(self.clock, behind) / self.interval_ns
        return behind / self.interval_ns

    def part(self, first: int, last: int, *, begins: bool = False, ends: bool = False) -> Segment:
        """Samples from one to before another.

        They belong to the same continuous record, unless one of their own `begins` or `ends` there.
        """
        before = round(first * self.interval_ns)
        clock = self.clock
        if clock is not None:
            clock = stretch(clock, before, round(last * self.interval_ns))
            clock = clock - clock[0]
        start = self.time_of(first)
        origin = start - before - (self.start_ns - self.origin_ns)
        return replace(
            self,
            start_ns=start,
            samples=self.samples[first:last],
            anchor_ns=None if begins else origin,
            clock=clock if clock is not None and clock[:, 1].any() else None,
            samples_behind=0 if ends else len(self.samples) - last + self.samples_behind,
            record=None if begins or ends else self.record,
        )


def merge_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Join the pieces of each channel that belong together.

    Pieces with different sampling rates are never joined.  The result is sorted by
    code and time; pieces that overlap with different samples stay apart.
    """
    pieces = [segment for segment in segments if len(segment.samples)]
    if of_one_each(pieces):
        return sorted(pieces, key=lambda piece: piece.code)
    groups: dict[tuple[ChannelCode, float], list[Segment]] = {}
    for segment in pieces:
        groups.setdefault((segment.code, segment.sampling_rate), []).append(segment)
    merged: list[Segment] = []
    for key in sorted(groups):
        pieces = sorted(groups[key], key=lambda piece: (piece.start_ns, piece.end_ns))
        merged.extend(pieces if len(pieces) == 1 else _merge_channel(pieces))
    return merged


def of_one_each(segments: Sequence[Segment]) -> bool:
    """True if each channel has one segment, as in nearly all records."""
    return len({segment.code for segment in segments}) == len(segments)


def _merge_channel(pieces: Sequence[Segment]) -> list[Segment]:
    out: list[Segment] = []
    # What one file shows of a clock is true for the others, which may be too short to show it.
    drifts = any(piece.shows_drift() for piece in pieces)
    current = _Growing(pieces[0], drifts=drifts)
    for piece in pieces[1:]:
        follows = drifts and current.is_followed_by(piece)
        rest = piece if follows else _continuation(current.segment, piece)
        if rest is None:
            out.append(current.finished())
            current = _Growing(piece, drifts=drifts)
        elif len(rest.samples):
            current.append(rest, piece.following_ns())
    out.append(current.finished())
    return out


class _Growing:
    """A segment that others are appended to.

    Room is kept behind its samples: each of many pieces would copy all that came before.

    Attributes
    ----------
    segment : Segment
        What has been joined so far.
    """

    def __init__(self, segment: Segment, *, drifts: bool) -> None:
        self.segment = segment
        self._drifts = drifts
        self._following_ns = segment.following_ns()
        self._room = segment.samples

    def is_followed_by(self, piece: Segment) -> bool:
        """True if a piece begins where the last record ends."""
        beside_ns = piece.start_ns - self._following_ns
        return abs(beside_ns) <= RECORD_TOLERANCE * piece.interval_ns

    def append(self, piece: Segment, following_ns: int) -> None:
        """Append the piece that follows, and the time of the sample after it."""
        self._following_ns = following_ns
        known, new = self.segment.samples, piece.samples
        kind, n = np.result_type(known, new), len(known) + len(new)
        if kind != self._room.dtype or n > len(self._room) or len(self._room) == len(known):
            self._room = np.empty(n + len(known), dtype=kind)
            self._room[: len(known)] = known
        self._room[len(known) : n] = new
        self.segment = _append(self.segment, piece, self._room[:n], drifts=self._drifts)

    def finished(self) -> Segment:
        """The segment, without the room."""
        samples = self.segment.samples
        if len(self._room) == len(samples):
            return self.segment
        return replace(self.segment, samples=samples.copy())


def _continuation(left: Segment, right: Segment) -> Segment | None:
    """Samples that a piece adds to the one before it; None where they do not belong together."""
    position = left.position_of(right.start_ns)
    first = round(position)
    if abs(position - first) > MISALIGNMENT_THRESHOLD or first > len(left.samples):
        return None
    shared = min(len(left.samples) - first, len(right.samples))
    if not np.array_equal(left.samples[first : first + shared], right.samples[:shared]):
        return None
    if shared == len(right.samples):
        return replace(right, samples=right.samples[:0])
    return right.part(shared, len(right.samples)) if shared else right


def _append(
    left: Segment,
    right: Segment,
    samples: NDArray[Any] | None = None,
    *,
    drifts: bool = False,
) -> Segment:
    """Two pieces whose samples follow each other, if need be joined already."""
    clock = None
    offset = round(len(left.samples) * left.interval_ns)
    late = right.start_ns - left.start_ns - offset
    drifts = drifts or left.clock is not None or right.clock is not None
    if drifts or abs(late) > left.interval_ns * RECORD_TOLERANCE:
        shift = np.array([[offset, late]], dtype=np.int64)
        none = np.zeros((1, 2), dtype=np.int64)
        parts = [piece.clock if piece.clock is not None else none for piece in (left, right)]
        parts[0] = stretch(parts[0], 0, offset - 1)
        before = int(parts[0][-1, 1])
        if abs(late - before) <= left.interval_ns * RECORD_TOLERANCE:
            parts[0] = parts[0][:-1]  # no leap second lies between
        clock = np.concatenate([parts[0], parts[1] + shift])
    if samples is None:
        samples = np.concatenate([left.samples, right.samples])
    record = None
    if left.record is not None and right.record is not None:
        record = left.record.followed_by(right.record)
    behind = right.samples_behind
    return replace(left, samples=samples, clock=clock, samples_behind=behind, record=record)


def join_at_leap_seconds(segments: Sequence[Segment]) -> list[Segment]:
    """Join pieces that overlap by the one second that is counted twice at a leap second.

    The records of the leap second have the times of the second after it, or none has them where
    clocks were set back.
    """
    earliest = min((piece.start_ns for piece in segments), default=FOREVER_NS)
    if leap_second_within(earliest - NS_PER_S, FOREVER_NS) is None:
        return list(segments)  # as of all recent data
    spans = [(piece.start_ns - NS_PER_S, piece.end_ns + NS_PER_S) for piece in segments]
    if not any(leap_second_within(*span) for span in spans):
        return list(segments)
    groups: dict[tuple[ChannelCode, float], list[Segment]] = {}
    for segment in segments:
        groups.setdefault((segment.code, segment.sampling_rate), []).append(segment)
    return [piece for pieces in groups.values() for piece in _joined_over_leap_seconds(pieces)]


def _joined_over_leap_seconds(pieces: Sequence[Segment]) -> list[Segment]:
    """Join the pieces of a channel; what was joined comes last, and may be joined again."""
    waiting = dict(enumerate(pieces))
    starts = sorted((piece.start_ns, number) for number, piece in waiting.items())
    number, end = 0, len(pieces)
    while number < end:
        left = waiting.get(number)
        found = None if left is None else _behind_leap_second(left, number, starts)
        if left is not None and found is not None:
            other, midnight_ns = found
            right = waiting.pop(other)
            del waiting[number]
            for gone in ((left.start_ns, number), (right.start_ns, other)):
                del starts[bisect_left(starts, gone)]
            waiting[end] = _over_leap_second(left, right, midnight_ns)
            insort(starts, (waiting[end].start_ns, end))
            end += 1
        number += 1
    return list(waiting.values())


def _behind_leap_second(
    left: Segment, number: int, starts: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    """The number of the piece that goes on behind a leap second, and its midnight.

    Parameters
    ----------
    left : Segment
    number : int
        Its own.
    starts : sequence of (int, int)
        Start and number of each piece, in order.
    """
    following = left.time_of(len(left.samples))
    midnight_ns = leap_second_within(following - LONGEST_RECORD_NS, following + SAME_TIME_NS)
    if midnight_ns is None:
        return None
    expected, tolerance = following - NS_PER_S, RECORD_TOLERANCE * left.interval_ns
    at = bisect_left(starts, expected - tolerance, key=itemgetter(0))
    if at < len(starts) and starts[at][1] == number:
        at += 1
    if at < len(starts) and starts[at][0] <= expected + tolerance:
        return starts[at][1], midnight_ns
    return None


def _over_leap_second(left: Segment, right: Segment, midnight_ns: int) -> Segment:
    """Both pieces as one; what is a second behind the midnight is counted once."""
    behind = midnight_ns + NS_PER_S
    sample = math.ceil(left.position_of(behind) - 1e-6)
    if sample < len(left.samples):
        tail = left.part(sample, len(left.samples))
        tail = replace(tail, start_ns=tail.start_ns - NS_PER_S)
        left = _append(left.part(0, sample), tail)
    return _append(left, right)


@np.errstate(over="ignore", invalid="ignore")
def sums_to_a_number(samples: NDArray[Any]) -> bool:
    """True if the sum of the squares of 32-bit floats is finite, and with it each of them.

    One pass without an array of its own.  False tells nothing: sums of finite numbers overflow,
    too, and numbers of 64 bits may be finite and too large for a network.
    """
    return samples.dtype == np.float32 and math.isfinite(np.dot(samples, samples))


def split_at_nan(segment: Segment) -> tuple[list[Segment], int]:
    """Cut a segment where samples are not finite, as if there were a gap.

    Numbers too large for the network's 32 bits count as infinite: only damage makes them.

    Returns
    -------
    pieces : list of Segment
        The finite stretches.
    missing : int
        How many samples were not finite.
    """
    if segment.samples.dtype.kind != "f" or sums_to_a_number(segment.samples):
        return [segment], 0
    with np.errstate(over="ignore"):
        finite = np.isfinite(segment.samples.astype(np.float32, copy=False))
    if finite.all():
        return [segment], 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    pieces = [
        segment.part(first, last, begins=first > 0, ends=last < len(finite))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]
    return pieces, int(np.count_nonzero(~finite))


def trim(segment: Segment, start_ns: int | None, end_ns: int | None) -> Segment | None:
    """The part of a segment in ``start_ns <= t < end_ns``, or None; None is no bound."""
    first, last = within(segment, start_ns, end_ns)
    if first >= last:
        return None
    if first == 0 and last == len(segment.samples):
        return segment
    return segment.part(first, last)


def within(segment: Segment, start_ns: int | None, end_ns: int | None) -> tuple[int, int]:
    """First sample with ``start_ns <= t < end_ns``, and the one after the last such.

    None is no bound.  Where there is no such sample, the second is not above the first.
    """
    first = 0
    last = len(segment.samples)
    if start_ns is not None and start_ns > segment.start_ns:
        first = math.ceil(segment.position_of(start_ns) - 1e-6)
    if end_ns is not None:
        last = min(last, math.ceil(segment.position_of(end_ns) - 1e-6))
    return first, last
