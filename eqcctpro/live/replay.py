"""Records of an archive in the order in which they would have been completed."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pymseed import MiniSEEDError, MS3Record

from eqcctpro.archive.files import plain_files
from eqcctpro.archive.indexing import FILES_AT_ONCE, index_files
from eqcctpro.codes import Code, record_code
from eqcctpro.errors import DecodeError, InputError
from eqcctpro.live.frames import MOST_RECORD_BYTES, record_length
from eqcctpro.live.packets import Checkpoint, Packet, PacketCounts, Position, StationChoice
from eqcctpro.miniseed.compressed import decompress, is_compressed
from eqcctpro.miniseed.salvage import whole_records
from eqcctpro.roots import Roots

__all__ = ["Archive", "CompletedRecord", "ReplaySource", "shifted"]

# Bytes of a file that are in memory while it is served.
_BLOCK_BYTES = 2**14
# Records that a replay hands over at once.
_BATCH = 4096


class CompletedRecord(NamedTuple):
    """A record, and when its last sample was taken.

    Attributes
    ----------
    end_ns : int
        Time of the last sample, nanoseconds since 1970 UTC.
    code : tuple of str
    record : bytes
    """

    end_ns: int
    code: Code
    record: bytes


class Archive:
    """Files of an archive, whose records are served by time.

    Only the files around the current time are read, in blocks of 16 kB.  Records of a file come in
    the file's order: one that is behind its predecessors there arrived late, and is late again.

    Parameters
    ----------
    inputs : sequence of path
    choice : StationChoice, optional

    Attributes
    ----------
    problems : list of str
        Files that cannot be read, with the reason.
    start_ns, end_ns : int
        Times of the first and last sample.
    stations : int

    Raises
    ------
    InputError
        There is no such path, or no record in it.
    """

    def __init__(self, inputs: Sequence[str | Path], choice: StationChoice | None = None) -> None:
        choice = choice or StationChoice()
        paths = [Path(one) for one in inputs]
        for path in paths:
            if not path.exists():
                raise InputError(f"there is no archive {path}", hint="name a folder or a file")
        self.problems: list[str] = []
        self._choice = choice
        self._files: list[tuple[int, str]] = []
        names = list(dict.fromkeys(file.path for file in plain_files(paths, {})))
        stations: set[tuple[str, str]] = set()
        starts, ends = [], []
        for at in range(0, len(names), FILES_AT_ONCE):
            for found in index_files(names[at : at + FILES_AT_ONCE], Roots(), None):
                if isinstance(found, InputError):
                    self.problems.append(str(found))
                    continue
                chosen = [one for one in found.channels if choice.takes(one.code)]
                if chosen:
                    begin = min(one.start_ns for one in chosen)
                    self._files.append((begin, found.path))
                    starts.append(begin)
                    ends.append(max(one.end_ns for one in chosen))
                    stations.update(one.code[:2] for one in chosen)
        if not self._files:
            name = ", ".join(map(str, paths[:3]))
            first = f"; {self.problems[0]}" if self.problems else ""
            raise InputError(
                f"{name} holds no record of the chosen stations{first}",
                hint="name an archive of miniSEED files; compare --stations and --exclude with it",
            )
        self._files.sort()
        self.start_ns, self.end_ns = min(starts), max(ends)
        self.stations = len(stations)

    def __iter__(self) -> Iterator[CompletedRecord]:
        """Iterate over all chosen records by the time of their completion."""
        # End of the next record, number of the file, and the file.
        open_files: list[tuple[int, int, CompletedRecord, Iterator[CompletedRecord]]] = []
        waiting = iter(enumerate(self._files))
        following = next(waiting, None)
        while open_files or following is not None:
            # A file is opened before anything behind its beginning is served.
            while following is not None and (not open_files or following[1][0] <= open_files[0][0]):
                number, (_, path) = following
                records = self._records_of(path)
                first = next(records, None)
                if first is not None:
                    heapq.heappush(open_files, (first.end_ns, number, first, records))
                following = next(waiting, None)
            if not open_files:
                continue
            due_ns, number, record, records = open_files[0]
            yield record
            after = next(records, None)
            if after is None:
                heapq.heappop(open_files)
            else:
                entry = (max(due_ns, after.end_ns), number, after, records)
                heapq.heapreplace(open_files, entry)

    def _records_of(self, path: str) -> Iterator[CompletedRecord]:
        try:
            for record in _records(path):
                try:
                    parsed = MS3Record.parse(record)
                    code = record_code(record)
                    end_ns = parsed.endtime
                except (MiniSEEDError, ValueError):
                    continue
                if parsed.samplecnt > 0 and self._choice.takes(code):
                    yield CompletedRecord(end_ns, code, record)
        except (OSError, DecodeError) as error:  # it changed since it was indexed
            self.problems.append(f"{path}: {error}")


def _records(path: str) -> Iterator[bytes]:
    """Complete records of a file, which is open only while a block is read."""
    rest, at = b"", 0
    while True:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
            file.seek(at)
            block = file.read(_BLOCK_BYTES)
            if not at and is_compressed(block):
                yield from whole_records(decompress(block + file.readall(), path))
                return
        at += len(block)
        content = rest + block
        used = 0
        while len(content) - used >= 64:
            length = record_length(content[used : used + 64])
            if not length:
                break
            if used + length > len(content):
                break
            yield content[used : used + length]
            used += length
        rest = content[used:]
        if not block:
            yield from whole_records(rest)
            return
        if len(rest) > MOST_RECORD_BYTES or (len(rest) >= 64 and not record_length(rest[:64])):
            # Foreign bytes, or records of a rare kind.
            found = list(whole_records(rest))
            yield from found
            rest = rest[-64:] if not found else rest[rest.rindex(found[-1]) + len(found[-1]) :]


def shifted(record: bytes, shift_ns: int) -> bytes:
    """A record whose time is later by `shift_ns`, rounded to 100 microseconds in miniSEED 2."""
    changed = bytearray(record)
    start_ns = MS3Record.parse(record).starttime + shift_ns
    moment = np.datetime64(start_ns, "ns")
    year = int(str(moment.astype("datetime64[Y]")))
    day = int((moment.astype("datetime64[D]") - np.datetime64(f"{year}-01-01", "D")).astype(int))
    seconds, ns = divmod(start_ns, 1_000_000_000)
    hour, minute, second = seconds // 3600 % 24, seconds // 60 % 60, seconds % 60
    if record[:2] == b"MS":
        changed[4:8] = ns.to_bytes(4, "little")
        changed[8:12] = year.to_bytes(2, "little") + (day + 1).to_bytes(2, "little")
        changed[12:15] = bytes((hour, minute, second))
        changed[28:32] = bytes(4)  # the checksum is made with zeros in its place
        changed[28:32] = _crc32c(changed).to_bytes(4, "little")
        return bytes(changed)
    order = "big" if record[48:50] == b"\x03\xe8" else "little"
    changed[20:24] = year.to_bytes(2, order) + (day + 1).to_bytes(2, order)  # type: ignore[arg-type]
    changed[24:28] = bytes((hour, minute, second, 0))
    changed[28:30] = (ns // 100_000).to_bytes(2, order)  # type: ignore[arg-type]
    changed[36] |= 0x02  # the correction is in the time now
    if record[56:58] in (b"\x03\xe9", b"\xe9\x03"):  # blockette 1001, with microseconds
        changed[61] = ns // 1000 % 100
    return bytes(changed)


def _crc32c(content: bytes | bytearray) -> int:
    """Checksum of miniSEED 3 (CRC-32C)."""
    value = 0xFFFFFFFF
    for byte in content:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _crc32c_of(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = [_crc32c_of(byte) for byte in range(256)]


class ReplaySource:
    """Records of an archive as a source, at a multiple of the speed at which they were recorded.

    Parameters
    ----------
    archive : Archive
    speed : float
        1 is real time; 0 is as fast as they are read.
    checkpoint : Checkpoint, optional
        Of an earlier replay of the same archive with the same stations.

    Attributes
    ----------
    counts : PacketCounts
    problems : list of str
        Files that cannot be read, with the reason.
    """

    def __init__(
        self, archive: Archive, speed: float = 1.0, checkpoint: Checkpoint | None = None
    ) -> None:
        self.counts = PacketCounts()
        self.problems = archive.problems
        self._records = enumerate(archive, 1)
        self._speed = speed
        self._done = dict(checkpoint.positions) if checkpoint is not None else {}
        self._skip = dict(self._done)
        self._read: dict[str, Packet] = {}
        self._began: tuple[float, int] | None = None
        self._next: tuple[int, CompletedRecord] | None = next(self._records, None)

    @property
    def ended(self) -> bool:
        """True if all records were read."""
        return self._next is None

    def read(self, timeout_s: float) -> list[Packet]:
        """All records that are due; see `Source`."""
        batch: list[Packet] = []
        now = time.time()
        while self._next is not None and len(batch) < _BATCH:
            number, found = self._next
            known = self._skip.get("_".join(found.code[:2]))
            if known is not None and number <= known.sequence:  # nobody waits for these again
                self._next = next(self._records, None)
                continue
            wait_s = self._wait_s(found.end_ns)
            if wait_s > 0:
                if batch or wait_s > timeout_s:
                    if not batch:
                        time.sleep(timeout_s)
                    break
                time.sleep(wait_s)
                now = time.time()
            self._next = next(self._records, None)
            packet = Packet(found.code, number, found.record, now)
            self._read[packet.station] = packet
            batch.append(packet)
        self.counts.packets += len(batch)
        return batch

    def _wait_s(self, end_ns: int) -> float:
        if not self._speed:
            return 0.0
        if self._began is None:
            self._began = time.monotonic(), end_ns
        began, first_ns = self._began
        return began + (end_ns - first_ns) / 1e9 / self._speed - time.monotonic()

    def checkpoint(self) -> Checkpoint:
        """Position behind what `read` returned."""
        self._done.update({name: Position.of(packet) for name, packet in self._read.items()})
        self._read.clear()
        return Checkpoint(4, dict(self._done))

    def close(self) -> None:
        """End the replay."""
        self._next = None
