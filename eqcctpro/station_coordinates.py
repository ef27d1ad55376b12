"""Coordinates of stations: from StationXML, FDSN text, CSV, or what else ObsPy reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from eqcctpro.errors import InputError, SettingsError
from eqcctpro.times import format_utc, parse_utc

__all__ = ["Coordinates", "StationTable", "find_station_file", "read_stations"]

#: Latitude and longitude, degrees, by network and station.
Coordinates = dict[tuple[str, str], tuple[float, float]]

#: Where an epoch that has no beginning or no end begins and ends, microseconds since 1970.
ALWAYS_US = (-(2**63) + 1, 2**63 - 1)

# Larger files beside waveforms are hardly station lists; one that is can be named.
_LARGEST = 200 * 2**20
_PROBE = 4096

_HINT = "give StationXML, FDSN text or CSV"

_FDSN_CELLS = ("latitude", "longitude", "elevation", "starttime", "endtime")

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
        """Validity of the coordinates of a row, in microseconds since 1970."""
        return (self.start_us[row], self.end_us[row]) if self.start_us else ALWAYS_US

    def epochs_text(self, name: str) -> str:
        """The epochs of a station, for messages."""
        rows = (row for row, known in enumerate(self.names) if known == name)
        spans = [[_day(limit) for limit in self.epoch(row)] for row in rows]
        return ", ".join(f"{start} to {end}" for start, end in spans)

    def at(self, time_ns: int | None = None) -> Coordinates:
        """Coordinates of every station.

        Parameters
        ----------
        time_ns : int, optional
            Of a station that was moved, the epoch that holds this time counts, in nanoseconds
            since 1970; without it, or where none does, the last one.
        """
        found: Coordinates = {}
        of_time: Coordinates = {}
        for row, name in enumerate(self.names):
            network, _, station = name.partition(".")
            found[network, station] = self.latitude[row], self.longitude[row]
            start, end = self.epoch(row)
            if time_ns is not None and start <= time_ns // 1000 < end:
                of_time.setdefault((network, station), found[network, station])
        return found | of_time


class _Site(NamedTuple):
    """Coordinates of a station, and their validity."""

    name: str
    latitude: float
    longitude: float
    elevation_m: float
    start_us: int
    end_us: int


def read_stations(*paths: str | Path) -> StationTable:
    """Coordinates from StationXML, FDSN text, any other inventory that ObsPy reads, or CSV.

    FDSN text is that of station services at the level of stations or channels, whose first line
    names the columns: ``#Network|Station|Latitude|Longitude|...``.  CSV has the columns network,
    station, latitude, longitude (degrees) and elevation_m, and start_time and end_time where
    stations were moved; a station may also be written as NET.STA or NET.STA.LOC.  Of a station
    that several files hold, the first one counts.

    Raises
    ------
    InputError
        The file is missing, unreadable, or a coordinate is no number or out of range.
    """
    found: dict[str, list[_Site]] = {}
    for path in paths:
        _add_file(found, Path(path).expanduser())
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
        raise InputError(f"stations: {file} is not there", hint=_HINT)
    try:
        sites = _read(file)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    if not sites:
        raise InputError(f"{file} holds no station", hint=_HINT)
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


def find_station_file(folders: Iterable[Path]) -> Path | None:
    """The first StationXML or FDSN text in some folders, not below them."""
    for folder in folders:
        if not folder.is_dir():
            continue
        for file in sorted([*folder.glob("*.xml"), *folder.glob("*.txt")]):
            try:
                if file.stat().st_size > _LARGEST:
                    continue
                with file.open("rb") as opened:
                    head = opened.read(_PROBE)
            except OSError:
                continue
            if b"FDSNStationXML" in head or _fdsn_columns(head) is not None:
                return file
    return None


def _read(file: Path) -> list[_Site]:
    with file.open("rb") as opened:
        head = opened.read(_PROBE)
    if b"FDSNStationXML" in head:
        return _station_xml(file)
    if _fdsn_columns(head) is not None:
        return _fdsn_text(file)
    first = head.partition(b"\n")[0]
    if file.suffix.lower() in {".csv", ".txt"} and (b"|" not in first or b"," in first):
        return _table(file)
    return _inventory(file)


def _fdsn_columns(head: bytes) -> list[str] | None:
    """Names of the columns of FDSN text; None for anything else."""
    first = head.splitlines()[0].decode("utf-8", "replace") if head else ""
    names = [name.strip().lower() for name in first.lstrip("#\ufeff ").split("|")]
    return names if {"network", "station", "latitude", "longitude"} <= set(names) else None


def _fdsn_text(file: Path) -> list[_Site]:
    """Rows of stations; those of channels are joined where they have the same coordinates."""
    sites: dict[Any, _Site] = {}
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        names = _fdsn_columns(lines.readline().encode()) or []
        reader = csv.reader(lines, delimiter="|", quoting=csv.QUOTE_NONE)
        for number, row in enumerate(reader, 2):
            cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
            if not (cells.get("latitude") and cells.get("longitude")):
                continue
            site = _site(
                f"{file}, line {number}",
                f"{cells['network']}.{cells['station']}",
                *(cells.get(name, "") for name in _FDSN_CELLS),
            )
            key = site[:4] if "channel" in names else number
            if key in sites:
                start_us = min(site.start_us, sites[key].start_us)
                site = site._replace(start_us=start_us, end_us=max(site.end_us, sites[key].end_us))
            sites[key] = site
    return list(sites.values())


def _station_xml(file: Path) -> list[_Site]:
    """Stations alone: ObsPy would read all channels and their responses too."""
    try:
        return list(_stations_of(file))
    except ElementTree.ParseError as error:
        raise InputError(f"{file} is damaged StationXML: {error}") from error


def _stations_of(file: Path) -> Iterator[_Site]:
    network = ""
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        name = element.tag.rpartition("}")[2]
        if event == "start" and name == "Network":
            network = element.get("code", "")
        elif event == "end" and name == "Station":
            cells = {child.tag.rpartition("}")[2]: child.text or "" for child in element}
            if cells.get("Latitude") and cells.get("Longitude"):
                yield _site(
                    str(file),
                    f"{network}.{element.get('code', '')}",
                    *(cells.get(name, "") for name in ("Latitude", "Longitude", "Elevation")),
                    *(element.get(name, "") for name in ("startDate", "endDate")),
                )
            element.clear()


def _inventory(file: Path) -> list[_Site]:
    from lxml.etree import LxmlError
    from obspy import read_inventory

    try:
        inventory = read_inventory(str(file))
    except (OSError, TypeError, ValueError, LxmlError) as error:
        raise InputError(
            f"{file} is no inventory that ObsPy reads: {error}",
            hint=_HINT,
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
    return _site(where, name, *(text(one) for one in list(_NAMES)[2:]))


def _site(
    where: str, name: str, latitude: str, longitude: str, elevation: str, start: str, end: str
) -> _Site:
    """A site from text; an empty elevation is 0, an empty limit none."""
    try:
        coordinates = float(latitude), float(longitude), float(elevation or 0.0)
    except ValueError as error:
        raise InputError(f"{where}: {name} has a coordinate that is no number: {error}") from error
    try:
        limits = [
            parse_utc(text) // 1000 if text else unknown
            for text, unknown in zip((start, end), ALWAYS_US, strict=True)
        ]
    except SettingsError as error:
        raise InputError(f"{where}: {name}: {error.message}", hint=error.hint) from error
    return _Site(name, *coordinates, *limits)
