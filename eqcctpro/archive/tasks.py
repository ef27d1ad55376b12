"""Station tasks and files of a plan, held as columns: plans of 10**5 stations stay small.

As objects a station with three files takes some 3 kB, as columns a sixth of that.  An object
is made when one is asked for.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.index import ChannelExtent, Code, IndexedFile
from eqcctpro.archive.timechunks import Timechunk
from eqcctpro.times import NS_PER_S

__all__ = ["FileTable", "Heading", "StationTask", "TaskTable", "Tasks", "Texts"]

Int64 = NDArray[np.int64]


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
        Size of these files.
    stamps : tuple of (int, int)
        Size and time of the last change, in nanoseconds, of each file when the plan was made;
        of a file at an address its size and another stamp of its content.
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

    @property
    def name(self) -> str:
        """``NET.STA.LOC.INSTRUMENT``."""
        return f"{self.network}.{self.station}.{self.location}.{self.instrument}"


@dataclass(frozen=True, slots=True)
class Heading:
    """What a station task is called, without its files.

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


class _Numbers(dict[str, int]):
    """A number for each string that is asked for."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self._texts)
        self._texts.append(text)
        return number


class Texts:
    """Strings by number, each held once.

    Attributes
    ----------
    number : callable
        The number of a string, a new one if it is not known.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        self.number: Callable[[str], int] = _Numbers(self._open).__getitem__
        # Of sealed ones: one after the other, and where each ends.
        self._sealed = bytearray()
        self._ends = array("q")

    def __getitem__(self, number: int) -> str:
        if not self._ends:
            return self._open[number]
        begin = self._ends[number - 1] if number else 0
        return os.fsdecode(bytes(self._sealed[begin : self._ends[number]]))

    def seal(self) -> None:
        """Hold them as bytes: there will be no more.

        Many small strings among what planning lets go would keep its memory from returning.
        """
        for text in self._open:
            self._sealed += os.fsencode(text)
            self._ends.append(len(self._sealed))
        self._open.clear()
        del self.number


class FileTable(Sequence[IndexedFile]):
    """Files and what is in them; each has at least one channel."""

    def __init__(self) -> None:
        self._texts = Texts()
        self._folders = array("i")
        # File names, one after the other, and where each ends.
        self._names = bytearray()
        self._name_ends = array("q")
        self._sizes = array("q")
        self._mtimes = array("q")
        # Network, station, location and channel of each extent, and where each file's end.
        self._codes = array("i")
        self._extents = array("q")
        self._extent_ends = array("q")

    def append(self, file: IndexedFile) -> int:
        """Add a file; returns its number."""
        head, slash, name = file.path.rpartition("/")
        self._folders.append(self._texts.number(head + slash))
        self._names += os.fsencode(name)
        self._name_ends.append(len(self._names))
        self._sizes.append(file.size)
        self._mtimes.append(file.mtime_ns)
        for extent in file.channels:
            self._codes.extend(map(self._texts.number, extent.code))
            self._extents.extend((extent.start_ns, extent.end_ns))
        self._extent_ends.append(len(self._extents) // 2)
        return len(self._sizes) - 1

    def seal(self) -> None:
        """Say that there will be no more files."""
        self._texts.seal()

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, number: int) -> IndexedFile: ...
    @overload
    def __getitem__(self, number: slice) -> list[IndexedFile]: ...
    def __getitem__(self, number: int | slice) -> IndexedFile | list[IndexedFile]:
        if isinstance(number, slice):
            return [self._file(each) for each in range(*number.indices(len(self)))]
        return self._file(range(len(self))[number])

    def _file(self, number: int) -> IndexedFile:
        channels = tuple(ChannelExtent(*extent) for extent in self.extents(number))
        return IndexedFile(self.path(number), self._sizes[number], self._mtimes[number], channels)

    def extents(self, number: int) -> Iterator[tuple[Code, int, int]]:
        """Code, first and last sample time of each channel of a file."""
        first = self._extent_ends[number - 1] if number else 0
        for at in range(first, self._extent_ends[number]):
            yield self._code(at), self._extents[2 * at], self._extents[2 * at + 1]

    def _code(self, at: int) -> tuple[str, str, str, str]:
        network, station, location, channel = self._codes[4 * at : 4 * at + 4]
        texts = self._texts
        return texts[network], texts[station], texts[location], texts[channel]

    def path(self, number: int) -> str:
        """Path of a file."""
        begin = self._name_ends[number - 1] if number else 0
        name = self._names[begin : self._name_ends[number]]
        return self._texts[self._folders[number]] + os.fsdecode(bytes(name))

    def stamp(self, number: int) -> tuple[int, int]:
        """Size of a file, and time of its last change in nanoseconds."""
        return self._sizes[number], self._mtimes[number]

    def spans(self) -> Int64:
        """First and last sample of all extents, in nanoseconds; shape (extents, 2)."""
        return np.array(self._extents, dtype=np.int64).reshape(-1, 2)

    def seconds(self) -> NDArray[np.float64]:
        """How much each file holds, summed over its channels."""
        spans = self.spans()
        ends = np.array(self._extent_ends, dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        durations = (spans[:, 1] - spans[:, 0]) / NS_PER_S
        total: NDArray[np.float64] = np.add.reduceat(durations, starts) if len(ends) else durations
        return total


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
        self._texts = Texts()
        self._chunk_numbers: dict[Timechunk, int] = {}
        self._chunks: list[Timechunk] = []
        # Network, station, location, instrument and folder of each task.
        self._codes = array("i")
        self._of_chunks = array("i")
        self._sizes = array("q")
        self._files = array("i")
        self._file_ends = array("q")
        # One after the other is asked for, each twice: as the next one, and as the one.
        self.task = lru_cache(maxsize=4)(self._task)

    def __len__(self) -> int:
        return len(self._sizes)

    def append(self, codes: Iterable[str], chunk: Timechunk, files: Sequence[int]) -> None:
        """Add a task.

        Parameters
        ----------
        codes : iterable of str
            Network, station, location, instrument and folder.
        chunk : Timechunk
        files : sequence of int
            Numbers of its files, in their order.
        """
        self._codes.extend(map(self._texts.number, codes))
        number = self._chunk_numbers.setdefault(chunk, len(self._chunks))
        if number == len(self._chunks):
            self._chunks.append(chunk)
        self._of_chunks.append(number)
        self._files.extend(files)
        self._file_ends.append(len(self._files))
        self._sizes.append(sum(self.files.stamp(file)[0] for file in files))

    def seal(self) -> None:
        """Say that there will be no more tasks."""
        self._texts.seal()

    def _task(self, row: int) -> StationTask:
        """The task in a row."""
        files, heading = self.files, self.heading(row)
        begin = self._file_ends[row - 1] if row else 0
        numbers = self._files[begin : self._file_ends[row]]
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
            tuple([files.stamp(number) for number in numbers]),
        )

    def heading(self, row: int) -> Heading:
        """What the task in a row is called."""
        texts = self._texts
        network, station, location, instrument, folder = self._codes[5 * row : 5 * row + 5]
        return Heading(
            texts[network],
            texts[station],
            texts[location],
            texts[instrument],
            texts[folder],
            self._chunks[self._of_chunks[row]],
        )

    def extents_of(self, row: int) -> Iterator[tuple[Code, int, int]]:
        """Code, first and last sample time of each channel in a task's files."""
        begin = self._file_ends[row - 1] if row else 0
        return chain.from_iterable(
            map(self.files.extents, self._files[begin : self._file_ends[row]])
        )

    def station_number(self, row: int) -> int:
        """The same for all tasks of a station, and for no other."""
        network, station = self._codes[5 * row : 5 * row + 2]
        return network << 32 | station

    def owned(self) -> Int64:
        """First time that each task's chunk owns, and the first it does not; shape (tasks, 2)."""
        spans = [(chunk.own_start_ns, chunk.own_end_ns) for chunk in self._chunks]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)[np.array(self._of_chunks, np.intp)]

    def size(self, row: int) -> int:
        """Bytes of a task's files."""
        return self._sizes[row]

    def seconds(self) -> NDArray[np.float64]:
        """How much the files of each task hold, summed over their channels."""
        ends = np.array(self._file_ends, dtype=np.int64)
        if not len(ends):
            return np.empty(0)
        held = self.files.seconds()[np.array(self._files, dtype=np.int64)]
        total: NDArray[np.float64] = np.add.reduceat(held, np.concatenate([[0], ends[:-1]]))
        return total


class Tasks(Sequence[StationTask]):
    """Rows of a table, as the station tasks that they stand for.

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
        """What tasks are called; by default all of them."""
        rows = self.rows if positions is None else (self.rows[each] for each in positions)
        return map(self.table.heading, map(int, rows))

    def outlines(self) -> Iterator[tuple[Heading, int]]:
        """What each task is called, and the bytes of its files."""
        rows = [int(row) for row in self.rows]
        return zip(map(self.table.heading, rows), map(self.table.size, rows), strict=True)

    def station_number(self, position: int) -> int:
        """The same for all tasks of a station, and for no other."""
        return self.table.station_number(int(self.rows[position]))

    def owned(self) -> Int64:
        """First time that the chunk of each task owns, and the first it does not, in ns."""
        return self.table.owned()[self.rows]

    def extents_of(self, position: int) -> Iterator[tuple[Code, int, int]]:
        """Code, first and last sample time of each channel in a task's files."""
        return self.table.extents_of(int(self.rows[position]))

    def choose(self, rows: Iterable[int]) -> Tasks:
        """Those of some rows of the table."""
        return Tasks(self.table, np.fromiter(rows, dtype=np.int32))
