"""Where stations are: from StationXML or a table."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.errors import InputError

__all__ = ["StationTable", "read_stations"]

_NAMES = {
    "network": ("network", "net", "network_code"),
    "station": ("station", "sta", "station_code", "id", "station_id"),
    "latitude": ("latitude", "lat", "station_latitude_deg", "station_lat"),
    "longitude": ("longitude", "lon", "station_longitude_deg", "station_lon"),
    "elevation": ("elevation_m", "elevation", "elev", "station_elevation_m", "station_elv"),
}


@dataclass(frozen=True)
class StationTable:
    """Coordinates of stations; all lists are equally long.

    Attributes
    ----------
    names : list of str
        ``NET.STA``, each once.
    latitude, longitude : list of float
        Degrees, WGS 84.
    elevation_m : list of float
    """

    names: list[str]
    latitude: list[float]
    longitude: list[float]
    elevation_m: list[float]


def read_stations(*paths: str | Path) -> StationTable:
    """Coordinates from StationXML, any other inventory that ObsPy reads, or CSV.

    CSV has the columns network, station, latitude, longitude (degrees) and elevation_m; a station
    may also be written as NET.STA or NET.STA.LOC.  Of a station that several files hold, the first
    one counts.

    Raises
    ------
    InputError
        The file is missing, unreadable, or a coordinate is no number or out of range.
    """
    found: dict[str, tuple[float, float, float]] = {}
    for file in map(Path, paths):
        _add_file(found, file)
    places = list(found.values())
    return StationTable(
        list(found),
        [place[0] for place in places],
        [(place[1] + 180.0) % 360.0 - 180.0 for place in places],
        [place[2] for place in places],
    )


def _add_file(found: dict[str, tuple[float, float, float]], file: Path) -> None:
    if not file.is_file():
        raise InputError(f"stations: {file} is not there", hint="give StationXML or CSV")
    rows = _table(file) if file.suffix.lower() in {".csv", ".txt"} else _inventory(file)
    if not rows:
        raise InputError(f"{file} holds no station")
    for name, latitude, longitude, elevation in rows:
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
            raise InputError(
                f"{file}: {name} is at latitude {latitude}, longitude {longitude}",
                hint="coordinates are in degrees",
            )
        # Epochs and locations of a station differ by meters: the first one serves.
        found.setdefault(name, (latitude, longitude, elevation))


def _inventory(file: Path) -> list[tuple[str, float, float, float]]:
    from lxml.etree import LxmlError
    from obspy import read_inventory

    try:
        inventory = read_inventory(str(file))
    except (OSError, TypeError, ValueError, LxmlError) as error:
        raise InputError(
            f"{file} is no inventory that ObsPy reads: {error}", hint="give StationXML or CSV"
        ) from error
    return [
        (
            f"{network.code}.{station.code}",
            float(station.latitude),
            float(station.longitude),
            float(station.elevation),
        )
        for network in inventory
        for station in network
    ]


def _table(file: Path) -> list[tuple[str, float, float, float]]:
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


def _station(
    row: dict[str, str], columns: dict[str, str | None], where: str
) -> tuple[str, float, float, float]:
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
        return (name, *coordinates, float(text("elevation") or 0.0))
    except ValueError as error:
        raise InputError(f"{where}: {name} has a coordinate that is no number: {error}") from error
