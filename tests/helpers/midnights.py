"""Archives of day files whose arrivals lie around midnight, where partitions have their borders."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from eqcctpro.times import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
FIRST_NS = 14_619 * DAY_NS  # 2010-01-10
RATE_HZ = 100


def write_midnights(root: Path, *, stations: int = 2, nights: int = 3) -> Path:
    """Write an SDS archive of three minutes around each midnight; day files are cut seconds off."""
    from pymseed import MS3Record

    rng = np.random.default_rng(1)
    n = 180 * RATE_HZ
    for station in range(stations):
        for night in range(nights):
            onsets = [*rng.integers(500, n - 1500, 2).tolist(), n // 2 + int(rng.integers(-60, 60))]
            cut = n // 2 + int(rng.integers(-300, 300))
            start_ns = FIRST_NS + (night + 1) * DAY_NS - 90 * NS_PER_S
            for component in "ZNE":
                samples = _samples(rng, n, onsets)
                for first, end, day in ((0, cut, night), (cut, n, night + 1)):
                    record = MS3Record()
                    record.sourceid = f"FDSN:XX_S{station}__H_H_{component}"
                    record.formatversion, record.reclen, record.samprate = 2, 512, float(RATE_HZ)
                    record.starttime = start_ns + first * NS_PER_S // RATE_HZ
                    path = day_file(root, station, component, day)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("ab") as file:
                        file.writelines(record.generate(samples[first:end], "i"))
    return root


def day_file(root: Path, station: int, component: str, day: int) -> Path:
    """Path of a day file, by the number of the day."""
    date = datetime.fromtimestamp((FIRST_NS + day * DAY_NS) / NS_PER_S, UTC)
    folder = root / f"{date.year}/XX/S{station}/HH{component}.D"
    return folder / f"XX.S{station}..HH{component}.D.{date.year}.{date:%j}"


def _samples(rng: np.random.Generator, n: int, onsets: list[int]) -> np.ndarray:
    samples = rng.normal(0, 20, n)
    for onset in onsets:
        times = np.arange(n - onset) / RATE_HZ
        samples[onset:] += 600 * np.exp(-times / 2) * np.sin(2 * np.pi * 6 * times)
    return samples.astype(np.int32)
