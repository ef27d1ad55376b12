"""The whole records of a file that is damaged or cut off."""

from __future__ import annotations

from collections.abc import Iterator

from pymseed import MiniSEEDError, MS3Record

__all__ = ["incomplete_bytes", "whole_records"]

# Records of miniSEED 2 are at least this long and begin at multiples of it.
ALIGNMENT = 64
START_OF_MINISEED_3 = b"MS\x03"
# Of miniSEED 2: letters at the seventh byte, and where the length's power of two stands.
_QUALITIES = (b"D", b"R", b"Q", b"M")
_EXPONENT = 54
_MOST_EXPONENT = 32


def whole_records(content: bytes) -> Iterator[bytes]:
    """Every record that is complete and has a sound header, in the order of the file.

    After bytes that are no record, the search goes on at the next place where one may
    begin.
    """
    view = memoryview(content)
    position = 0
    while position < len(content):
        length = _record_length(view[position:])
        if length is None:
            position = _next_candidate(content, position)
            continue
        yield content[position : position + length]
        position += length


def incomplete_bytes(content: bytes) -> int:
    """Bytes that fill no record, in a file that decodes without an error."""
    length = _usual_record_length(content)
    if length and len(content) % length == 0:
        return 0
    try:
        head = MS3Record.parse(content)
    except (MiniSEEDError, ValueError):
        return 0
    # Nearly every file holds records of one length, which need not be looked at singly.
    if head.formatversion == 2 and len(content) % head.reclen == 0:
        return 0
    return len(content) - sum(len(record) for record in whole_records(content))


def _usual_record_length(content: bytes) -> int:
    """Length of the first record, if it is one of miniSEED 2 as nearly all are; else 0."""
    # Blockette 1000 comes first, in the byte order of the header (SEED 2.4, chapter 8).
    big, little = content[48:50] == b"\x03\xe8", content[48:50] == b"\xe8\x03"
    usual = len(content) > _EXPONENT and content[6:7] in _QUALITIES and (big or little)
    return 1 << content[_EXPONENT] if usual and content[_EXPONENT] < _MOST_EXPONENT else 0


def _record_length(rest: memoryview) -> int | None:
    """Length of the record that begins here, or None."""
    try:
        length: int = MS3Record.parse(rest).reclen
    except (MiniSEEDError, ValueError):
        return None
    return length if 0 < length <= len(rest) else None


def _next_candidate(content: bytes, position: int) -> int:
    aligned = (position // ALIGNMENT + 1) * ALIGNMENT
    found = content.find(START_OF_MINISEED_3, position + 1, aligned)
    return aligned if found < 0 else found
