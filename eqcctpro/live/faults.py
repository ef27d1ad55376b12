"""Faults that a rehearsal server makes on request, the same ones for the same seed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from eqcctpro.errors import SettingsError
from eqcctpro.live.frames import frame_v3, frame_v4
from eqcctpro.live.replay import CompletedRecord
from eqcctpro.times import NS_PER_S

__all__ = ["FAULTS", "Faults"]


class _Fault(NamedTuple):
    usual: float
    most: float
    help: str


#: Faults by name, with the usual value, the greatest, and what the value means.
FAULTS = {
    "damage": _Fault(0.01, 1, "share of packets whose record is damaged"),
    "length": _Fault(0.01, 1, "share of packets that declare a wrong length, or are cut short"),
    "duplicate": _Fault(0.05, 1, "share of packets that are sent twice"),
    "flood": _Fault(1000, 1e6, "times that every 500th packet is sent"),
    "disconnect": _Fault(500, 1e9, "packets after which a connection is cut"),
    "silence": _Fault(10, 1e6, "seconds that nothing is sent, after every 1,000 packets"),
    "reset": _Fault(2000, 1e9, "packets after which numbers begin at 1 again"),
    "gap": _Fault(0.01, 1, "share of records that are never sent"),
    "disorder": _Fault(0.05, 1, "share of records that come up to 20 records too late"),
    "delay": _Fault(30, 1e6, "seconds of data that a third of the stations is late"),
}
_FLOOD_EVERY, _SILENT_EVERY = 500, 1000
_MOST_LATE = 20


class Faults:
    """Chosen faults, drawn from a seed and the number of a packet.

    Parameters
    ----------
    chosen : sequence of str
        ``NAME`` or ``NAME:VALUE``; see `FAULTS`.
    seed : int

    Raises
    ------
    SettingsError
        There is no such fault, or its value is out of range.
    """

    def __init__(self, chosen: Sequence[str] = (), seed: int = 0) -> None:
        self._values: dict[str, float] = {}
        self._seed = seed
        for text in chosen:
            name, _, value = text.partition(":")
            fault = FAULTS.get(name)
            if fault is None:
                raise SettingsError(
                    f"--fault {text!r}: there is no such fault", hint=", ".join(FAULTS)
                )
            try:
                number = float(value) if value else fault.usual
            except ValueError:
                number = -1.0
            if not 0 < number <= fault.most:
                raise SettingsError(
                    f"--fault {text!r}: the value is no number above 0 and up to {fault.most:g}",
                    hint=f"{name}:{fault.usual:g} means: {fault.help}",
                )
            self._values[name] = number

    def __bool__(self) -> bool:
        return bool(self._values)

    @property
    def reset_after(self) -> int:
        """Packets after which numbers begin at 1 again; 0 is never."""
        return round(self._values.get("reset", 0))

    @property
    def disconnect_after(self) -> int:
        """Packets after which a connection is cut; 0 is never."""
        return round(self._values.get("disconnect", 0))

    def silence_s(self, sent: int) -> float:
        """Seconds to send nothing behind so many packets of a connection."""
        return self._values.get("silence", 0.0) if sent and sent % _SILENT_EVERY == 0 else 0.0

    def damages(self, sequence: int) -> bool:
        """True if the record of a packet is always sent damaged."""
        return self._draws("damage", sequence)

    def cuts(self, sequence: int) -> bool:
        """True if a packet has a wrong length: in version 3 bytes of its record are missing."""
        return self._draws("length", sequence) and not self.damages(sequence)

    def frames(self, version: int, sequence: int, station: bytes, record: bytes) -> bytes:
        """Bytes that are sent for a packet: its frame, another one, or several."""
        if self.damages(sequence):
            place = 20 + zlib.crc32(b"%d" % sequence) % 20
            record = record[:place] + bytes(255 - byte for byte in record[place:60]) + record[60:]
        frame = _frame(version, sequence, station, record)
        if self.cuts(sequence):
            if version == 3:
                frame = frame[:-64]
            else:
                declared = len(record) + (64 if sequence % 2 else -64)
                frame = frame[:4] + declared.to_bytes(4, "little") + frame[8:]
        times = 2 if self._draws("duplicate", sequence) else 1
        if "flood" in self._values and sequence % _FLOOD_EVERY == 0:
            times = round(self._values["flood"])
        return frame * times

    def of_records(self, records: Iterable[CompletedRecord]) -> Iterator[CompletedRecord]:
        """Records with those missing, late and out of order that were chosen."""
        if "delay" in self._values:
            records = self._delayed(records)
        drawn = random.Random(self._seed)
        gap, disorder = self._values.get("gap", 0), self._values.get("disorder", 0)
        late: list[tuple[int, CompletedRecord]] = []
        for number, record in enumerate(records):
            if gap and drawn.random() < gap:
                continue
            if disorder and drawn.random() < disorder:
                late.append((number + drawn.randint(2, _MOST_LATE), record))
                continue
            yield record
            for due in [one for one in late if one[0] <= number]:
                late.remove(due)
                yield due[1]._replace(end_ns=record.end_ns)
        yield from (record for _, record in late)

    def _delayed(self, records: Iterable[CompletedRecord]) -> Iterator[CompletedRecord]:
        delay_ns = round(self._values["delay"] * NS_PER_S)
        late: list[CompletedRecord] = []  # in order, as the delay is the same for all
        at = 0
        for record in records:
            while at < len(late) and late[at].end_ns <= record.end_ns:
                yield late[at]
                at += 1
            if at > 10_000:
                del late[:at]
                at = 0
            if self.is_delayed(record.code[0], record.code[1]):
                late.append(record._replace(end_ns=record.end_ns + delay_ns))
            else:
                yield record
        yield from late[at:]

    def is_delayed(self, network: str, station: str) -> bool:
        """True if a station is one of those that are late."""
        return zlib.crc32(f"{self._seed}:{network}.{station}".encode()) % 3 == 0

    def _draws(self, name: str, sequence: int) -> bool:
        share = self._values.get(name, 0.0)
        return share > 0 and zlib.crc32(f"{self._seed}:{name}:{sequence}".encode()) < share * 2**32


def _frame(version: int, sequence: int, station: bytes, record: bytes) -> bytes:
    return frame_v4(sequence, station, record) if version == 4 else frame_v3(sequence, record)
