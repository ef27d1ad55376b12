"""Index of the channels and time spans of a miniSEED file, from headers only."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pymseed import MiniSEEDError, MS3Record, MS3TraceList

from eqcctpro.codes import Code, instrument_of, record_code, source_bytes
from eqcctpro.errors import DecodeError
from eqcctpro.miniseed.compressed import decompress, is_compressed
from eqcctpro.miniseed.headers import LEAST_RECORD_BYTES
from eqcctpro.miniseed.ordering import in_order
from eqcctpro.miniseed.salvage import usual_record_length, whole_records, whole_records_end
from eqcctpro.miniseed.sparse_files import BLOCK_BYTES, read_blocks
from eqcctpro.miniseed.unusual_codes import trace_code, with_placeholders
from eqcctpro.roots import Roots
from eqcctpro.spans import joined_spans
from eqcctpro.times import NS_PER_S

__all__ = [
    "LONG_GAP_NS",
    "LOWEST_RATE_HZ",
    "PROBE_BYTES",
    "ChannelExtent",
    "IndexedFile",
    "first_and_last",
    "hidden_codes",
    "index_file",
    "scan",
]

# Bytes that are read first: nearly all first records are shorter, and so are many files with a
# minute of a channel, which are then read once.  Files with longer records are scanned.
PROBE_BYTES = 16_384

# A channel with a longer gap has two extents: a record with a damaged time would otherwise make
# the file span centuries.
LONG_GAP_NS = 86_400 * NS_PER_S

#: Slower channels (VH, UH, RH) contain no arrivals that a picker could detect, and resampled to
#: a picker's rate they would exhaust memory, as would a record with a damaged rate.
LOWEST_RATE_HZ = 1.0

# Upper bound for all encodings of miniSEED (Steim-2: seven samples in four bytes).
MOST_SAMPLES_A_BYTE = 2

#: Records at each end of a file whose headers are compared.
_LOOKED_AT = 6

#: A file with more records than this multiple of the number that fits its time span contains
#: other data, too, or is not in order; or it is quieter at its ends than between them.
_MORE_RECORDS = 1.05

# Fixed header of miniSEED 2 (SEED 2.4, chapter 8): station, location, channel, network, time and
# number of samples.
_CODES_TO_COUNT = slice(8, 32)
_CODES_BYTES = 12
_COUNT = slice(22, 24)
_YEARS = (1900, 2200)
# Year, day, hour, minute, second, ten-thousandths and number of samples.
_TIME_AND_COUNT = struct.Struct(">20xHHBBBxHH")
_RATE = struct.Struct(">32xhh")
_TICK_NS = 100_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_CORRECTED, _CORRECTION = 0x02, slice(40, 44)
# Blockette 1000 as the only one, and with 1001 behind it, which holds microseconds.
_BLOCKETTES = slice(46, 52)
_ONLY_1000, _1000_AND_ANOTHER = b"\0\x30\x03\xe8\0\0", b"\0\x30\x03\xe8\0\x38"
_1001, _MICROSECONDS_AT = (slice(56, 60), b"\x03\xe9\0\0"), 61


class ChannelExtent(NamedTuple):
    """Time span and number of samples of one channel in one file.

    Attributes
    ----------
    code : Code
    start_ns, end_ns : int
        Times of the first and the last sample, nanoseconds.
    samples : int
        From headers; if only those at the ends of the file were read, assuming no gap in
        between.  0 if no header was read.
    rate : float
        Sampling rate in Hz, the highest if there are several; 0 if no header was read.
    """

    code: Code
    start_ns: int
    end_ns: int
    samples: int = 0
    rate: float = 0.0


class IndexedFile(NamedTuple):
    """A file and the extents of its channels.

    Attributes
    ----------
    path : str
    size : int
        Bytes.
    mtime_ns : int
        Modification time; for a file at an address another stamp of its content.
    channels : tuple of ChannelExtent
        Several for a channel with gaps of more than a day.  Empty for a file of log or event
        records, which contain no time series, or of channels too slow to be picked.
    content : bytes or None
        The complete content of a small local file, which need not be read again.
    """

    path: str
    size: int
    mtime_ns: int
    channels: tuple[ChannelExtent, ...]
    content: bytes | None = None


def index_file(path: str | Path, roots: Roots | None = None) -> IndexedFile:
    """Index a file from the headers at both ends; scan all its records if they do not suffice.

    A file whose first and last records are of one channel and in order is taken to contain only
    that channel.  See `first_and_last`.

    Parameters
    ----------
    path : path
    roots : Roots, optional
        Folders that the file must lie in.

    Raises
    ------
    DecodeError
        The file cannot be read, lies outside of `roots`, is empty, or contains no miniSEED
        record.
    """
    try:
        descriptor = _open_without_waiting(path)
        try:
            if roots is not None:
                roots.require_open(descriptor, path)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError(f"{path} is not a file that holds records", hint="remove it")
            if status.st_size == 0:
                raise DecodeError(f"{path} is empty (0 bytes)", hint="remove it or fetch it again")
            beginning = os.pread(descriptor, PROBE_BYTES, 0)
            quick = first_and_last(
                beginning,
                status.st_size,
                lambda start, end: os.pread(descriptor, end - start, start),
            )
            content = beginning if len(beginning) == status.st_size else None
            channels: tuple[ChannelExtent, ...]
            if quick is not None:
                channels = (quick,)
            elif content is not None and not is_compressed(content):
                channels = scan(content, path)
            else:
                content = None
                with open(descriptor, "rb", buffering=0, closefd=False) as file:
                    if is_compressed(beginning):
                        channels = scan(decompress(file.readall(), path), path)
                    else:
                        channels = _scan_file(file, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DecodeError(
            f"cannot read {path}: {error.strerror or error}",
            hint="check that the file exists and may be read",
        ) from error
    except MemoryError as error:
        raise DecodeError(
            f"{path} needs more memory to be read than there is", hint="cut it into smaller files"
        ) from error
    return IndexedFile(str(path), status.st_size, status.st_mtime_ns, channels, content)


def _open_without_waiting(path: str | Path) -> int:
    """Open a file without blocking, in case it is a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def first_and_last(
    beginning: bytes, size: int, read: Callable[[int, int], bytes]
) -> ChannelExtent | None:
    """Extent of a file with one channel, from its first and last records; None if unknown.

    It is known if they are of one channel and in the order of time.  If a file has more records
    than fit its time span, some records in between are checked, too.

    Parameters
    ----------
    beginning : bytes
        First bytes of the file, or all of it.
    size : int
        Size of the file in bytes.
        read : callable
        Returns the bytes from a start to an end.
    """
    try:
        length, rate, start = _length_rate_and_start(beginning)
        if size % length or rate < LOWEST_RATE_HZ:
            return None
        whole = len(beginning) == size
        end = beginning if whole else read(size - min(_LOOKED_AT * length, size), size)
        last = end[-length:]
        tail_start, tail_count = _start_and_count(last)
        if source_bytes(last) != source_bytes(beginning) or tail_start < start:
            return None
        before = (tail_start - start) * rate / NS_PER_S  # samples
        if before > size * MOST_SAMPLES_A_BYTE + LONG_GAP_NS * rate / NS_PER_S:
            return None
        if size > 2 * length:
            part = _CODES_TO_COUNT if _is_usual(beginning) else slice(0, length)
            ends = _at_ends(beginning, end, size, length, part)
            if not _in_order(ends):
                return None
            if not whole and _is_crowded(ends, before, size // length):
                starts = [at + part.start for at in _between(size, length)]
                between = [read(at, at + part.stop - part.start) for at in starts]
                if not _in_order([ends[0], *between, ends[-1]]):
                    return None
        span = round((tail_count - 1) * 1e9 / rate)
        samples = round(before) + tail_count
        last_ns = tail_start + max(span, 0)
        return ChannelExtent(record_code(beginning), start, last_ns, samples, rate)
    except (MiniSEEDError, ValueError):
        return None


def hidden_codes(content: bytes, codes: Iterable[Code]) -> list[str]:
    """Instruments in a file that are not in its index, because only its ends were read.

    Parameters
    ----------
    content : bytes
        Content of the file.
    codes : iterable of Code
        Channels that were decoded from it.
    """
    shown = first_and_last(
        content[:PROBE_BYTES], len(content), lambda start, end: content[start:end]
    )
    if shown is None:
        return []  # every record was indexed
    names = {_instrument_name(code) for code in codes}
    return sorted(names - {_instrument_name(shown.code)})


def _instrument_name(code: Code) -> str:
    return ".".join((*code[:3], instrument_of(code[3])))


def _at_ends(beginning: bytes, end: bytes, size: int, length: int, part: slice) -> list[bytes]:
    """A part of the first and last records; of all records if the whole file is in memory."""
    first, last = part.start, part.stop
    if len(beginning) == size:
        return [beginning[at + first : at + last] for at in range(0, size, length)]
    looked_at = min(_LOOKED_AT * length, len(beginning) - length + 1)
    parts = [beginning[at + first : at + last] for at in range(0, looked_at, length)]
    return parts + [end[at + first : at + last] for at in range(0, len(end), length)]


def _in_order(parts: list[bytes]) -> bool:
    """Check that records are of one channel and in the order of time.

    The header of miniSEED 2 begins with channel and time, such that its bytes have the order
    of time (SEED 2.4, chapter 8); other kinds of records are given whole, and parsed.
    """
    if len(parts[0]) == _CODES_TO_COUNT.stop - _CODES_TO_COUNT.start:
        return parts == sorted(parts) and parts[0][:_CODES_BYTES] == parts[-1][:_CODES_BYTES]
    times = [MS3Record.parse(record).starttime for record in parts]
    return times == sorted(times) and len(set(map(source_bytes, parts))) == 1


def _is_usual(record: bytes) -> bool:
    """Check that a record is miniSEED 2 with a header of big-endian bytes, as nearly all are."""
    return record[6] in b"DRQM" and _YEARS[0] <= record[20] << 8 | record[21] <= _YEARS[1]


def _is_crowded(ends: list[bytes], samples: float, records: int) -> bool:
    """Check whether a file has more records than a number of samples fills.

    The number of samples of a record is taken from the second record and the last but one, as the
    outermost may be cut.
    """
    if len(ends[0]) != _CODES_TO_COUNT.stop - _CODES_TO_COUNT.start:
        return True
    held = sum(int.from_bytes(part[_COUNT]) for part in (ends[1], ends[-2]))
    return records > _MORE_RECORDS * samples * 2 / max(held, 1) + 2


def _length_rate_and_start(record: bytes) -> tuple[int, float, int]:
    """Bytes of a record, its sampling rate in Hz and the time of its first sample.

    Parameters
    ----------
    record : bytes
        From its header on; other records may follow.

    Raises
    ------
    MiniSEEDError
        It has no sound header, or is not complete.
    """
    length = usual_record_length(record)
    quick = _read_header(record) if LEAST_RECORD_BYTES <= length <= len(record) else None
    factor, multiplier = _RATE.unpack_from(record) if quick is not None else (0, 0)
    if quick is not None and factor > 0 and multiplier > 0:
        return length, float(factor * multiplier), quick[0]
    parsed = MS3Record.parse(record)  # several times as slow
    return parsed.reclen, parsed.samprate, parsed.starttime


def _start_and_count(record: bytes) -> tuple[int, int]:
    """Time of the first sample and number of samples of a record, from its header.

    Raises
    ------
    MiniSEEDError
        It has no sound header.
    """
    quick = _read_header(record)
    if quick is not None:
        return quick
    parsed = MS3Record.parse(record)  # several times as slow
    return parsed.starttime, parsed.samplecnt


def _read_header(record: bytes) -> tuple[int, int] | None:
    """Time and number of samples in a header of miniSEED 2 without special cases; else None."""
    blockettes = record[_BLOCKETTES]
    with_1001 = blockettes == _1000_AND_ANOTHER and record[_1001[0]] == _1001[1]
    year, day, hour, minute, second, ticks, count = _TIME_AND_COUNT.unpack_from(record)
    if (
        not (with_1001 or blockettes == _ONLY_1000)
        or not _is_usual(record)
        or not (0 < day <= 366 and hour < 24 and minute < 60 and second < 60 and ticks < 10_000)
        or not (record[36] & _CORRECTED or record[_CORRECTION] == bytes(4))
    ):
        return None
    seconds = (((_days_before(year) + day) * 24 + hour) * 60 + minute) * 60 + second
    microseconds = int.from_bytes(record[_MICROSECONDS_AT : _MICROSECONDS_AT + 1], signed=True)
    return seconds * NS_PER_S + ticks * _TICK_NS + with_1001 * microseconds * 1000, count


@lru_cache(maxsize=64)
def _days_before(year: int) -> int:
    """Days from 1970 to the day before a year."""
    return date(year, 1, 1).toordinal() - _EPOCH_DAY - 1


def _between(size: int, length: int) -> list[int]:
    """Starts of a sample of the records between the ends of a file, in bytes.

    Some are spread evenly.  Others get denser towards the end, where data that arrived late are.
    """
    records = size // length
    even = {records * part // 6 for part in range(1, 6)}
    late = {records - (_LOOKED_AT << shift) for shift in (1, 3, 5, 7)}
    return [length * number for number in sorted(even | late) if 0 < number < records - 1]


def scan(content: bytes, path: str | Path) -> tuple[ChannelExtent, ...]:
    """Extents of all channels of a file, from the headers of all its records.

    Raises
    ------
    DecodeError
        It contains no miniSEED record.
    """
    return _joined(_extents_in(content), path)


def _scan_file(file: FileIO, path: str | Path) -> tuple[ChannelExtent, ...]:
    """`scan` a file of any size in blocks, so that little of it is in memory at a time."""
    return _joined(chain.from_iterable(map(_extents_in, _record_blocks(file))), path)


def _record_blocks(file: FileIO) -> Iterator[bytes]:
    """Iterate over a file in blocks of whole records."""
    rest = b""
    for read in read_blocks(file):
        block = rest + read
        end = whole_records_end(block)
        # A record is not longer than a block: bytes without an end in two blocks are no record.
        end = len(block) if len(block) - end > BLOCK_BYTES else end
        yield block[:end]
        rest = block[end:]
    if rest:
        yield rest


def _joined(found: Iterable[ChannelExtent], path: str | Path) -> tuple[ChannelExtent, ...]:
    pieces: dict[Code, list[tuple[int, int, int, float]]] = {}
    seen = False
    for code, start, end, samples, rate in found:
        seen = True
        pieces.setdefault(code, [])
        if start <= end:
            pieces[code].append((start, end, samples, rate))
    if not seen:
        raise DecodeError(
            f"{path} is not readable as miniSEED", hint="only miniSEED 2 and 3 can be picked"
        )
    return tuple(extent for code in sorted(pieces) for extent in _apart(code, sorted(pieces[code])))


def _apart(code: Code, pieces: Sequence[tuple[int, int, int, float]]) -> Iterator[ChannelExtent]:
    """Split sorted pieces of a channel at long gaps; yields the extents."""
    at = 0
    for start, end in joined_spans((piece[:2] for piece in pieces), LONG_GAP_NS):
        samples, rate = 0, 0.0
        while at < len(pieces) and pieces[at][0] <= end:
            samples += pieces[at][2]
            rate = max(rate, pieces[at][3])
            at += 1
        yield ChannelExtent(code, start, end, samples, rate)


def _extents_in(content: bytes) -> Iterator[ChannelExtent]:
    """Channels of records in memory; those without a time series end before they start."""
    content, names = with_placeholders(content)
    content = in_order(content)
    traces = MS3TraceList()
    try:
        traces.add_buffer(content, skip_not_data=True)
    except (MiniSEEDError, ValueError):
        # Damaged records are reported when they are decoded; channels after them count, too.
        traces = MS3TraceList()
        for record in whole_records(content):
            with suppress(MiniSEEDError, ValueError):
                traces.add_buffer(record, skip_not_data=True)
    for trace in traces:
        try:
            code = trace_code(trace, names)
        except ValueError:
            continue
        yield ChannelExtent(code, 1, 0)
        for piece in trace:
            if piece.samprate >= LOWEST_RATE_HZ:
                span = piece.starttime, piece.endtime
                yield ChannelExtent(code, *span, piece.samplecnt, piece.samprate)
