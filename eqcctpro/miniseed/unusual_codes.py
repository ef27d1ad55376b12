"""Records whose codes libmseed does not distinguish.

It drops blanks inside of codes and ends codes at bytes that are not ASCII, and an underscore
makes a source identifier ambiguous.  Such records are decoded under placeholder codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eqcctpro.codes import HEADER_FIELDS, Code, code_of_header, code_of_source, is_tidy
from eqcctpro.miniseed.salvage import EXPONENT_AT, usual_record_length, whole_records

if TYPE_CHECKING:
    from pymseed.mstracelist import MS3TraceID

__all__ = ["trace_code", "with_placeholders"]

_QUALITIES = b"DRQM"
_QUALITY_AT = 6
# The header of miniSEED 3: a mark, and the sizes of what follows it.
_MARK3, _HEADER3 = b"MS\x03", 40


def with_placeholders(content: bytes) -> tuple[bytes, dict[Code, Code]]:
    """Replace codes that libmseed does not distinguish by placeholders.

    Parameters
    ----------
    content : bytes
        Content of a file.

    Returns
    -------
    content : bytes
        Unchanged if all codes are usual ones.
        names : dict
        The real codes by their placeholders.
    """
    if content[:3] == _MARK3 and _all_of_version_3(content):
        return content, {}
    starts = _uniform_starts(content)
    if starts is None:
        starts = _starts(content)
    elif not len(starts):
        return content, {}
    placeholders: dict[bytes, bytes] = {}
    names: dict[Code, Code] = {}
    renamed = bytearray(content)
    for start in starts:
        place = slice(start + HEADER_FIELDS.start, start + HEADER_FIELDS.stop)
        fields = content[place]
        if is_tidy(fields):
            continue
        if fields not in placeholders:
            # No usual code has a tilde.
            other = f"~{len(placeholders):04X}~~HHZ~~".encode()
            placeholders[fields] = other
            names["~~", f"~{len(placeholders) - 1:04X}", "~~", "HHZ"] = code_of_header(fields)
        renamed[place] = placeholders[fields]
    return (bytes(renamed), names) if placeholders else (content, names)


def trace_code(trace: MS3TraceID, names: dict[Code, Code]) -> Code:
    """Real codes of a trace of records that went through `with_placeholders`.

    Raises
    ------
    ValueError
        It has no FDSN source identifier.
    """
    try:
        source: str | bytes = trace.sourceid
    except UnicodeDecodeError:
        from pymseed.clib import ffi

        source = ffi.string(trace._id.sid)
    if names and isinstance(source, str) and source[:9] == "FDSN:~~_~":
        real = names.get(("~~", source[8:13], "~~", "HHZ"))
        if real is not None:
            return real
    return code_of_source(source)


def _uniform_starts(content: bytes) -> list[int] | None:
    """Starts of the miniSEED 2 records whose codes have to be checked.

    Empty if all have the same usual codes, and None if they differ in length.
    """
    length = usual_record_length(content)
    if length < _HEADER3 or len(content) < length:
        return None
    end = len(content) // length * length
    qualities, lengths = content[_QUALITY_AT:end:length], content[EXPONENT_AT:end:length]
    if qualities.strip(_QUALITIES) or lengths.strip(lengths[:1]):
        return None
    rows = np.frombuffer(content, np.uint8, end).reshape(-1, length)
    fields = rows[:, HEADER_FIELDS]
    if is_tidy(content[HEADER_FIELDS]) and bool((fields == fields[0]).all()):
        return []
    return list(range(0, end, length))


def _starts(content: bytes) -> list[int]:
    """Starts of all miniSEED 2 records, found one after the other."""
    starts, position = [], 0
    for record in whole_records(content):
        position = content.index(record, position)
        if record[:2] != _MARK3[:2]:
            starts.append(position)
        position += len(record)
    return starts


def _all_of_version_3(content: bytes) -> bool:
    position = 0
    while content[position : position + 3] == _MARK3:
        sizes = content[position + 33 : position + _HEADER3]
        extra = int.from_bytes(sizes[1:3], "little")
        position += _HEADER3 + sizes[0] + extra + int.from_bytes(sizes[3:], "little")
        if position == len(content):
            return True
    return False
