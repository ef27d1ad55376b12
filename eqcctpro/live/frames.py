"""Frames of SeedLink 3 and 4: records and their numbers, found in the bytes of a connection.

A frame of version 3 is ``SL``, six hexadecimal digits and a record whose length only the record
tells.  One of version 4 is ``SE``, format, subformat, length of the payload, number, length of
the station's name, that name, and the payload.  Each record is checked before it is used; behind
damaged bytes the search goes on at the next frame that holds a record.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from eqcctpro.codes import Code, record_code
from eqcctpro.live.packets import Packet, PacketCounts

__all__ = [
    "MOST_INFO_BYTES",
    "MOST_RECORD_BYTES",
    "FrameReader",
    "NoSeedLinkError",
    "frame_v3",
    "frame_v4",
    "record_length",
]

#: Longest record that is taken.
MOST_RECORD_BYTES = 2**18
#: Longest answer to INFO that is taken: of 20,000 stations with their channels.
MOST_INFO_BYTES = 2**26
# A server that sends so many bytes without a frame is none.
_MOST_SKIPPED = 2**22

_HEADER_V3 = 8
_HEADER_V4 = struct.Struct("<2sccIQB")
_V4_BYTES = _HEADER_V4.size
_LENGTHS_3 = struct.Struct("<BHI")  # of the source identifier, extra headers and data
_FIXED_2, _FIXED_3 = 48, 40
_MOST_CODES = 2**18
# Longer records are not waited for where it is doubtful that there is one.
_LONG_RECORD = 8192
_LOOKED_THROUGH = 2**16
# Bytes of a record that tell its length.
_ENOUGH = 64
_LEAST_EXPONENT, _MOST_EXPONENT = 7, 18

# A number, a quality and a filler, codes, a year and a day that may be, and a time of the day.
_START_2 = re.compile(
    rb"[0-9 \x00]{6}[DRQM][ \x00].{12}..[\x00\x01].[\x00-\x17][\x00-\x3b][\x00-\x3c]", re.DOTALL
)
_START_2_LITTLE = re.compile(
    rb"[0-9 \x00]{6}[DRQM][ \x00].{12}...[\x00\x01][\x00-\x17][\x00-\x3b][\x00-\x3c]", re.DOTALL
)
_START_3 = re.compile(rb"MS\x03.{9}[\x00-\x17][\x00-\x3b][\x00-\x3c]", re.DOTALL)
_FRAME_V3 = re.compile(rb"SL(?:[0-9A-Fa-f]{6}|INFO [ *])")
_FRAME_V4 = re.compile(rb"SE[23JX]")


class NoSeedLinkError(Exception):
    """A connection that sends something else than SeedLink."""


class Info(NamedTuple):
    """Part of an answer to INFO; `ends` is True for the last part."""

    content: bytes
    ends: bool


def record_length(record: bytes | bytearray | memoryview) -> int:
    """Length of the record that begins with some bytes; 0 if none begins there.

    Parameters
    ----------
    record : bytes-like
        At least 64 bytes, or the whole record.
    """
    if record[:2] == b"MS":
        if len(record) < _FIXED_3 or _START_3.match(record) is None:
            return 0
        name, extra, data = _LENGTHS_3.unpack_from(record, 33)
        length: int = _FIXED_3 + name + extra + data
        return length if length <= MOST_RECORD_BYTES else 0
    if len(record) < _ENOUGH:
        return 0
    # Blockette 1000 comes first in all records of the last thirty years.
    if record[48:50] == b"\x03\xe8":
        if _START_2.match(record) is None:
            return 0
    elif record[48:50] != b"\xe8\x03" or _START_2_LITTLE.match(record) is None:
        return 0
    exponent = record[54]
    return 1 << exponent if _LEAST_EXPONENT <= exponent <= _MOST_EXPONENT else 0


class FrameReader:
    """Packets of one connection from its bytes, in pieces of any size.

    Memory is bounded by the longest record, or an answer to INFO, and a piece.

    Parameters
    ----------
    version : int
        3 or 4.
    counts : PacketCounts
        Damage is counted here.

    Attributes
    ----------
    infos : list of Info
        Answers to INFO that have come; the caller removes them.
    ended : bool
        True if the server has said END.
    error : str
        What the server said behind ERROR.
    """

    def __init__(self, version: int, counts: PacketCounts) -> None:
        self.infos: list[Info] = []
        self.ended = False
        self.error = ""
        self._version = version
        self._counts = counts
        self._mark = b"SE" if version == 4 else b"SL"
        self._buffer = bytearray()
        self._skipped = 0
        self._usual = 512
        # Codes in headers of miniSEED 2, by their bytes.
        self._codes: dict[bytes, Code] = {}

    def feed(self, data: bytes | bytearray | memoryview, received: float) -> list[Packet]:
        """Packets that are complete with these bytes.

        Raises
        ------
        NoSeedLinkError
            No frame was found in millions of bytes.
        """
        self._buffer += data
        packets: list[Packet] = []
        parse = self._parse_v4 if self._version == 4 else self._parse_v3
        with memoryview(self._buffer) as view:
            used = parse(view, packets, received)
        if used:
            del self._buffer[:used]
        if packets:
            self._skipped = 0
        elif self._skipped > _MOST_SKIPPED:
            raise NoSeedLinkError(f"{self._skipped} bytes in which there is no record")
        return packets

    def _parse_v4(self, view: memoryview, packets: list[Packet], received: float) -> int:
        buffer, at, end = self._buffer, 0, len(view)
        unpack, append, starts = _HEADER_V4.unpack_from, packets.append, buffer.startswith
        codes, make = self._codes, tuple.__new__  # a third of the time of Packet()
        while end - at >= _V4_BYTES:
            mark, kind, sub, declared, sequence, name_bytes = unpack(buffer, at)
            start = at + _V4_BYTES + name_bytes
            if mark == b"SE" and (kind == b"2" or kind == b"3"):
                if end - start < _ENOUGH and end - start < declared:
                    break
                stop = start + declared
                length = record_length(view[start : min(stop, start + _ENOUGH)])
                if length == declared and length:
                    if stop > end:
                        if (inner := self._frame_behind(start)) == 0:
                            break
                        self._counts.damaged += 1
                        at = inner
                        continue
                    if not starts(b"SE", stop) and (inner := self._frame_within(start, stop)):
                        self._counts.damaged += 1
                        at = inner
                        continue
                    record = bytes(view[start:stop])
                    at = stop
                    code = codes.get(record[8:20]) or self._code(record)
                    if code is not None:
                        append(make(Packet, (code, sequence, record, received)))
                    continue
                at, waits = self._odd_length(at, start, declared, length, packets, received)
                if waits:
                    break
            elif mark == b"SE" and kind in (b"J", b"X") and declared <= MOST_INFO_BYTES:
                if start + declared > end:
                    if (inner := self._frame_behind(start)) == 0:
                        break
                    self._counts.damaged += 1
                    at = inner
                    continue
                content = bytes(view[start : start + declared])
                if sub == b"E":
                    self.error = content.decode("utf-8", "replace")[:500]
                self.infos.append(Info(content, ends=True))
                at = start + declared
            elif self._is_line(at):
                at = self._line(at)
                break
            else:
                at = self._skip(_FRAME_V4, at)
        if end - at < _V4_BYTES and self._is_line(at):
            at = self._line(at)
        return at

    def _code(self, record: bytes) -> Code | None:
        """Codes of a record; None, counted as damage, if it has none."""
        try:
            code = record_code(record)
        except ValueError:  # no source identifier
            self._counts.damaged += 1
            return None
        if record[:2] != b"MS":
            if len(self._codes) >= _MOST_CODES:
                self._codes.clear()
            self._codes[record[8:20]] = code
        return code

    def _frame_behind(self, start: int) -> int:
        """Offset of a frame in the part that has come of a long one; 0 if there is none.

        A damaged length would have everything behind it waited for.
        """
        come = len(self._buffer) - start
        if not _LONG_RECORD < come < _LOOKED_THROUGH:
            return 0
        return self._frame_within(start, len(self._buffer))

    def _frame_within(self, start: int, stop: int) -> int:
        """Offset of a frame within a record of which bytes are missing; 0 if there is none."""
        buffer, v4 = self._buffer, self._version == 4
        for found in (_FRAME_V4 if v4 else _FRAME_V3).finditer(buffer, start, stop):
            at = found.start()
            if v4 and len(buffer) - at < _V4_BYTES:
                continue
            inner = at + (_V4_BYTES + buffer[at + 16] if v4 else _HEADER_V3)
            if record_length(buffer[inner : inner + _ENOUGH]) or (
                not v4 and len(buffer) - inner < _ENOUGH
            ):
                return at
        return 0

    def _odd_length(
        self,
        at: int,
        start: int,
        declared: int,
        length: int,
        packets: list[Packet],
        received: float,
    ) -> tuple[int, bool]:
        """Offset to go on at behind a frame whose record has another length, or is none.

        Returns
        -------
        at : int
        waits : bool
            True if more bytes are needed to tell.
        """
        end = len(self._buffer)
        if length and self._is_frame(start + length):
            record = bytes(self._buffer[start : start + length])
            code = self._code(record)
            if code is not None:
                sequence = _HEADER_V4.unpack_from(self._buffer, at)[4]
                packets.append(Packet(code, sequence, record, received))
            self._counts.wrong_lengths += 1
            return start + length, False
        if declared and self._is_frame(start + declared):
            self._counts.damaged += 1
            return start + declared, False
        unseen = [n for n in (length, declared) if n and start + n + 2 > end]
        if unseen and min(unseen) <= _LONG_RECORD:
            return at, True
        return self._skip(_FRAME_V4, at), False

    def _is_frame(self, at: int) -> bool:
        return self._buffer.startswith(self._mark, at)

    def _parse_v3(self, view: memoryview, packets: list[Packet], received: float) -> int:
        buffer, at, end = self._buffer, 0, len(view)
        starts = buffer.startswith
        while end - at >= _HEADER_V3 + _ENOUGH:
            start = at + _HEADER_V3
            if _FRAME_V3.match(buffer, at) is not None:
                length = record_length(view[start : start + _ENOUGH])
                if length > self._usual and self._is_frame(start + self._usual):
                    length = 0
                if length:
                    stop = start + length
                    if stop > end:
                        if (inner := self._frame_behind(start)) == 0:
                            break
                        self._counts.damaged += 1
                        at = inner
                        continue
                    if not starts(b"SL", stop) and (inner := self._frame_within(start, stop)):
                        self._counts.damaged += 1
                        at = inner
                        continue
                    record = bytes(view[start:stop])
                    at = stop
                    if buffer.startswith(b"INFO", start - 6):
                        self.infos.append(Info(record, ends=not buffer.startswith(b"*", start - 1)))
                        continue
                    self._usual = length
                    number = int(buffer[start - 6 : start], 16)
                    code = self._codes.get(record[8:20]) or self._code(record)
                    if code is not None:
                        packets.append(Packet(code, number, record, received))
                    continue
                if start + self._usual + 2 > end:
                    break
                if self._is_frame(start + self._usual):
                    self._counts.damaged += 1
                    at = start + self._usual
                    continue
            elif self._is_line(at):
                at = self._line(at)
                break
            at = self._skip(_FRAME_V3, at)
        if end - at < _HEADER_V3 + _ENOUGH and self._is_line(at):
            at = self._line(at)
        return at

    def _skip(self, frame: re.Pattern[bytes], at: int) -> int:
        """The next place where a frame may begin; what lies before it belongs to none."""
        found = frame.search(self._buffer, at + 1)
        # The beginning of a frame may be the last bytes.
        place = found.start() if found else max(len(self._buffer) - _HEADER_V3, at + 1)
        if not self._skipped or self._buffer.startswith(b"S", at):
            self._counts.damaged += 1
        self._counts.skipped_bytes += place - at
        self._skipped += place - at
        return place

    def _is_line(self, at: int) -> bool:
        """True for END and ERROR, which stand where a frame could."""
        return self._buffer.startswith((b"END", b"ERROR"), at)

    def _line(self, at: int) -> int:
        if self._buffer.startswith(b"END", at):
            self.ended = True
            return at + 3
        stop = self._buffer.find(b"\n", at, at + 4096)
        if stop < 0 and len(self._buffer) - at < 4096:
            return at
        self.error = (
            bytes(self._buffer[at : stop if stop > 0 else None])[:500]
            .decode("utf-8", "replace")
            .strip()
        )
        self.ended = True
        return stop + 1 if stop > 0 else len(self._buffer)


def frame_v3(sequence: int, record: bytes) -> bytes:
    """Frame of version 3."""
    return b"SL%06X%b" % (sequence & 0xFFFFFF, record)


def frame_v4(sequence: int, station: bytes, record: bytes) -> bytes:
    """Frame of version 4; the record's own mark says its format."""
    kind = b"3" if record[:2] == b"MS" else b"2"
    header = _HEADER_V4.pack(b"SE", kind, b"D", len(record), sequence, len(station))
    return b"".join((header, station, record))
