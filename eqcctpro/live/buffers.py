"""Records of channels, put together as they arrive, to continuous samples.

A record joins the one before it within half a sample, by the times of both, as in files.  Behind a
gap, records wait for what is missing, each channel for itself; then the gap stays.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eqcctpro.codes import Code
from eqcctpro.errors import SettingsError
from eqcctpro.live.decoding import RecordDecoder
from eqcctpro.live.packets import Packet
from eqcctpro.times import NS_PER_S

__all__ = ["BufferCounts", "BufferSettings", "ChannelBuffer", "ChannelBuffers", "LivePiece"]

# libmseed joins records within half a sample, and rates within this share of them.
_TOLERANCE = 0.5
_SAME_RATE = 1e-4
# Without a record for so many lengths of one, and at least so long, a channel is stale.
_STALE_RECORDS, _STALE_S = 3, 30.0


@dataclass(frozen=True, slots=True)
class BufferSettings:
    """Bounds of waiting and of memory.

    Attributes
    ----------
    patience_s : float
        How long records behind a gap wait for what is missing, seconds since they arrived.
    ring_s : float
        Length of the samples that are kept of each channel, and of those that wait, seconds.
    future_s : float
        Records that begin later than this after their arrival are left out, seconds.
    """

    patience_s: float = 10.0
    ring_s: float = 82.0
    future_s: float = 10.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value <= 86400:
                raise SettingsError(f"{one.name} {value}: not between 0 and 86,400 seconds")


class LivePiece(NamedTuple):
    """Samples of a channel that are complete up to their end.

    Attributes
    ----------
    code : tuple of str
    start_ns : int
        Time of the first sample by its own record, nanoseconds since 1970 UTC.
    rate : float
        Hz.
    samples : ndarray, shape (n,)
        PacketCounts, in the type that the record holds.
    begins : bool
        True if it does not follow the piece before it.
    late : bool
        True if the piece lies in a gap that was no longer waited for.
    received : float
        When the record arrived, seconds since 1970 UTC.
    sequence : int
        Number of its packet.
    source : int
        Number of the source that it came from.
    """

    code: Code
    start_ns: int
    rate: float
    samples: NDArray[Any]
    begins: bool
    late: bool
    received: float
    sequence: int
    source: int = 0

    @property
    def next_ns(self) -> int:
        """Time of the sample behind the last one."""
        return self.start_ns + round(len(self.samples) * NS_PER_S / self.rate)


@dataclass(slots=True)
class BufferCounts:
    """Numbers of things that happened to records.

    Attributes
    ----------
    records : int
        All that came.
    samples : int
        In pieces that were handed on.
    undecodable : int
        Records that cannot be decoded.
    not_picked : int
        Records without a time series, or slower than 1 Hz.
    future : int
        Records that begin after their arrival.
    duplicates : int
        Records whose samples were all there already.
    contradictions : int
        Records with other samples than the first ones for the same time, which stayed.
    overlaps : int
        Records of which a part was there already.
    waited : int
        Records behind a gap that waited.
    filled : int
        Gaps that were filled in time.
    gaps : int
        Gaps that stayed.
    late : int
        Records that came for such a gap.
    rate_changes : int
        Times that a channel got another sampling rate.
    """

    records: int = 0
    samples: int = 0
    undecodable: int = 0
    not_picked: int = 0
    future: int = 0
    duplicates: int = 0
    contradictions: int = 0
    overlaps: int = 0
    waited: int = 0
    filled: int = 0
    gaps: int = 0
    late: int = 0
    rate_changes: int = 0

    def as_dict(self) -> dict[str, int]:
        """Numbers by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


State = Literal["empty", "live", "hole", "stale", "dead"]


class ChannelBuffer:
    """Samples of one channel.

    Attributes
    ----------
    code : tuple of str
    rate : float
        Hz; 0 before the first record.
    next_ns : int
        Time of the sample that is expected next, by the last record.
    received : float
        When the last record arrived, seconds since 1970 UTC.
    recent : deque of LivePiece
        The last pieces, in the order of time, up to the length of the ring.
    """

    __slots__ = (
        "_counts",
        "_latest_ns",
        "_patience_s",
        "_ring_ns",
        "_trimmed",
        "_usual_s",
        "_waiting",
        "code",
        "next_ns",
        "rate",
        "received",
        "recent",
    )

    def __init__(self, code: Code, settings: BufferSettings, counts: BufferCounts) -> None:
        self.code = code
        self.rate = 0.0
        self.next_ns = 0
        self.received = 0.0
        self.recent: deque[LivePiece] = deque()
        self._patience_s = settings.patience_s
        self._ring_ns = round(settings.ring_s * NS_PER_S)
        self._counts = counts
        # Pieces behind a gap by their start, and when the oldest of them arrived.
        self._waiting: list[tuple[int, int, LivePiece]] = []
        self._latest_ns = 0
        self._trimmed = False  # older samples were there and are kept no more
        self._usual_s = 0.0

    @property
    def usual_s(self) -> float:
        """Length of the last record, seconds."""
        return self._usual_s

    @property
    def waiting(self) -> list[LivePiece]:
        """Records that wait behind a gap."""
        return [piece for _, _, piece in self._waiting]

    @property
    def waits(self) -> bool:
        """True if records wait behind a gap."""
        return bool(self._waiting)

    def state(self, now: float) -> State:
        """State at a time, seconds since 1970 UTC, by the arrival of records alone."""
        if not self.rate:
            return "empty"
        silent_s = now - self.received
        if silent_s > max(_STALE_S, _STALE_RECORDS * self._usual_s):
            return "dead" if silent_s * NS_PER_S > self._ring_ns else "stale"
        return "hole" if self._waiting else "live"

    def push(self, piece: LivePiece) -> list[LivePiece]:
        """Put a record in; return what is complete by it.

        Parameters
        ----------
        piece : LivePiece
            The whole record.
        """
        rate = self.rate
        if piece.rate == rate and not self._waiting:
            beside = (piece.start_ns - self.next_ns) * rate / NS_PER_S
            if -_TOLERANCE <= beside <= _TOLERANCE:  # as of nearly all
                self.received = max(self.received, piece.received)
                self._usual_s = len(piece.samples) / rate
                return [self._append(piece)]
        if rate and abs(piece.rate - rate) > _SAME_RATE * rate:
            self._counts.rate_changes += 1
            done = self._give_up()
            self.rate = 0.0
            self.recent.clear()
            self._trimmed, self._latest_ns = False, 0
            return done + self.push(piece)
        self.received = max(self.received, piece.received)
        self._usual_s = len(piece.samples) / piece.rate
        if not self.rate:
            self.rate = piece.rate
            return [self._append(piece._replace(begins=True))]
        beside = (piece.start_ns - self.next_ns) * self.rate / NS_PER_S
        if beside > _TOLERANCE:
            return self._wait(piece)
        done = self._place(piece, beside)
        if not self._waiting:
            return done
        waited = len(self._waiting)
        done += self._drain()
        self._counts.filled += bool(waited) and not self._waiting
        return done

    def expire(self, now: float) -> list[LivePiece]:
        """Hand on samples behind a gap for which the patience has ended."""
        done: list[LivePiece] = []
        while self._waiting and now >= self._oldest() + self._patience_s:
            done += self._skip_gap()
        return done

    def window(self, start_ns: int, n_samples: int) -> NDArray[Any] | None:
        """The samples from a time on, or None if not all of them are in the ring.

        Parameters
        ----------
        start_ns : int
            Time of the first sample, within half a sample of it.
        n_samples : int
        """
        parts: list[NDArray[Any]] = []
        left, at_ns = n_samples, float(start_ns)
        for piece in self.recent:
            first = round((at_ns - piece.start_ns) * self.rate / NS_PER_S)
            if first >= len(piece.samples):
                continue
            if first < 0:
                return None
            part = piece.samples[first : first + left]
            parts.append(part)
            left -= len(part)
            # The next record's own time counts.
            at_ns = piece.start_ns + (first + len(part)) * NS_PER_S / self.rate
            if not left:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)
        return None

    def _append(self, piece: LivePiece) -> LivePiece:
        self.recent.append(piece)
        self.next_ns = piece.next_ns
        self._trim()
        self._counts.samples += len(piece.samples)
        return piece

    def _trim(self) -> None:
        oldest_ns = self.next_ns - self._ring_ns
        while len(self.recent) > 1 and self.recent[0].next_ns <= oldest_ns:
            self.recent.popleft()
            self._trimmed = True

    def _place(self, piece: LivePiece, beside: float) -> list[LivePiece]:
        """A record that follows, or lies before what is expected by some samples."""
        known = round(-beside)
        if known <= 0:
            return [self._append(piece)]
        n = len(piece.samples)
        same, missing = self._compare(piece, min(known, n))
        if not same:
            self._counts.contradictions += 1
        if known >= n:
            return self._late(piece, missing, same)
        self._counts.overlaps += 1
        start_ns = piece.start_ns + round(known * NS_PER_S / self.rate)
        rest = piece._replace(start_ns=start_ns, samples=piece.samples[known:])
        # What lies before is late where there was a gap.
        late = self._late(piece._replace(samples=piece.samples[:known]), missing, True, True)
        return [*late, self._append(rest)]

    def _late(
        self, piece: LivePiece, missing: NDArray[np.bool_], same: bool, part: bool = False
    ) -> list[LivePiece]:
        """The samples of a record that lie in gaps that were passed over."""
        if not missing.any():
            self._counts.duplicates += same and not part
            return []
        self._counts.late += 1
        edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8)))
        found = [
            piece._replace(
                start_ns=piece.start_ns + round(first * NS_PER_S / self.rate),
                samples=piece.samples[first:last],
                begins=True,
                late=True,
            )
            for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        ]
        self._counts.samples += int(missing.sum())
        kept = sorted([*self.recent, *found], key=lambda one: one.start_ns)
        self.recent = deque(kept)
        self._trim()
        return found

    def _compare(self, piece: LivePiece, n: int) -> tuple[bool, NDArray[np.bool_]]:
        """Compare the first samples of a record with those that are kept.

        Returns
        -------
        same : bool
            False if some differ.
        missing : ndarray of bool, shape (n,)
            True for samples that lie in a gap; what is older than the ring is taken as there.
        """
        missing = np.ones(n, dtype=np.bool_)
        same = True
        if self.recent and self._trimmed:
            before = round((self.recent[0].start_ns - piece.start_ns) * self.rate / NS_PER_S)
            missing[: max(before, 0)] = False
        for one in reversed(self.recent):
            first = round((one.start_ns - piece.start_ns) * self.rate / NS_PER_S)
            if first + len(one.samples) <= 0:
                break
            if first >= n:
                continue
            begin, end = max(first, 0), min(first + len(one.samples), n)
            missing[begin:end] = False
            known = one.samples[begin - first : end - first]
            same = same and bool(np.array_equal(known, piece.samples[begin:end]))
        return same, missing

    def _wait(self, piece: LivePiece) -> list[LivePiece]:
        self._counts.waited += 1
        insort(self._waiting, (piece.start_ns, piece.sequence, piece), key=lambda one: one[:2])
        self._latest_ns = max(self._latest_ns, piece.next_ns)
        done: list[LivePiece] = []
        # No more waits than the ring holds, whatever is sent.
        while self._waiting and self._latest_ns - self.next_ns > self._ring_ns:
            done += self._skip_gap()
        return done

    def _oldest(self) -> float:
        return min(piece.received for _, _, piece in self._waiting)

    def _skip_gap(self) -> list[LivePiece]:
        """Go on behind a gap that stays."""
        _, _, piece = self._waiting.pop(0)
        self._counts.gaps += 1
        return [self._append(piece._replace(begins=True)), *self._drain()]

    def _drain(self) -> list[LivePiece]:
        """Hand on samples that waited and follow now."""
        done: list[LivePiece] = []
        while self._waiting:
            piece = self._waiting[0][2]
            beside = (piece.start_ns - self.next_ns) * self.rate / NS_PER_S
            if beside > _TOLERANCE:
                break
            self._waiting.pop(0)
            done += self._place(piece, beside)
        return done

    def _give_up(self) -> list[LivePiece]:
        done: list[LivePiece] = []
        while self._waiting:
            done += self._skip_gap()
        return done


class ChannelBuffers:
    """Buffers of all channels of a stream.

    Parameters
    ----------
    settings : BufferSettings, optional

    Attributes
    ----------
    channels : dict of Code to ChannelBuffer
    counts : BufferCounts
    """

    def __init__(self, settings: BufferSettings | None = None) -> None:
        self.settings = settings or BufferSettings()
        self.channels: dict[Code, ChannelBuffer] = {}
        self.counts = BufferCounts()
        self._waiting: set[Code] = set()
        self._decoder = RecordDecoder()

    def ingest(self, packets: Iterable[Packet], source: int = 0) -> list[LivePiece]:
        """Put the records of packets in; return what is complete by them, in order per channel.

        Parameters
        ----------
        packets : iterable of Packet
        source : int
            Number of their source, for `LivePiece.source`.
        """
        done: list[LivePiece] = []
        for packet in packets:
            piece = self._decoded(packet, source)
            if piece is None:
                continue
            channel = self.channels.get(packet.code) or self.channel(packet.code)
            done += channel.push(piece)
            if channel.waits:
                self._waiting.add(packet.code)
        return done

    def channel(self, code: Code) -> ChannelBuffer:
        """Buffer of a channel, which is new if nothing has come of it."""
        found = self.channels.get(code)
        if found is None:
            found = self.channels[code] = ChannelBuffer(code, self.settings, self.counts)
        return found

    def expire(self, now: float) -> list[LivePiece]:
        """Hand on samples behind gaps for which the patience has ended; see `ingest`."""
        done: list[LivePiece] = []
        for code in list(self._waiting):
            channel = self.channels[code]
            done += channel.expire(now)
            if not channel.waits:
                self._waiting.discard(code)
        return done

    def flush(self) -> list[LivePiece]:
        """Hand on all that still waits, at the end of a stream."""
        return self.expire(float("inf"))

    def _decoded(self, packet: Packet, source: int) -> LivePiece | None:
        counts = self.counts
        counts.records += 1
        try:
            content = self._decoder.decode(packet.record)
        except ValueError:
            counts.undecodable += 1
            return None
        if content is None:
            counts.not_picked += 1
            return None
        start_ns, rate, samples = content
        if start_ns > (packet.received + self.settings.future_s) * NS_PER_S:
            counts.future += 1
            return None
        code, sequence, _, received = packet
        return LivePiece(code, start_ns, rate, samples, False, False, received, sequence, source)
