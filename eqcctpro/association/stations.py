"""Where stations are: from StationXML or a table."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from eqcctpro.errors import InputError, SettingsError
from eqcctpro.times import format_utc, parse_utc

__all__ = ["StationTable", "read_stations"]

#: Where an epoch that has no beginning or no end begins and ends, microseconds since 1970.
ALWAYS_US = (-(2**63) + 1, 2**63 - 1)

_NAMES = {
    "network": ("network", "net", "network_code"),
    "station": ("station", "sta", "station_code", "id", "station_id"),
    "latitude": ("latitude", "lat", "station_latitude_deg", "station_lat"),
    "longitude": ("longitude", "lon", "station_longitude_deg", "station_lon"),
    "elevation": ("elevation_m", "elevation", "elev", "station_elevation_m", "station_elv"),
    "start": ("start_time", "starttime", "start", "start_date", "startdate"),
    "end": ("end_time", "endtime", "end", "end_date", "enddate"),
}


@dataclass(frozen=True)
class StationTable:
    """Coordinates of stations in their epochs; all lists are equally long.

    Attributes
    ----------
    names : list of str
        ``NET.STA``; of a station that was moved once for each epoch.
    latitude, longitude : list of float
        Degrees, WGS 84.
    elevation_m : list of float
    start_us, end_us : list of int
        When the coordinates are valid, microseconds since 1970, the end excluded; empty lists
        mean always.
    """

    names: list[str]
    latitude: list[float]
    longitude: list[float]
    elevation_m: list[float]
    start_us: list[int] = field(default_factory=list)
    end_us: list[int] = field(default_factory=list)

    def epoch(self, row: int) -> tuple[int, int]:
        """When the coordinates of a row are valid, in microseconds since 1970."""
        return (self.start_us[row], self.end_us[row]) if self.start_us else ALWAYS_US

    def epochs_text(self, name: str) -> str:
        """The epochs of a station, for messages."""
        rows = (row for row, known in enumerate(self.names) if known == name)
        spans = [[_day(limit) for limit in self.epoch(row)] for row in rows]
        return ", ".join(f"{start} to {end}" for start, end in spans)


class _Site(NamedTuple):
    """Coordinates of a station, and when it was there."""

    name: str
    latitude: float
    longitude: float
    elevation_m: float
    start_us: int
    end_us: int


def read_stations(*paths: str | Path) -> StationTable:
    """Coordinates from StationXML, any other inventory that ObsPy reads, or CSV.

    CSV has the columns network, station, latitude, longitude (degrees) and elevation_m, and
    start_time and end_time where stations were moved; a station may also be written as NET.STA or
    NET.STA.LOC.  Of a station that several files hold, the first one counts.

    Raises
    ------
    InputError
        The file is missing, unreadable, or a coordinate is no number or out of range.
    """
    found: dict[str, list[_Site]] = {}
    for file in map(Path, paths):
        _add_file(found, file)
    sites = [site for of_station in found.values() for site in of_station]
    return StationTable(
        [site.name for site in sites],
        [site.latitude for site in sites],
        [(site.longitude + 180.0) % 360.0 - 180.0 for site in sites],
        [site.elevation_m for site in sites],
        [site.start_us for site in sites],
        [site.end_us for site in sites],
    )


def _add_file(found: dict[str, list[_Site]], file: Path) -> None:
    if not file.is_file():
        raise InputError(f"stations: {file} is not there", hint="give StationXML or CSV")
    sites = _table(file) if _is_table(file) else _inventory(file)
    if not sites:
        raise InputError(f"{file} holds no station")
    here: dict[str, list[_Site]] = {}
    for site in sites:
        if not (-90 <= site.latitude <= 90 and -180 <= site.longitude <= 360):
            raise InputError(
                f"{file}: {site.name} is at latitude {site.latitude}, longitude {site.longitude}",
                hint="coordinates are in degrees",
            )
        epochs = here.setdefault(site.name, [])
        # Of epochs that overlap, as those of locations, the first one serves.
        if all(site.start_us >= one.end_us or site.end_us <= one.start_us for one in epochs):
            epochs.append(site)
    for name, epochs in here.items():
        found.setdefault(name, epochs)


def _is_table(file: Path) -> bool:
    """Whether a file is CSV; FDSN text, with bars between its columns, is read by ObsPy."""
    if file.suffix.lower() not in {".csv", ".txt"}:
        return False
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline()
    return "|" not in first or "," in first


def _inventory(file: Path) -> list[_Site]:
    from lxml.etree import LxmlError
    from obspy import read_inventory

    try:
        inventory = read_inventory(str(file))
    except (OSError, TypeError, ValueError, LxmlError) as error:
        raise InputError(
            f"{file} is no inventory that ObsPy reads: {error}", hint="give StationXML or CSV"
        ) from error
    return [
        _Site(
            f"{network.code}.{station.code}",
            float(station.latitude),
            float(station.longitude),
            float(station.elevation),
            _microseconds(station.start_date, ALWAYS_US[0]),
            _microseconds(station.end_date, ALWAYS_US[1]),
        )
        for network in inventory
        for station in network
    ]


def _microseconds(time: Any, unknown: int) -> int:
    return unknown if time is None else int(time.ns) // 1000


def _day(limit_us: int) -> str:
    if limit_us in ALWAYS_US:
        return "ever" if limit_us < 0 else "now"
    return format_utc(limit_us * 1000)[:10]


def _table(file: Path) -> list[_Site]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        names = {name.strip().lower(): name for name in reader.fieldnames or ()}
        columns = {
            ours: next((names[name] for name in theirs if name in names), None)
            for ours, theirs in _NAMES.items()
        }
        for needed in ("station", "latitude", "longitude"):
            if columns[needed] is None:
                raise InputError(
                    f"{file} has no column {needed}; it has {', '.join(names) or 'none'}",
                    hint="columns are network, station, latitude, longitude, elevation_m",
                )
        return [_station(row, columns, f"{file}, line {reader.line_num}") for row in reader]


def _station(row: dict[str, str], columns: dict[str, str | None], where: str) -> _Site:
    def text(name: str) -> str:
        column = columns[name]
        return (row[column] or "").strip() if column is not None else ""

    station = text("station")
    name = (
        f"{text('network')}.{station}"
        if columns["network"] is not None
        else ".".join(station.split(".")[:2])
    )
    try:
        coordinates = float(text("latitude")), float(text("longitude"))
        elevation = float(text("elevation") or 0.0)
    except ValueError as error:
        raise InputError(f"{where}: {name} has a coordinate that is no number: {error}") from error
    try:
        limits = [
            parse_utc(text(which)) // 1000 if text(which) else unknown
            for which, unknown in zip(("start", "end"), ALWAYS_US, strict=True)
        ]
    except SettingsError as error:
        raise InputError(f"{where}: {name}: {error.message}", hint=error.hint) from error
    return _Site(name, *coordinates, elevation, *limits)
