"""Small synthetic network that records local earthquakes, as an archive on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MiniSEEDError, MS3TraceList, nslc2sourceid

from eqcctpro.errors import OutputError
from eqcctpro.synthetic.waveforms import Recording, synthetic_waveforms
from eqcctpro.times import NS_PER_S, chunk_name, parse_utc

__all__ = ["NETWORK", "TrueArrival", "synthetic_network"]

NETWORK = "XX"
"""Network code of everything made here; FDSN keeps ``XX`` for test data."""

START_NS = parse_utc("2024-12-15T12:00:00")

_GAP_S = 5.0


@dataclass(frozen=True, slots=True)
class TrueArrival:
    """True arrival time of a phase at a station.

    Attributes
    ----------
    network, station : str
    phase : {"P", "S"}
    time_ns : int
        UTC, nanoseconds since 1970.
    """

    network: str
    station: str
    phase: str
    time_ns: int


def synthetic_network(
    path: str | Path,
    *,
    stations: int = 12,
    duration_s: float = 120.0,
    seed: int = 0,
    sampling_rate: float = 100.0,
) -> list[TrueArrival]:
    """Write an archive of a synthetic network that records local earthquakes.

    Files go to ``<path>/<start>_<end>/<STATION>/NET.STA.LOC.CHA__start__end.mseed`` (miniSEED 2,
    Steim-2).  There is one earthquake in every minute, or one in all when the record is shorter
    than two minutes.  From three stations on, the last one has only a vertical component and the
    one before it a gap of 5 s, 10 s before the end, because networks are like that.

    Parameters
    ----------
    path : path
        The archive's folder; made when it is not there.
    stations : int
        Number of stations, 1 to 999, at 5 to 60 km from the network's centre.
    duration_s : float
        Length of the record in s, at least 40.
    seed : int
        The same seed gives the same files.
    sampling_rate : float
        Hz, at least 40.

    Returns
    -------
    list of TrueArrival
        P and S of every earthquake at every station, ordered by station and time.

    Raises
    ------
    SettingsError
        A parameter is out of its range.
    OutputError
        The archive cannot be written.
    """
    recording = synthetic_waveforms(
        stations=stations, duration_s=duration_s, seed=seed, sampling_rate=sampling_rate
    )
    # miniSEED 2 holds five letters.
    pattern = "DEM{:02d}" if stations < 100 else "DE{:03d}"
    codes = [pattern.format(number) for number in range(1, stations + 1)]
    _write(Path(path), codes, recording.counts, sampling_rate, duration_s)
    return _arrivals(codes, recording)


def _arrivals(codes: list[str], recording: Recording) -> list[TrueArrival]:
    found = [
        TrueArrival(
            NETWORK, code, phase, START_NS + round(float(seconds[number, index]) * NS_PER_S)
        )
        for index, code in enumerate(codes)
        for number in range(recording.p_s.shape[0])
        for phase, seconds in (("P", recording.p_s), ("S", recording.s_s))
    ]
    return sorted(found, key=lambda arrival: (arrival.station, arrival.time_ns))


def _write(
    root: Path, codes: list[str], waveforms: NDArray[np.int32], rate: float, duration_s: float
) -> None:
    end_ns = START_NS + round(duration_s * NS_PER_S)
    chunk = chunk_name(START_NS, end_ns)
    span = chunk.replace("_", "__")
    special = len(codes) >= 3
    # Late enough that what lies before it is a whole window of the usual pickers.
    gap = (round((duration_s - 2 * _GAP_S) * rate), round((duration_s - _GAP_S) * rate))
    for index, code in enumerate(codes):
        folder = root / chunk / code
        pieces = [(0, waveforms.shape[-1])]
        if special and index == len(codes) - 2:
            pieces = [(0, gap[0]), (gap[1], waveforms.shape[-1])]
        vertical_only = special and index == len(codes) - 1
        channels = ("EHZ",) if vertical_only else ("HHZ", "HHN", "HHE")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for row, channel in enumerate(channels):
                name = folder / f"{NETWORK}.{code}.00.{channel}__{span}.mseed"
                _write_file(name, code, channel, waveforms[index, row], pieces, rate)
        except (OSError, MiniSEEDError) as error:
            raise OutputError(
                f"cannot write the synthetic station {code} to {folder}: {error}",
                hint="choose a folder that may be written and has room",
            ) from error


def _write_file(
    path: Path,
    station: str,
    channel: str,
    samples: NDArray[np.int32],
    pieces: list[tuple[int, int]],
    rate: float,
) -> None:
    traces = MS3TraceList()
    source = nslc2sourceid(NETWORK, station, "00", channel)
    for first, last in pieces:
        start_ns = START_NS + round(first / rate * NS_PER_S)
        traces.add_data(
            source, np.ascontiguousarray(samples[first:last]), "i", rate, starttime=start_ns
        )
    traces.to_file(
        path,
        overwrite=True,
        max_record_length=512,
        encoding=DataEncoding.STEIM2,
        format_version=2,
    )
