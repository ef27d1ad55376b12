"""Records of miniSEED 2 with time stamps of their own, as clocks in the field write them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import odd_records
from numpy.typing import NDArray

from eqcctpro.times import NS_PER_S

HEADER = odd_records.fields
RECORD_BYTES = 512
TICK_NS = 100_000


def records_of(
    channel: str, samples: NDArray[np.int32], start_ns: int, rate: float = 100.0, quality: str = "D"
) -> list[bytes]:
    """Records of a channel of the station XX.CLK."""
    header = odd_records.fields(b"XX", b"CLK", b"", channel.encode())
    made = odd_records.records(header, samples.astype(np.int32), start_ns, rate)
    return [record[:6] + quality.encode() + record[7:] for record in made]


def counts(records: Sequence[bytes]) -> NDArray[np.int64]:
    """Samples of each record."""
    return np.array([int.from_bytes(record[30:32], "big") for record in records], dtype=np.int64)


def stamped(record: bytes, start_ns: int, *, leap_second: bool = False) -> bytes:
    """A record with another start; in a leap second it is written as second 60."""
    start_ns -= NS_PER_S if leap_second else 0
    seconds, rest = divmod(round(start_ns / TICK_NS) * TICK_NS, NS_PER_S)
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    day = moment.timetuple().tm_yday
    field = b"".join(
        (
            moment.year.to_bytes(2, "big"),
            day.to_bytes(2, "big"),
            bytes([moment.hour, moment.minute, moment.second + leap_second, 0]),
            (rest // TICK_NS).to_bytes(2, "big"),
        )
    )
    return record[:20] + field + record[30:]


def by_clock(
    records: Sequence[bytes], start_ns: int, rate: float, clock: Callable[[float], float]
) -> list[bytes]:
    """Records stamped by a clock: from nominal seconds behind the first sample to true ones."""
    all_counts = counts(records)
    before = np.cumsum(all_counts) - all_counts
    return [
        stamped(record, start_ns + round(clock(first / rate) * NS_PER_S))
        for record, first in zip(records, before.tolist(), strict=True)
    ]


def write(path: Path, records: Sequence[bytes]) -> Path:
    """Write records, and the folders that they lie in."""
    return odd_records.write(path, list(records))


def real_rows(continuous: Path, samples: int) -> NDArray[np.int32]:
    """Z, N and E of so many samples of the continuous record, at 100 Hz."""
    import obspy

    rows = []
    for letter in "ZNE":
        stream = obspy.Stream()
        for path in continuous.glob("*/WILZ/*.mseed"):
            stream += obspy.read(str(path)).select(component=letter)
        stream.merge(-1)
        rows.append(stream[0].data[:samples].astype(np.int32))
    return np.array(rows)
