"""Pieces of a channel that cover the same time with different samples."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eqcctpro.times import NS_PER_S, format_utc
from eqcctpro.waveform.decode import NOT_PICKED
from eqcctpro.waveform.segments import SAME_TIME_NS, ChannelCode, Segment, of_one_each

__all__ = ["Contradiction", "cut_conflicts", "drop_conflicts", "in_words"]

# Samples that agree for less than this, between some that do not, agree by chance.
AGREEMENT_S = 1.0
# Stretches that a note lists.
MOST_LISTED = 3
# Samples by which times of the same sample may differ: within a record they are counted at the
# nominal rate from its stamp, and copies of a channel may be cut into records at other samples.
_LATE_SAMPLES = 3
# So many samples are not alike by chance.
_NO_CHANCE = 10


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A stretch of time for which a channel has two different records.

    Attributes
    ----------
    code : ChannelCode
    start_ns, end_ns : int
        First and last sample that is left out.
    n_samples : int
    decided : bool
        Whether one of them has the higher data quality and was taken.
    """

    code: ChannelCode
    start_ns: int
    end_ns: int
    n_samples: int
    decided: bool = False


def cut_conflicts(segments: Sequence[Segment]) -> tuple[list[Segment], list[Contradiction]]:
    """Leave out the stretches for which pieces of a channel contradict each other.

    The one with the higher quality is kept; of equal ones neither.  Of what two pieces agree
    on, one copy is kept.  Pieces with different sampling rates are not compared.

    Returns
    -------
    kept : list of Segment
        No two of them overlap.
    found : list of Contradiction
    """
    if of_one_each(segments):
        return list(segments), []
    groups: dict[tuple[ChannelCode, float], list[Segment]] = {}
    for segment in segments:
        groups.setdefault((segment.code, segment.sampling_rate), []).append(segment)
    kept: list[Segment] = []
    found: list[Contradiction] = []
    for pieces in groups.values():
        for cluster in _overlapping(sorted(pieces, key=_start)):
            if len(cluster) == 1:
                kept.extend(cluster)
                continue
            timeline = _Timeline()
            for piece in sorted(cluster, key=lambda piece: (-piece.quality, piece.start_ns)):
                timeline.add(piece)
            kept.extend(timeline.pieces)
            found.extend(timeline.found)
    return kept, found


def drop_conflicts(segments: Sequence[Segment]) -> tuple[list[Segment], list[Contradiction]]:
    """Leave out every piece of a channel that overlaps with another, as SeisBench does.

    Returns
    -------
    kept : list of Segment
    found : list of Contradiction
        The pieces that are left out; see SeisBench's
        ``sanitize_mismatching_overlapping_records``.
    """
    if of_one_each(segments):
        return list(segments), []
    by_channel: dict[ChannelCode, list[Segment]] = {}
    for segment in segments:
        by_channel.setdefault(segment.code, []).append(segment)
    kept: list[Segment] = []
    found: list[Contradiction] = []
    for pieces in by_channel.values():
        for cluster in _overlapping(sorted(pieces, key=_start)):
            if len(cluster) == 1:
                kept.extend(cluster)
            else:
                found.extend(_whole(piece) for piece in cluster)
    return kept, found


def in_words(found: Iterable[Contradiction]) -> list[str]:
    """Notes on contradictions: on those that are gaps now, and on those that were decided."""
    found = list(found)
    if not found:
        return []
    notes = []
    for decided, start, why in (
        (False, NOT_PICKED, "where records contradict each other"),
        (True, "left out: ", "where records of a higher quality say something else"),
    ):
        some = [one for one in found if one.decided is decided]
        if not some:
            continue
        listed = ", ".join(
            f"{one.code} {_length(one)} from {format_utc(one.start_ns)}"
            for one in some[:MOST_LISTED]
        )
        more = f" and {len(some) - MOST_LISTED} more" if len(some) > MOST_LISTED else ""
        notes.append(f"{start}{listed}{more}, {why}")
    return notes


def _length(one: Contradiction) -> str:
    samples = "1 sample" if one.n_samples == 1 else f"{one.n_samples} samples"
    seconds = (one.end_ns - one.start_ns) / NS_PER_S
    return samples if seconds < 1 else f"{samples} ({seconds:.0f} s)"


def _whole(piece: Segment) -> Contradiction:
    return Contradiction(piece.code, piece.start_ns, piece.end_ns, len(piece.samples))


def _start(piece: Segment) -> int:
    return piece.start_ns


def _overlapping(pieces: Sequence[Segment]) -> list[list[Segment]]:
    """Groups of pieces that overlap, from pieces in the order of their starts."""
    clusters: list[list[Segment]] = []
    latest = 0
    for piece in pieces:
        if clusters and piece.start_ns < latest - SAME_TIME_NS:
            clusters[-1].append(piece)
            latest = max(latest, piece.end_ns)
        else:
            clusters.append([piece])
            latest = piece.end_ns
    return clusters


class _Timeline:
    """Pieces of one channel that do not overlap, in the order of time.

    Attributes
    ----------
    pieces : list of Segment
    found : list of Contradiction
    """

    def __init__(self) -> None:
        self.pieces: list[Segment] = []
        self.found: list[Contradiction] = []
        self._void: list[Segment] = []

    def add(self, piece: Segment) -> None:
        """Take from a piece what is new; no earlier piece has a lower quality."""
        rest = _outside([piece], _touching(self._void, piece))
        others = [one for one in _touching(self.pieces, piece) if not _only_touch(one, piece)]
        for other in others:
            self._compare(other, piece)
        for part in _outside(rest, others):
            # A single sample that is left may lie in the time of one that is here.
            if len(part.samples) > 1 or not _touching(self.pieces, part):
                insort(self.pieces, part, key=_start)

    def _compare(self, other: Segment, piece: Segment) -> None:
        """Note where a piece contradicts one that is here, and leave that out of it."""
        if piece.start_ns >= other.start_ns:
            first = round(other.position_of(piece.start_ns))
        else:  # the other's clock does not tell what was before it
            first = -round(piece.position_of(other.start_ns))
        low, high = max(first, 0), min(len(other.samples), first + len(piece.samples))
        unequal = other.samples[low:high] != piece.samples[low - first : high - first]
        runs = _runs(np.flatnonzero(unequal) + low, other.sampling_rate * AGREEMENT_S)
        if not runs or _is_late_copy(other, piece, first):
            return
        decided = other.quality > piece.quality
        for begin, end in runs:
            void = other.part(begin, end + 1)
            self.found.append(
                Contradiction(other.code, void.start_ns, void.end_ns, end + 1 - begin, decided)
            )
            if not decided:
                insort(self._void, void, key=_start)
        if not decided:
            self._leave_out(other, runs)

    def _leave_out(self, other: Segment, runs: Sequence[tuple[int, int]]) -> None:
        at = bisect_left(self.pieces, other.start_ns, key=_start)
        while self.pieces[at] is not other:
            at += 1
        edges = [0, *(edge for begin, end in runs for edge in (begin, end + 1)), len(other.samples)]
        self.pieces[at : at + 1] = [
            other.part(first, last, begins=first > 0, ends=last < len(other.samples))
            for first, last in zip(edges[::2], edges[1::2], strict=True)
            if last > first
        ]


def _is_late_copy(other: Segment, piece: Segment, first: int) -> bool:
    """Check whether a piece has the samples of another one, a few samples earlier or later."""
    for shift in range(1, _LATE_SAMPLES + 1):
        for at in (first - shift, first + shift):
            low, high = max(at, 0), min(len(other.samples), at + len(piece.samples))
            if high - low < _NO_CHANCE:
                continue
            shared = other.samples[low:high]
            if np.array_equal(shared, piece.samples[low - at : high - at]) and np.ptp(shared) > 0:
                return True
    return False


def _touching(pieces: Sequence[Segment], piece: Segment) -> list[Segment]:
    """Those of some pieces, in the order of time, that touch a piece; the latest comes first."""
    found = []
    for at in range(bisect_right(pieces, piece.end_ns + SAME_TIME_NS, key=_start) - 1, -1, -1):
        if pieces[at].end_ns < piece.start_ns - SAME_TIME_NS:
            break
        found.append(pieces[at])
    return found


def _only_touch(other: Segment, piece: Segment) -> bool:
    """True if pieces share no more than the time of one sample, which is no contradiction.

    A piece of a single sample lies within another one.
    """
    if min(len(other.samples), len(piece.samples)) == 1:
        return False
    shared = min(other.end_ns, piece.end_ns) - max(other.start_ns, piece.start_ns)
    return shared <= SAME_TIME_NS


def _outside(parts: list[Segment], others: Sequence[Segment]) -> list[Segment]:
    """Cut the times of other segments out of parts.

    Parameters
    ----------
    parts : list of Segment
        In the order of time.
    others : sequence of Segment
        That do not overlap, the latest first: behind one of them, no part is touched again.
    """
    pending, done = list(parts), []
    for other in others:
        near_ns = 2 * max(other.interval_ns, *(part.interval_ns for part in pending[-1:]), 0)
        while pending and pending[-1].start_ns > other.end_ns + near_ns:
            done.append(pending.pop())
        touched = []
        while pending and pending[-1].end_ns >= other.start_ns - near_ns:
            touched.append(pending.pop())
        for part in reversed(touched):
            pending.extend(_without(part, other))
    return pending + done[::-1]


def _without(piece: Segment, other: Segment) -> list[Segment]:
    """Cut the time of another piece out of a piece; return up to two remaining parts."""
    begin = max(round(piece.position_of(other.start_ns)), 0)
    end = min(round(piece.position_of(other.end_ns)) + 1, len(piece.samples))
    if begin >= end:
        return [piece]
    parts = []
    if begin > 0:
        parts.append(piece.part(0, begin, ends=True))
    if end < len(piece.samples):
        parts.append(piece.part(end, len(piece.samples), begins=True))
    return parts


def _runs(samples: NDArray[np.intp], apart: float) -> list[tuple[int, int]]:
    """First and last of samples that lie close together."""
    if not len(samples):
        return []
    breaks = np.flatnonzero(np.diff(samples) > apart)
    firsts = samples[np.concatenate([[0], breaks + 1])]
    lasts = samples[np.concatenate([breaks, [len(samples) - 1]])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
