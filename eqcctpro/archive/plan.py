"""The plan of a run: every station task, before anything is decoded."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from eqcctpro.archive.files import ArchiveFile, Layout, detect_layout, iter_files
from eqcctpro.archive.index import LONG_GAP_NS, Code, IndexedFile, index_file, joined_spans
from eqcctpro.archive.tasks import FileTable, StationTask, Tasks, TaskTable, Texts
from eqcctpro.archive.timechunks import (
    FOREVER_NS,
    MINUTE_NS,
    Timechunk,
    chunk_grid,
    chunks_of_folders,
    read_span,
    whole_archive,
)
from eqcctpro.errors import DecodeError, InputError, SettingsError

Key = tuple[str, str, str, str]

__all__ = ["FileProblem", "InputSettings", "Plan", "StationTask", "Tasks", "make_plan"]

# Letters of a pattern that stand for others.
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class InputSettings:
    """What is read, and how time is cut.

    Attributes
    ----------
    inputs : tuple of Path
        Folders or files.
    layout : {"auto", "chunks", "files"}
    start_ns, end_ns : int or None
        Picks outside are dropped by rule.
    timechunk_min : float or None
        Length of a chunk in minutes; None takes the folders, or one chunk.
    overlap_min : float
        What neighbouring chunks share, in minutes.
    stations : tuple of str
        Patterns; empty takes all.
    stations_at_most : int or None
        A seeded random choice of that many stations.
    context_ns : int
        Data wanted around what a chunk owns, where files hold it.
    chunk_major : bool
        Finish a chunk's stations before the next chunk, even if files are then read more
        than once.
    """

    inputs: tuple[Path, ...]
    layout: str = "auto"
    start_ns: int | None = None
    end_ns: int | None = None
    timechunk_min: float | None = None
    overlap_min: float = 0.0
    stations: tuple[str, ...] = ()
    stations_at_most: int | None = None
    context_ns: int = 0
    chunk_major: bool = False


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A file that cannot be used, and why."""

    path: str
    error: str
    message: str


@dataclass
class Plan:
    """All station tasks of a run, and what is left out of it.

    Attributes
    ----------
    ignored : list of str
        Files that are not miniSEED and do not claim to be.
    skipped : dict of str to int
        What is left out by rule, by the rule: instruments that `stations` or
        `stations_at_most` do not choose (``"not_chosen"``), and those of which no time chunk
        owns anything (``"outside_span"``).
    """

    layout: Layout
    chunks: list[Timechunk]
    tasks: Tasks
    files: FileTable
    problems: list[FileProblem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Instrument:
    network: str
    station: str
    location: str
    instrument: str
    folder: str

    @property
    def key(self) -> Key:
        return (self.network, self.station, self.location, self.instrument)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one file holds of one instrument."""

    file: int
    chunk: str
    folder: str
    start_ns: int
    end_ns: int


class _Pieces:
    """What files hold of one instrument, as numbers: there are several for each station."""

    __slots__ = ("_numbers", "_texts")

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._numbers = array("q")

    def append(self, piece: _Piece) -> None:
        number = self._texts.number
        self._numbers.extend((piece.file, number(piece.chunk), number(piece.folder)))
        self._numbers.extend((piece.start_ns, piece.end_ns))

    def __iter__(self) -> Iterator[_Piece]:
        numbers, texts = self._numbers, self._texts
        for at in range(0, len(numbers), 5):
            file, chunk, folder, start_ns, end_ns = numbers[at : at + 5]
            yield _Piece(file, texts[chunk], texts[folder], start_ns, end_ns)


Holdings = dict["_Instrument", _Pieces]


def make_plan(settings: InputSettings) -> Plan:
    """List the station tasks of a run.

    Raises
    ------
    InputError
        The input is missing, empty, or holds nothing that can be picked.
    SettingsError
        A pattern matches no station, or the time settings contradict each other.
    """
    layout: Layout = (
        detect_layout(settings.inputs) if settings.layout == "auto" else settings.layout  # type: ignore[assignment]
    )
    files = FileTable()
    plan = Plan(layout, [], Tasks(TaskTable(files), range(0)), files)
    holdings = _index(iter_files(settings.inputs, layout), plan)
    if not holdings:
        raise InputError(
            f"nothing to pick in {', '.join(map(str, settings.inputs))}: {_why_nothing(plan)}",
            hint="the input must hold miniSEED files",
        )
    everything, holdings = holdings, _choose_stations(holdings, settings)
    plan.skipped["not_chosen"] = len(everything) - len(holdings)
    plan.chunks = _time_chunks(holdings, settings, layout)
    folders_are_chunks = layout == "chunks" and settings.timechunk_min is None
    plan.tasks, reached = _tasks(holdings, plan, settings, folders_are_chunks)
    plan.skipped["outside_span"] = sum(item.key not in reached for item in holdings)
    if not plan.tasks:
        raise InputError(
            "no data between start_time and end_time",
            hint="compare them with the times of the records",
        )
    return plan


def _index(files: Iterable[ArchiveFile], plan: Plan) -> Holdings:
    texts = Texts()
    holdings: dict[Key, _Pieces] = {}
    last = ""
    for file in files:
        if file.path == last:
            continue  # inputs may overlap
        last = file.path
        try:
            indexed = index_file(file.path)
        except DecodeError as error:
            if file.expected:
                problem = FileProblem(file.path, type(error).__name__, str(error))
                plan.problems.append(problem)
            else:
                plan.ignored.append(file.path)
            continue
        if not indexed.channels:
            plan.ignored.append(file.path)
            continue
        number = plan.files.append(indexed)
        for key, spans in _instruments(indexed).items():
            held = holdings.get(key)
            if held is None:
                held = holdings[key] = _Pieces(texts)
            for start_ns, end_ns in spans:
                held.append(_Piece(number, file.chunk, file.folder, start_ns, end_ns))
    return {_Instrument(*key, _folder_name(key, held)): held for key, held in holdings.items()}


def _folder_name(key: Key, pieces: _Pieces) -> str:
    """The station folder, where there is one; folders only group, and may be several."""
    folders = {piece.folder for piece in pieces}
    return folders.pop() or key[1] if len(folders) == 1 else key[1]


def _instruments(indexed: IndexedFile) -> dict[Key, list[tuple[int, int]]]:
    """When there are samples of each instrument in a file; long gaps are left out."""
    spans: dict[Key, list[tuple[int, int]]] = {}
    for extent in indexed.channels:
        spans.setdefault(instrument_key(extent.code), []).append((extent.start_ns, extent.end_ns))
    return {key: joined_spans(sorted(found), LONG_GAP_NS) for key, found in spans.items()}


def instrument_key(code: Code) -> Key:
    """Network, station, location, and band and instrument code of a channel."""
    network, station, location, channel = code
    return network, station, location, channel[:-1]


def _why_nothing(plan: Plan) -> str:
    if plan.problems:
        more = f" (and {len(plan.problems) - 1} more)" if len(plan.problems) > 1 else ""
        return plan.problems[0].message + more
    return f"{len(plan.ignored)} files, none of them miniSEED"


def _choose_stations(holdings: Holdings, settings: InputSettings) -> Holdings:
    chosen = holdings
    if settings.stations:
        chosen = {}
        named = _by_name(holdings)
        for pattern in settings.stations:
            # Thousands of exact names need not be compared with thousands of stations each.
            candidates = holdings if _WILDCARDS & set(pattern) else named.get(pattern.upper(), ())
            found = {k: holdings[k] for k in candidates if _matches(k, pattern)}
            if not found:
                known = sorted({f"{k.network}.{k.station}" for k in holdings})
                raise SettingsError(
                    f"stations: no station matches {pattern!r}",
                    hint=f"the input holds {', '.join(known[:10])}"
                    + (f" and {len(known) - 10} more" if len(known) > 10 else ""),
                )
            chosen.update(found)
    if settings.stations_at_most is not None:
        stations = sorted({(k.network, k.station) for k in chosen})
        if settings.stations_at_most < len(stations):
            picked = set(random.Random(0).sample(stations, settings.stations_at_most))
            chosen = {k: v for k, v in chosen.items() if (k.network, k.station) in picked}
    return chosen


def _by_name(instruments: Iterable[_Instrument]) -> dict[str, list[_Instrument]]:
    """Instruments by each of their names."""
    named: dict[str, list[_Instrument]] = {}
    for instrument in instruments:
        for name in set(_names(instrument)):
            named.setdefault(name, []).append(instrument)
    return named


def _matches(instrument: _Instrument, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern.upper()) for name in _names(instrument))


def _names(instrument: _Instrument) -> tuple[str, ...]:
    """What a pattern may say of an instrument, in capitals."""
    network, station, location, band = instrument.key
    names = (
        instrument.folder,
        station,
        f"{network}.{station}",
        f"{network}_{station}",
        f"{network}.{station}.{location}",
        f"{network}.{station}.{location}.{band}",
    )
    return tuple(name.upper() for name in names)


def _time_chunks(holdings: Holdings, settings: InputSettings, layout: Layout) -> list[Timechunk]:
    def pieces() -> Iterator[_Piece]:
        return (piece for held in holdings.values() for piece in held)

    first = min(piece.start_ns for piece in pieces())
    last = max(piece.end_ns for piece in pieces())
    if settings.timechunk_min is not None:
        length = round(settings.timechunk_min * MINUTE_NS)
        start = first // length * length if settings.start_ns is None else settings.start_ns
        end = last + 1 if settings.end_ns is None else settings.end_ns
        return chunk_grid(
            start,
            end,
            length_min=settings.timechunk_min,
            overlap_min=settings.overlap_min,
            spans=joined_spans(sorted((p.start_ns, p.end_ns) for p in pieces()), 0),
        )
    if layout == "chunks":
        names = sorted({piece.chunk for piece in pieces()})
        return chunks_of_folders(names, settings.start_ns, settings.end_ns)
    return [whole_archive(first, last, settings.start_ns, settings.end_ns)]


def _tasks(
    holdings: Holdings,
    plan: Plan,
    settings: InputSettings,
    folders_are_chunks: bool,
) -> tuple[Tasks, set[Key]]:
    """The station tasks, and the instruments that have one."""
    found: list[tuple[_Instrument, Timechunk, tuple[int, ...]]] = []
    shared = False
    owners = _FolderOwners(plan.chunks, settings)
    grid = _ReadSpans(plan.chunks, settings.context_ns)
    for instrument in sorted(holdings, key=lambda item: (item.key, item.folder)):
        used: set[int] = set()
        held = holdings[instrument]
        if folders_are_chunks:
            own = owners.of({piece.chunk for piece in held})
            cut = [(chunk, [p for p in held if p.chunk == chunk.name]) for chunk in own]
        else:
            cut = grid.cut(held)
        for chunk, pieces in cut:
            # A chunk that owns none of the data is left out by rule.
            if not any(_owned(piece, chunk) for piece in pieces):
                continue
            # Files are numbered in the order of their paths.
            files = tuple(sorted({piece.file for piece in pieces}))
            shared = shared or any(file in used for file in files)
            used.update(files)
            found.append((instrument, chunk, files))
    if settings.chunk_major or not shared:
        found.sort(key=lambda item: item[1].index)
    plan.files.seal()
    table = TaskTable(plan.files)
    for instrument, chunk, files in found:
        table.append((*instrument.key, instrument.folder), chunk, files)
    table.seal()
    return Tasks(table, range(len(table))), {instrument.key for instrument, _, _ in found}


class _ReadSpans:
    """What each chunk reads, to find the chunks of a piece without trying all of them."""

    def __init__(self, chunks: Sequence[Timechunk], context_ns: int) -> None:
        spans = [read_span(chunk, context_ns) for chunk in chunks]
        self._chunks = chunks
        self._starts = [-FOREVER_NS if start is None else start for start, _ in spans]
        self._ends = [FOREVER_NS if end is None else end for _, end in spans]

    def cut(self, pieces: Iterable[_Piece]) -> list[tuple[Timechunk, list[_Piece]]]:
        """Chunks in their order, each with the pieces that it reads."""
        found: dict[int, list[_Piece]] = {}
        for piece in pieces:
            first = bisect_right(self._ends, piece.start_ns)
            for index in range(first, bisect_right(self._starts, piece.end_ns)):
                found.setdefault(index, []).append(piece)
        return [(self._chunks[index], found[index]) for index in sorted(found)]


class _FolderOwners:
    """Chunks of the folders that a station really is in.

    Borders lie between these: what a station's file holds beyond its folder's name
    belongs to it when the neighbouring folder lacks the station.
    """

    def __init__(self, chunks: Sequence[Timechunk], settings: InputSettings) -> None:
        self._index = {chunk.name: chunk.index for chunk in chunks}
        self._settings = settings
        self._known: dict[frozenset[str], list[Timechunk]] = {}

    def of(self, names: set[str]) -> list[Timechunk]:
        key = frozenset(names)
        if key not in self._known:
            chunks = chunks_of_folders(
                sorted(names), self._settings.start_ns, self._settings.end_ns
            )
            self._known[key] = [replace(chunk, index=self._index[chunk.name]) for chunk in chunks]
        return self._known[key]


def _owned(piece: _Piece, chunk: Timechunk) -> bool:
    return piece.start_ns < chunk.own_end_ns and piece.end_ns >= chunk.own_start_ns
