"""Recovery of the complete records of a damaged or truncated miniSEED file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from pymseed import MiniSEEDError, MS3Record

__all__ = [
    "EXPONENT_AT",
    "control_bytes",
    "incomplete_bytes",
    "usual_record_length",
    "whole_records",
    "whole_records_end",
]

# How records begin (SEED 2.4, chapter 8; miniSEED 3): a number of six digits, a letter for the
# quality and a filler, or a mark; and, as libmseed checks it, an hour, a minute and a second.
# Records usually lie at multiples of 64 bytes, but not behind foreign bytes.
_CLOCK = rb"[\x00-\x17][\x00-\x3b][\x00-\x3c]"
_START = re.compile(
    rb"(?:[0-9 \x00]{6}[DRQM][ \x00].{16}|MS\x03.{9})" + _CLOCK,
    re.DOTALL,
)
_START_BYTES = 27
_PIECE_BYTES = 64 * 1024
# Files that were allocated before they were written hold little else.  No record begins in zeros:
# the quality, or the mark, is within its first seven bytes.
_ZEROS = bytes(_PIECE_BYTES)
_BEFORE_QUALITY = 6
# Full SEED has headers of a volume, of abbreviations, stations and time spans before the data.
_CONTROL = re.compile(rb"[0-9 \x00]{6}[VAST][ *]")
_CONTROL_BYTES = 256
# Where in a record of miniSEED 2 the power of two of its length usually stands.
EXPONENT_AT = 54
_MOST_EXPONENT = 32


def whole_records(content: bytes) -> Iterator[bytes]:
    """Iterate over complete records with a valid header, in the order of the file.

    After other bytes, the search goes on at the next position where a record may begin.
    """
    for start, end in _places(content):
        yield content[start:end]


def _places(content: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each complete record, in bytes."""
    view = memoryview(content)
    position = 0
    while position < len(content):
        length = _record_length(view[position:])
        if length is None:
            position = _next_start(content, position + 1)
            continue
        yield position, position + length
        position += length


def _next_start(content: bytes, position: int) -> int:
    """The next place where a record may begin, or the end.

    A piece at a time: other threads wait while an expression is searched for.
    """
    while position < len(content):
        end = position + _PIECE_BYTES
        if content.startswith(_ZEROS, position):
            position = end - _BEFORE_QUALITY
            continue
        found = _START.search(content, position, end + _START_BYTES - 1)
        if found is not None:
            return found.start()
        position = end
    return len(content)


def whole_records_end(content: bytes) -> int:
    """End of the last complete record, in bytes; an incomplete one may follow."""
    length = usual_record_length(content)
    if length:
        end = len(content) // length * length
        if not content[EXPONENT_AT:end:length].strip(content[EXPONENT_AT : EXPONENT_AT + 1]):
            return end
    end = 0
    for _, stop in _places(content):
        end = stop
    return end


def incomplete_bytes(content: bytes) -> int:
    """Number of bytes outside of complete records, in a file that decodes without an error."""
    length = usual_record_length(content)
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


def usual_record_length(content: bytes) -> int:
    """Length of the first record if it is miniSEED 2 with a usual header; otherwise 0."""
    return _length_by_start(content[: EXPONENT_AT + 1])


@lru_cache(maxsize=64)  # several steps of decoding ask for it
def _length_by_start(start: bytes) -> int:
    # Blockette 1000 comes first, in the byte order of the header (SEED 2.4, chapter 8).
    big, little = start[48:50] == b"\x03\xe8", start[48:50] == b"\xe8\x03"
    usual = len(start) > EXPONENT_AT and _START.match(start) and (big or little)
    return 1 << start[EXPONENT_AT] if usual and start[EXPONENT_AT] < _MOST_EXPONENT else 0


def _record_length(rest: memoryview) -> int | None:
    """Length of the record at the start of a buffer; None if there is none."""
    try:
        length: int = MS3Record.parse(rest).reclen
    except (MiniSEEDError, ValueError):
        return None
    return length if 0 < length <= len(rest) else None


def control_bytes(content: bytes) -> int:
    """Number of bytes of full SEED control headers before the first data record."""
    if _CONTROL.match(content) is None:
        return 0
    position = 0
    while position < len(content):
        if _START.match(content, position) and _record_length(memoryview(content)[position:]):
            break
        position += _CONTROL_BYTES
    return min(position, len(content))
