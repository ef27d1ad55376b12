"""Index of the channels and time spans of remote files, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from eqcctpro.archive.files import ArchiveFile
from eqcctpro.archive.remote import describe, fetch, read_part
from eqcctpro.errors import DecodeError, InputError
from eqcctpro.miniseed.compressed import decompress, is_compressed
from eqcctpro.miniseed.index import PROBE_BYTES, IndexedFile, first_and_last, scan

__all__ = ["index_remote_files"]

# Requests in flight at a time.
PARALLEL_READS = 16


def index_remote_files(files: Sequence[ArchiveFile]) -> list[IndexedFile | DecodeError]:
    """Index remote files; returns the index of each, or the error.

    Channels that the layout tells without opening a file are trusted.  Of other files the first
    and last records are read; a file with several channels is read completely.
    """
    with ThreadPoolExecutor(PARALLEL_READS, "eqcctpro-index") as pool:
        return list(pool.map(_index, files))


def _index(file: ArchiveFile) -> IndexedFile | DecodeError:
    address = file.path
    try:
        size, stamp = file.size, file.stamp
        if size < 0:
            found = describe(address)
            size, stamp = found.size, found.stamp
        if file.channels is not None:
            return IndexedFile(address, size, stamp, file.channels)
        if size == 0:
            return DecodeError(f"{address} is empty (0 bytes)", hint="remove it")
        if not file.expected:
            # Other files are not downloaded only to find out that they are not miniSEED.
            return DecodeError(f"{address} is not named as miniSEED")
        beginning = read_part(address, 0, min(PROBE_BYTES, size))
        quick = first_and_last(beginning, size, lambda start, end: read_part(address, start, end))
        if quick is not None:
            return IndexedFile(address, size, stamp, (quick,))
        content = fetch(address)
        channels = scan(
            decompress(content, address) if is_compressed(content) else content, address
        )
        return IndexedFile(address, size, stamp, channels)
    except DecodeError as error:
        return error
    except InputError as error:
        return DecodeError(error.message, hint=error.hint)
