"""Table of the files of a plan and their channels, stored as columns."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.texts import ENCODING, Texts
from eqcctpro.miniseed.index import ChannelExtent, IndexedFile
from eqcctpro.times import NS_PER_S

__all__ = ["FileTable"]

Int64 = NDArray[np.int64]

#: Assumed sampling rate (Hz) of channels without a header, and the lowest rate of most channels,
#: which bounds the duration of an extent with gaps by its number of samples.
USUAL_RATE_HZ, LOW_RATE_HZ = 100.0, 20.0


class FileTable(Sequence[IndexedFile]):
    """Files with the extents of their channels; each file has at least one.

    Parameters
    ----------
    hold_bytes : int
        Most bytes of file contents that are kept.

    Attributes
    ----------
    held : dict of str to bytes
        Contents of files that were read completely for the index, by their paths.
    texts : Texts
        Their codes and folders.
    extent_ends : array of int
        End of each file's extents, as an index into the extents of all files.
    """

    def __init__(self, hold_bytes: int = 0) -> None:
        self.held: dict[str, bytes] = {}
        self._room = hold_bytes
        self.texts = Texts()
        self._folders = array("i")
        # Concatenated file names, and the end of each.
        self._names = bytearray()
        self._name_ends = array("q")
        self._sizes = array("q")
        self._mtimes = array("q")
        # Network, station, location and channel of each extent.
        self._codes = array("i")
        self._extents = array("q")
        self._samples = array("q")
        self._rates = array("d")
        self.extent_ends = array("q")

    def append(self, file: IndexedFile) -> int:
        """Add a file; returns its number."""
        if file.content is not None and len(file.content) <= self._room:
            self.held[file.path] = file.content
            self._room -= len(file.content)
        head, slash, name = file.path.rpartition("/")
        self._folders.append(self.texts.number(head + slash))
        self._names += name.encode(*ENCODING)
        self._name_ends.append(len(self._names))
        self._sizes.append(file.size)
        self._mtimes.append(file.mtime_ns)
        for extent in file.channels:
            self._codes.extend(map(self.texts.number, extent.code))
            self._extents.extend((extent.start_ns, extent.end_ns))
            self._samples.append(extent.samples)
            self._rates.append(extent.rate)
        self.extent_ends.append(len(self._extents) // 2)
        return len(self._sizes) - 1

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
        first = self.extent_ends[number - 1] if number else 0
        channels = tuple(map(self._extent, range(first, self.extent_ends[number])))
        return IndexedFile(self.path(number), self._sizes[number], self._mtimes[number], channels)

    def _extent(self, at: int) -> ChannelExtent:
        network, station, location, channel = map(
            self.texts.__getitem__, self._codes[4 * at : 4 * at + 4]
        )
        code = (network, station, location, channel)
        start_ns, end_ns = self._extents[2 * at : 2 * at + 2]
        return ChannelExtent(code, start_ns, end_ns, self._samples[at], self._rates[at])

    def codes(self) -> NDArray[np.int32]:
        """Codes of all extents, as numbers of `texts`; shape (extents, 4)."""
        return np.frombuffer(self._codes, dtype=np.int32).reshape(-1, 4)

    def path(self, number: int) -> str:
        """Path of a file."""
        begin = self._name_ends[number - 1] if number else 0
        name = self._names[begin : self._name_ends[number]].decode(*ENCODING)
        return self.texts[self._folders[number]] + name

    def stamp(self, number: int) -> tuple[int, int]:
        """Size of a file in bytes, and its modification time in nanoseconds."""
        return self._sizes[number], self._mtimes[number]

    def spans(self) -> Int64:
        """First and last sample of all extents, in nanoseconds; shape (extents, 2).

        Like `codes` a view: no file can be added while there is one.
        """
        return np.frombuffer(self._extents, dtype=np.int64).reshape(-1, 2)

    def samples(self) -> Int64:
        """Number of samples of all extents, from headers; shape (extents,)."""
        return np.frombuffer(self._samples, dtype=np.int64)

    def seconds(self) -> NDArray[np.float64]:
        """Estimated seconds of data per file, summed over channels; each <= samples / 20 Hz."""
        return self._per_file(np.minimum(self._durations_s(), self.samples() / LOW_RATE_HZ))

    def sizes(self) -> Int64:
        """Bytes of each file; shape (files,)."""
        return np.frombuffer(self._sizes, dtype=np.int64)

    def rates(self) -> NDArray[np.float64]:
        """Sampling rates of all extents, Hz; shape (extents,)."""
        rates = np.frombuffer(self._rates, dtype=np.float64)
        return np.where(rates > 0, rates, USUAL_RATE_HZ)

    def expected_samples(self) -> NDArray[np.float64]:
        """`samples`, estimated from the span where no header was read; shape (extents,)."""
        samples = self.samples().astype(np.float64)
        unread = samples == 0
        samples[unread] = self._durations_s()[unread] * USUAL_RATE_HZ
        return samples

    def _durations_s(self) -> NDArray[np.float64]:
        spans = self.spans()
        durations: NDArray[np.float64] = (spans[:, 1] - spans[:, 0]) / NS_PER_S
        return durations

    def _per_file(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        ends = np.array(self.extent_ends, dtype=np.int64)
        if not len(ends):
            return values
        total: NDArray[np.float64] = np.add.reduceat(values, np.concatenate([[0], ends[:-1]]))
        return total
