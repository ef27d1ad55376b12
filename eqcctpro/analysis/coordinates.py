"""Where stations are: StationXML, and the text format of FDSN station services."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from eqcctpro.errors import InputError, SettingsError
from eqcctpro.times import parse_utc

__all__ = ["Coordinates", "find_station_file", "read_coordinates"]

#: Latitude and longitude, degrees, by network and station.
Coordinates = dict[tuple[str, str], tuple[float, float]]


class _Epoch(NamedTuple):
    """Where a station was, and when; times are text, empty where there is no limit."""

    station: tuple[str, str]
    place: tuple[float, float]
    start: str
    end: str

    def holds(self, time_ns: int) -> bool:
        """Whether the station was there at a time; not known of times that are none."""
        try:
            starts = not self.start or parse_utc(self.start) <= time_ns
            return starts and (not self.end or time_ns < parse_utc(self.end))
        except SettingsError:
            return False


# Larger files beside waveforms are hardly station lists; one that is can be named.
_LARGEST = 200 * 2**20
_PROBE = 4096


def read_coordinates(path: Path | str, time_ns: int | None = None) -> Coordinates:
    """Read the coordinates of stations.

    Parameters
    ----------
    path : path
        StationXML, or text of an FDSN station service at the level of stations or channels,
        whose first line names the columns: ``#Network|Station|Latitude|Longitude|...``.
    time_ns : int, optional
        Of a station that was moved, the epoch that holds this time counts; without it, or where
        none does, the last one.

    Raises
    ------
    InputError
        The file is neither, or holds no coordinates.
    """
    file = Path(path).expanduser()
    try:
        head = file.open("rb").read(_PROBE)
        epochs = list(_xml(file) if _is_xml(head) else _text(file))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    except (ElementTree.ParseError, ValueError, KeyError) as error:
        raise InputError(
            f"{file} is no list of stations: {error}",
            hint="StationXML, or FDSN text whose first line names the columns",
        ) from error
    if not epochs:
        raise InputError(f"{file} holds no coordinates of stations")
    found = {epoch.station: epoch.place for epoch in epochs}
    if time_ns is not None:
        found |= {one.station: one.place for one in reversed(epochs) if one.holds(time_ns)}
    return found


def find_station_file(folders: Iterable[Path]) -> Path | None:
    """The first file in some folders, not below them, that looks like a list of stations."""
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
            if b"FDSNStationXML" in head or _columns(head) is not None:
                return file
    return None


def _is_xml(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<")


def _columns(head: bytes) -> list[str] | None:
    """Names of the columns of FDSN text; None for anything else."""
    first = head.splitlines()[0].decode("utf-8", "replace") if head else ""
    names = [name.strip().lower() for name in first.lstrip("#\ufeff ").split("|")]
    return names if {"network", "station", "latitude", "longitude"} <= set(names) else None


def _text(file: Path) -> Iterator[_Epoch]:
    with file.open(encoding="utf-8", errors="replace", newline="") as opened:
        names = _columns(opened.readline().encode())
        if names is None:
            raise ValueError("its first line does not name network, station, latitude, longitude")
        for row in csv.reader(opened, delimiter="|", quoting=csv.QUOTE_NONE):
            cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
            if cells.get("latitude") and cells.get("longitude"):
                place = float(cells["latitude"]), float(cells["longitude"])
                station = cells["network"], cells["station"]
                yield _Epoch(station, place, cells.get("starttime", ""), cells.get("endtime", ""))


def _xml(file: Path) -> Iterator[_Epoch]:
    network = ""
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        name = element.tag.rpartition("}")[2]
        if event == "start" and name == "Network":
            network = element.get("code", "")
        elif event == "end" and name == "Station":
            place = {child.tag.rpartition("}")[2]: child.text for child in element}
            if place.get("Latitude") and place.get("Longitude"):
                degrees = float(place["Latitude"] or ""), float(place["Longitude"] or "")
                station = network, element.get("code", "")
                limits = element.get("startDate", ""), element.get("endDate", "")
                yield _Epoch(station, degrees, *limits)
            element.clear()
