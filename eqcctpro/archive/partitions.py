"""Partitions of an archive by time, planned one after the other.

The borders of partitions are borders of time chunks, so that the station tasks of all partitions
together are those of one plan of the whole archive.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from eqcctpro.archive.catalogue import Catalogue, FolderCatalogue, SdsCatalogue
from eqcctpro.archive.file_table import FileTable
from eqcctpro.archive.files import ArchiveFile
from eqcctpro.archive.layouts import Layout, detect_layout
from eqcctpro.archive.plan import (
    FileProblem,
    Part,
    PartSelection,
    Plan,
    make_part,
    open_input,
)
from eqcctpro.archive.settings import InputSettings
from eqcctpro.archive.tasks import Tasks, TaskTable
from eqcctpro.archive.timechunks import DAY_NS, length_ns
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.places import is_address
from eqcctpro.spans import FOREVER_NS, Span

__all__ = ["MANY_TASKS", "PartitionPlanner", "PlannedPartition", "partition_planner"]

#: Station tasks from which on an archive is picked in partitions.
MANY_TASKS = 10_000
# Files of a partition, and of the first one, after which the first results come.
FILES, FIRST_FILES = 6_000, 600
# Seconds before something that cannot be read is tried again.
RETRY_S = (1.0, 5.0, 25.0)

logger = logging.getLogger("eqcctpro")


@dataclass(frozen=True)
class PlannedPartition:
    """A partition and its plan.

    Attributes
    ----------
    number : int
        From 0, in the order of time.
    part : Part
    plan : Plan
    digest : str
        Hash of the names, sizes and times of change of its files.
    """

    number: int
    part: Part
    plan: Plan
    digest: str


def partition_planner(
    settings: InputSettings, size: float | Literal["auto", "off"], *, begun: bool
) -> PartitionPlanner | None:
    """Planner of an archive that is picked in partitions; None for one that is planned at once.

    Parameters
    ----------
    settings : InputSettings
    size : float, "auto" or "off"
        Days of a partition.
    begun : bool
        True if a run in partitions has begun, and goes on.

    Raises
    ------
    SettingsError
        Partitions are asked for, and the input cannot be cut.
    """
    if size == "off":
        return None
    refusal = _refusal(settings)
    if refusal is None:
        wanted, _ = open_input(settings)
        layout = settings.layout
        if layout == "auto":
            layout = detect_layout(settings.inputs, wanted.lister)
        local = [place for place in settings.inputs if isinstance(place, Path)]
        catalogue: Catalogue | None = None
        if layout == "sds" and len(local) == 1:
            catalogue = SdsCatalogue(local[0], settings)
        elif layout == "chunks" and all(place.is_dir() for place in local):
            catalogue = FolderCatalogue(local, settings)
        if catalogue is not None:
            if size == "auto" and not begun and catalogue.station_tasks() < MANY_TASKS:
                return None
            days = None if size == "auto" else size
            return PartitionPlanner(catalogue, layout, settings, days)  # type: ignore[arg-type]
        refusal = "only local archives of the layouts sds and chunks are cut, one folder of SDS"
    if size != "auto":
        raise SettingsError(f"partition: {refusal}", hint="leave it out, or write off")
    return None


def _refusal(settings: InputSettings) -> str | None:
    """Why an input is not cut."""
    if any(is_address(place) or not Path(place).exists() for place in settings.inputs):
        return "only local folders are cut"
    if settings.stations_at_most is not None:
        return "stations_at_most chooses among the stations of the whole archive"
    if settings.hydrophone:
        return "hydrophones are paired with seismometers over the whole archive"
    return None


class PartitionPlanner:
    """Planner of the partitions of an archive.

    Parameters
    ----------
    catalogue : Catalogue
    layout : str
    settings : InputSettings
        Of the whole run.
    days : float or None
        Length of a partition; None cuts by the number of files.

    Attributes
    ----------
    selection : PartSelection
        What the partitions hold so far.
    stop : threading.Event
        Ends the waiting for what cannot be read.
    """

    def __init__(
        self, catalogue: Catalogue, layout: Layout, settings: InputSettings, days: float | None
    ) -> None:
        self.layout = layout
        self.selection = PartSelection()
        self.stop = threading.Event()
        self._given_up: set[str] = set()
        self._catalogue = catalogue
        self._settings = settings
        self._days_ns = None if days is None else round(days * DAY_NS)

    @property
    def span(self) -> Span:
        """Estimated span of time of the archive."""
        return self._catalogue.span()

    def left(self, done: int, to_ns: int) -> int:
        """Estimated number of station tasks behind a time, from those that are done up to it."""
        before = self._catalogue.weight(Span(end_ns=to_ns))
        return round(done / before * self._catalogue.weight(Span(to_ns))) if before else 0

    def plans(self, number: int = 0, from_ns: int = -FOREVER_NS) -> Iterator[PlannedPartition]:
        """Plan one partition after the other.

        Parameters
        ----------
        number : int
            Of the first one.
        from_ns : int
            End of what is planned already.

        """
        # Where the grid ends with the last sample, that must be known to lie in a partition.
        to_the_end = self._settings.timechunk_min is not None and self._settings.end_ns is None
        waiting: list[PlannedPartition] = []
        for part in self._parts(from_ns):
            planned = self.plan(number, part)
            number += 1
            if waiting and planned.plan.tasks:
                yield from waiting
                waiting = []
            waiting.append(planned)
            if not to_the_end:
                yield waiting.pop()
        with_tasks = [at for at, one in enumerate(waiting) if one.plan.tasks]
        if with_tasks and not waiting[at := with_tasks[0]].part.last:
            part = waiting[at].part
            last = replace(part, last=True, own=Span(part.own.start_ns, FOREVER_NS))
            # What lies behind it holds nothing, and is listed with it.
            waiting[at:] = [self.plan(waiting[at].number, last)]
        yield from waiting

    def plan(self, number: int, part: Part) -> PlannedPartition:
        """Plan one partition; what cannot be read is tried again a few times.

        A partition that cannot be planned has no station tasks, and a problem that says why.
        """
        planned, unreadable = self._attempt(number, part)
        for wait_s in RETRY_S:
            if not unreadable or self.stop.wait(wait_s):
                break
            logger.warning(
                "%s cannot be read%s: tried again",
                unreadable[0],
                f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else "",
            )
            self._catalogue.forget_failures()
            planned, unreadable = self._attempt(number, part)
        # What stays so is not waited for in each partition.
        self._given_up.update(map(_place, unreadable))
        return planned

    def _attempt(self, number: int, part: Part) -> tuple[PlannedPartition, list[str]]:
        """The partition, and paths in it that cannot be read, and may be later."""
        try:
            wanted, roots = open_input(self._settings)
            files = list(self._catalogue.files(part.own, wanted))
            digest = self._digest(files)
            plan = make_part(
                files, self.layout, self._settings, wanted, roots, part, self.selection
            )
        except InputError as error:
            place = str(self._settings.inputs[0])
            problem = FileProblem(place, type(error).__name__, str(error))
            table = FileTable()
            plan = Plan(self.layout, [], Tasks(TaskTable(table), range(0)), table, [problem])
            return PlannedPartition(number, part, plan, ""), [place]
        transient = [one.path for one in plan.problems if one.transient] + plan.unread_guests
        unreadable = [path for path in transient if _place(path) not in self._given_up]
        return PlannedPartition(number, part, plan, digest), unreadable

    def digest(self, part: Part) -> str:
        """Hash of the files of a partition as they are now; they are not opened."""
        wanted, _ = open_input(self._settings)
        return self._digest(self._catalogue.files(part.own, wanted))

    def _parts(self, from_ns: int) -> Iterator[Part]:
        """Spans of time that follow each other without a gap, until all units are in one."""
        begin, files, limit = from_ns, 0, FIRST_FILES
        index: int | None = None
        for unit in self._catalogue.units(from_ns):
            border = self._border(unit.start_ns)
            if self._days_ns is None:
                full = files > 0 and files + unit.files > limit
            else:
                full = index is not None and unit.start_ns // self._days_ns != index
            if full and border > begin:
                yield Part(Span(begin, border))
                begin, files, limit = border, 0, FILES
            if files == 0 and self._days_ns is not None:
                index = unit.start_ns // self._days_ns
            files += unit.files
        yield Part(Span(begin, FOREVER_NS), last=True)

    def _border(self, time_ns: int) -> int:
        """Begin of the first time chunk at or behind a time."""
        minutes = self._settings.timechunk_min
        if minutes is None:
            return time_ns
        length, start = length_ns(minutes), self._settings.start_ns or 0
        return start - (start - time_ns) // length * length

    def _digest(self, files: Iterable[ArchiveFile]) -> str:
        """Hash of names below the input, sizes and times of change."""
        digest = hashlib.blake2b(digest_size=16)
        roots = [f"{place}/" for place in self._settings.inputs]
        for file in files:
            name = file.path
            for root in roots:
                name = name.removeprefix(root)
            try:
                found = os.stat(file.path)  # noqa: PTH116 (text, hot)
                stamp = f"{found.st_size} {found.st_mtime_ns}"
            except OSError as error:
                stamp = type(error).__name__
            digest.update(f"{name}\0{stamp}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _place(path: str) -> str:
    """Folder that a file or folder lies in: day files have another name each day."""
    return os.path.dirname(path)  # noqa: PTH120 (text)
