"""Time chunks: the span that each reads, and the span whose picks it owns.

A chunk reads more than it owns.  The border between two neighbours is the middle of the span
that both read, so that every time between the first and the last chunk belongs to exactly
one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from eqcctpro.errors import SettingsError
from eqcctpro.spans import FOREVER_NS, Span
from eqcctpro.times import NS_PER_S, chunk_name, format_utc, parse_chunk_name

__all__ = [
    "Timechunk",
    "borders_within_data",
    "chunk_grid",
    "chunks_of_folders",
    "day_chunks",
    "grid_size",
    "length_ns",
    "read_span",
    "whole_archive",
]

MINUTE_NS = 60 * NS_PER_S
DAY_NS = 86_400 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Timechunk:
    """One span of time that is picked as a unit.

    Attributes
    ----------
    index : int
        Position among the chunks of the run.
    name : str
        For example ``20241215T115800Z_20241215T123000Z``.
    read_start_ns, read_end_ns : int or None
        Data outside this span are not used; None reads all data of the files.
    own_start_ns, own_end_ns : int
        A pick belongs to this chunk when its peak lies in this half-open span.
    """

    index: int
    name: str
    read_start_ns: int | None
    read_end_ns: int | None
    own_start_ns: int
    own_end_ns: int

    @property
    def own(self) -> Span:
        """The span whose picks belong to this chunk."""
        return Span(self.own_start_ns, self.own_end_ns)


def chunk_grid(
    start_ns: int,
    end_ns: int,
    *,
    length_min: float,
    overlap_min: float,
    spans: Sequence[tuple[int, int]] | None = None,
) -> list[Timechunk]:
    """EQCCTPro's grid: chunks of `length_min` that begin `overlap_min` early.

    The first chunk begins `overlap_min` before the start; each following one begins
    `overlap_min` before the end of the one before; the last is cut at the end.

    Parameters
    ----------
    start_ns, end_ns : int
    length_min, overlap_min : float
    spans : sequence of tuple of int, optional
        Only chunks that touch one of these are made; data may lie centuries apart, if only by
        a damaged time.

    Raises
    ------
    SettingsError
        The span is empty, or a length or overlap is impossible.
    """
    ranges = _grid(start_ns, end_ns, length_min, overlap_min, spans)
    length, overlap = length_ns(length_min), round(overlap_min * MINUTE_NS)
    count = -(-(end_ns - start_ns) // length)
    numbers = chain.from_iterable(ranges)
    chunks = []
    for index, number in enumerate(numbers):
        begin = start_ns + number * length
        read_start, read_end = begin - overlap, min(begin + length, end_ns)
        own_start = start_ns if number == 0 else _middle(begin, begin - overlap)
        own_end = (
            end_ns
            if number == count - 1
            else min(_middle(begin + length, begin + length - overlap), end_ns)
        )
        name = chunk_name(read_start, read_end)
        chunks.append(Timechunk(index, name, read_start, read_end, own_start, own_end))
    return chunks


def length_ns(length_min: float) -> int:
    """Length of a time chunk in nanoseconds.

    Raises
    ------
    SettingsError
        The length is not positive, or too long.
    """
    if not 1 <= length_min * MINUTE_NS <= FOREVER_NS:
        raise SettingsError(
            f"timechunk: {length_min} min is not a length",
            hint="use minutes, such as 60; no chunk is shorter than a nanosecond",
        )
    return round(length_min * MINUTE_NS)


def grid_size(
    start_ns: int,
    end_ns: int,
    *,
    length_min: float,
    overlap_min: float,
    spans: Sequence[tuple[int, int]] | None = None,
) -> int:
    """Number of chunks that `chunk_grid` would return for the same arguments.

    Raises
    ------
    SettingsError
    """
    return sum(map(len, _grid(start_ns, end_ns, length_min, overlap_min, spans)))


def _grid(
    start_ns: int,
    end_ns: int,
    length_min: float,
    overlap_min: float,
    spans: Sequence[tuple[int, int]] | None,
) -> list[range]:
    """Numbers of the chunks of a grid, as ascending ranges that do not overlap."""
    check_span(start_ns, end_ns)
    length = length_ns(length_min)
    if overlap_min < 0 or overlap_min >= length_min:
        raise SettingsError(
            f"overlap: {overlap_min} min does not fit chunks of {length_min} min",
            hint="the overlap is at least 0 and shorter than a chunk",
        )
    overlap = round(overlap_min * MINUTE_NS)
    count = -(-(end_ns - start_ns) // length)
    if spans is None:
        return [range(count)]
    ranges: list[range] = []
    for first, last in sorted(spans):
        done = ranges[-1].stop if ranges else 0
        least = max((first - start_ns) // length, done)
        end = min((last - start_ns + overlap) // length + 1, count)
        if least < end:
            ranges.append(range(least, end))
    return ranges


def _middle(left_end: int, right_start: int) -> int:
    """Border between neighbouring chunks."""
    return (left_end + right_start) // 2


def chunks_of_folders(
    names: Sequence[str], start_ns: int | None = None, end_ns: int | None = None
) -> list[Timechunk]:
    """Time chunks of time-chunk folders.

    Each reads all data of its folder.  The first owns everything before it and the last
    everything after it, within `start_ns` and `end_ns` if these are given.
    """
    if start_ns is not None and end_ns is not None:
        check_span(start_ns, end_ns)
    spans = sorted((span, name) for name in set(names) if (span := parse_chunk_name(name)))
    chunks = [Timechunk(i, name, None, None, 0, 0) for i, (_, name) in enumerate(spans)]
    first = -FOREVER_NS if start_ns is None else start_ns
    last = FOREVER_NS if end_ns is None else end_ns
    return _with_owners(chunks, [span for span, _ in spans], first, last)


def borders_within_data(
    chunks: Sequence[Timechunk],
    held: Sequence[tuple[int, int]],
    holds_all: Callable[[int, int], bool] = lambda whole, part: True,  # noqa: ARG005
) -> list[Timechunk]:
    """Move the borders of folders' chunks to where both neighbours have data.

    The border is the middle of the overlap by the folders' names, as long as it is well within the
    data of both.  If the files of one end early or begin late, the border is the middle of the
    overlap of the data.  A chunk whose neighbour has data for all of its time and more owns
    nothing: its own data may be shorter than a window.

    Parameters
    ----------
    chunks : sequence of Timechunk
        In the order of time.
    held : sequence of tuple of int
        First and last sample of each, in nanoseconds.
    holds_all : callable
        Returns True if one chunk contains the data of another, channel by channel; only called
        if it does by their spans.
    """

    def covers(whole: int, part: int) -> bool:
        first, last = held[part]
        inside = held[whole][0] <= first and last <= held[whole][1]
        return inside and holds_all(whole, part)

    def holds(whole: int, part: int) -> bool:
        # Two chunks with the same data keep the border between them.
        return covers(whole, part) and not covers(part, whole)

    moved = list(chunks)
    owners: list[int] = []
    for right in range(len(moved)):
        while owners and holds(right, owners[-1]):
            last = owners.pop()
            moved[right] = replace(moved[right], own_start_ns=moved[last].own_start_ns)
            moved[last] = replace(moved[last], own_end_ns=moved[last].own_start_ns)
        if owners and holds(owners[-1], right):
            moved[owners[-1]] = replace(moved[owners[-1]], own_end_ns=moved[right].own_end_ns)
            moved[right] = replace(moved[right], own_start_ns=moved[right].own_end_ns)
            continue
        owners.append(right)
    for left, right in pairwise(owners):
        border = moved[right].own_start_ns
        begin, end = held[right][0], held[left][1]
        margin = (end - begin) // 4
        if begin + margin <= border <= end - margin or not (
            moved[left].own_start_ns < _middle(begin, end) < moved[right].own_end_ns
        ):
            continue
        if end < begin and end < border <= begin:
            continue  # a gap, and the border is in it
        moved[left] = replace(moved[left], own_end_ns=_middle(begin, end))
        moved[right] = replace(moved[right], own_start_ns=_middle(begin, end))
    return moved


def day_chunks(
    spans: Sequence[tuple[int, int]], start_ns: int | None, end_ns: int | None
) -> list[Timechunk]:
    """Make a chunk for each day (UTC) with data, cut at the start and end if these are given.

    Parameters
    ----------
    spans : sequence of tuple of int
        First and last sample of each span with data, in nanoseconds.
    start_ns, end_ns : int or None
    """
    if start_ns is not None and end_ns is not None:
        check_span(start_ns, end_ns)
    days: set[int] = set()
    for first, last in spans:
        first = first if start_ns is None else max(first, start_ns)
        last = last if end_ns is None else min(last, end_ns - 1)
        days.update(range(first // DAY_NS, last // DAY_NS + 1))
    chunks = []
    for index, day in enumerate(sorted(days)):
        begin, end = day * DAY_NS, (day + 1) * DAY_NS
        begin = begin if start_ns is None else max(begin, start_ns)
        end = end if end_ns is None else min(end, end_ns)
        chunks.append(Timechunk(index, chunk_name(begin, end), begin, end, begin, end))
    return chunks


def whole_archive(
    data_start_ns: int, data_end_ns: int, start_ns: int | None, end_ns: int | None
) -> Timechunk:
    """Make one chunk that owns everything, named after the span of the data."""
    if start_ns is not None and end_ns is not None:
        check_span(start_ns, end_ns)
    first = data_start_ns if start_ns is None else start_ns
    last = data_end_ns if end_ns is None else end_ns
    return Timechunk(
        0,
        chunk_name(first, last),
        None,
        None,
        -FOREVER_NS if start_ns is None else start_ns,
        FOREVER_NS if end_ns is None else end_ns,
    )


def check_span(start_ns: int, end_ns: int) -> None:
    """Raise an error for a span that ends before it begins.

    Raises
    ------
    SettingsError
    """
    if end_ns <= start_ns:
        raise SettingsError(
            f"end_time {format_utc(end_ns)} is not after start_time {format_utc(start_ns)}"
        )


def _with_owners(
    chunks: Sequence[Timechunk],
    spans: Sequence[tuple[int, int]],
    first_ns: int,
    last_ns: int,
) -> list[Timechunk]:
    borders = [first_ns]
    for (_, left_end), (right_start, _) in pairwise(spans):
        middle = _middle(left_end, right_start)
        borders.append(min(max(middle, borders[-1]), last_ns))
    borders.append(max(last_ns, borders[-1]))
    return [
        replace(chunk, own_start_ns=begin, own_end_ns=end)
        for chunk, begin, end in zip(chunks, borders, borders[1:], strict=False)
    ]


def read_span(chunk: Timechunk, context_ns: int) -> tuple[int | None, int | None]:
    """Span that a chunk reads, widened to `context_ns` around what it owns."""
    start, end = chunk.read_start_ns, chunk.read_end_ns
    if start is not None and context_ns:
        start = min(start, chunk.own_start_ns - context_ns)
    if end is not None and context_ns:
        # The last chunk may own everything after the span that it reads.
        owned = end if chunk.own_end_ns == FOREVER_NS else chunk.own_end_ns
        end = max(end, owned + context_ns)
    return start, end
