"""Generator of SDS archives of sparse day files: years of a network in seconds.

Every day file is one record with the same samples, a pulse in noise, whose header says another
station and day.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from pymseed import MS3Record

__all__ = ["SparseRecord", "write_sparse_archive"]

RATE_HZ = 100.0
SECONDS = 40
# Where the header of a record (miniSEED 2) holds codes and time.
_STATION, _CHANNEL, _NETWORK, _TIME = 8, 15, 18, 20


def write_sparse_archive(
    root: Path,
    *,
    stations: int,
    days: int,
    first: date = date(2010, 1, 1),
    channels: str = "Z",
    network: str = "XX",
    hour: int = 12,
    every: int = 1,
) -> int:
    """Write an SDS archive; returns the number of its files.

    Parameters
    ----------
    root : Path
    stations, days : int
    first : date
    channels : str
        Letters of the components.
    network : str
    hour : int
        At which the 40 s of each day begin.
    every : int
        One station in so many has them, and the others 5 s.
    """
    records = SparseRecord(network), SparseRecord(network, seconds=5)
    count = 0
    for station in range(stations):
        name, record = f"S{station:04d}", records[station % every > 0]
        for letter in channels:
            for year, year_days in _by_year(first, days):
                folder = root / str(year) / network / name / f"HH{letter}.D"
                folder.mkdir(parents=True, exist_ok=True)
                for day in year_days:
                    path = folder / f"{network}.{name}..HH{letter}.D.{year}.{day:03d}"
                    with path.open("wb") as file:
                        file.write(record.of(name, f"HH{letter}", year, day, hour))
                    count += 1
    return count


class SparseRecord:
    """A record whose header may say any station and hour.

    Parameters
    ----------
    network : str
    seconds : int
    """

    def __init__(self, network: str = "XX", seconds: int = SECONDS) -> None:
        self._content = bytearray(_record(seconds))
        self._content[_NETWORK : _NETWORK + 2] = network.ljust(2).encode()

    def of(self, station: str, channel: str, year: int, day: int, hour: int) -> bytearray:
        """The record with this header; the next call changes it."""
        content = self._content
        content[_STATION : _STATION + 5] = station.ljust(5).encode()
        content[_CHANNEL : _CHANNEL + 3] = channel.encode()
        content[_TIME : _TIME + 5] = struct.pack(">HHB", year, day, hour)
        return content


def _by_year(first: date, days: int) -> Iterator[tuple[int, list[int]]]:
    """Years with the days of each, counted from 1."""
    years: dict[int, list[int]] = {}
    for number in range(days):
        day = first + timedelta(days=number)
        years.setdefault(day.year, []).append(day.timetuple().tm_yday)
    yield from years.items()


def _record(seconds: int) -> bytes:
    rng = np.random.default_rng(0)
    n = round(seconds * RATE_HZ)
    samples = rng.normal(0, 20, n)
    for onset, size in ((n // 3, 400.0), (n // 2, 900.0)):
        times = np.arange(n - onset) / RATE_HZ
        samples[onset:] += size * np.exp(-times / 2) * np.sin(2 * np.pi * 6 * times)
    record = MS3Record()
    record.sourceid = "FDSN:XX_S0000__H_H_Z"
    record.formatversion = 2
    record.reclen = 8192 if seconds > 5 else 1024
    record.samprate = RATE_HZ
    record.starttime = round(datetime(2010, 1, 1, 12, tzinfo=UTC).timestamp() * 1e9)
    made = list(record.generate(samples.astype(np.int32), "i"))
    if len(made) != 1:
        raise RuntimeError(f"{len(made)} records instead of one")
    return bytes(made[0])
