"""Contents of files of any size: in blocks, and without the holes of sparse files.

Files that were made in full size before they were fetched hold little, and no memory holds
what they seem to be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO

__all__ = ["BLOCK_BYTES", "is_sparse", "read_blocks"]

#: Bytes of a block, and of the least hole that is left out.
BLOCK_BYTES = 16 * 2**20

_DISK_BLOCK_BYTES = 512


def is_sparse(file: FileIO) -> bool:
    """Whether a file has holes that are large enough to be left out."""
    status = os.fstat(file.fileno())
    return status.st_size - status.st_blocks * _DISK_BLOCK_BYTES >= BLOCK_BYTES


def read_blocks(file: FileIO) -> Iterator[bytes]:
    """Blocks of a file from its beginning on; holes as long as a block are left out."""
    position = 0
    while True:
        with suppress(OSError):  # not every file system tells holes
            behind = _data_behind(file, position) - position
            position += behind // BLOCK_BYTES * BLOCK_BYTES
        file.seek(position)
        block = file.read(BLOCK_BYTES)
        if not block:
            return
        position += len(block)
        yield block


def _data_behind(file: FileIO, position: int) -> int:
    """Where data begin behind a position; the end of the file if there are none."""
    try:
        return file.seek(position, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return file.seek(0, os.SEEK_END)
