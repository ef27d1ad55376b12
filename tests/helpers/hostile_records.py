"""miniSEED 2 that is valid and hostile: thousands of tiny records."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

RECORD_BYTES = 128
TICKS_PER_S = 10_000
_HEADER_BYTES = 64


def record(
    ticks: int,
    samples: Sequence[int],
    *,
    station: bytes = b"AAA",
    channel: bytes = b"HHZ",
    quality: bytes = b"D",
) -> bytes:
    """One record of at most 16 samples of 32 bits at 100 Hz, so many ticks behind 2024."""
    seconds, fraction = divmod(ticks, TICKS_PER_S)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    head = b"000001" + quality + b" " + station.ljust(5) + b"  " + channel + b"XX"
    head += struct.pack(">HHBBBBH", 2024, day + 1, hour, minute, second, 0, fraction)
    head += struct.pack(">HhhBBBBiHH", len(samples), 100, 1, 0, 0, 0, 1, 0, _HEADER_BYTES, 48)
    head += struct.pack(">HHBBBB", 1000, 0, 3, 1, 7, 0)
    return (head.ljust(_HEADER_BYTES, b"\0") + struct.pack(f">{len(samples)}i", *samples)).ljust(
        RECORD_BYTES, b"\0"
    )


def _noise(source: random.Random, n: int) -> list[int]:
    return [source.randrange(1000) for _ in range(n)]


def apart(n: int, seed: int = 0, channels: Sequence[bytes] = (b"HHZ",)) -> list[bytes]:
    """Two samples, and a gap."""
    source = random.Random(seed)
    return [
        record(at * 500 + 30 * row, _noise(source, 2), channel=channel)
        for at in range(n // len(channels))
        for row, channel in enumerate(channels)
    ]


def shuffled(n: int, seed: int = 0) -> list[bytes]:
    """The same, in no order."""
    records = apart(n, seed)
    random.Random(seed).shuffle(records)
    return records


def three(n: int, seed: int = 0) -> list[bytes]:
    """Gaps of three components that do not agree."""
    return apart(n, seed, (b"HHZ", b"HHN", b"HHE"))


def overlapping(n: int, seed: int = 0) -> list[bytes]:
    """Each record begins with the last sample of the one before."""
    source = random.Random(seed)
    found, last = [], 5
    for at in range(n):
        samples = [last, *_noise(source, 15)]
        found.append(record(at * 1500, samples))
        last = samples[-1]
    return found


def contradicting(n: int, seed: int = 0) -> list[bytes]:
    """A long record, and as many that say something else of a part of it."""
    source = random.Random(seed)
    long = [record(at * 1600, _noise(source, 16)) for at in range(n // 2)]
    return long + [record(at * 1600 + 400, [-7, -8]) for at in range(n // 2)]


def overruled(n: int, seed: int = 0) -> list[bytes]:
    """The same, of a higher quality."""
    source = random.Random(seed)
    long = [record(at * 1600, _noise(source, 16)) for at in range(n // 2)]
    return long + [record(at * 1600 + 400, [-7, -8], quality=b"M") for at in range(n // 2)]


def wandering(n: int, seed: int = 0) -> list[bytes]:
    """Fours of records whose stamps run away from their rate, and gaps."""
    source = random.Random(seed)
    return [record((at // 4) * 20_000 + (at % 4) * 1635, _noise(source, 16)) for at in range(n)]


def stations(n: int) -> list[bytes]:
    """A station for each record."""
    return [record(0, [1, 2], station=b"%05d" % at) for at in range(n)]


KINDS = {
    kind.__name__: kind
    for kind in (apart, shuffled, three, overlapping, contradicting, overruled, wandering)
}
