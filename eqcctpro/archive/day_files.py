"""Archives of day files that are named by station and day.

SDS is SeisComP's data structure.  The others are those of the public archives: SCEDC
(https://scedc.caltech.edu/data/cloud.html), NCEDC (https://ncedc.org/db/cloud/getstarted.html)
and EarthScope (https://docs.earthscope.org).  Each may lie in a folder or in an object store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from eqcctpro.archive.files import ArchiveFile, expected_miniseed
from eqcctpro.archive.listing import FolderLister
from eqcctpro.archive.selection import Wanted
from eqcctpro.archive.timechunks import DAY_NS
from eqcctpro.archive.trees import TreeFile, folder_names, walk_tree
from eqcctpro.codes import Code
from eqcctpro.miniseed.index import ChannelExtent
from eqcctpro.places import Place, is_address

__all__ = [
    "DAY_LAYOUTS",
    "DayLayout",
    "code_of_name",
    "day_filter",
    "is_sds",
    "layout_of_bucket",
    "list_day_files",
    "start_of_day",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Parts = tuple[str, ...]


@dataclass(frozen=True)
class DayLayout:
    """Naming scheme of an archive's folders and day files.

    Attributes
    ----------
    name : str
    folders : tuple of str
        Meaning of each folder level from the root down: ``year``, ``network``, ``station``,
        ``channel`` (SDS's, with the type), ``yearday`` or ``day``.
    file : re.Pattern
        With the groups net, sta, year and day; also loc and cha, where a file holds one channel.
    bucket : str
        Of the public archive.
    prefix : str
        The folder in the bucket that holds the first of `folders`.
    """

    name: str
    folders: tuple[str, ...]
    file: re.Pattern[str]
    bucket: str = ""
    prefix: str = ""


_CODE = r"[A-Za-z0-9-]"

DAY_LAYOUTS: dict[str, DayLayout] = {
    layout.name: layout
    for layout in (
        DayLayout(
            "sds",
            ("year", "network", "station", "channel"),
            re.compile(
                rf"(?P<net>{_CODE}+)\.(?P<sta>[\w-]+)\.(?P<loc>[\w-]*)\.(?P<cha>{_CODE}{{1,3}})"
                r"\.D\.(?P<year>\d{4})\.(?P<day>\d{3})$"
            ),
        ),
        DayLayout(
            "scedc",
            ("year", "yearday"),
            re.compile(
                rf"(?P<net>{_CODE}[\w-])(?P<sta>[\w-]{{5}})(?P<cha>{_CODE}{{3}})(?P<loc>[\w-]{{3}})"
                r"(?P<year>\d{4})(?P<day>\d{3})\.ms$"
            ),
            "scedc-pds",
            "continuous_waveforms",
        ),
        DayLayout(
            "ncedc",
            ("network", "year", "yearday"),
            re.compile(
                rf"(?P<sta>{_CODE}+)\.(?P<net>{_CODE}+)\.(?P<cha>{_CODE}{{3}})\.(?P<loc>{_CODE}*)"
                r"\.D\.(?P<year>\d{4})\.(?P<day>\d{3})$"
            ),
            "ncedc-pds",
            "continuous_waveforms",
        ),
        DayLayout(
            "earthscope",
            ("network", "year", "day"),
            # The objects of some networks carry a version behind a #.
            re.compile(
                rf"(?P<sta>{_CODE}+)\.(?P<net>{_CODE}+)\.(?P<year>\d{{4}})\.(?P<day>\d{{3}})(#\d+)?$"
            ),
            "earthscope-geophysical-data",
            "miniseed",
        ),
    )
}

_FOLDER = {
    "year": re.compile(r"\d{4}$"),
    "yearday": re.compile(r"\d{4}[._]\d{3}$"),
    "day": re.compile(r"\d{3}$"),
    "channel": re.compile(rf"{_CODE}{{1,3}}\.D$"),
}


def layout_of_bucket(address: str) -> str | None:
    """Name of the layout of a public archive's bucket, or None."""
    bucket = address.split("/")[2] if is_address(address) else ""
    known = (layout.name for layout in DAY_LAYOUTS.values() if layout.bucket == bucket)
    return next(known, None) if bucket else None


def is_sds(root: Place, lister: FolderLister | None = None) -> bool:
    """True if the first folders of a folder have the structure ``YEAR/NET/STA/CHAN.TYPE``."""
    return _leads_to_channels(root, (), DAY_LAYOUTS["sds"].folders, lister)


def _leads_to_channels(
    root: Place, parts: Parts, levels: Sequence[str], lister: FolderLister | None
) -> bool:
    if not levels:
        return True
    expected = _FOLDER.get(levels[0])
    folders = folder_names(root, *parts, lister=lister)
    names = (name for name in folders if not expected or expected.match(name))
    # Some folders may be empty, but not all of an archive's.
    return any(
        _leads_to_channels(root, (*parts, name), levels[1:], lister) for name in islice(names, 3)
    )


def list_day_files(root: Place, layout: DayLayout, wanted: Wanted) -> list[ArchiveFile]:
    """List the files of an archive that may contain selected stations and times.

    Local day files may be cut at any hour, and contain up to a day more than their names say, so
    they are opened to find out, as are files with other names.  At addresses, where opening a
    file takes requests, names are trusted, and files with other names are ignored.
    """
    local = not is_address(root)
    margin_ns = DAY_NS if local else 0
    at = (
        0
        if not layout.prefix or layout.prefix not in folder_names(root, lister=wanted.lister)
        else 1
    )
    files: list[ArchiveFile] = []
    named = day_filter(layout, wanted, at, margin_ns)

    def keep(parts: Parts) -> bool:
        inside = not isinstance(root, Path) or wanted.enters(str(root.joinpath(*parts)))
        return inside and named(parts)

    for file in walk_tree(root, keep, wanted.lister):
        match = layout.file.match(file.parts[-1])
        if match is None:
            if local:
                name = file.parts[-1]
                expected = "." in name and expected_miniseed(name)
                files.append(ArchiveFile(file.path, "", "", expected))
            else:
                wanted.passed_over[file.path] = f"its name is not one of {layout.name}"
            continue
        day_ns = start_of_day(match["year"], match["day"])
        network, station = code_of_name(match["net"]), code_of_name(match["sta"])
        span = day_ns - margin_ns, day_ns + DAY_NS + margin_ns
        if not wanted.span(*span) or not wanted.station(network, station):
            continue
        found = _archive_file(file, match, (network, station), day_ns)
        # A neighbouring day only matters if it contains samples of the selected time.
        found.expected = wanted.overlaps(day_ns, day_ns + DAY_NS)
        files.append(found)
    return files


def _archive_file(
    file: TreeFile, match: re.Match[str], station: tuple[str, str], day_ns: int
) -> ArchiveFile:
    channels: tuple[ChannelExtent, ...] | None = None
    if file.size > 0 and "cha" in match.re.groupindex:
        # Opening each object would cost two requests; its records are read when it is picked.
        code: Code = (*station, code_of_name(match["loc"]), match["cha"])
        channels = (ChannelExtent(code, day_ns, day_ns + DAY_NS - 1),)
    return ArchiveFile(file.path, "", "", True, file.size, file.stamp, channels)


def code_of_name(text: str) -> str:
    """A code without its padding; ``--`` stands for an empty location."""
    return text.strip("_").replace("--", "").upper()


def day_filter(
    layout: DayLayout, wanted: Wanted, at: int, margin_ns: int
) -> Callable[[Parts], bool]:
    """Filter of folders by name; it records folders that the layout does not have as ignored."""
    levels = layout.folders

    def pass_over(parts: Parts) -> bool:
        wanted.passed_over["/".join(parts)] = f"not a folder of the layout {layout.name}"
        return False

    def keep(parts: Parts) -> bool:
        if at and parts[0] != layout.prefix:
            return pass_over(parts)
        inner = parts[at:]
        if not inner:
            return True
        if len(inner) > len(levels):
            return pass_over(parts)
        kind = levels[len(inner) - 1]
        expected = _FOLDER.get(kind)
        if expected is not None and not expected.match(inner[-1]):
            return pass_over(parts)
        known = dict(zip(levels, inner, strict=False))
        if kind == "network":
            return wanted.network(inner[-1].upper())
        if kind == "station":
            return wanted.station(known["network"].upper(), inner[-1].upper())
        start, end = _span(known)
        return wanted.span(start - margin_ns, end + margin_ns)

    return keep


def _span(known: dict[str, str]) -> tuple[int, int]:
    """Half-open time span of a folder, in ns, by the names of the folders above it."""
    if "yearday" in known:
        start = start_of_day(known["yearday"][:4], known["yearday"][5:])
        return start, start + DAY_NS
    if "day" in known:
        start = start_of_day(known["year"], known["day"])
        return start, start + DAY_NS
    year = int(known["year"])
    return start_of_day(str(year), "001"), start_of_day(str(year + 1), "001")


def start_of_day(year: str, day: str) -> int:
    """Start of a day of a year, in nanoseconds since 1970."""
    moment = datetime(min(max(int(year), 1), 9999), 1, 1, tzinfo=UTC)
    return (moment - _EPOCH + timedelta(days=int(day) - 1)).days * DAY_NS
