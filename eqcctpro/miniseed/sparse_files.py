"""Reading of files of any size: in blocks, and without the holes of sparse files.

Files that were allocated in full size before their download contain few data, and their apparent
size may exceed the memory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO

__all__ = ["BLOCK_BYTES", "is_sparse", "read_blocks"]

#: Bytes of a block, and of the smallest hole that is skipped.
BLOCK_BYTES = 16 * 2**20

_DISK_BLOCK_BYTES = 512


def is_sparse(file: FileIO) -> bool:
    """True if a file has holes that are large enough to be skipped."""
    status = os.fstat(file.fileno())
    return status.st_size - status.st_blocks * _DISK_BLOCK_BYTES >= BLOCK_BYTES


def read_blocks(file: FileIO) -> Iterator[bytes]:
    """Iterate over the blocks of a file; holes as long as a block are skipped."""
    position = 0
    while True:
        with suppress(OSError):  # not every file system reports holes
            behind = _data_behind(file, position) - position
            position += behind // BLOCK_BYTES * BLOCK_BYTES
        file.seek(position)
        block = file.read(BLOCK_BYTES)
        if not block:
            return
        position += len(block)
        yield block


def _data_behind(file: FileIO, position: int) -> int:
    """Position of the first data at or after a position; the end of the file if there are none."""
    try:
        return file.seek(position, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return file.seek(0, os.SEEK_END)
