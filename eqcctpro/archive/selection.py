"""Selection of the stations and instruments of an archive."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TypeVar

from eqcctpro.archive.listing import FolderLister
from eqcctpro.archive.settings import InputSettings
from eqcctpro.errors import SettingsError
from eqcctpro.roots import OUTSIDE, Roots
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import NS_PER_S

__all__ = ["Instrument", "Key", "Wanted", "best_instruments", "choose_instruments"]

Key = tuple[str, str, str, str]
T = TypeVar("T")

# Wildcards of a pattern.
_WILDCARDS = frozenset("*?[")
_FIRST_WILDCARD = re.compile(r"[*?\[]")
# Letters of a band and instrument code.
_USUAL_BAND = 2
# Most names that a message lists.
MOST_NAMES = 10
# Records reach over the ends of their day: those of 1 Hz by up to an hour.
RECORD_NS = 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Instrument:
    """Band and instrument of a station, and the folder it lies in, where that means a station.

    `hydrophone` is the band and instrument code of a hydrophone that is picked with it.
    """

    network: str
    station: str
    location: str
    instrument: str
    folder: str
    hydrophone: str = ""

    @property
    def key(self) -> Key:
        """Network, station, location, and band and instrument code."""
        return (self.network, self.station, self.location, self.instrument)


class Wanted:
    """Selection by the names of folders and files, before anything is opened.

    Names are only used if the layout defines their meaning; the records are checked later.

    Attributes
    ----------
    seen : set of str
        All stations of the input, selected or not.
        unwanted : set of str
        Stations that are not selected.
        refused_spans : int
        Number of folders and files outside of the selected time.
        passed_over : dict of str to str
        Files and folders that are not read, with the reason.
        lister : FolderLister
        Lists folders, and records those that could not be listed.
    """

    def __init__(self, settings: InputSettings | None = None) -> None:
        self.seen: set[str] = set()
        self.unwanted: set[str] = set()
        self.refused_spans = 0
        self.passed_over: dict[str, str] = {}
        self.lister = FolderLister(None if settings is None else settings.file_timeout_s)
        self._start_ns, self._end_ns = -FOREVER_NS, FOREVER_NS
        self._beginnings: tuple[str, ...] = ()
        self._roots = Roots() if settings is None else Roots(settings.input_roots)
        if settings is None:
            return
        margin = settings.context_ns + RECORD_NS
        if settings.timechunk_min is not None:
            margin += round(settings.overlap_min * 60 * NS_PER_S)
        if settings.start_ns is not None:
            self._start_ns = settings.start_ns - margin
        if settings.end_ns is not None:
            self._end_ns = settings.end_ns + margin
        self._beginnings = tuple(
            _FIRST_WILDCARD.split(pattern.upper(), maxsplit=1)[0] for pattern in settings.stations
        )

    @property
    def only_unwanted(self) -> bool:
        """True if the input has stations, and none of them can be selected."""
        return bool(self.seen) and self.seen == self.unwanted

    def span(self, start_ns: int, end_ns: int) -> bool:
        """True if a half-open span overlaps the selected time; others are counted."""
        wanted = self.overlaps(start_ns, end_ns)
        self.refused_spans += not wanted
        return wanted

    def overlaps(self, start_ns: int, end_ns: int) -> bool:
        """True if a half-open span overlaps the selected time."""
        return start_ns < self._end_ns and end_ns > self._start_ns

    def enters(self, folder: str) -> bool:
        """True if a folder may be read; links may not lead out of the roots."""
        if not self._roots or not os.path.islink(folder) or self._roots.hold(folder):  # noqa: PTH114
            return True
        self.passed_over[folder] = f"a link that {OUTSIDE}"
        return False

    def network(self, network: str) -> bool:
        """True if some station of a network can be selected."""
        if not self._beginnings:
            return True
        # A pattern may as well begin with a station.
        return any(
            _agree(beginning, f"{network}.") or "." not in beginning
            for beginning in self._beginnings
        )

    def station(self, network: str, station: str) -> bool:
        """True if some instrument of a station can be selected."""
        name = f"{network}.{station}"
        self.seen.add(name)
        if not self._beginnings:
            return True
        names = (name, f"{network}_{station}", station)
        wanted = any(_agree(begun, known) for begun in self._beginnings for known in names)
        if not wanted:
            self.unwanted.add(name)
        return wanted


def _agree(first: str, second: str) -> bool:
    """True if one string is a prefix of the other."""
    return first.startswith(second) or second.startswith(first)


def choose_instruments(
    holdings: Mapping[Instrument, T],
    settings: InputSettings,
    seen: Iterable[str] = (),
    unmatched: list[str] | None = None,
) -> dict[Instrument, T]:
    """Select the instruments that the settings ask for.

    Parameters
    ----------
    holdings : mapping
        By instrument; values are passed on.
    settings : InputSettings
    seen : iterable of str
        Names of further stations, for error messages.
    unmatched : list of str, optional
        Receives the patterns that match nothing, of a part of an archive, instead of an error.

    Raises
    ------
    SettingsError
        A pattern matches nothing, or nothing is left.
    """
    chosen = dict(holdings)
    if settings.stations:
        chosen = {}
        named = _by_name(holdings)
        for pattern in settings.stations:
            found = _matching(pattern, holdings, named)
            if not found and unmatched is not None:
                unmatched.append(pattern)
            elif not found:
                raise _no_match(pattern, holdings, seen)
            chosen.update({key: holdings[key] for key in found})
    if settings.exclude:
        named = _by_name(chosen)
        for pattern in settings.exclude:
            for key in _matching(pattern, chosen, named):
                chosen.pop(key, None)
        if not chosen and unmatched is None:
            raise SettingsError(
                f"exclude: {', '.join(settings.exclude[:MOST_NAMES])} leave nothing to pick",
                hint="compare them with stations",
            )
    if settings.stations_at_most is not None:
        stations = sorted({(k.network, k.station) for k in chosen})
        if settings.stations_at_most < len(stations):
            picked = set(random.Random(0).sample(stations, settings.stations_at_most))
            chosen = {k: v for k, v in chosen.items() if (k.network, k.station) in picked}
    return chosen


def best_instruments(tasks: Sequence[tuple[Instrument, int]], order: Sequence[str]) -> list[bool]:
    """Flags of the instruments that are the best of their station in their chunk.

    Parameters
    ----------
    tasks : sequence of (Instrument, int)
        With the index of the chunk.
    order : sequence of str
        Patterns of band and instrument codes, the best first; what none matches is not picked.
        Among locations the first one in the alphabet is the best.
    """
    ranks: dict[str, int] = {}
    best: dict[tuple[str, str, int], tuple[int, str, str]] = {}
    for instrument, chunk in tasks:
        code = instrument.instrument
        if code not in ranks:
            capitals = code.upper()
            ranks[code] = next(
                (i for i, one in enumerate(order) if fnmatchcase(capitals, one.upper())), len(order)
            )
        if ranks[code] < len(order):
            place = (instrument.network, instrument.station, chunk)
            rank = (ranks[code], instrument.location, code)
            best[place] = min(best.get(place, rank), rank)
    return [
        best.get((one.network, one.station, chunk))
        == (ranks[one.instrument], one.location, one.instrument)
        for one, chunk in tasks
    ]


def _matching(
    pattern: str, among: Iterable[Instrument], named: Mapping[str, Sequence[Instrument]]
) -> list[Instrument]:
    wanted = _normal(pattern)
    # Thousands of exact names need not be compared with thousands of stations each.
    candidates = among if _WILDCARDS & set(wanted) else named.get(wanted, ())
    return [one for one in candidates if any(fnmatchcase(name, wanted) for name in _names(one))]


def _normal(pattern: str) -> str:
    """A pattern in upper case, with the channel reduced to the instrument: ``HH?`` is ``HH``."""
    parts = pattern.upper().split(".")
    if len(parts) != 4:
        return pattern.upper()
    channel = parts[3]
    letters = re.findall(r"\[[^]]*\]|.", channel)
    if len(letters) == 3 and "*" not in letters:
        if letters[2] != "?" and not letters[2].startswith("["):
            raise SettingsError(
                f"stations: {pattern!r} names a single component",
                hint=f"instruments are picked with all components: write {channel[:-1]} "
                f"or {channel[:-1]}?",
            )
        parts[3] = "".join(letters[:2])
    return ".".join(parts)


def _by_name(instruments: Iterable[Instrument]) -> dict[str, list[Instrument]]:
    """Instruments by each of their names."""
    named: dict[str, list[Instrument]] = {}
    for instrument in instruments:
        for name in set(_names(instrument)):
            named.setdefault(name, []).append(instrument)
    return named


def _names(instrument: Instrument) -> tuple[str, ...]:
    """All names that a pattern is compared with for an instrument, in upper case."""
    network, station, location, band = instrument.key
    names = [instrument.folder, station, f"{network}.{station}", f"{network}_{station}"]
    # An empty location is also written as --, which some records really contain.
    for place in (location,) if location else ("", "--"):
        name = f"{network}.{station}.{place}"
        names += [name, f"{name}.{band}"]
        if len(band) != _USUAL_BAND:
            # Of channels with one or two letters the component may be a question mark, too.
            names.append(f"{name}.{band}?")
    return tuple(name.upper() for name in names)


def _no_match(pattern: str, known: Iterable[Instrument], seen: Iterable[str]) -> SettingsError:
    """Error for a pattern that matches nothing, with similar names."""
    names: dict[str, str] = {}
    for station in (*seen, *(f"{one.network}.{one.station}" for one in known)):
        names[station.upper()] = station
        names.setdefault(station.upper().partition(".")[2], station)
    stations = sorted(set(names.values()))
    wanted = ".".join(pattern.upper().split(".")[:2])
    near = list(dict.fromkeys(names[one] for one in get_close_matches(wanted, names, n=5)))
    here = f"the input holds {', '.join(stations[:MOST_NAMES])}" + (
        f" and {len(stations) - MOST_NAMES} more" if len(stations) > MOST_NAMES else ""
    )
    instruments = sorted({".".join(one.key) for one in known if _is_station(one, wanted)})
    if instruments:
        here = f"that station has {', '.join(instruments[:MOST_NAMES])}"
    return SettingsError(
        f"stations: no station matches {pattern!r}",
        hint=f"did you mean {', '.join(near)}? {here}" if near and not instruments else here,
    )


def _is_station(instrument: Instrument, name: str) -> bool:
    return fnmatchcase(f"{instrument.network}.{instrument.station}".upper(), name)
