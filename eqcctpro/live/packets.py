"""Packets of records as sources deliver them, and positions from which a source resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from pymseed import MS3Record

from eqcctpro.codes import Code
from eqcctpro.errors import SettingsError

__all__ = ["Checkpoint", "Packet", "PacketCounts", "Position", "Source", "StationChoice"]


class Packet(NamedTuple):
    """One miniSEED record that arrived, with the codes of its own header.

    Attributes
    ----------
    code : tuple of str
        Network, station, location and channel.
    sequence : int
        Number that the server gave it.
    record : bytes
        A complete record of miniSEED 2 or 3.
    received : float
        Time of arrival, seconds since 1970 UTC by this machine's clock.
    """

    code: Code
    sequence: int
    record: bytes
    received: float

    @property
    def station(self) -> str:
        """Network and station as SeedLink names them: ``NET_STA``."""
        return f"{self.code[0]}_{self.code[1]}"


class Position(NamedTuple):
    """Place of a packet in the stream of a station.

    Attributes
    ----------
    sequence : int
    time_ns : int
        Time of the first sample of its record, nanoseconds since 1970 UTC.
    """

    sequence: int
    time_ns: int

    @classmethod
    def of(cls, packet: Packet) -> Position:
        """Position of a packet."""
        return cls(packet.sequence, MS3Record.parse(packet.record).starttime)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Last packet of each station that need not be sent again.

    Attributes
    ----------
    protocol : int
        Version of SeedLink whose sequence numbers these are, 3 or 4; 0 if there are none.
    positions : mapping of str to Position
        By ``NET_STA``.
    """

    protocol: int = 0
    positions: Mapping[str, Position] = field(default_factory=dict)

    def as_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps({"protocol": self.protocol, "positions": dict(self.positions)})

    @classmethod
    def from_json(cls, text: str) -> Checkpoint:
        """Read what `as_json` wrote.

        Raises
        ------
        SettingsError
            It is no checkpoint.
        """
        try:
            content = json.loads(text)
            positions = {
                str(name): Position(int(sequence), int(time_ns))
                for name, (sequence, time_ns) in content["positions"].items()
            }
            return cls(int(content["protocol"]), positions)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SettingsError(
                f"this is no checkpoint of a stream: {type(error).__name__}: {error}",
                hint="remove it to begin with the newest data",
            ) from error


@dataclass(slots=True)
class PacketCounts:
    """Numbers of things that happened to a source since it was opened.

    Attributes
    ----------
    packets : int
        Delivered to the caller.
    duplicates : int
        Dropped because the same bytes had come under the same number.
    damaged : int
        Packets whose record is no valid miniSEED, or whose header is damaged.
    wrong_lengths : int
        Packets whose declared length is not that of their record, which was used.
    skipped_bytes : int
        Bytes between packets that belong to none.
    excluded : int
        Packets of stations that are not wanted.
    sequence_resets : int
        Times that numbers of a station went back without a repeated packet.
    connections : int
        Connections that delivered packets.
    failures : int
        Connections that could not be made, or ended other than by `close`.
    stalls : int
        Connections given up because nothing came while the server had newer data, or no answer.
    rejected : int
        Stations and selectors that the server refused.
    """

    packets: int = 0
    duplicates: int = 0
    damaged: int = 0
    wrong_lengths: int = 0
    skipped_bytes: int = 0
    excluded: int = 0
    sequence_resets: int = 0
    connections: int = 0
    failures: int = 0
    stalls: int = 0
    rejected: int = 0

    def as_dict(self) -> dict[str, int]:
        """Numbers by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


class StationChoice:
    """Choice of stations by patterns such as ``NC.*`` or ``TX.PB01.*.HH?``.

    Parameters
    ----------
    stations : sequence of str
        All if there is none.
    exclude : sequence of str
        What is left out of these.

    Raises
    ------
    SettingsError
        A pattern is empty or has more than four parts.
    """

    def __init__(self, stations: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> None:
        for name, patterns in (("stations", stations), ("exclude", exclude)):
            for pattern in patterns:
                if not pattern or pattern.count(".") > 3 or not pattern.isascii():
                    raise SettingsError(
                        f"{name}: {pattern!r} is no pattern of stations",
                        hint="NET.STA, NET.STA.LOC.CHA, or a part of it, with * and ?",
                    )
        self.stations = tuple(dict.fromkeys(_parts(one) for one in stations))
        self.exclude = tuple(_parts(one) for one in exclude)

    def takes(self, code: Code) -> bool:
        """True if a channel is chosen."""
        wanted = not self.stations or any(_matches(code, one) for one in self.stations)
        return wanted and not any(_matches(code, one) for one in self.exclude)


def _parts(pattern: str) -> Code:
    """A pattern for each code; one without a dot is of a station."""
    parts = pattern.upper().split(".")
    if len(parts) == 1:
        parts.insert(0, "*")
    network, station, location, channel = [*parts, "*", "*"][:4]
    # A channel without its component, as ``HH``, means all of its components.
    return network, station, location, f"{channel}?" if len(channel) == 2 else channel


def _matches(code: Code, pattern: Code) -> bool:
    return all(fnmatchcase(one, wanted) for one, wanted in zip(code, pattern, strict=True))


class Source(Protocol):
    """Stream of packets of records, read in batches."""

    counts: PacketCounts

    @property
    def ended(self) -> bool:
        """True if nothing more will come."""

    def read(self, timeout_s: float) -> list[Packet]:
        """All packets that have come, in their order; waits for the first one.

        Parameters
        ----------
        timeout_s : float
            Longest wait, seconds; the batch is empty after it.
        """

    def checkpoint(self) -> Checkpoint:
        """Position behind the last packet of each station that `read` returned."""

    def close(self) -> None:
        """End the stream."""
