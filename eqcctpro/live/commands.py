"""Commands of a SeedLink client, and answers to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple
from xml.etree import ElementTree

from eqcctpro.codes import Code
from eqcctpro.live.packets import Checkpoint, Position
from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["Hello", "StationRange", "pattern_v4", "read_stations", "requests", "selector_v4"]

# Location, if it is given, and channel.
_SOURCE_V3 = re.compile(r"(?:([A-Z0-9?*-]{2}))?([A-Z0-9?*]{3})\Z")


class Hello(NamedTuple):
    """First answer of a server: its name and what it can do."""

    software: str
    organization: str

    @property
    def speaks_v4(self) -> bool:
        """True if the server offers version 4."""
        return re.search(r"\bSLPROTO:4\.", self.software) is not None

    @property
    def one_numbering(self) -> bool:
        """True if packets of all stations are numbered together, as in a ring."""
        return "ringserver" in self.software.lower()


class StationRange(NamedTuple):
    """Numbers of the first and last packet that a server holds of a station."""

    first: int
    last: int


def read_stations(version: int, content: bytes, decimal: bool) -> dict[str, StationRange]:
    """Stations of a server, by ``NET_STA``, from its answer to INFO STATIONS.

    Parameters
    ----------
    version : int
        3 for XML, 4 for JSON.
    content : bytes
    decimal : bool
        Whether numbers in XML are decimal, as ringserver writes them.

    Raises
    ------
    ValueError
        It is no such answer.
    """
    found: dict[str, StationRange] = {}
    try:
        if version == 4:
            for one in json.loads(content).get("station", ()):
                # The end is the number that comes next.
                found[str(one["id"])] = StationRange(int(one["start_seq"]), int(one["end_seq"]) - 1)
            return found
        text = content.rstrip(b"\0 ")
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise ValueError("declarations in an answer to INFO")
        for node in ElementTree.fromstring(text).iter("station"):
            base = 10 if decimal else 16
            first, last = (int(node.get(name, "0"), base) for name in ("begin_seq", "end_seq"))
            found[f"{node.get('network', '')}_{node.get('name', '')}"] = StationRange(
                first & 0xFFFFFF, (last - 1) & 0xFFFFFF
            )
    except (ElementTree.ParseError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return found


def pattern_v4(network: str, station: str) -> str:
    """Station pattern of version 4."""
    return "*" if network == station == "*" else f"{network}_{station}"


def selector_v4(selector: str) -> str:
    """Selector of version 4 for ``HH?``, ``00HH?`` or one of version 4 itself."""
    negated, plain = ("!", selector[1:]) if selector.startswith("!") else ("", selector)
    found = _SOURCE_V3.match(plain)
    if found is None:
        return selector
    location = (found[1] or "*").replace("-", "")
    return f"{negated}{location}_{'_'.join(found[2])}"


def _selectors(pattern: Code, given: Iterable[str], version: int) -> list[str]:
    """Selectors of a pattern, or those given where it names no channel."""
    location, channel = pattern[2], pattern[3]
    if (location, channel) == ("*", "*"):
        selectors = list(given)
    else:
        channel = "???" if channel == "*" else channel
        selectors = [channel if location == "*" else f"{location or '--'}{channel}"]
    return [selector_v4(one) for one in selectors] if version == 4 else selectors


def requests(
    version: int,
    patterns: Sequence[Code],
    selectors: Sequence[str],
    checkpoint: Checkpoint,
    held: Mapping[str, StationRange],
    hello: Hello,
    start_ns: int | None = None,
) -> list[str]:
    """Commands that choose stations and say from which packet on; END is not among them.

    Packets that were the last ones are asked for again: they show that the server still counts as
    it did, and are dropped as repeated.

    Parameters
    ----------
    version : int
        3 or 4.
    patterns : sequence of Code
        Of stations and channels.
    selectors : sequence of str
        Of channels, for patterns without one.
    checkpoint : Checkpoint
    held : mapping of str to StationRange
        What the server holds.
    hello : Hello
    start_ns : int, optional
        From when on to send what a checkpoint does not know.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for pattern in patterns or [("*", "*", "*", "*")]:
        groups.setdefault(pattern[:2], []).extend(_selectors(pattern, selectors, version))
    known = dict(checkpoint.positions)
    if checkpoint.protocol != version:  # other numbers
        known = {name: Position(-1, place.time_ns) for name, place in known.items()}
    lines: list[str] = []
    if hello.one_numbering:
        start = _together(version, known, held, start_ns)
        for (network, station), wanted in groups.items():
            lines += _station(version, network, station, wanted, start)
        return lines
    # Version 3 knows no patterns, unless the server does not say which stations it has.
    expand = version == 3 and bool(held)
    names = sorted({*known, *held} if expand else known)
    named: set[tuple[str, str]] = set()
    for group, wanted in groups.items():
        for name in names:
            network, _, station = name.partition("_")
            if (network, station) not in named and _covers(group, network, station):
                start = _resume(version, known.get(name), held.get(name), start_ns)
                lines += _station(version, network, station, wanted, start)
                named.add((network, station))
    for group, wanted in groups.items():
        if group not in named and not (expand and _has_wildcard(group)):
            lines += _station(version, *group, wanted, _since(version, start_ns))
    return lines


def _station(
    version: int, network: str, station: str, selectors: Sequence[str], start: str
) -> list[str]:
    chosen = [f"SELECT {one}" for one in dict.fromkeys(selectors)]
    if version == 4:
        return [f"STATION {pattern_v4(network, station)}", *chosen, start]
    return [f"STATION {station} {network}", *chosen, start]


def _resume(
    version: int, place: Position | None, held: StationRange | None, start_ns: int | None
) -> str:
    """The command DATA of a station."""
    if place is None:
        return _since(version, start_ns)
    if place.sequence < 0 or (held is not None and not _holds(version, held, place.sequence)):
        return _since(version, place.time_ns)
    if version == 4:
        return f"DATA {place.sequence}"
    return f"DATA {place.sequence:06X} {_time(3, place.time_ns)}"


def _holds(version: int, held: StationRange, sequence: int) -> bool:
    if version == 4 or held.first <= held.last:
        return held.first <= sequence <= held.last
    return sequence >= held.first or sequence <= held.last  # 24 bits that have turned over


def _since(version: int, start_ns: int | None) -> str:
    if start_ns is None:
        return "DATA"
    if version == 4:
        return f"DATA ALL {_time(4, start_ns)}"
    return f"TIME {_time(3, start_ns)}"


def _together(
    version: int,
    known: Mapping[str, Position],
    held: Mapping[str, StationRange],
    start_ns: int | None,
) -> str:
    """DATA for all stations of a server that numbers them together.

    ringserver goes on behind the newest of several numbers, so the oldest that is still needed
    is given for all.  A number that it does not hold would be answered by nothing.
    """
    if not known:
        return _since(version, start_ns)
    waiting = [p for name, p in known.items() if name not in held or held[name].last != p.sequence]
    oldest = min(waiting or known.values(), key=lambda place: place.time_ns)
    if waiting and version == 4:
        oldest = min(waiting, key=lambda place: place.sequence)
    if not waiting:
        oldest = max(known.values(), key=lambda place: place.sequence)
    first = min((one.first for one in held.values()), default=0)
    last = max((one.last for one in held.values()), default=0)
    whole = StationRange(first, last)
    if oldest.sequence < 0 or not held or not _holds(version, whole, oldest.sequence):
        return _since(version, min(place.time_ns for place in waiting or known.values()))
    return f"DATA {oldest.sequence}" if version == 4 else f"DATA {oldest.sequence:06X}"


def _time(version: int, time_ns: int) -> str:
    # Version 3 has whole seconds.
    text = format_utc(time_ns // NS_PER_S * NS_PER_S, "seconds")
    if version == 4:
        return text
    return ",".join(str(int(part)) for part in re.split("[-T:Z]", text) if part)


def _covers(group: tuple[str, str], network: str, station: str) -> bool:
    return fnmatchcase(network, group[0]) and fnmatchcase(station, group[1])


def _has_wildcard(group: tuple[str, str]) -> bool:
    return any(letter in "*?[" for part in group for letter in part)
