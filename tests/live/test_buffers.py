"""Records put together as they arrive give what the same records in a file give."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray
from pymseed import DataEncoding

from eqcctpro.codes import Code
from eqcctpro.errors import SettingsError
from eqcctpro.live.buffers import BufferSettings, ChannelBuffers, LivePiece
from eqcctpro.live.packets import Packet
from eqcctpro.times import NS_PER_S, parse_utc
from eqcctpro.waveform.decode import decode_records
from eqcctpro.waveform.encode import Series, encode_series
from eqcctpro.waveform.segments import merge_segments

START_NS = parse_utc("2024-03-01T00:00:00")
CODE = ("TX", "PB01", "00", "HHZ")


def record(
    start_ns: int, samples: NDArray[np.int32], code: Code = CODE, rate: float = 100.0
) -> bytes:
    """One record of miniSEED 2."""
    made = list(encode_series([Series(code, start_ns, rate, samples)], DataEncoding.INT32, 4096))
    assert len(made) == 1
    return made[0]


def packets(
    records: list[bytes], arrivals: list[float] | None = None, code: Code = CODE
) -> list[Packet]:
    """Packets of one channel, by default a second apart."""
    times = arrivals or [float(n) for n in range(len(records))]
    base = START_NS / NS_PER_S + 1000
    return [
        Packet(code, n, one, base + time)
        for n, (one, time) in enumerate(zip(records, times, strict=True), 1)
    ]


def counting(first: int, last: int) -> NDArray[np.int32]:
    return np.arange(first, last, dtype=np.int32)


def at(sample: float) -> int:
    """Time of a sample of 100 Hz."""
    return START_NS + round(sample * 10_000_000)


def joined(pieces: list[LivePiece]) -> list[tuple[Code, int, list[int]]]:
    """Pieces that follow each other as one: codes, start and samples."""
    found: list[tuple[Code, int, list[int]]] = []
    next_ns = 0
    for one in sorted(pieces, key=lambda piece: (piece.code, piece.start_ns)):
        beside = abs(one.start_ns - next_ns) * one.rate / NS_PER_S
        if found and found[-1][0] == one.code and beside <= 0.5:
            found[-1][2].extend(one.samples.tolist())
        else:
            found.append((one.code, one.start_ns, one.samples.tolist()))
        next_ns = one.next_ns
    return found


def from_file(records: list[bytes]) -> list[tuple[Code, int, list[int]]]:
    segments = merge_segments(decode_records(b"".join(records), "records").segments)
    return [
        ((*one.code,), one.start_ns, one.samples.tolist())
        for one in sorted(segments, key=lambda one: (one.code, one.start_ns))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_any_order_gives_what_a_file_gives(seed: int) -> None:
    drawn = random.Random(seed)
    noise = np.random.default_rng(seed)
    arriving: list[tuple[float, Code, bytes]] = []
    for component in "ENZ"[: drawn.randint(1, 3)]:
        code = ("TX", "PB01", "00", f"HH{component}")
        sample = drawn.randrange(1000)
        for number in range(drawn.randint(3, 30)):
            n = drawn.randint(1, 900)
            made = record(at(sample), noise.integers(-999, 999, n).astype(np.int32), code)
            sample += n
            # In order, or late by less than the patience.
            time = number + (drawn.uniform(0, 9) if drawn.random() < 0.3 else 0)
            if number == 0:
                time = 0.0
            arriving.append((time, code, made))
            if drawn.random() < 0.1:
                arriving.append((time + drawn.uniform(0, 5), code, made))  # again
            if drawn.random() < 0.1:
                sample += drawn.randint(1, 3000)  # a gap
    arriving.sort(key=lambda one: one[0])
    base = START_NS / NS_PER_S + 10_000
    buffers = ChannelBuffers(BufferSettings(patience_s=10, ring_s=3600))
    pieces: list[LivePiece] = []
    for number, (time, code, made) in enumerate(arriving):
        pieces += buffers.expire(base + time)
        pieces += buffers.ingest([Packet(code, number, made, base + time)])
    pieces += buffers.flush()
    assert joined(pieces) == from_file([made for _, _, made in arriving])
    assert not any(piece.late for piece in pieces)
    counts = buffers.counts
    assert counts.records == len(arriving)
    assert counts.samples == sum(len(piece.samples) for piece in pieces)
    assert counts.contradictions == counts.undecodable == counts.overlaps == 0
    for code in buffers.channels:
        of_one = [piece for piece in pieces if piece.code == code]
        starts = [piece.start_ns for piece in of_one]
        assert starts == sorted(starts)
        assert [piece.begins for piece in of_one].count(True) == sum(
            one[0] == code for one in joined(pieces)
        )


def test_times_are_the_records_own() -> None:
    """A clock that drifts by a fifth of a sample a record is followed, as in a file."""
    records = [record(at(100.2 * n), counting(100 * n, 100 * n + 100)) for n in range(50)]
    buffers = ChannelBuffers()
    pieces = buffers.ingest(packets(records))
    assert [piece.start_ns for piece in pieces] == [at(100.2 * n) for n in range(50)]
    assert [piece.begins for piece in pieces] == [True] + [False] * 49
    assert joined(pieces) == from_file(records)
    last = buffers.channels[CODE].window(at(100.2 * 48 + 50), 100)
    assert last is not None and last.tolist() == list(range(4850, 4950))


def test_a_gap_is_waited_for_and_then_stays() -> None:
    first, third = record(at(0), counting(0, 100)), record(at(200), counting(200, 300))
    second = record(at(100), counting(100, 200))
    buffers = ChannelBuffers(BufferSettings(patience_s=10))
    one, two, three = packets([first, third, second], [0.0, 1.0, 20.0])
    channel = buffers
    assert len(channel.ingest([one])) == 1
    assert buffers.ingest([two]) == [] and buffers.channels[CODE].state(two.received) == "hole"
    assert buffers.expire(two.received + 9.9) == []
    (behind,) = buffers.expire(two.received + 10)
    assert behind.begins and not behind.late and behind.samples[0] == 200
    assert buffers.channels[CODE].state(two.received + 10) == "live"
    (late,) = buffers.ingest([three])
    assert late.late and late.samples.tolist() == list(range(100, 200))
    assert buffers.ingest([three]) == []  # it is there now
    counts = buffers.counts
    assert (counts.gaps, counts.late, counts.duplicates, counts.filled) == (1, 1, 1, 0)
    window = buffers.channels[CODE].window(at(50), 200)
    assert window is not None and window.tolist() == list(range(50, 250))


def test_a_gap_that_is_filled_delays_nothing_else() -> None:
    other = ("TX", "PB02", "00", "HHZ")
    records = [record(at(100 * n), counting(100 * n, 100 * n + 100)) for n in range(4)]
    buffers = ChannelBuffers()
    one, two, three, four = packets([records[0], records[2], records[3], records[1]])
    assert len(buffers.ingest([one, two, three])) == 1
    elsewhere = record(at(0), counting(0, 10), other)
    assert len(buffers.ingest(packets([elsewhere], code=other))) == 1
    assert [piece.samples[0] for piece in buffers.ingest([four])] == [100, 200, 300]
    assert buffers.counts.filled == 1 and buffers.counts.gaps == 0
    assert buffers.counts.waited == 2


def test_the_first_of_overlapping_samples_stays() -> None:
    one = record(at(0), counting(0, 100))
    same, other = record(at(50), counting(50, 150)), record(at(100), -counting(100, 200))
    buffers = ChannelBuffers()
    pieces = buffers.ingest(packets([one, same, other, one, record(at(10), counting(0, 20))]))
    assert joined(pieces) == [(CODE, at(0), [*range(150), *range(-150, -200, -1)])]
    counts = buffers.counts
    assert (counts.overlaps, counts.contradictions, counts.duplicates) == (2, 2, 1)


def test_records_before_the_first_one_are_late() -> None:
    buffers = ChannelBuffers()
    records = [record(at(100), counting(100, 200)), record(at(0), counting(0, 100))]
    pieces = buffers.ingest(packets(records))
    assert [piece.late for piece in pieces] == [False, True]
    assert joined(pieces) == from_file(records)


def test_what_cannot_be_used_is_counted() -> None:
    good = record(at(0), counting(0, 100))
    damaged = good[:60] + bytes(40) + good[60:100]
    slow = record(at(0), counting(0, 10), rate=0.5)
    log = good[:30] + bytes(4) + good[34:52] + b"\0" + good[53:]  # no rate, and text
    buffers = ChannelBuffers()
    base = START_NS / NS_PER_S
    found = [
        Packet(CODE, number, one, base + 1000) for number, one in enumerate([damaged, slow, log])
    ]
    assert buffers.ingest(found) == []
    assert buffers.ingest([Packet(CODE, 9, good, base - 20)]) == []  # a clock that is ahead
    assert len(buffers.ingest([Packet(CODE, 9, good, base - 5)])) == 1
    counts = buffers.counts
    assert (counts.undecodable + counts.not_picked, counts.future) == (3, 1)
    assert counts.records == 5


def test_a_rate_that_changes_begins_anew() -> None:
    records = [
        record(at(0), counting(0, 100)),
        record(at(300), counting(300, 400)),  # waits
        record(at(400), counting(0, 50), rate=50.0),
    ]
    buffers = ChannelBuffers()
    pieces = buffers.ingest(packets(records))
    assert [(piece.rate, piece.begins) for piece in pieces] == [
        (100.0, True),
        (100.0, True),
        (50.0, True),
    ]
    assert buffers.counts.rate_changes == 1


def test_memory_is_bounded() -> None:
    buffers = ChannelBuffers(BufferSettings(patience_s=86400, ring_s=20))
    # Every second record is missing, for hours, and all that wait are within the patience.
    records = [record(at(200 * n), counting(0, 100)) for n in range(3000)]
    pieces = buffers.ingest(packets(records, [2.0 * n for n in range(3000)]))
    channel = buffers.channels[CODE]
    held = [*channel.recent, *(piece for _, _, piece in channel._waiting)]
    assert sum(len(piece.samples) for piece in held) <= 2 * 20 * 100 + 200
    assert len(pieces) >= 2980 and buffers.counts.gaps >= 2980
    assert channel.window(channel.recent[0].start_ns - NS_PER_S, 10) is None


def test_states_are_judged_by_arrival() -> None:
    buffers = ChannelBuffers(BufferSettings(ring_s=82))
    (packet,) = packets([record(at(0), counting(0, 100))])
    buffers.ingest([packet])
    channel = buffers.channels[CODE]
    states = [channel.state(packet.received + wait) for wait in (0, 29, 31, 81, 83)]
    assert states == ["live", "live", "stale", "stale", "dead"]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(SettingsError, match="patience_s -1: not between"):
        BufferSettings(patience_s=-1)
