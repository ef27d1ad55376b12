"""Instruments of stations: which windows of their records are ripe, and what they hold.

A window is ripe when every component reaches its end, or its patience is over; then the missing
samples are zeros.  Samples are counted from 1970, as in `eqcctpro.pipeline.running`.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eqcctpro.codes import Code, component_of, instrument_of
from eqcctpro.live.buffers import ChannelBuffer, LivePiece
from eqcctpro.pipeline.running import RunningBlock, RunningPipeline
from eqcctpro.times import NS_PER_S, rounded_ratio, samples_in

__all__ = ["Instrument", "OpenBlock", "Patience", "instrument_code"]

Float32 = NDArray[np.float32]

# Changes of the difference between counted and stamped times that are kept, and the least one.
_MOST_CHANGES, _LEAST_CHANGE = 1000, 0.1


def instrument_code(code: Code) -> Code:
    """Codes of the instrument of a channel: band and instrument in place of the channel."""
    return code[0], code[1], code[2], instrument_of(code[3])


class Patience(NamedTuple):
    """Bounds of waiting for a component that is behind the others of its instrument.

    Attributes
    ----------
    seconds : float
        Since the others have reached the end of a window, beside the length of its records.
    samples : int
        That the others may be ahead of the window.
    gone_s : float
        Without data after which nothing waits for a component, seconds.
    """

    seconds: float
    samples: int
    gone_s: float


class Arrival(NamedTuple):
    """Packet of samples, in the order of arrival.

    Attributes
    ----------
    received : float
        Seconds since 1970 UTC.
    sequence : int
    source : int
    start_ns : int
        Of its record.
    """

    received: float
    sequence: int
    source: int
    start_ns: int

    @classmethod
    def of(cls, piece: LivePiece) -> Arrival:
        """Packet of a piece."""
        return cls(piece.received, piece.sequence, piece.source, piece.start_ns)


class _Piece(NamedTuple):
    """Samples of a record, from one to before another."""

    first: int
    end: int
    samples: NDArray[Any]
    arrival: Arrival


class _Segment:
    """Samples without a gap; `shift_ns` is how much later than counted they are."""

    __slots__ = ("end", "first", "shift_ns")

    def __init__(self, first: int, shift_ns: int) -> None:
        self.first = self.end = first
        self.shift_ns = shift_ns


class _Track:
    """Samples of one component that may still be needed.

    Attributes
    ----------
    row : int
        Of windows.
    end : int
        Sample up to which the component is known: behind it nothing has come.
    """

    __slots__ = (
        "before",
        "buffer",
        "end",
        "kept",
        "late_ns",
        "letter",
        "oldest",
        "pieces",
        "row",
        "segments",
    )

    def __init__(self, letter: str, row: int, buffer: ChannelBuffer) -> None:
        self.letter = letter
        self.row = row
        self.buffer = buffer
        self.end = 0
        self.pieces: deque[_Piece] = deque()
        self.segments: deque[_Segment] = deque()
        self.late_ns = 0
        # Packets that a restart needs, with the ends of their samples; the last one that it does
        # not need; and the first one of all.
        self.kept: deque[tuple[int, Arrival]] = deque()
        self.before: Arrival | None = None
        self.oldest: Arrival | None = None

    def add(self, piece: LivePiece, rate: float, arrival: Arrival) -> None:
        """Append samples that follow, or begin behind a gap."""
        samples = piece.samples
        if self.oldest is None:
            self.oldest = arrival
        if piece.begins or not self.segments:
            first = round(piece.start_ns / NS_PER_S * rate)
            shift_ns = piece.start_ns - _ns_of(first, rate)
            self.segments.append(_Segment(first, shift_ns))
        segment = self.segments[-1]
        first = segment.end
        late_ns = piece.start_ns - _ns_of(first, rate) - segment.shift_ns
        self.late_ns = late_ns if abs(late_ns) * rate > 0.5 * NS_PER_S else 0
        segment.end = end = first + len(samples)
        self.end = max(self.end, end)
        self.pieces.append(_Piece(first, end, samples, arrival))
        self.kept.append((end, arrival))

    def insert(self, piece: LivePiece, rate: float, lowest: int, arrival: Arrival) -> int:
        """Put samples in that came late, from a lowest one on; return the first one."""
        at, first = 0, round(piece.start_ns / NS_PER_S * rate)
        half_ns, n = 0.5 * NS_PER_S / rate, len(piece.samples)
        for one in self.segments:  # counted as those beside it
            begins = _ns_of(one.first, rate) + one.shift_ns
            ends = _ns_of(one.end, rate) + one.shift_ns
            if abs(begins - piece.next_ns) <= half_ns:
                first = one.first - n
            elif abs(piece.start_ns - ends) <= half_ns:
                first = one.end
            at += one.first < first
        end = first + n
        # Segments do not overlap.
        before = self.segments[at - 1] if at else None
        after = self.segments[at] if at < len(self.segments) else None
        lowest = max(lowest, first, before.end if before is not None else first)
        end = min(end, after.first) if after is not None else end
        if lowest >= end:
            return first
        shift_ns = piece.start_ns - _ns_of(first, rate)
        new = _Segment(lowest, shift_ns)
        new.end = end
        if before is not None and before.end == first:
            before.end, new = end, before
        else:
            self.segments.insert(at, new)
        if after is not None and after.first == new.end:
            new.end = after.end
            self.segments.remove(after)
        insort(
            self.pieces,
            _Piece(lowest, end, piece.samples[lowest - first : end - first], arrival),
            key=lambda one: one.first,
        )
        self.kept.append((end, arrival))
        self.end = max(self.end, end)
        return first

    def fill(self, window: Float32, start: int) -> None:
        """Write the samples of a window to its row."""
        row, end = window[self.row], start + window.shape[1]
        for first, last, samples, _ in self.pieces:
            if last <= start:
                continue
            if first >= end:
                break
            begin = max(first, start)
            part = samples[begin - first : end - first]
            row[begin - start : begin - start + len(part)] = part

    def forget(self, before: int, replayed: int) -> None:
        """Give up samples that no window needs, and packets that a restart does not need."""
        pieces, kept, segments = self.pieces, self.kept, self.segments
        while pieces and pieces[0].end <= before:
            pieces.popleft()
        while kept and kept[0][0] <= replayed:
            self.before = kept.popleft()[1]
        while len(segments) > 1 and segments[0].end <= replayed:
            segments.popleft()

    def first_needed(self) -> tuple[Arrival | None, Arrival | None]:
        """The first packet that a restart needs, and the last one before it."""
        needed = [arrival for _, arrival in self.kept]
        needed += map(Arrival.of, self.buffer.waiting)
        first = min(needed, default=None)
        before = self.before
        if before is None:
            return first or self.oldest, None
        return first, before if first is None or before < first else None


@dataclass(slots=True)
class OpenBlock:
    """A block of an instrument.

    Attributes
    ----------
    running : RunningBlock
    end : int
        Sample up to which it is known to go on.
    shift_ns : int
        How much later than counted its samples are.
    components : str
        Letters of the components that its last windows had.
    closed : bool
        True if it ends at `end`.
    """

    running: RunningBlock
    end: int
    shift_ns: int = 0
    components: str = ""
    closed: bool = False


@dataclass(slots=True)
class Instrument:
    """Components of an instrument that are picked together.

    Parameters
    ----------
    code : tuple of str
        With band and instrument in place of the channel.
    rate : float
        Hz.
    rows : mapping of str to int
        Rows of windows, by component letter.
    pipeline : RunningPipeline

    Attributes
    ----------
    received : float
        When the last record arrived, seconds since 1970 UTC.
    deadline : float or None
        When a window no longer waits for a component; None if none waits.
    open : list of OpenBlock
        Blocks with windows that were not predicted, or picks that were not taken; the last one
        goes on unless it is closed.
    given_up : int
        Windows that waited in vain for a component.
    late : int
        Samples that came when their windows had been decided.
    """

    code: Code
    rate: float
    rows: Mapping[str, int]
    pipeline: RunningPipeline
    received: float = 0.0
    deadline: float | None = None
    open: list[OpenBlock] = field(default_factory=list)
    given_up: int = 0
    late: int = 0
    windows: int = 0
    _tracks: dict[str, _Track] = field(default_factory=dict)
    _known: int = 0
    _floor: int = 0
    _leads: deque[tuple[int, float]] = field(default_factory=deque)
    _changes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, piece: LivePiece, buffer: ChannelBuffer) -> None:
        """Take the next samples of a channel from its buffer."""
        channel = piece.code[3]
        self.received = max(self.received, piece.received)
        track = self._tracks.get(channel)
        if track is None:
            letter = component_of(channel)
            track = self._tracks[channel] = _Track(letter, self.rows[letter], buffer)
            # Of two channels with one row, the last one counts.
            self._tracks = dict(sorted(self._tracks.items()))
        arrival = Arrival.of(piece)
        for part in _finite(piece):
            if piece.late:
                self._add_late(track, part, arrival)
            else:
                before = track.end
                track.add(part, self.rate, arrival)
                decided = self._windows_until
                if before < decided:
                    first = track.segments[-1].end - len(part.samples)
                    self.late += min(max(decided - first, 0), len(part.samples))
        if track.late_ns or self._changes:
            self._note(track)

    def _add_late(self, track: _Track, piece: LivePiece, arrival: Arrival) -> None:
        """Take samples that come behind later ones, as far as windows still need them."""
        lowest = self._floor
        if self.open and not self.open[-1].closed and self.open[-1].running.taken is not None:
            lowest = max(lowest, self.open[-1].running.needed_from(self._known))
        first = track.insert(piece, self.rate, lowest, arrival)
        self.late += min(max(self._windows_until - first, 0), len(piece.samples))

    @property
    def _windows_until(self) -> int:
        """First sample behind all windows that were taken, but for those of a restart."""
        running = self.open[-1].running if self.open and not self.open[-1].closed else None
        if running is None or running.taken is None or running.again:
            return self._floor
        return running.taken + running.rules.length

    def _note(self, track: _Track) -> None:
        """Note how far the times of records leave the counted ones."""
        last = self._changes[-1][1] if self._changes else 0
        if abs(track.late_ns - last) * self.rate > _LEAST_CHANGE * NS_PER_S:
            self._changes.append((track.pieces[-1].first, track.late_ns))
            del self._changes[:-_MOST_CHANGES]

    def known_of(self, block: OpenBlock) -> int:
        """Sample up to which a block is known."""
        return min(block.end, self._known)

    def time_of(self, block: OpenBlock, sample: int) -> int:
        """Time of a sample of a block, nanoseconds since 1970 UTC."""
        late_ns = 0
        if self._changes:
            at = bisect_right(self._changes, sample, key=lambda one: one[0])
            late_ns = self._changes[at - 1][1] if at else 0
        return _ns_of(sample, self.rate) + block.shift_ns + late_ns

    def advance(self, now: float, patience: Patience, *, ends: bool = False) -> bool:
        """Hand the windows that are ripe to the pipeline.

        Parameters
        ----------
        now : float
            By the clock of arrivals, seconds.
        patience : Patience
        ends : bool
            True if no more data will come.

        Returns
        -------
        bool
            True if windows were handed over, or a block has ended.
        """
        busy = False
        while self._tracks:
            block = self._current()
            if block is None:
                break
            known = self._extent(block, now, patience, ends=ends)
            self._known = max(self._known, known)
            self._grow(block)
            busy |= self._feed(block, min(block.end, known))
            if block.end >= known and not ends:
                break
            self._close(block)
            busy = True
        return busy

    def _current(self) -> OpenBlock | None:
        """The block that goes on; a new one if there is none."""
        block = self.open[-1] if self.open else None
        if block is not None and not block.closed:
            running = block.running
            if running.taken is not None or running.again:
                return block
            self.open.pop()  # without a window, it may begin earlier
        firsts = [
            max(one.first, self._floor)
            for track in self._tracks.values()
            for one in track.segments
            if one.end > self._floor
        ]
        if not firsts:
            return None
        start = min(firsts)
        shifts = [
            one.shift_ns
            for track in self._tracks.values()
            for one in track.segments
            if one.first <= start + 1 < one.end
        ]
        shift_ns = round(sum(shifts) / len(shifts)) if shifts else 0
        start_ns = _ns_of(start, self.rate) + shift_ns
        ahead = samples_in(start_ns, self.rate) - start
        running = RunningBlock(self.pipeline.rules, start, ahead)
        block = OpenBlock(running, start + 1, shift_ns)
        self.open.append(block)
        return block

    def _extent(self, block: OpenBlock, now: float, patience: Patience, *, ends: bool) -> int:
        """Sample up to which all components that are waited for are known."""
        tracks = self._tracks.values()
        lead = max(track.end for track in tracks)
        self.deadline = None
        if ends:
            return lead
        target = block.running.next_end
        if lead < target:  # as mostly
            self._leads.clear()
            return max(self._known, min(track.end for track in tracks))
        awaited = [track for track in tracks if track.buffer.received + patience.gone_s >= now]
        known = min([track.end for track in awaited], default=lead)
        if known >= target:
            self._leads.clear()
            return max(self._known, known)
        if not self._leads or self._leads[-1][0] < lead:
            self._leads.append((lead, now))
        while known < target <= lead:
            behind = [track for track in awaited if track.end < target]
            usual_s = max(track.buffer.usual_s for track in behind)
            reached = next(time for end, time in self._leads if end >= target)
            self.deadline = reached + patience.seconds + usual_s
            waits = any(track.buffer.waits for track in behind)
            if (now < self.deadline or waits) and lead - target < patience.samples:
                break
            self.given_up += 1
            self.deadline = None
            known = target
            target += block.running.rules.step
        return max(self._known, known)

    def _grow(self, block: OpenBlock) -> None:
        """Extend a block by what overlaps with it."""
        grown = True
        while grown:
            grown = False
            for track in self._tracks.values():
                for one in track.segments:
                    if one.first < block.end < one.end:
                        block.end, grown = one.end, True

    def _feed(self, block: OpenBlock, known: int) -> bool:
        """Hand over windows of a block that is known up to a sample."""
        starts = block.running.take(known)
        for start in starts:
            self._window(block, start)
        before = block.running.needed_from(known)
        # Windows that were taken just now are not yet among those that a restart repeats.
        replayed = min([block.running.replayed_from(known), *starts])
        for track in self._tracks.values():
            track.forget(before, replayed)
        return bool(starts)

    def _window(self, block: OpenBlock, start: int) -> None:
        window = self.pipeline.window(block.running, start)
        window[:] = 0
        end = start + window.shape[1]
        letters = ""
        for track in self._tracks.values():
            track.fill(window, start)
            if any(one.first < end and one.end > start for one in track.segments):
                letters += track.letter
        block.components = letters
        self.windows += 1

    def _close(self, block: OpenBlock) -> None:
        """End a block where nothing follows it."""
        start = block.running.take_last(block.end)
        if start is not None and not block.running.again:
            self._window(block, start)
        block.closed = True
        self._floor = block.end
        for track in self._tracks.values():
            track.forget(block.end, block.end)

    def state(self, gone_s: float) -> dict[str, Any]:
        """All that `restore` needs, as values of JSON; of an instrument without windows on the way.

        No samples: a restart has the sources send them again, see `replay`.

        Parameters
        ----------
        gone_s : float
            See `Patience`.
        """
        block = self.open[-1] if self.open and not self.open[-1].closed else None
        kept = None
        if block is not None and block.running.taken is not None:
            kept = {
                "running": block.running.state(),
                "from": block.running.replayed_from(self.known_of(block)),
                "shift": block.shift_ns,
                "components": block.components,
            }
        channels = {
            channel: track.letter
            for channel, track in self._tracks.items()
            if track.buffer.received + gone_s >= self.received
        }
        return {"floor": self._floor, "channels": channels, "block": kept}

    def restore(
        self, state: Mapping[str, Any], buffer_of: Callable[[Code], ChannelBuffer], now: float
    ) -> None:
        """Go on from a state, once the samples come again.

        Parameters
        ----------
        state : mapping
        buffer_of : callable
            Buffer of a channel.
        now : float
            Windows wait for the channels that there were as if they had come now.
        """
        self._floor, kept = state["floor"], state["block"]
        for channel, letter in state["channels"].items():
            buffer = buffer_of((*self.code[:3], channel))
            buffer.received = now
            track = _Track(letter, self.rows[letter], buffer)
            track.end = self._floor if kept is None else kept["from"]
            self._tracks[channel] = track
        if kept is not None:
            running = RunningBlock.of_state(self.pipeline.rules, kept["running"])
            # Packets may begin exactly there.
            end = kept["from"] + 1
            self.open = [OpenBlock(running, end, kept["shift"], kept["components"])]

    def replay(self) -> tuple[Arrival, bool] | None:
        """The packet from which its source is to send again, and True if that one is not needed.

        None if nothing has come yet.  Its time is the first that is needed of any component.
        """
        found = [track.first_needed() for track in self._tracks.values()]
        befores = [before for _, before in found if before is not None]
        firsts = [first for first, before in found if first is not None]
        everything = befores if len(befores) == len(found) else []
        chosen = min(everything, default=None)
        if chosen is None or any(first <= chosen for first in firsts):
            chosen, exclusive = min(firsts, default=None), False
        else:
            exclusive = True
        if chosen is None:
            return None
        start_ns = min(one.start_ns for one in (*firsts, *befores, chosen))
        sources = {one.source for one in (*firsts, *befores)}
        source = chosen.source if len(sources) <= 1 else -1
        return chosen._replace(start_ns=start_ns, source=source), exclusive


def _ns_of(sample: int, rate: float) -> int:
    """Time of a sample that is counted from 1970; as floats, such times lose digits."""
    samples, of = rate.as_integer_ratio()
    return rounded_ratio(sample * of * NS_PER_S, samples)


def _finite(piece: LivePiece) -> list[LivePiece]:
    """Parts of a piece whose samples are numbers; between them is a gap."""
    samples = piece.samples
    if samples.dtype.kind != "f":
        return [piece]
    with np.errstate(over="ignore"):
        finite = np.isfinite(samples.astype(np.float32, copy=False))
    if finite.all():
        return [piece]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    return [
        piece._replace(
            start_ns=piece.start_ns + round(first * NS_PER_S / piece.rate),
            samples=samples[first:last],
            begins=piece.begins or first > 0,
        )
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]
