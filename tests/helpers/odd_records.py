"""Records of miniSEED 2 whose header fields hold any bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MS3TraceList

T0 = 1_734_264_000_000_000_000  # 2024-12-15T12:00:00


def fields(network: bytes, station: bytes, location: bytes, channel: bytes) -> bytes:
    """The twelve bytes of a header, padded with blanks."""
    return station.ljust(5) + location.ljust(2) + channel.ljust(3) + network.ljust(2)


def records(
    header: bytes, samples: NDArray[np.int32], start_ns: int = T0, rate: float = 100.0
) -> list[bytes]:
    """Records of 512 bytes with Steim-2 whose header holds these fields."""
    traces = MS3TraceList()
    traces.add_data("FDSN:XX_A__H_H_Z", samples, "i", rate, starttime=start_ns)
    made = traces.generate(max_record_length=512, encoding=DataEncoding.STEIM2, format_version=2)
    return [record[:8] + header + record[20:] for record in made]


def write(path: Path, content: list[bytes]) -> Path:
    """Write records, and the folders that they lie in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(content))
    return path
