"""Decompression of compressed miniSEED files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eqcctpro.errors import DecodeError

__all__ = ["MOST_BYTES", "decompress", "is_compressed"]

#: Largest size of a decompressed file, in bytes: it is kept in memory as a whole.
MOST_BYTES = 2**31

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
# Archives of files, which have to be unpacked.
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"\x1f\x9d": "compressed with compress",
}
_MARKS = (_GZIP, _BZIP2, _XZ, *_OTHERS)


def is_compressed(content: bytes) -> bool:
    """True if a file's first bytes are those of a compressed format; no record begins like that."""
    return content.startswith(_MARKS)


def _opener(content: bytes) -> Callable[[io.BytesIO], Any]:
    if content.startswith(_GZIP):
        return gzip.open
    return bz2.open if content.startswith(_BZIP2) else lzma.open


def decompress(content: bytes, path: str | Path, most: int = MOST_BYTES) -> bytes:
    """Decompress the content of a file.

    Parameters
    ----------
    content : bytes
    path : path
        For error messages.
    most : int
        Largest decompressed size, in bytes.

    Raises
    ------
    DecodeError
        It is damaged, too large, or of a kind that has to be unpacked.
    """
    for mark, kind in _OTHERS.items():
        if content.startswith(mark):
            raise DecodeError(f"{path} is {kind}", hint="unpack it, or compress with gzip")
    try:
        with _opener(content)(io.BytesIO(content)) as opened:
            found: bytes = opened.read(most + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise DecodeError(
            f"{path} is compressed and damaged: {error}", hint="fetch it again"
        ) from error
    if len(found) > most:
        raise DecodeError(
            f"{path} has more than {most / 2**30:g} GiB once it is decompressed",
            hint="decompress it and cut it, for example by day",
        )
    return found
