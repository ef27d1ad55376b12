"""Decompression of bodies piece by piece, with the size of each piece checked."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from eqcctpro.serving.problems import MalformedProblem

__all__ = ["inflate", "kind_of_file"]

_PIECE_BYTES = 256 * 1024
# Files are put together of a few; each costs as much as a thousand bytes.
_MOST_MEMBERS = 10_000
# What the presets of xz need to decompress, and no more: a stream may ask for gigabytes.
_MOST_XZ_BYTES = 96 * 2**20

_FILES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}


def kind_of_file(content: bytes) -> str | None:
    """Compression of a file, by its first bytes; None if it cannot be decompressed here."""
    return next((kind for mark, kind in _FILES.items() if content.startswith(mark)), None)


def inflate(parts: Iterable[bytes], kind: str, note: Callable[[int], None]) -> Iterator[bytes]:
    """Decompress a body that arrives in parts.

    Parameters
    ----------
    parts : iterable of bytes
    kind : {"gzip", "deflate", "bzip2", "xz"}
        "deflate" is with and without the header of zlib, as clients send both.
    note : callable
        Called with the size of each piece before there is another one; it may raise.

    Yields
    ------
    bytes

    Raises
    ------
    MalformedProblem
        The content is damaged, breaks off, or is of another kind.
    """
    try:
        for piece in _pieces(_joined_head(parts), kind):
            # An empty one is a place to stop at, too.
            note(len(piece))
            yield piece
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise MalformedProblem(f"the body is not {kind}: {error}") from error


def _joined_head(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same parts; the first has two bytes, if there are so many."""
    head = b""
    rest = iter(parts)
    for part in rest:
        head += part
        if len(head) > 1:
            break
    if head:
        yield head
    yield from rest


def _pieces(parts: Iterable[bytes], kind: str) -> Iterator[bytes]:
    members, current = 0, None
    for part in parts:
        rest = part
        while rest:
            if current is None:
                # Zeros may fill up a file behind its last member.
                if members and not (rest := rest.lstrip(b"\0")):
                    break
                if members and kind == "deflate":
                    raise MalformedProblem("there are bytes behind the deflated body")
                current, members = _begun(kind, rest), members + 1
                if members > _MOST_MEMBERS:
                    raise MalformedProblem(f"the body has more than {_MOST_MEMBERS} members")
            yield current.decompress(rest, _PIECE_BYTES)
            while not (current.eof or current.needs_input):
                yield current.decompress(b"", _PIECE_BYTES)
            rest = current.unused_data
            current = None if current.eof else current
    if current is not None:
        raise MalformedProblem(f"the body is {kind} that breaks off")


def _begun(kind: str, head: bytes) -> Any:
    """A decompressor for the member that begins here."""
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ_BYTES)
    if kind == "gzip":
        return _Zlib(zlib.MAX_WBITS | 16)
    # RFC 1950: the header of zlib names the method 8 and is a multiple of 31.
    wrapped = len(head) > 1 and head[0] & 15 == 8 and int.from_bytes(head[:2]) % 31 == 0
    return _Zlib(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


class _Zlib:
    """zlib's decompressor with the interface of those of bz2 and lzma."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Decompress no more than so many bytes; what is not read is kept."""
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(piece) < max_length
        return piece

    @property
    def eof(self) -> bool:
        """True if the end of the compressed stream was reached."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """Bytes after the end of the compressed stream."""
        return self._inner.unused_data
