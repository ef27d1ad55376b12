"""Station tasks of a plan, stored as columns: plans of 10**5 stations stay small.

As objects a station with three files takes about 3 kB, as columns a sixth of that.  Objects are
made on access.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.file_table import FileTable
from eqcctpro.archive.timechunks import Timechunk, read_span
from eqcctpro.codes import instrument_of
from eqcctpro.spans import FOREVER_NS

__all__ = ["Heading", "Piece", "ReadExtents", "StationTask", "TaskTable", "Tasks"]

Int64 = NDArray[np.int64]

# Tasks whose spans are computed at a time, to bound the memory.
AT_A_TIME = 2048
# Number of codes of a task.
CODES = 6


class Piece(NamedTuple):
    """Part of a station task's time span, if the task is too large to be picked at once.

    Attributes
    ----------
    start_ns, end_ns : int
        Half-open span whose picks belong to the piece.
    files : tuple of int
        Positions of the task's files with records in or near this span.
    """

    start_ns: int
    end_ns: int
    files: tuple[int, ...]


class ReadExtents(NamedTuple):
    """Parts of channel extents that station tasks read, as columns of equal length.

    Attributes
    ----------
    task : ndarray of int64
        Index into the requested rows.
    file, extent : ndarray of int64
        Numbers in the table of files.
    first_ns, last_ns : ndarray of int64
        Span that the task reads.
    share : ndarray of float64
        Fraction of the extent's samples in that span.
    """

    task: Int64
    file: Int64
    extent: Int64
    first_ns: Int64
    last_ns: Int64
    share: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StationTask:
    """One instrument of one station in one time chunk.

    Attributes
    ----------
    index : int
        Position in the plan.
    network, station, location, instrument : str
        `instrument` is the band and instrument code, for example ``"HH"``.
    folder : str
        Name of the station in output paths: its folder, or its code.
    chunk : Timechunk
    files : tuple of str
        Files with records of this station and time.
    n_bytes : int
        Size of these files in bytes.
    stamps : tuple of (int, int)
        Size and modification time, in nanoseconds, of each file when the plan was made; for a
        file at an address its size and another stamp of its content.
    hydrophone : str
        Band and instrument code of a hydrophone that is picked with it, or an empty string.
    beside : tuple of str
        Files of neighbouring chunks with records of its time, which are read where its own files
        have gaps.  Their stamps follow those of `files`.
    pieces : tuple of Piece
        Pieces in which it is picked one after the other, if it does not fit into memory.
    """

    index: int
    network: str
    station: str
    location: str
    instrument: str
    folder: str
    chunk: Timechunk
    files: tuple[str, ...]
    n_bytes: int
    stamps: tuple[tuple[int, int], ...] = ()
    hydrophone: str = ""
    beside: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()

    @property
    def name(self) -> str:
        """``NET.STA.LOC.INSTRUMENT``."""
        return f"{self.network}.{self.station}.{self.location}.{self.instrument}"


@dataclass(frozen=True, slots=True)
class Heading:
    """Codes and time chunk of a station task, without its files.

    Attributes
    ----------
    network, station, location, instrument, folder : str
    chunk : Timechunk
    """

    network: str
    station: str
    location: str
    instrument: str
    folder: str
    chunk: Timechunk

    @property
    def name(self) -> str:
        """``NET.STA.LOC.INSTRUMENT``."""
        return f"{self.network}.{self.station}.{self.location}.{self.instrument}"


class TaskTable:
    """Station tasks as columns; `Tasks` are rows of it.

    Parameters
    ----------
    files : FileTable

    Attributes
    ----------
    task : callable
        The station task in a row.
    """

    def __init__(self, files: FileTable) -> None:
        self.files = files
        self._texts = files.texts
        self._chunk_numbers: dict[Timechunk, int] = {}
        self._chunks: list[Timechunk] = []
        # Network, station, location, instrument, folder and hydrophone of each task.
        self._codes = array("i")
        self._of_chunks = array("i")
        self._sizes = array("q")
        self._files = array("i")
        self._file_ends = array("q")
        self._beside = array("i")
        self._beside_ends = array("q")
        self._pieces: dict[int, tuple[Piece, ...]] = {}
        # One after the other is asked for, each twice: as the next one, and as the one.
        self.task = lru_cache(maxsize=4)(self._task)

    def __len__(self) -> int:
        return len(self._sizes)

    def append(
        self,
        codes: Iterable[str],
        chunk: Timechunk,
        files: Sequence[int],
        beside: Sequence[int] = (),
    ) -> None:
        """Add a task.

        Parameters
        ----------
        codes : iterable of str
            Network, station, location, instrument, folder and hydrophone.
        chunk : Timechunk
        files : sequence of int
            Numbers of its files, in their order.
        beside : sequence of int
            Numbers of those that are read where they have gaps.
        """
        self._codes.extend(map(self._texts.number, codes))
        number = self._chunk_numbers.setdefault(chunk, len(self._chunks))
        if number == len(self._chunks):
            self._chunks.append(chunk)
        self._of_chunks.append(number)
        self._beside.extend(beside)
        self._beside_ends.append(len(self._beside))
        self._files.extend(files)
        self._file_ends.append(len(self._files))
        self._sizes.append(sum(self.files.stamp(file)[0] for file in files))

    def seal(self) -> None:
        """Freeze the table: no tasks and no files can be added afterwards."""
        self._texts.seal()

    def cut(self, pieces: Mapping[int, tuple[Piece, ...]]) -> None:
        """Set the pieces of tasks, by their rows; all other tasks are picked at once."""
        self._pieces = dict(pieces)
        self.task.cache_clear()

    def _task(self, row: int) -> StationTask:
        """The task in a row."""
        files, heading = self.files, self.heading(row)
        begin = self._file_ends[row - 1] if row else 0
        numbers = self._files[begin : self._file_ends[row]]
        begin = self._beside_ends[row - 1] if row else 0
        beside = self._beside[begin : self._beside_ends[row]]
        return StationTask(
            row,
            heading.network,
            heading.station,
            heading.location,
            heading.instrument,
            heading.folder,
            heading.chunk,
            tuple([files.path(number) for number in numbers]),
            self._sizes[row],
            tuple([files.stamp(number) for number in numbers + beside]),
            self._texts[self._codes[CODES * row + 5]],
            tuple([files.path(number) for number in beside]),
            self._pieces.get(row, ()),
        )

    def heading(self, row: int) -> Heading:
        """Codes and time chunk of the task in a row."""
        texts = self._texts
        first = CODES * row
        network, station, location, instrument, folder = self._codes[first : first + 5]
        return Heading(
            texts[network],
            texts[station],
            texts[location],
            texts[instrument],
            texts[folder],
            self._chunks[self._of_chunks[row]],
        )

    def spans_of(self, rows: NDArray[np.int64]) -> Int64:
        """Spans of the instruments of tasks in their files, clipped to what the time chunks own.

        Returns
        -------
        ndarray of int64, shape (spans, 5)
            Columns: index into `rows`; number of the station; first and last time in nanoseconds
            (last < first if the chunk owns nothing of the span); number of samples, from headers at
            the ends of files.
        """
        files = self.files
        task, at = _members(self._file_ends, rows)
        numbers = np.frombuffer(self._files, dtype=np.int32)[at]
        member, extent = _members(files.extent_ends, numbers.astype(np.int64))
        task = task[member]
        codes = np.frombuffer(self._codes, dtype=np.int32).reshape(-1, CODES)[rows][task]
        found = files.codes()[extent]
        same = np.all(found[:, :3] == codes[:, :3], axis=1)
        instruments = self._instruments(found[:, 3], codes[:, 3])
        if any(self._texts[number] for number in np.unique(codes[:, 5]).tolist()):
            instruments |= self._instruments(found[:, 3], codes[:, 5])
        same &= instruments
        task = task[same]
        owned = self.owned(rows)[task]
        spans = files.spans()[extent[same]]
        station = codes[same, 0].astype(np.int64) << 32 | codes[same, 1]
        first, last = np.maximum(spans[:, 0], owned[:, 0]), np.minimum(spans[:, 1], owned[:, 1])
        share = np.clip((last - first) / np.maximum(spans[:, 1] - spans[:, 0], 1), 0, 1)
        share[(first == spans[:, 0]) & (last == spans[:, 1])] = 1  # of a single sample, too
        samples = np.rint(share * files.samples()[extent[same]]).astype(np.int64)
        return np.stack([task, station, first, last, samples], axis=1)

    def _instruments(
        self, channels: NDArray[np.int32], instruments: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Mask of the channels that belong to the instrument beside them; both are code numbers."""
        known = {self._texts[number]: number for number in np.unique(instruments).tolist()}
        of_channel = np.full(int(channels.max(initial=0)) + 1, -1)
        for number in np.unique(channels).tolist():
            of_channel[number] = known.get(instrument_of(self._texts[number]), -1)
        return of_channel[channels] == instruments

    def owned(self, rows: NDArray[np.int64]) -> Int64:
        """Half-open spans that the chunks of tasks own, in ns; shape (tasks, 2)."""
        spans = [(chunk.own_start_ns, chunk.own_end_ns) for chunk in self._chunks]
        of_chunks = np.frombuffer(self._of_chunks, dtype=np.int32)[rows]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)[of_chunks]

    def size(self, row: int) -> int:
        """Bytes of a task's files."""
        return self._sizes[row]

    def file_numbers(self, row: int) -> list[int]:
        """Numbers of a task's files, in their order."""
        begin = self._file_ends[row - 1] if row else 0
        return self._files[begin : self._file_ends[row]].tolist()

    def read_extents(self, rows: Int64, context_ns: int) -> ReadExtents:
        """Extents of all channels that tasks read, with `context_ns` around what they own."""
        task, at = _members(self._file_ends, rows)
        numbers = np.frombuffer(self._files, dtype=np.int32)[at].astype(np.int64)
        member, extent = _members(self.files.extent_ends, numbers)
        task, file = task[member], numbers[member]
        spans = self.files.spans()[extent]
        limits = [read_span(chunk, context_ns) for chunk in self._chunks]
        bounds = [
            (-FOREVER_NS if start is None else start, FOREVER_NS if end is None else end)
            for start, end in limits
        ]
        of_chunks = np.frombuffer(self._of_chunks, dtype=np.int32)[rows]
        read = np.array(bounds, dtype=np.int64).reshape(-1, 2)[of_chunks][task]
        first, last = np.maximum(spans[:, 0], read[:, 0]), np.minimum(spans[:, 1], read[:, 1])
        share = np.clip((last - first) / np.maximum(spans[:, 1] - spans[:, 0], 1), 0, 1)
        share[(first == spans[:, 0]) & (last == spans[:, 1])] = 1  # of a single sample, too
        return ReadExtents(task, file, extent, first, last, share)


class Tasks(Sequence[StationTask]):
    """Sequence of the station tasks in some rows of a table.

    Parameters
    ----------
    table : TaskTable
    rows : range or array of int
    """

    def __init__(self, table: TaskTable, rows: range | NDArray[Any]) -> None:
        self.table = table
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: int) -> StationTask: ...
    @overload
    def __getitem__(self, position: slice) -> Tasks: ...
    def __getitem__(self, position: int | slice) -> StationTask | Tasks:
        if isinstance(position, slice):
            return Tasks(self.table, self.rows[position])
        return self.table.task(int(self.rows[position]))

    def __iter__(self) -> Iterator[StationTask]:
        return map(self.table.task, map(int, self.rows))

    def headings(self, positions: Iterable[int] | None = None) -> Iterator[Heading]:
        """Codes and time chunks of tasks, by default of all."""
        rows = self.rows if positions is None else (self.rows[each] for each in positions)
        return map(self.table.heading, map(int, rows))

    def names(self, positions: Iterable[int]) -> Iterator[tuple[str, str, str, str, str]]:
        """Network, station, location, instrument and time chunk of some tasks."""
        for task in self.headings(positions):
            yield task.network, task.station, task.location, task.instrument, task.chunk.name

    def outlines(self) -> Iterator[tuple[Heading, int]]:
        """Codes and time chunk of each task, with the size of its files in bytes."""
        rows = [int(row) for row in self.rows]
        return zip(map(self.table.heading, rows), map(self.table.size, rows), strict=True)

    def owned(self) -> Int64:
        """Half-open span that the chunk of each task owns, in ns; shape (tasks, 2)."""
        return self.table.owned(np.array(self.rows, dtype=np.int64))

    def spans_of(self, positions: Iterable[int]) -> Int64:
        """Spans of the instruments of tasks in their files; see `TaskTable.spans_of`.

        The first column is an index into `positions`.
        """
        rows = np.array(self.rows, dtype=np.int64)[np.fromiter(positions, dtype=np.int64)]
        parts = [np.empty((0, 5), np.int64)]
        for at in range(0, len(rows), AT_A_TIME):
            parts.append(self.table.spans_of(rows[at : at + AT_A_TIME]))
            parts[-1][:, 0] += at
        return np.concatenate(parts)

    def choose(self, rows: Iterable[int]) -> Tasks:
        """The tasks in some rows of the table."""
        return Tasks(self.table, np.fromiter(rows, dtype=np.int32))


def _members(
    ends: array[int], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Members of contiguous groups: index of the group, and position, of each member.

    Parameters
    ----------
    ends : array of int
        End of each group.
    groups : ndarray of int64
        Groups to expand.
    """
    edges = np.frombuffer(ends, dtype=np.int64)
    begin = np.where(groups, edges[groups - 1], 0)
    count = edges[groups] - begin
    owner = np.repeat(np.arange(len(groups)), count)
    return owner, np.arange(len(owner)) + np.repeat(begin - np.cumsum(count) + count, count)
