"""Local magnitudes of events, from Wood-Anderson amplitudes of their S picks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import hypot, log10
from statistics import median, stdev
from typing import Any

import numpy as np
import pyarrow as pa

from eqcctpro.association.associate import Association
from eqcctpro.errors import SettingsError
from eqcctpro.station_coordinates import StationTable

__all__ = [
    "ATTENUATIONS",
    "WOOD_ANDERSON_GAIN",
    "Attenuation",
    "Magnitudes",
    "amplitudes_of",
    "local_magnitudes",
]

#: Static magnification of the Wood-Anderson seismometer (IASPEI, 2013).
WOOD_ANDERSON_GAIN = 2080.0


@dataclass(frozen=True)
class Attenuation:
    """Decrease of amplitudes with distance in one region.

    Attributes
    ----------
    name : str
    region, source : str
        Where it holds, and the publication.
    correction : callable
        What is added to the logarithm of the amplitude of a Wood-Anderson seismometer in mm, by
        the hypocentral distance in km: ``-log A0`` of Richter.
    """

    name: str
    region: str
    source: str
    correction: Callable[[float], float]


def _known(*known: Attenuation) -> dict[str, Attenuation]:
    return {one.name: one for one in known}


ATTENUATIONS = _known(
    Attenuation(
        "hutton-boore",
        "southern California; the standard of IASPEI",
        "Hutton and Boore (1987), The ML scale in southern California, BSSA 77",
        lambda r: 1.110 * log10(r / 100) + 0.00189 * (r - 100) + 3.0,
    ),
    Attenuation(
        "bakun-joyner",
        "central California",
        "Bakun and Joyner (1984), The ML scale in central California, BSSA 74",
        lambda r: log10(r / 100) + 0.00301 * (r - 100) + 3.0,
    ),
    Attenuation(
        "langston",
        "Tanzania, East Africa",
        "Langston, Brazier, Nyblade and Owens (1998), Local magnitude scale and seismicity rate "
        "for Tanzania, East Africa, BSSA 88",
        lambda r: 0.776 * log10(r / 17) + 0.000902 * (r - 17) + 2.0,
    ),
)
"""Published attenuations, by name."""


@dataclass(frozen=True)
class Magnitudes:
    """Local magnitudes of events.

    Attributes
    ----------
    events : pyarrow.Table
        event, local_magnitude (the median of its stations), magnitude_stations, magnitude_std
        (standard deviation of the stations, null of fewer than two); null where no station has an
        amplitude.
    stations : pyarrow.Table
        event, pick (row of the pick table), wood_anderson_mm, distance_km (hypocentral),
        magnitude.
    attenuation : Attenuation
    """

    events: pa.Table
    stations: pa.Table = field(repr=False)
    attenuation: Attenuation


def local_magnitudes(
    association: Association,
    wood_anderson_mm: pa.ChunkedArray | pa.Array,
    stations: StationTable,
    attenuation: str = "hutton-boore",
) -> Magnitudes:
    """Local magnitude of each event and of each of its stations.

    The amplitude of a station is that of its S pick, half the peak-to-peak amplitude on the larger
    horizontal component; of several instruments the larger counts, unless it is not known.

    Parameters
    ----------
    association : Association
    wood_anderson_mm : array of float
        Amplitude of a Wood-Anderson seismometer for each row of ``association.picks``; null where
        none was measured.
    stations : StationTable
    attenuation : str
        One of `ATTENUATIONS`.

    Raises
    ------
    SettingsError
        There is no such attenuation.
    """
    from obspy.geodetics import gps2dist_azimuth

    if attenuation not in ATTENUATIONS:
        raise SettingsError(
            f"attenuation: {attenuation!r} is unknown", hint=f"one of {', '.join(ATTENUATIONS)}"
        )
    law = ATTENUATIONS[attenuation]
    hypocentres = association.events.to_pylist()
    best: dict[tuple[int, str], dict[str, Any]] = {}
    amplitudes = wood_anderson_mm.to_pylist()
    sites = _Sites(stations)
    picks = association.picks
    assigned = association.assignments["pick"]
    names = ("network", "station", "phase")
    codes = zip(*(picks[name].take(assigned).to_pylist() for name in names), strict=True)
    times = picks["time"].cast(pa.timestamp("us")).cast(pa.int64()).take(assigned).to_pylist()
    events = association.assignments["event"].to_pylist()
    for event, row, (network, station, phase), time_us in zip(
        events, assigned.to_pylist(), codes, times, strict=True
    ):
        amplitude = amplitudes[row]
        name = f"{network or ''}.{station or ''}"
        site = sites.at(name, time_us)
        if (phase or "")[:1].upper() != "S" or not amplitude or not np.isfinite(amplitude):
            continue
        known = best.get((event, name))
        if site is None or (known is not None and known["wood_anderson_mm"] >= amplitude):
            continue
        origin = hypocentres[event]
        away_m, *_ = gps2dist_azimuth(origin["latitude"], origin["longitude"], *site[:2])
        distance = max(hypot(away_m / 1000, origin["depth_km"] + site[2] / 1000), 1.0)
        best[event, name] = {
            "event": event,
            "pick": row,
            "wood_anderson_mm": amplitude,
            "distance_km": distance,
            "magnitude": log10(amplitude) + law.correction(distance),
        }
    return Magnitudes(_of_events(len(hypocentres), best), _of_stations(best), law)


def amplitudes_of(picks: pa.Table, measured: pa.Table) -> pa.Array:
    """Wood-Anderson amplitudes of picks, from a table of the same picks with amplitudes.

    Parameters
    ----------
    picks : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    measured : pyarrow.Table
        Rows of `eqcctpro.picks.table.MEASURED_SCHEMA`, in any order.

    Returns
    -------
    pyarrow.Array of float
        mm, for each row of `picks`; null where the other table has none.
    """
    names = ("network", "station", "location", "channel", "phase", "time")

    def keys(table: pa.Table) -> Iterator[tuple[Any, ...]]:
        times = table.column("time").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        texts = (table.column(name).to_pylist() for name in names[:-1])
        return zip(*texts, times.to_pylist(), strict=True)

    values = measured["wood_anderson_mm"].to_pylist()
    known = dict(zip(keys(measured), values, strict=True))
    return pa.array([known.get(key) for key in keys(picks)], pa.float64())


class _Sites:
    """Places of stations at the times of picks."""

    def __init__(self, stations: StationTable) -> None:
        self._stations = stations
        self._rows: dict[str, list[int]] = {}
        for row, name in enumerate(stations.names):
            self._rows.setdefault(name, []).append(row)

    def at(self, name: str, time_us: int) -> tuple[float, float, float] | None:
        """Latitude, longitude and elevation in m."""
        table = self._stations
        for row in self._rows.get(name, ()):
            start, end = table.epoch(row)
            if start <= time_us < end:
                return table.latitude[row], table.longitude[row], table.elevation_m[row]
        return None


_STATION_SCHEMA = pa.schema(
    [
        ("event", pa.int64()),
        ("pick", pa.int64()),
        ("wood_anderson_mm", pa.float64()),
        ("distance_km", pa.float64()),
        ("magnitude", pa.float64()),
    ]
)


def _of_stations(best: dict[tuple[int, str], dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([best[key] for key in sorted(best)], schema=_STATION_SCHEMA)


def _of_events(count: int, best: dict[tuple[int, str], dict[str, Any]]) -> pa.Table:
    values: list[list[float]] = [[] for _ in range(count)]
    for (event, _), one in best.items():
        values[event].append(one["magnitude"])
    return pa.table(
        {
            "event": pa.array(range(count), pa.int64()),
            "local_magnitude": pa.array(
                [median(one) if one else None for one in values], pa.float64()
            ),
            "magnitude_stations": pa.array([len(one) for one in values], pa.int64()),
            "magnitude_std": pa.array(
                [stdev(one) if len(one) > 1 else None for one in values], pa.float64()
            ),
        }
    )
