"""Continuous pieces of one channel, and how pieces that belong together are joined.

The rules for joining and discarding are those that SeisBench reaches through
ObsPy's ``Stream.merge(-1)``: adjacent pieces and overlaps with equal samples become
one piece, and where two pieces of a channel cover the same time with different
samples, both are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eqcctpro.codes import component_of, instrument_of

__all__ = ["ChannelCode", "Segment", "drop_conflicts", "merge_segments", "split_at_nan", "trim"]

# ObsPy's Stream._cleanup: pieces misaligned by less than this share of a sample join.
MISALIGNMENT_THRESHOLD = 1e-2


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
        Where the continuous record begins that this is a part of; None where it was
        not cut.
    """

    code: ChannelCode
    start_ns: int
    sampling_rate: float
    samples: NDArray[Any]
    anchor_ns: int | None = None

    @property
    def origin_ns(self) -> int:
        """Where the continuous record begins."""
        return self.start_ns if self.anchor_ns is None else self.anchor_ns

    @property
    def end_ns(self) -> int:
        """Time of the last sample."""
        return self.start_ns + round((len(self.samples) - 1) * 1e9 / self.sampling_rate)

    @property
    def interval_ns(self) -> float:
        """Nanoseconds between two samples."""
        return 1e9 / self.sampling_rate


def merge_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Join the pieces of each channel that belong together.

    Pieces with different sampling rates are never joined.  The result is sorted by
    code and time; pieces that overlap with different samples stay apart.
    """
    pieces = [segment for segment in segments if len(segment.samples)]
    if _of_one_each(pieces):
        return sorted(pieces, key=lambda piece: piece.code)
    groups: dict[tuple[ChannelCode, float], list[Segment]] = {}
    for segment in pieces:
        groups.setdefault((segment.code, segment.sampling_rate), []).append(segment)
    merged: list[Segment] = []
    for key in sorted(groups):
        pieces = sorted(groups[key], key=lambda piece: (piece.start_ns, piece.end_ns))
        merged.extend(pieces if len(pieces) == 1 else _merge_channel(pieces))
    return merged


def _of_one_each(segments: Sequence[Segment]) -> bool:
    """Whether each channel has one segment, as in nearly all records."""
    return len({segment.code for segment in segments}) == len(segments)


def _merge_channel(pieces: Sequence[Segment]) -> list[Segment]:
    out: list[Segment] = []
    current = pieces[0]
    for piece in pieces[1:]:
        joined = _join(current, piece)
        if joined is None:
            out.append(current)
            current = piece
        else:
            current = joined
    out.append(current)
    return out


def _join(left: Segment, right: Segment) -> Segment | None:
    """Both pieces as one, or None where they do not belong together."""
    interval = left.interval_ns
    position = (right.start_ns - left.start_ns) / interval
    first = round(position)
    if abs(position - first) > MISALIGNMENT_THRESHOLD or first > len(left.samples):
        return None
    shared = min(len(left.samples) - first, len(right.samples))
    if not np.array_equal(left.samples[first : first + shared], right.samples[:shared]):
        return None
    if shared == len(right.samples):
        return left
    samples = np.concatenate([left.samples, right.samples[shared:]])
    return replace(left, samples=samples)


def drop_conflicts(segments: Sequence[Segment]) -> tuple[list[Segment], list[Segment]]:
    """Leave out pieces of a channel that contradict each other.

    Returns
    -------
    kept, dropped : list of Segment
        ``dropped`` holds every piece of a group of overlapping pieces, as SeisBench's
        ``sanitize_mismatching_overlapping_records`` does.
    """
    if _of_one_each(segments):
        return list(segments), []
    by_channel: dict[ChannelCode, list[Segment]] = {}
    for segment in segments:
        by_channel.setdefault(segment.code, []).append(segment)
    kept: list[Segment] = []
    dropped: list[Segment] = []
    for pieces in by_channel.values():
        for cluster in _overlapping(sorted(pieces, key=lambda piece: piece.start_ns)):
            (kept if len(cluster) == 1 else dropped).extend(cluster)
    return kept, dropped


def _overlapping(pieces: Sequence[Segment]) -> list[list[Segment]]:
    clusters: list[list[Segment]] = []
    latest = 0
    for piece in pieces:
        if clusters and piece.start_ns < latest:
            clusters[-1].append(piece)
            latest = max(latest, piece.end_ns)
        else:
            clusters.append([piece])
            latest = piece.end_ns
    return clusters


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
    if segment.samples.dtype.kind != "f":
        return [segment], 0
    with np.errstate(over="ignore"):
        finite = np.isfinite(segment.samples.astype(np.float32, copy=False))
    if finite.all():
        return [segment], 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    pieces = [
        replace(
            segment,
            start_ns=segment.start_ns + round(first * segment.interval_ns),
            samples=segment.samples[first:last],
            anchor_ns=segment.anchor_ns if first == 0 else None,
        )
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]
    return pieces, int(np.count_nonzero(~finite))


def trim(segment: Segment, start_ns: int | None, end_ns: int | None) -> Segment | None:
    """The part of a segment in ``start_ns <= t < end_ns``, or None; None is no bound."""
    interval = segment.interval_ns
    first = 0
    last = len(segment.samples)
    if start_ns is not None and start_ns > segment.start_ns:
        first = math.ceil((start_ns - segment.start_ns) / interval - 1e-6)
    if end_ns is not None:
        last = min(last, math.ceil((end_ns - segment.start_ns) / interval - 1e-6))
    if first >= last:
        return None
    if first == 0 and last == len(segment.samples):
        return segment
    return replace(
        segment,
        start_ns=segment.start_ns + round(first * interval),
        samples=segment.samples[first:last],
        anchor_ns=segment.origin_ns,
    )
