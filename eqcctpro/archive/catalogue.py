"""Catalogues of archives: which days or time-chunk folders there are, and their files by time.

A run in partitions asks for the files of one span after the other.  A catalogue lists no folder
of a year before a file of that year is asked for.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from typing import Protocol

from eqcctpro.archive.day_files import DAY_LAYOUTS, code_of_name, day_filter, start_of_day
from eqcctpro.archive.files import ArchiveFile, chunk_files, expected_miniseed
from eqcctpro.archive.listing import FolderLister
from eqcctpro.archive.selection import RECORD_NS, Wanted
from eqcctpro.archive.settings import InputSettings
from eqcctpro.archive.timechunks import DAY_NS, MINUTE_NS
from eqcctpro.archive.trees import folder_names, walk_tree
from eqcctpro.errors import InputError
from eqcctpro.spans import FOREVER_NS, Span
from eqcctpro.times import parse_chunk_name

__all__ = ["Catalogue", "FolderCatalogue", "SdsCatalogue", "Unit"]

SDS = DAY_LAYOUTS["sds"]
# Years whose names are kept: a partition and its borders lie in two at most.
YEARS_KEPT = 2
# Time-chunk folders on either side of a partition that its borders may depend on: one more than
# a station task reads beside its own.
FOLDERS_BESIDE = 4
# Folders that are listed to estimate the size of an archive.
SAMPLED = 4
# Files of a station in a time-chunk folder, most often.
CHANNELS = 3

_YEAR = re.compile(r"\d{4}$")
# Far from all data, and far from the ends of 64 bits.
_FAR_NS = FOREVER_NS // 2


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of an archive that partitions never cut: a day, or a time-chunk folder.

    Attributes
    ----------
    start_ns : int
    files : int
        Estimated number of files.
    """

    start_ns: int
    files: int


class Catalogue(Protocol):
    """Files of an archive by time."""

    def station_tasks(self) -> int:
        """Estimated number of station tasks, from a few folders."""

    def span(self) -> Span:
        """Estimated span of time of the archive, by the names of a few folders and files."""

    def weight(self, span: Span) -> float:
        """Estimated amount of data in a span, in any unit."""

    def units(self, from_ns: int) -> Iterator[Unit]:
        """Units that start at a time or later, in order."""

    def files(self, own: Span, wanted: Wanted) -> Iterator[ArchiveFile]:
        """Files of a span and those near it, sorted by path; the latter are guests."""

    def forget_failures(self) -> None:
        """Have folders listed again that could not be."""


@dataclass
class _SdsYear:
    """Names of the day files of one year of an SDS archive.

    Attributes
    ----------
    heads : list of (str, array of int)
        Path of the files up to the day, and the days of the year, ascending.
    others : list of str
        Files with other names.
    counts : dict of int to int
        Number of files by day of the year.
    passed_over : dict of str to str
        Files and folders that are not read, with the reason.
    failed : dict of str to InputError
        Folders that could not be listed.
    """

    heads: list[tuple[str, array[int]]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    passed_over: dict[str, str] = field(default_factory=dict)
    failed: dict[str, InputError] = field(default_factory=dict)


class SdsCatalogue:
    """Catalogue of a local SDS archive.

    Parameters
    ----------
    root : Path
    settings : InputSettings
    """

    def __init__(self, root: Path, settings: InputSettings) -> None:
        self._root = root
        self._settings = settings
        self._listed: dict[int, _SdsYear] = {}
        self._estimates: dict[int, int] = {}
        self._span: Span | None = None
        self._stations = Wanted(settings)
        inside = settings.span
        names = folder_names(root, lister=self._lister())
        self._years = [
            year
            for year in sorted(int(name) for name in names if _YEAR.match(name))
            # Files may hold a day more than their names say.
            if Span(_year_start(year) - DAY_NS, _year_start(year + 1) + DAY_NS).overlaps(inside)
        ]

    def _lister(self) -> FolderLister:
        return FolderLister(self._settings.file_timeout_s)

    def station_tasks(self) -> int:
        """Estimated number of station tasks, from a few folders."""
        return sum(map(self._tasks_of, self._years))

    def _tasks_of(self, year: int) -> int:
        if year not in self._estimates:
            lister, name = self._lister(), f"{year:04d}"
            stations = [
                (name, network, station)
                for network in folder_names(self._root, name, lister=lister)
                for station in folder_names(self._root, name, network, lister=lister)
            ]
            days = [
                len(lister.names(str(self._root.joinpath(*parts, channel))))
                for parts in stations[:: max(len(stations) // SAMPLED, 1)][:SAMPLED]
                for channel in folder_names(self._root, *parts, lister=lister)[:1]
            ]
            self._estimates[year] = len(stations) * max(days, default=0)
        return self._estimates[year]

    def weight(self, span: Span) -> float:
        """Estimated amount of data in a span: station-days, spread evenly over each year."""
        total = 0.0
        for year in self._years:
            whole = Span(_year_start(year), _year_start(year + 1)).within(self.span())
            part = whole.within(span)
            if part.start_ns < part.end_ns:
                share = (part.end_ns - part.start_ns) / (whole.end_ns - whole.start_ns)
                total += share * self._tasks_of(year)
        return total

    def span(self) -> Span:
        """Estimated span of time of the archive, by the names of a few folders and files."""
        if self._span is None:
            days = [self._days(self._years[at]) for at in (0, -1)] if self._years else []
            whole = Span(days[0].start_ns, days[-1].end_ns) if days else Span(0, 0)
            self._span = whole.within(self._settings.span)
        return self._span

    def _days(self, year: int) -> Span:
        """Days of a year, by the file names of a few of its stations."""
        lister, name, found = self._lister(), f"{year:04d}", []
        for network in folder_names(self._root, name, lister=lister)[:SAMPLED]:
            for station in folder_names(self._root, name, network, lister=lister)[:SAMPLED]:
                parts = (name, network, station)
                for channel in folder_names(self._root, *parts, lister=lister)[:1]:
                    names = lister.names(str(self._root.joinpath(*parts, channel)))
                    days = (file.rpartition(".")[2] for file, _ in names)
                    found += [int(day) for day in days if day.isdigit()]
        first = _year_start(year)
        days_of_year = (_year_start(year + 1) - first) // DAY_NS
        end = min(max(found, default=days_of_year), days_of_year)
        return Span(first + (min(found, default=1) - 1) * DAY_NS, first + end * DAY_NS)

    def units(self, from_ns: int) -> Iterator[Unit]:
        """Days with files, by their names; those that the run is not asked for are left out."""
        for year in self._years:
            first = _year_start(year)
            if _year_start(year + 1) <= from_ns:
                continue
            found = self._year(year)
            # Files with other names are looked into with the first day of their year.
            counts = found.counts or Counter({1: 1} if found.others else {})
            for day, files in sorted(counts.items()):
                start = first + (day - 1) * DAY_NS
                near = Span(start - DAY_NS, start + 2 * DAY_NS)
                if start >= from_ns and near.overlaps(self._settings.span):
                    yield Unit(start, files)

    def files(self, own: Span, wanted: Wanted) -> Iterator[ArchiveFile]:
        """Files of a span and those near it, sorted by path; the latter are guests."""
        settings = self._settings
        margin = settings.context_ns + RECORD_NS + round(settings.overlap_min * MINUTE_NS)
        read = Span(max(own.start_ns, -_FAR_NS) - margin, min(own.end_ns, _FAR_NS) + margin)
        lists = [
            self._files_of(year, own, read, wanted)
            for year in self._years
            if Span(_year_start(year) - DAY_NS, _year_start(year + 1) + DAY_NS).overlaps(read)
        ]
        wanted.seen |= self._stations.seen
        wanted.unwanted |= self._stations.unwanted
        return merge(*lists, key=lambda file: file.path)

    def _files_of(self, year: int, own: Span, read: Span, wanted: Wanted) -> list[ArchiveFile]:
        found, files, new_year = self._year(year), [], _year_start(year)
        near = Span(new_year - DAY_NS, _year_start(year + 1) + DAY_NS)
        first_day = new_year + (min(found.counts, default=1) - 1) * DAY_NS
        if own.holds(first_day):
            wanted.passed_over |= found.passed_over
            wanted.lister.failed |= found.failed
        for path in found.others:
            expected = "." in path.rpartition("/")[2] and expected_miniseed(path)
            guest = not own.holds(first_day)
            files.append(ArchiveFile(path, "", "", expected, guest=guest, near=near))
        first = (read.start_ns - new_year) // DAY_NS
        last = (read.end_ns - new_year) // DAY_NS + 2
        for head, days in found.heads:
            for day in days[bisect_left(days, first) : bisect_right(days, last)]:
                start = new_year + (day - 1) * DAY_NS
                # A neighbouring day only matters if it holds samples of the selected time.
                expected = self._stations.overlaps(start, start + DAY_NS)
                path, guest = f"{head}{day:03d}", not own.holds(start)
                near_it = Span(start - DAY_NS, start + 2 * DAY_NS)
                files.append(ArchiveFile(path, "", "", expected, guest=guest, near=near_it))
        return sorted(files, key=lambda file: file.path)

    def forget_failures(self) -> None:
        """Have folders listed again that could not be."""
        self._listed = {year: found for year, found in self._listed.items() if not found.failed}

    def _year(self, year: int) -> _SdsYear:
        if year not in self._listed:
            while len(self._listed) >= YEARS_KEPT:
                del self._listed[min(self._listed)]
            self._listed[year] = self._list(year)
        return self._listed[year]

    def _list(self, year: int) -> _SdsYear:
        """List the folders of a year."""
        found, lister, wanted = _SdsYear(), self._lister(), self._stations
        wanted.passed_over = found.passed_over
        named = day_filter(SDS, wanted, 0, DAY_NS)
        channels: list[str] = []

        def keep(parts: tuple[str, ...]) -> bool:
            if parts[0] != str(year):
                return False
            path = self._root.joinpath(*parts)
            if not wanted.enters(str(path)) or not named(parts):
                return False
            if len(parts) == len(SDS.folders):
                channels.append(str(path))
            return len(parts) < len(SDS.folders)

        for file in walk_tree(self._root, keep, lister):
            if len(file.parts) == 1:
                found.passed_over[file.path] = "a file beside the years of the archive"
            else:
                found.others.append(file.path)
        lister.ahead(channels)
        heads: dict[str, array[int]] = {}
        refused: set[str] = set()
        for folder in channels:
            for name, is_folder in lister.names(folder):
                if is_folder or name.startswith("."):
                    if is_folder:
                        found.passed_over[f"{folder}/{name}"] = "not a folder of the layout sds"
                    continue
                stem, day = name[:-3], name[-3:]
                head = f"{folder}/{stem}"
                if head not in heads and head not in refused:
                    kind = self._kind(f"{stem}001", year)
                    if kind is None:
                        found.others.append(f"{folder}/{name}")
                        continue
                    if not kind:
                        refused.add(head)
                    heads[head] = array("H")
                if not day.isdigit():
                    found.others.append(f"{folder}/{name}")
                elif head in heads and self._stations.overlaps(
                    (start := _year_start(year) + (int(day) - 1) * DAY_NS) - DAY_NS,
                    start + 2 * DAY_NS,
                ):
                    heads[head].append(int(day))
        for head, days in sorted(heads.items()):
            if days and head not in refused:
                ordered = array("H", sorted(days))
                found.heads.append((head, ordered))
                found.counts.update(ordered)
        found.failed = dict(lister.failed)
        return found

    def _kind(self, name: str, year: int) -> bool | None:
        """True for day files of wanted stations; None for names of another kind."""
        match = SDS.file.match(name)
        if match is None or int(match["year"]) != year:
            return None
        return self._stations.station(code_of_name(match["net"]), code_of_name(match["sta"]))


class FolderCatalogue:
    """Catalogue of local time-chunk folders.

    Parameters
    ----------
    roots : sequence of Path
    settings : InputSettings
    """

    def __init__(self, roots: Sequence[Path], settings: InputSettings) -> None:
        self._roots = roots
        self._settings = settings
        lister = FolderLister(settings.file_timeout_s)
        inside = settings.span
        found = {
            name: span
            for root in roots
            for name, is_folder in lister.names(str(root))
            if is_folder and (span := parse_chunk_name(name)) is not None
        }
        # Records of a folder may lie beyond its name: those beside what is asked for count, too.
        names = sorted(found, key=lambda name: (found[name], name))
        wanted = [at for at, name in enumerate(names) if Span(*found[name]).overlaps(inside)]
        first = max(min(wanted, default=0) - FOLDERS_BESIDE, 0)
        self._names = names[first : max(wanted, default=len(names)) + FOLDERS_BESIDE + 1]
        self._spans = [Span(*found[name]) for name in self._names]
        self._starts = [span.start_ns for span in self._spans]

    def station_tasks(self) -> int:
        """Estimated number of station tasks, from a few folders."""
        names = self._names
        sample = names[:: max(len(names) // SAMPLED, 1)][:SAMPLED]
        return len(names) * max(map(self._stations_in, sample), default=0)

    def _stations_in(self, name: str) -> int:
        lister = FolderLister(self._settings.file_timeout_s)
        return sum(
            len(lister.names(str(root / name))) for root in self._roots if (root / name).is_dir()
        )

    def weight(self, span: Span) -> float:
        """Number of folders that begin in a span."""
        return bisect_left(self._starts, span.end_ns) - bisect_left(self._starts, span.start_ns)

    def span(self) -> Span:
        """Span of time of the archive, by the names of its folders."""
        if not self._spans:
            return Span(0, 0)
        whole = Span(self._starts[0], max(span.end_ns for span in self._spans))
        return whole.within(self._settings.span)

    def units(self, from_ns: int) -> Iterator[Unit]:
        """Time-chunk folders."""
        for name, start in zip(self._names, self._starts, strict=True):
            if start >= from_ns:
                yield Unit(start, CHANNELS * self._stations_in(name))

    def files(self, own: Span, wanted: Wanted) -> Iterator[ArchiveFile]:
        """Files of a span and those near it, sorted by path; the latter are guests."""
        settings, starts = self._settings, self._starts
        margin = settings.context_ns + RECORD_NS + round(settings.overlap_min * MINUTE_NS)
        read = Span(max(own.start_ns, -_FAR_NS) - margin, min(own.end_ns, _FAR_NS) + margin)
        reached = [at for at, span in enumerate(self._spans) if span.overlaps(read)]
        first = min([bisect_left(starts, own.start_ns), *reached])
        end = max([bisect_left(starts, own.end_ns), *(at + 1 for at in reached)])
        first, end = max(first - FOLDERS_BESIDE, 0), end + FOLDERS_BESIDE
        mine = {name for name, start in zip(self._names, starts, strict=True) if own.holds(start)}
        found = chunk_files(
            self._roots,
            wanted.passed_over,
            wanted.enters,
            wanted.lister,
            frozenset(self._names[first:end]),
        )
        for file in found if len(self._roots) == 1 else sorted(found, key=lambda file: file.path):
            file.guest = file.chunk not in mine
            if settings.timechunk_min is not None:
                file.near = self._near(file.chunk)
            yield file

    def forget_failures(self) -> None:
        """Have folders listed again that could not be, as they are each time."""

    def _near(self, name: str) -> Span:
        """Time of the partitions that read a folder: its own and those of the folders beside it."""
        at = self._names.index(name)
        first, end = max(at - FOLDERS_BESIDE, 0), at + FOLDERS_BESIDE + 1
        start = -FOREVER_NS if first == 0 else self._starts[first]
        reach = max(span.end_ns for span in self._spans[first:end])
        return Span(start, FOREVER_NS if end >= len(self._names) else reach)


def _year_start(year: int) -> int:
    return start_of_day(str(year), "001")
