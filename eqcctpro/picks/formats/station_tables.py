"""Stations beside the picks: tables for GaMMA and PyOcto, and NonLinLoc's control file."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import atan2, ceil, cos, degrees, radians, sin
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from eqcctpro.errors import InputError, SettingsError
from eqcctpro.picks.formats.nonlinloc import station_labels
from eqcctpro.picks.writers import atomic_file
from eqcctpro.station_coordinates import ALWAYS_US, StationTable

__all__ = [
    "STATION_FORMATS",
    "VELOCITY_MODELS",
    "PickedStations",
    "check_station_file",
    "write_control_file",
    "write_station_file",
]

_log = logging.getLogger("eqcctpro")

#: Formats of picks that have a file of stations beside them.
STATION_FORMATS = ("gamma", "pyocto", "nonlinloc")

#: Depth of the top in km, P and S velocity in km/s, and density in g/cm3 of each layer.
VELOCITY_MODELS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    # Kennett and Engdahl (1991), crust and uppermost mantle.
    "iasp91": ((0.0, 5.80, 3.36, 2.72), (20.0, 6.50, 3.75, 2.92), (35.0, 8.04, 4.47, 3.32)),
    # Kennett, Engdahl and Buland (1995), the same.
    "ak135": ((0.0, 5.80, 3.46, 2.72), (20.0, 6.50, 3.85, 2.92), (35.0, 8.04, 4.48, 3.32)),
    # What `eqcctpro associate` assumes.
    "halfspace": ((0.0, 6.0, 6.0 / 1.73, 2.72),),
}

# Stations that a message lists.
_MOST_NAMES = 10
# How far beyond the stations, and how deep, NonLinLoc looks; km.
_MARGIN_KM, _TOP_KM, _BOTTOM_KM, _STEP_KM = 50.0, -4.0, 60.0, 1.0

Key = tuple[str, str, str]


class _Site(NamedTuple):
    latitude: float
    longitude: float
    elevation_m: float


@dataclass
class PickedStations:
    """Stations of picks that pass by, and the time that the picks span.

    Attributes
    ----------
    keys : dict of tuple to None
        Network, station and location of each, in the order of the picks.
    first_us, last_us : int
        Microseconds since 1970; the first is after the last until there are picks.
    """

    keys: dict[Key, None] = field(default_factory=dict)
    first_us: int = ALWAYS_US[1]
    last_us: int = ALWAYS_US[0]

    def noting(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, whose stations are noted."""
        for batch in batches:
            names = ["network", "station", "location"]
            rows = pa.Table.from_batches([batch]).group_by(names).aggregate([])
            for one in rows.select(names).to_pylist():
                self.keys[one["network"] or "", one["station"] or "", one["location"] or ""] = None
            times = batch.column("time").cast(pa.timestamp("us")).cast(pa.int64())
            if len(times):
                span = pc.min_max(times).as_py()
                self.first_us = min(span["min"], self.first_us)
                self.last_us = max(span["max"], self.last_us)
            yield batch

    def sites(self, stations: StationTable) -> dict[Key, _Site]:
        """Places of the stations while they were picked; a warning names those without one.

        Raises
        ------
        InputError
            None is known.
        """
        if not self.keys:
            raise InputError("there are no picks, and so no stations to write")
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(stations.names):
            start, end = stations.epoch(row)
            if start <= self.last_us and end > self.first_us:
                rows.setdefault(name, []).append(row)
        found: dict[Key, _Site] = {}
        for key in sorted(self.keys):
            places = [
                _Site(stations.latitude[row], stations.longitude[row], stations.elevation_m[row])
                for row in rows.get(f"{key[0]}.{key[1]}", ())
            ]
            if places:
                found[key] = places[0]
            if len(set(places)) > 1:
                _log.warning(
                    "%s.%s was moved between the picks; its first place is written", *key[:2]
                )
        missing = sorted({f"{key[0]}.{key[1]}" for key in self.keys.keys() - found.keys()})
        if missing and not found:
            raise InputError(
                f"no station of the picks has coordinates: {', '.join(missing[:_MOST_NAMES])}",
                hint=f"the stations are {', '.join(stations.names[:5])} ...",
            )
        if missing:
            more = f" and {len(missing) - _MOST_NAMES} more" if len(missing) > _MOST_NAMES else ""
            listed = ", ".join(missing[:_MOST_NAMES])
            _log.warning("no coordinates of %s%s: left out of the stations", listed, more)
        return found


def check_station_file(format: str, velocity_model: str) -> None:
    """Refuse formats without a file of stations, and unknown velocity models.

    Raises
    ------
    SettingsError
        There is no such format or velocity model.
    """
    if format not in STATION_FORMATS:
        raise SettingsError(
            f"stations: {format} has no file of stations",
            hint=f"they are for {', '.join(STATION_FORMATS)}",
        )
    if velocity_model not in VELOCITY_MODELS:
        raise SettingsError(
            f"velocity_model: {velocity_model!r} is unknown",
            hint=f"one of {', '.join(VELOCITY_MODELS)}",
        )


def write_station_file(
    picked: PickedStations,
    stations: StationTable,
    picks: Path,
    format: str,
    velocity_model: str = "iasp91",
) -> Path:
    """Write what an associator or NonLinLoc needs to know of the stations, beside the picks.

    The names are those of the picks.  GaMMA gets ``id``, ``longitude``, ``latitude``,
    ``elevation(m)`` and ``x(km)``, ``y(km)``, ``z(km)`` (azimuthal equidistant around the middle of
    the network, depth downwards); PyOcto ``id``, ``latitude``, ``longitude``, ``elevation`` (m);
    NonLinLoc a control file.

    Parameters
    ----------
    picked : PickedStations
    stations : StationTable
    picks : Path
        The file of picks that was written.
    format : {"gamma", "pyocto", "nonlinloc"}
    velocity_model : str
        One of `VELOCITY_MODELS`, for NonLinLoc.

    Returns
    -------
    Path
        ``NAME_stations.csv``, or ``NAME.in``.

    Raises
    ------
    InputError
        No station of the picks has coordinates.
    SettingsError
        There is no such format or velocity model.
    """
    check_station_file(format, velocity_model)
    sites = picked.sites(stations)
    if format == "nonlinloc":
        path = picks.with_suffix(".in")
        known = {key[:2] for key in picked.keys}
        labels = station_labels(known)
        places = {labels[key[:2]]: site for key, site in sites.items()}
        write_control_file(path, places, picks, velocity_model)
        return path
    path = picks.with_name(f"{picks.stem}_stations.csv")
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    if format == "pyocto":
        table.writerow(["id", "latitude", "longitude", "elevation"])
        table.writerows([".".join(key), *site] for key, site in sites.items())
    else:
        names = ["id", "longitude", "latitude", "elevation(m)", "x(km)", "y(km)", "z(km)"]
        table.writerow(names)
        centre = _centre(list(sites.values()))
        for key, site in sites.items():
            x, y = _on_plane(site, centre)
            codes = [".".join(key), site.longitude, site.latitude, site.elevation_m]
            table.writerow([*codes, f"{x:.4f}", f"{y:.4f}", f"{-site.elevation_m / 1000:.4f}"])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def write_control_file(
    path: Path, places: dict[str, _Site], phases: Path, velocity_model: str = "iasp91"
) -> None:
    """Write a control file with which NonLinLoc locates the events of a phase file.

    Parameters
    ----------
    path : Path
    places : dict of str to (latitude, longitude, elevation in m)
        By the names that the phase file has.
    phases : Path
    velocity_model : str
        One of `VELOCITY_MODELS`.

    Raises
    ------
    SettingsError
        There is no such velocity model.
    """
    check_station_file("nonlinloc", velocity_model)
    sites = list(places.values())
    centre = _centre(sites)
    flat = [_on_plane(site, centre) for site in sites]
    reach = max(max(abs(x), abs(y)) for x, y in flat) + _MARGIN_KM
    half = ceil(reach / _STEP_KM)
    across = ceil(2 * half * 2**0.5) + 1  # from corner to corner
    down = round((_BOTTOM_KM - _TOP_KM) / _STEP_KM) + 1
    step = f"{_STEP_KM:g} {_STEP_KM:g} {_STEP_KM:g}"
    name = path.name
    lines = [
        f"# NonLinLoc 7: stations and phases of {phases.name}; velocity model {velocity_model}.",
        "#   mkdir -p model time loc",
        f"#   Vel2Grid {name} && Grid2Time {name}",
        f"#   sed '/^GTFILES/s/ P 0/ S 0/' {name} > s_{name} && Grid2Time s_{name}",
        f"#   NLLoc {name}",
        "CONTROL 1 54321",
        f"TRANS AZIMUTHAL_EQUIDIST WGS-84 {centre[0]:.6f} {centre[1]:.6f} 0",
        f"VGOUT model/{velocity_model}",
        "VGTYPE P",
        "VGTYPE S",
        f"VGGRID 2 {across} {down} 0 0 {_TOP_KM:g} {step} SLOW_LEN",
        *(
            f"LAYER {depth if number else _TOP_KM:g} {p:.4f} 0 {s:.4f} 0 {density:g} 0"
            for number, (depth, p, s, density) in enumerate(VELOCITY_MODELS[velocity_model])
        ),
        f"GTFILES model/{velocity_model} time/{velocity_model} P 0",
        "GTMODE GRID2D ANGLES_YES",
        *(
            f"GTSRCE {label} LATLON {site[0]:.6f} {site[1]:.6f} 0 {site[2] / 1000:.4f}"
            for label, site in places.items()
        ),
        "GT_PLFD 1.0e-3 0",
        f"LOCFILES {phases.name} NLLOC_OBS time/{velocity_model} loc/events",
        "LOCHYPOUT SAVE_NLLOC_ALL SAVE_NLLOC_SUM",
        "LOCSEARCH OCT 20 20 10 0.01 20000 5000 0 1",
        f"LOCGRID {2 * half + 1} {2 * half + 1} {down} {-half * _STEP_KM:g} "
        f"{-half * _STEP_KM:g} {_TOP_KM:g} {step} PROB_DENSITY SAVE",
        "LOCMETH EDT_OT_WT 9999 4 -1 -1 -1 -1 0",
        "LOCGAU 0.1 0",
        "LOCGAU2 0.01 0.05 2",
        "LOCPHASEID P P p Pg Pn",
        "LOCPHASEID S S s Sg Sn",
        "LOCQUAL2ERR 0.1 0.2 0.4 0.8 99999.9",
        "LOCPHSTAT 9999 -1 9999 1 1 9999 -9999 9999",
    ]
    with atomic_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _centre(sites: Sequence[_Site]) -> tuple[float, float]:
    """Middle of a network; longitudes are averaged on the circle."""
    x = sum(cos(radians(site[1])) for site in sites)
    y = sum(sin(radians(site[1])) for site in sites)
    return sum(site[0] for site in sites) / len(sites), degrees(atan2(y, x))


def _on_plane(site: _Site, centre: tuple[float, float]) -> tuple[float, float]:
    """Kilometres to the east and to the north of the centre, azimuthal equidistant."""
    from obspy.geodetics import gps2dist_azimuth

    away_m, azimuth, _ = gps2dist_azimuth(*centre, site[0], site[1])
    east, north = sin(radians(azimuth)), cos(radians(azimuth))
    return away_m / 1000 * east, away_m / 1000 * north
