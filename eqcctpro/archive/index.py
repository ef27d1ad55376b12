"""Which channels and times a miniSEED file holds, without decoding it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pymseed import MiniSEEDError, MS3Record, MS3TraceList

from eqcctpro.archive.salvage import whole_records
from eqcctpro.archive.untidy import trace_code, with_placeholders
from eqcctpro.codes import Code, record_code, source_bytes
from eqcctpro.errors import DecodeError
from eqcctpro.times import NS_PER_S

__all__ = [
    "LONG_GAP_NS",
    "LOWEST_RATE_HZ",
    "PROBE_BYTES",
    "ChannelExtent",
    "IndexedFile",
    "first_and_last",
    "index_file",
    "joined_spans",
    "scan",
]

# The first record of nearly every file is shorter, and so are many files with a minute of a
# channel, which are then read once; files with longer records are scanned whole.
PROBE_BYTES = 16_384

# A channel that says nothing for so long has two extents: a record with a damaged time would
# otherwise make the file span centuries.
LONG_GAP_NS = 86_400 * NS_PER_S

#: Slower channels (VH, UH, RH) hold no arrivals that a picker could see, and resampled to a
#: picker's rate they would fill any memory; so would a record with a damaged rate.
LOWEST_RATE_HZ = 1.0

# No encoding of miniSEED holds more samples in a byte (Steim-2: seven in four).
MOST_SAMPLES_A_BYTE = 2


class ChannelExtent(NamedTuple):
    """First and last sample time of one channel in one file, in nanoseconds."""

    code: Code
    start_ns: int
    end_ns: int


class IndexedFile(NamedTuple):
    """A file and what is in it.

    Attributes
    ----------
    path : str
    size : int
        Bytes.
    mtime_ns : int
        Time of the last change; of a file at an address another stamp of its content.
    channels : tuple of ChannelExtent
        Several of a channel with gaps of more than a day.  Empty for a file of log or event
        records, which hold no time series, or of channels too slow to be picked.
    content : bytes or None
        All of a small file of this machine, which need not be read again.
    """

    path: str
    size: int
    mtime_ns: int
    channels: tuple[ChannelExtent, ...]
    content: bytes | None = None


def index_file(path: str | Path) -> IndexedFile:
    """Read the first and the last record's header; scan the file when they differ.

    A file whose first and last records are of one channel is taken to hold that channel
    only.  What else a decoder finds in it later is picked with it.

    Raises
    ------
    DecodeError
        The file cannot be read, is empty, or holds no miniSEED record.
    """
    try:
        descriptor = _open_without_waiting(path)
        try:
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
        finally:
            os.close(descriptor)
        content = beginning if len(beginning) == status.st_size else None
        if quick is None:
            everything = Path(path).read_bytes() if content is None else content
            channels = scan(everything, path)
        else:
            channels = (quick,)
    except OSError as error:
        raise DecodeError(
            f"cannot read {path}: {error.strerror or error}",
            hint="check that the file exists and may be read",
        ) from error
    return IndexedFile(str(path), status.st_size, status.st_mtime_ns, channels, content)


def _open_without_waiting(path: str | Path) -> int:
    """Open a file without waiting for whoever might write to a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def first_and_last(
    beginning: bytes, size: int, read: Callable[[int, int], bytes]
) -> ChannelExtent | None:
    """What a file holds by its first and its last record, or None when they do not tell.

    Parameters
    ----------
    beginning : bytes
        Of the file, or all of it.
    size : int
        Of the file.
    read : callable
        Returns the bytes from a start to an end.
    """
    try:
        head = MS3Record.parse(beginning)
        length, rate, start = head.reclen, head.samprate, head.starttime
        if size % length or rate < LOWEST_RATE_HZ:
            return None
        whole = len(beginning) == size
        last = beginning[-length:] if whole else read(size - length, size)
        tail = MS3Record.parse(last)
        tail_start = tail.starttime
        if source_bytes(last) != source_bytes(beginning) or tail_start < start:
            return None
        span = round((tail.samplecnt - 1) * 1e9 / rate)
        if tail_start - start > size * MOST_SAMPLES_A_BYTE / rate * NS_PER_S + LONG_GAP_NS:
            return None
        return ChannelExtent(record_code(beginning), start, tail_start + max(span, 0))
    except (MiniSEEDError, ValueError):
        return None


def scan(content: bytes, path: str | Path) -> tuple[ChannelExtent, ...]:
    """What a file holds by the headers of all its records.

    Raises
    ------
    DecodeError
        It holds no miniSEED record.
    """
    content, names = with_placeholders(content)
    traces = MS3TraceList()
    try:
        traces.add_buffer(content, skip_not_data=True)
    except (MiniSEEDError, ValueError):
        # What is damaged is reported when it is decoded; channels after it count too.
        traces = MS3TraceList()
        for record in whole_records(content):
            with suppress(MiniSEEDError, ValueError):
                traces.add_buffer(record, skip_not_data=True)
    if not len(traces):
        raise DecodeError(
            f"{path} is not readable as miniSEED", hint="only miniSEED 2 and 3 can be picked"
        )
    return tuple(sorted(_extents(traces, names), key=lambda extent: (extent.code, extent.start_ns)))


def _extents(traces: MS3TraceList, names: dict[Code, Code]) -> Iterable[ChannelExtent]:
    for trace in traces:
        try:
            code = trace_code(trace, names)
        except ValueError:
            continue
        pieces = sorted((p.starttime, p.endtime) for p in trace if p.samprate >= LOWEST_RATE_HZ)
        for start, end in joined_spans(pieces, LONG_GAP_NS):
            yield ChannelExtent(code, start, end)


def joined_spans(spans: Iterable[tuple[int, int]], gap_ns: int) -> list[tuple[int, int]]:
    """Spans in the order of their starts, those joined that are no further apart than a gap."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= gap_ns:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
