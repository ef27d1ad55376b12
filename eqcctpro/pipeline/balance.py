"""Sample counts of an instrument: all, those covered by windows, and the others by cause.

Samples are counted as records hold them, before they are resampled: every sample of every
channel of an instrument that lies in the time whose picks are wanted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import is_

import numpy as np
from numpy.typing import NDArray

from eqcctpro.pipeline.records import SampleCounts
from eqcctpro.spans import Span, joined_spans
from eqcctpro.waveform.blocks import Block
from eqcctpro.waveform.clock import correction_at
from eqcctpro.waveform.conflicts import Contradiction
from eqcctpro.waveform.segments import SAME_TIME_NS, ChannelCode, Segment, within

__all__ = ["SampleBalance"]

Spans = list[tuple[int, int]]
# A block with the first sample of each of its windows, of which there may be none.
LaidOut = tuple[Block, NDArray[np.intp]]


class SampleBalance:
    """Counts the samples of one instrument while it is prepared.

    Parameters
    ----------
    own : Span
        Time whose samples are counted.

    Attributes
    ----------
    held : int
        Samples that there are.
    picked : int
        Those that windows cover.
    left_out : Counter of str
        The others, by the names of `eqcctpro.pipeline.records.NOT_PICKED_BECAUSE`.
    """

    def __init__(self, own: Span) -> None:
        self._start_ns, self._end_ns = own
        self.held = self.picked = 0
        # First and last sample of the segments, if all of their samples are counted.
        self._whole: tuple[int, int] | None = None
        self.left_out: Counter[str] = Counter()
        self._data_ns = 0
        self._excluded: dict[tuple[ChannelCode, int], Spans] = {}

    def count(self, segments: Iterable[Segment]) -> int:
        """Samples of segments in the time that is counted."""
        if self._whole is not None:
            return sum([len(segment.samples) for segment in segments])
        total = 0
        for segment in segments:
            first, last = self._range(segment)
            if last > first:
                total += last - first
        return total

    def add(self, cause: str, samples: int) -> None:
        """Note samples that are not picked."""
        if samples:
            self.left_out[cause] += samples

    def not_numbers(self, segment: Segment, finite: Sequence[Segment]) -> None:
        """Count what of a segment is no number."""
        samples = self.count([segment]) - self.count(finite)
        self.held += samples
        self.add("not_a_number", samples)

    def resolved(
        self, pieces: Sequence[Segment], kept: Sequence[Segment], found: Sequence[Contradiction]
    ) -> None:
        """Count pieces as they were decoded, and what is left out since there is another one.

        Parameters
        ----------
        pieces : sequence of Segment
        kept : sequence of Segment
            Without contradictions, and joined.
        found : sequence of Contradiction
        """
        spans = [(piece.start_ns, piece.end_ns) for piece in pieces]
        if spans and all([piece.clock is None for piece in pieces]):
            first_ns, last_ns = _extent(spans)
            if self._start_ns <= first_ns and last_ns < self._end_ns:  # as of nearly all tasks
                self._whole = first_ns, last_ns
        samples = self.count(pieces)
        self.held += samples
        if not (len(kept) == len(pieces) and all(map(is_, kept, pieces))):
            spans = [(piece.start_ns, piece.end_ns) for piece in kept]
        self._data_ns = self._covered(kept, spans)
        if len(kept) == len(pieces) and not found:
            return
        dropped = samples - self.count(kept)
        if dropped < 0:
            # Joined, a sample at a border may have another time by a clock that drifts.
            self.held -= dropped
            dropped = 0
        contradicting = 0
        for code, spans in _spans_of(found).items():
            mine = ([one for one in some if one.code == code] for some in (pieces, kept))
            before, after = (sum(self._inside(one, spans) for one in some) for some in mine)
            contradicting += before - after
        # By a clock that drifts a sample at an edge may have two times.
        contradicting = max(min(contradicting, dropped), 0)
        self.add("contradicting", contradicting)
        self.add("doubled", dropped - contradicting)

    def contradicted(self, segments: Sequence[Segment], found: Sequence[Contradiction]) -> None:
        """Leave out what contradicts only once all has one sampling rate."""
        decided = {one.code for one in found if one.decided}
        for code, spans in _spans_of(found).items():
            mine = [one for one in segments if one.code == code]
            if code in decided:
                best = max(one.quality for one in mine)
                mine = [one for one in mine if one.quality < best]
            self._exclude("contradicting", mine, spans)

    def shared_rows(self, segments: Sequence[Segment], rows: Mapping[str, int]) -> None:
        """Leave out components where another one takes their row.

        The last one does, in the order of their codes.
        """
        codes: dict[int, list[ChannelCode]] = {}
        for code in sorted({segment.code for segment in segments}):
            if code.component in rows:
                codes.setdefault(rows[code.component], []).append(code)
        for several in codes.values():
            for at, code in enumerate(several[:-1]):
                over = [one for one in segments if one.code in several[at + 1 :]]
                spans = joined_spans(sorted((one.start_ns, one.end_ns) for one in over), 0)
                mine = [one for one in segments if one.code == code]
                self._exclude("component_not_used", mine, spans)

    def unusable(self, cause: str, segments: Iterable[Segment]) -> None:
        """Leave out all of some segments."""
        self.add(cause, self.count(segments))

    def windows(
        self,
        segments: Sequence[Segment],
        laid_out: Iterable[LaidOut],
        length: int,
        *,
        strict: bool,
    ) -> None:
        """Count what windows cover of the components that the model uses.

        Parameters
        ----------
        segments : sequence of Segment
            Of these components, as decoded.
        laid_out : iterable of (Block, ndarray)
            All blocks, with the first samples of their windows.
        length : int
            Samples of a window.
        strict : bool
            Whether blocks lack what not all components have.
        """
        slowest = min([segment.sampling_rate for segment in segments], default=1.0)
        seen: Spans = []
        short: Spans = []
        for block, offsets in laid_out:
            # A sample belongs to the nearest one of the block, which may have another rate.
            margin = round(0.5e9 / min(slowest, block.sampling_rate)) + SAME_TIME_NS
            for first, last in _stretches(offsets, length):
                seen.append((_time_of(block, first) - margin, _time_of(block, last) + margin))
            if not len(offsets):
                end_ns = _time_of(block, block.data.shape[1] - 1)
                short.append((block.start_ns - margin, end_ns + margin))
        if segments and len(seen) == 1 and not short and not self._excluded:
            # As of nearly all tasks.
            ((first, last),) = seen
            begin, end = self._whole or _extent([(one.start_ns, one.end_ns) for one in segments])
            if first <= begin and end <= last:
                self.picked += self.count(segments)
                return
        seen, short = joined_spans(sorted(seen), 0), joined_spans(sorted(short), 0)
        for segment in segments:
            samples = self.count([segment])
            if not samples:
                continue
            covered, uncovered = seen, short
            holes = self._excluded.get((segment.code, segment.quality))
            if holes:
                samples -= self._inside(segment, holes)
                covered, uncovered = _outside(seen, holes), _outside(short, holes)
            picked = self._inside(segment, covered)
            self.picked += picked
            missing = samples - picked
            if missing and strict:
                alone = missing - self._inside(segment, uncovered)
                self.add("components_missing", alone)
                missing -= alone
            self.add("shorter_than_window", missing)

    def counts(self) -> SampleCounts:
        """Return the counts."""
        left_out = tuple(sorted(self.left_out.items()))
        return SampleCounts(self.held, self.picked, self._data_ns, left_out)

    def _range(self, segment: Segment) -> tuple[int, int]:
        if self._start_ns <= segment.start_ns and segment.end_ns < self._end_ns:
            return 0, len(segment.samples)
        return within(segment, self._start_ns, self._end_ns)

    def _exclude(self, cause: str, segments: Sequence[Segment], spans: Spans) -> None:
        for key in {(segment.code, segment.quality) for segment in segments}:
            known = self._excluded.get(key, [])
            new = _outside(spans, known)
            for segment in segments:
                if (segment.code, segment.quality) == key:
                    self.add(cause, self._inside(segment, new))
            self._excluded[key] = joined_spans(sorted(known + new), 0)

    def _inside(self, segment: Segment, spans: Spans) -> int:
        """Samples of a segment in the time that is counted and in spans.

        Spans do not overlap one another and are in order; their ends are inside.
        """
        low, high = self._range(segment)
        begin_ns, end_ns = segment.start_ns, segment.end_ns
        total = 0
        at = max(bisect_right(spans, (begin_ns, begin_ns)) - 1, 0)
        while at < len(spans) and spans[at][0] <= end_ns:
            first, last = low, high
            if spans[at][0] > begin_ns or spans[at][1] < end_ns:
                begin, end = within(segment, spans[at][0], spans[at][1] + 1)
                first, last = max(low, begin), min(high, end)
            if last > first:
                total += last - first
            at += 1
        return total

    def _covered(self, segments: Sequence[Segment], spans: Spans) -> int:
        """Nanoseconds of the time that is counted of which some channel has samples."""
        if not spans:
            return 0
        if self._whole is None:
            clipped = [(max(one, self._start_ns), min(end, self._end_ns)) for one, end in spans]
            spans = [span for span in clipped if span[0] <= span[1]]
        different = set(spans)
        if len(different) == 1:
            ((first, last),) = different
            return last - first
        longest = max([segment.interval_ns for segment in segments])
        return sum(last - first for first, last in joined_spans(sorted(different), round(longest)))


def _extent(spans: Spans) -> tuple[int, int]:
    """Earliest start and latest end of spans."""
    starts, ends = zip(*spans, strict=True)
    return min(starts), max(ends)


def _spans_of(found: Iterable[Contradiction]) -> dict[ChannelCode, Spans]:
    """When each channel has contradictions, half a sample around them included."""
    spans: dict[ChannelCode, Spans] = {}
    for one in found:
        margin = 0
        if one.n_samples > 1:
            margin = round((one.end_ns - one.start_ns) / (one.n_samples - 1) / 2) - SAME_TIME_NS
        span = one.start_ns - max(margin, SAME_TIME_NS), one.end_ns + max(margin, SAME_TIME_NS)
        spans.setdefault(one.code, []).append(span)
    return {code: joined_spans(sorted(some), 0) for code, some in spans.items()}


def _outside(spans: Spans, holes: Spans) -> Spans:
    """Difference of two sorted lists of disjoint spans: the parts of `spans` in no hole."""
    left: Spans = []
    at = 0
    for first, last in spans:
        while at < len(holes) and holes[at][1] < first:
            at += 1
        number = at
        while number < len(holes) and holes[number][0] <= last:
            if holes[number][0] > first:
                left.append((first, holes[number][0] - 1))
            first = holes[number][1] + 1
            number += 1
        if first <= last:
            left.append((first, last))
    return left


def _stretches(offsets: NDArray[np.intp], length: int) -> Spans:
    """First and last samples of what windows cover without a hole."""
    if not len(offsets):
        return []
    first, last = int(offsets[0]), int(offsets[-1]) + length - 1
    if last - first < 2 * length:  # as of a minute, of which no steps have to be looked at
        return [(first, last)]
    steps = offsets[1:] - offsets[:-1]
    if steps.max() <= length:
        return [(first, last)]
    holes = np.flatnonzero(steps > length)
    firsts = [first, *offsets[holes + 1].tolist()]
    lasts = [*(offsets[holes] + length - 1).tolist(), last]
    return list(zip(firsts, lasts, strict=True))


def _time_of(block: Block, sample: int) -> int:
    nominal = round(sample * 1e9 / block.sampling_rate)
    if block.clock is not None:
        nominal += correction_at(block.clock, nominal)
    return block.start_ns + nominal
