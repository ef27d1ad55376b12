"""Plan of a run: all station tasks, made before anything is decoded."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from eqcctpro.archive.day_files import DAY_LAYOUTS
from eqcctpro.archive.file_table import FileTable
from eqcctpro.archive.files import ArchiveFile
from eqcctpro.archive.hydrophones import seismometer_of
from eqcctpro.archive.indexing import FILES_AT_ONCE, index_files
from eqcctpro.archive.layouts import Layout, detect_layout, iter_files
from eqcctpro.archive.remote import use_storage_options
from eqcctpro.archive.remote_index import index_remote_files
from eqcctpro.archive.selection import (
    Instrument,
    Key,
    Wanted,
    best_instruments,
    choose_instruments,
)
from eqcctpro.archive.settings import InputSettings
from eqcctpro.archive.tasks import StationTask, Tasks, TaskTable
from eqcctpro.archive.texts import Texts
from eqcctpro.archive.timechunks import (
    MINUTE_NS,
    Timechunk,
    borders_within_data,
    chunk_grid,
    chunks_of_folders,
    day_chunks,
    grid_size,
    length_ns,
    read_span,
    whole_archive,
)
from eqcctpro.codes import Code, instrument_of, printable
from eqcctpro.errors import DecodeError, InputError, InputTimeoutError, SettingsError
from eqcctpro.miniseed.index import LONG_GAP_NS, IndexedFile
from eqcctpro.places import is_address
from eqcctpro.resources.hardware import available_memory_mb
from eqcctpro.roots import OUTSIDE, Roots
from eqcctpro.spans import FOREVER_NS, Span, joined_spans
from eqcctpro.times import format_utc, parse_chunk_name

__all__ = [
    "FileProblem",
    "InputSettings",
    "Part",
    "PartSelection",
    "Plan",
    "StationTask",
    "Tasks",
    "make_part",
    "make_plan",
    "open_input",
]

# Remote files that are indexed together.
ADDRESSES_AT_ONCE = 512
# Distance from the last sample to the end of a chunk, so that rounding cannot exclude the sample.
_BEHIND_NS = 10_000

# Memory of a time chunk and of a station task, measured with plans of 10**6; and the number of
# chunks below which memory is not checked.
CHUNK_BYTES, TASK_BYTES = 650, 350
MANY_CHUNKS = 10_000
# Time-chunk folders on either side that may hold records of a folder's time.
NEIGHBOURS = 3


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A file that cannot be used, and why.

    Attributes
    ----------
    path, error, message : str
    transient : bool
        True if its file system may give it later.
    """

    path: str
    error: str
    message: str
    transient: bool = False


@dataclass
class Plan:
    """All station tasks of a run, and the files and instruments that are left out.

    Attributes
    ----------
    ignored : dict of str to str
        Files and folders that are not read, with the reason: files that are not miniSEED by
        content and by name, and those that the layout does not include.
    skipped : dict of str to int
        Number left out by each rule: instruments that `stations`, `stations_at_most` or
        `exclude` do not select (``"not_chosen"``), instruments without data in any time chunk
        (``"outside_span"``), stations whose files are not opened (``"stations_not_opened"``),
        and station tasks of instruments that are not the best of their station
        (``"lower_priority"``).
    guests : int
        Number of `files` that belong to another partition of the run, and are read for the border.
    unread_guests : list of str
        Such files that cannot be read now.
    """

    layout: Layout
    chunks: list[Timechunk]
    tasks: Tasks
    files: FileTable
    problems: list[FileProblem] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    guests: int = 0
    unread_guests: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """The part of an archive that one partition of a run plans.

    Attributes
    ----------
    own : Span
        Time chunks that begin in it are planned.  Files beside it are read for its borders only.
    last : bool
        True if no data follow.
    """

    own: Span
    last: bool = False

    def owns(self, chunk: str) -> bool:
        """True if a time-chunk folder begins in the partition."""
        span = parse_chunk_name(chunk)
        return span is not None and self.own.holds(span[0])


@dataclass
class PartSelection:
    """Instruments that the partitions of a run have seen, and the start of their data.

    Attributes
    ----------
    left_out, chosen, reached : set of Key
        Instruments that are not selected, that are, and those of them that have a station task.
    not_opened : set of str
        Stations whose files are not opened.
    matched : set of str
        Patterns of `stations` that match an instrument.
    grid_start_ns : int or None
        Start of the grid of time chunks of the whole archive, if there is one and it is known.
    """

    left_out: set[Key] = field(default_factory=set)
    chosen: set[Key] = field(default_factory=set)
    reached: set[Key] = field(default_factory=set)
    not_opened: set[str] = field(default_factory=set)
    matched: set[str] = field(default_factory=set)
    grid_start_ns: int | None = None

    def skipped(self) -> dict[str, int]:
        """Counts of the whole run, as `Plan.skipped` has them."""
        counts = {
            "not_chosen": len(self.left_out),
            "outside_span": len(self.chosen - self.reached),
        }
        if self.not_opened:
            counts["stations_not_opened"] = len(self.not_opened)
        return counts


class _Piece(NamedTuple):
    """Time span of one instrument in one file."""

    file: int
    chunk: str
    folder: str
    start_ns: int
    end_ns: int


class _Pieces:
    """Time spans of one instrument in all files, stored compactly as integers."""

    __slots__ = ("_numbers", "_texts")

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._numbers = array("q")

    def extend(self, other: _Pieces) -> None:
        """Add the spans of another instrument, which must share the table of strings."""
        self._numbers.extend(other._numbers)

    def append(self, file: int, chunk: str, folder: str, start_ns: int, end_ns: int) -> None:
        number = self._texts.number
        self._numbers.extend((file, number(chunk), number(folder), start_ns, end_ns))

    @property
    def chunks(self) -> set[str]:
        """Names of the time-chunk folders."""
        return {self._texts[number] for number in set(self._numbers[1::5])}

    @property
    def folders(self) -> set[str]:
        """Names of the station folders."""
        return {self._texts[number] for number in set(self._numbers[2::5])}

    def __iter__(self) -> Iterator[_Piece]:
        numbers, texts = self._numbers, self._texts
        for at in range(0, len(numbers), 5):
            file, chunk, folder, start_ns, end_ns = numbers[at : at + 5]
            yield _Piece(file, texts[chunk], texts[folder], start_ns, end_ns)


Holdings = dict["Instrument", _Pieces]


def make_plan(settings: InputSettings, told: Callable[[int], None] | None = None) -> Plan:
    """List the station tasks of a run.

    Parameters
    ----------
    settings : InputSettings
    told : callable, optional
    Progress callback; called with the number of indexed files.

    Raises
    ------
    InputError
        The input is missing, empty, or contains nothing that can be picked.
    SettingsError
        A pattern matches nothing, or the time settings contradict each other.
    """
    wanted, roots = open_input(settings)
    layout: Layout = (
        detect_layout(settings.inputs, wanted.lister)
        if settings.layout == "auto"
        else settings.layout  # type: ignore[assignment]
    )
    there = iter_files(settings.inputs, layout, wanted)
    plan, holdings = _indexed_plan(there, layout, settings, wanted, roots, told)
    looked_at = plan.problems or plan.ignored
    if not holdings and not looked_at and wanted.refused_spans and not wanted.only_unwanted:
        raise _outside_span()
    if not holdings and not wanted.unwanted:
        raise InputError(
            f"nothing to pick in {', '.join(map(str, settings.inputs))}: {_why_nothing(plan)}",
            hint="the input must hold miniSEED files",
        )
    everything, holdings = holdings, choose_instruments(holdings, settings, wanted.seen)
    plan.skipped["not_chosen"] = len(everything) - len(holdings)
    if wanted.unwanted:
        plan.skipped["stations_not_opened"] = len(wanted.unwanted)
    if settings.hydrophone:
        holdings = _with_hydrophones(everything, holdings, settings)
    plan.chunks = _time_chunks(holdings, settings, layout)
    plan.tasks, reached = _tasks(holdings, plan, settings)
    plan.skipped["outside_span"] = sum(item.key not in reached for item in holdings)
    if not plan.tasks:
        raise _outside_span()
    return plan


def make_part(
    there: Iterable[ArchiveFile],
    layout: Layout,
    settings: InputSettings,
    wanted: Wanted,
    roots: Roots,
    part: Part,
    selection: PartSelection,
) -> Plan:
    """List the station tasks of one partition; there may be none.

    Parameters
    ----------
    there : iterable of ArchiveFile
        Files of the partition and, as guests, those near its borders.
    layout : str
    settings : InputSettings
        Of the whole run.
    wanted : Wanted
        What has listed them.
    roots : Roots
    part : Part
    selection : PartSelection
        Of the run; what the partition holds is added.
    """
    plan, holdings = _indexed_plan(there, layout, settings, wanted, roots, None)
    unmatched: list[str] = []
    chosen = choose_instruments(holdings, settings, wanted.seen, unmatched)
    selection.matched.update(set(settings.stations) - set(unmatched))
    selection.left_out.update(one.key for one in holdings if one not in chosen)
    selection.chosen.update(one.key for one in chosen)
    selection.not_opened |= wanted.unwanted
    if chosen and settings.timechunk_min is not None:
        if selection.grid_start_ns is None:
            first = min(piece.start_ns for held in chosen.values() for piece in held)
            length = length_ns(settings.timechunk_min)
            selection.grid_start_ns = first // length * length
        if settings.start_ns is None:
            settings = replace(settings, start_ns=selection.grid_start_ns)
    if chosen:
        plan.chunks = _time_chunks(chosen, settings, layout, part)
    if plan.chunks:
        plan.tasks, reached = _tasks(chosen, plan, settings, part)
        selection.reached |= reached
        if layout == "chunks" and settings.timechunk_min is None:
            plan.chunks = [chunk for chunk in plan.chunks if part.owns(chunk.name)]
    return plan


def open_input(settings: InputSettings) -> tuple[Wanted, Roots]:
    """Make sure that the input answers, and lies where it may.

    Raises
    ------
    InputError
    """
    use_storage_options(settings.storage)
    wanted = Wanted(settings)
    for place in settings.inputs:
        if not is_address(place):
            wanted.lister.reach(str(place))
    roots = Roots(settings.input_roots)
    for place in settings.inputs:
        roots.require(place)
    return wanted, roots


def _indexed_plan(
    there: Iterable[ArchiveFile],
    layout: Layout,
    settings: InputSettings,
    wanted: Wanted,
    roots: Roots,
    told: Callable[[int], None] | None,
) -> tuple[Plan, Holdings]:
    """A plan without tasks, and what its files hold."""
    files = FileTable(settings.hold_bytes)
    plan = Plan(layout, [], Tasks(TaskTable(files), range(0)), files)
    holdings = _index(_indexed(there, roots, settings.file_timeout_s), plan, roots, told)
    plan.problems += [
        FileProblem(printable(path), type(error).__name__, printable(str(error)), transient=True)
        for path, error in wanted.lister.failed.items()
    ]
    passed_over = plan.ignored | wanted.passed_over
    plan.ignored = {printable(path): reason for path, reason in passed_over.items()}
    return plan, holdings


def _outside_span() -> InputError:
    return InputError(
        "no data between start_time and end_time",
        hint="compare them with the times of the records",
    )


def _indexed(
    files: Iterable[ArchiveFile], roots: Roots, limit_s: float | None
) -> Iterator[tuple[ArchiveFile, IndexedFile | InputError]]:
    last = ""
    local: list[ArchiveFile] = []
    remote: list[ArchiveFile] = []
    for file in files:
        if file.path == last:
            continue  # inputs may overlap
        last = file.path
        if roots and not roots.hold(last):
            yield file, roots.error(last)
            continue
        (remote if "://" in last else local).append(file)  # is_address, but hot
        if len(remote) == ADDRESSES_AT_ONCE:
            yield from zip(remote, index_remote_files(remote), strict=True)
            remote = []
        if len(local) == FILES_AT_ONCE:
            yield from _local(local, roots, limit_s)
            local = []
    yield from _local(local, roots, limit_s)
    if remote:
        yield from zip(remote, index_remote_files(remote), strict=True)


def _local(
    files: list[ArchiveFile], roots: Roots, limit_s: float | None
) -> Iterator[tuple[ArchiveFile, IndexedFile | InputError]]:
    found = index_files([file.path for file in files], roots, limit_s)
    return zip(files, found, strict=True)


def _index(
    found: Iterable[tuple[ArchiveFile, IndexedFile | InputError]],
    plan: Plan,
    roots: Roots,
    told: Callable[[int], None] | None,
) -> Holdings:
    texts = Texts()
    holdings: dict[Key, _Pieces] = {}
    for count, (file, indexed) in enumerate(found):
        if told is not None and not count % FILES_AT_ONCE:
            told(count)
        if file.guest and (isinstance(indexed, InputError) or not indexed.channels):
            # Its own partition says so; but the border with it is not complete.
            if isinstance(indexed, InputError) and _may_be_read_later(indexed):
                plan.unread_guests.append(file.path)
            continue
        if isinstance(indexed, InputError):
            if file.expected or not isinstance(indexed, DecodeError):
                kind, transient = type(indexed).__name__, _may_be_read_later(indexed)
                plan.problems.append(
                    FileProblem(printable(file.path), kind, str(indexed), transient)
                )
            else:
                outside = roots and not roots.hold(file.path)
                plan.ignored[file.path] = OUTSIDE if outside else "not miniSEED"
            continue
        if not indexed.channels:
            plan.ignored[file.path] = "no channel of 1 Hz or more"
            continue
        number = plan.files.append(indexed)
        plan.guests += file.guest
        if file.near is not None and not file.guest:
            _look_for_strays(indexed, file.near, plan)
        for key, spans in _instruments(indexed).items():
            held = holdings.get(key)
            if held is None:
                held = holdings[key] = _Pieces(texts)
            for start_ns, end_ns in spans:
                held.append(number, file.chunk, file.folder, start_ns, end_ns)
    return {Instrument(*key, _folder_name(key, held)): held for key, held in holdings.items()}


def _may_be_read_later(error: InputError) -> bool:
    """True for an error of the file system, but not for a file that is gone."""
    cause = error.__cause__
    gone = isinstance(cause, FileNotFoundError)
    return isinstance(error, InputTimeoutError) or (isinstance(cause, OSError) and not gone)


def _look_for_strays(indexed: IndexedFile, near: Span, plan: Plan) -> None:
    """Report a file whose records lie so far from its name that no partition looks for them."""
    first = min(extent.start_ns for extent in indexed.channels)
    last = max(extent.end_ns for extent in indexed.channels)
    if first < near.start_ns or last >= near.end_ns:
        path = printable(indexed.path)
        text = (
            f"{path} holds records from {format_utc(first, 'seconds')} to "
            f"{format_utc(last, 'seconds')}, days from what its name or folder says: a run in "
            "partitions does not pick them; rename it, or give --partition off"
        )
        plan.problems.append(FileProblem(path, InputError.__name__, text))


def _folder_name(key: Key, pieces: _Pieces) -> str:
    """Name of the station folder if there is exactly one, otherwise the station's code."""
    folders = pieces.folders
    return folders.pop() or key[1] if len(folders) == 1 else key[1]


def _instruments(indexed: IndexedFile) -> dict[Key, list[tuple[int, int]]]:
    """Time spans with samples of each instrument in a file, split at long gaps."""
    if len(indexed.channels) == 1:  # as in nearly every file
        code, start_ns, end_ns, *_ = indexed.channels[0]
        return {instrument_key(code): [(start_ns, end_ns)]}
    spans: dict[Key, list[tuple[int, int]]] = {}
    for extent in indexed.channels:
        spans.setdefault(instrument_key(extent.code), []).append((extent.start_ns, extent.end_ns))
    return {key: joined_spans(sorted(found), LONG_GAP_NS) for key, found in spans.items()}


def instrument_key(code: Code) -> Key:
    """Network, station, location, and band and instrument code of a channel."""
    network, station, location, channel = code
    return network, station, location, instrument_of(channel)


def _why_nothing(plan: Plan) -> str:
    if plan.problems:
        more = f" (and {len(plan.problems) - 1} more)" if len(plan.problems) > 1 else ""
        return plan.problems[0].message + more
    return f"{len(plan.ignored)} files, none of them miniSEED"


def _time_chunks(
    holdings: Holdings, settings: InputSettings, layout: Layout, part: Part | None = None
) -> list[Timechunk]:
    if layout == "chunks" and settings.timechunk_min is None:
        names = sorted({name for held in holdings.values() for name in held.chunks})
        return chunks_of_folders(names, settings.start_ns, settings.end_ns)
    spans = joined_spans(
        sorted((piece.start_ns, piece.end_ns) for held in holdings.values() for piece in held), 0
    )
    first, last = spans[0][0], spans[-1][1]
    if settings.timechunk_min is not None:
        return _grid(holdings, settings, spans, part)
    if layout in DAY_LAYOUTS:
        if part is None:
            return day_chunks(spans, settings.start_ns, settings.end_ns)
        own = part.own.within(settings.span)
        start = None if own.start_ns == -FOREVER_NS else own.start_ns
        end = None if own.end_ns == FOREVER_NS else own.end_ns
        return day_chunks(spans, start, end) if own.start_ns < own.end_ns else []
    return [whole_archive(first, last, settings.start_ns, settings.end_ns)]


def _grid(
    holdings: Holdings,
    settings: InputSettings,
    spans: list[tuple[int, int]],
    part: Part | None,
) -> list[Timechunk]:
    """Time chunks of one length, of a whole archive or of a partition."""
    minutes = settings.timechunk_min or 1.0
    length, overlap = length_ns(minutes), round(settings.overlap_min * MINUTE_NS)
    first, last = spans[0][0], spans[-1][1]
    start, end = settings.start_ns, settings.end_ns
    if start is None:
        start = first // length * length
    ends_here = end is None and (part is None or part.last)
    if end is None:
        end = last + _BEHIND_NS
    if part is not None and not ends_here and settings.end_ns is None:
        end = start + ((part.own.end_ns - start) // length + 2) * length  # no chunk is cut
    if part is not None and end <= start:
        return []
    grid: dict[str, Any] = {
        "length_min": minutes,
        "overlap_min": settings.overlap_min,
        "spans": spans,
    }
    _require_memory(grid_size(start, end, **grid), holdings, settings)
    chunks = chunk_grid(start, end, **grid)
    if ends_here and chunks:
        # A pick on the last sample may be a little later, if components are not aligned.
        chunks[-1] = replace(chunks[-1], own_end_ns=FOREVER_NS)
    if part is None:
        return chunks
    begins = [(chunk, (chunk.read_start_ns or 0) + overlap) for chunk in chunks]
    return [chunk for chunk, begin in begins if part.own.holds(begin)]


def _require_memory(chunks: int, holdings: Holdings, settings: InputSettings) -> None:
    """Raise an error for a plan that would not fit into memory, before it is made.

    Raises
    ------
    SettingsError
    """
    if chunks < MANY_CHUNKS:
        return
    length = length_ns(settings.timechunk_min or 1.0)
    beside = settings.overlap_min * MINUTE_NS + 2 * settings.context_ns
    tasks = sum(
        min(chunks, round(sum((p.end_ns - p.start_ns + beside) / length + 1 for p in held)))
        for held in holdings.values()
    )
    needed = (chunks * CHUNK_BYTES + tasks * TASK_BYTES) / 2**20
    available = available_memory_mb()
    if needed > available:
        raise SettingsError(
            f"timechunk: {settings.timechunk_min:g} min makes {chunks:,} time chunks and "
            f"{tasks:,} station tasks; their plan takes {needed:,.0f} MB, and "
            f"{available:,.0f} MB are available",
            hint="use longer time chunks, such as --timechunk 60, or a shorter time span",
        )


def _with_hydrophones(everything: Holdings, chosen: Holdings, settings: InputSettings) -> Holdings:
    """Selected instruments, with the hydrophones that belong to them.

    A hydrophone is picked with its seismometer even if only the latter was selected, unless it
    is excluded.
    """
    anyone = replace(settings, stations=(), stations_at_most=None)
    allowed = choose_instruments(everything, anyone) if settings.exclude else everything
    by_key = {instrument.key: instrument for instrument in chosen}
    together = dict(chosen)
    for hydrophone, pieces in allowed.items():
        key = seismometer_of(hydrophone.key, by_key)
        if key is None:
            continue
        held = together.pop(by_key[key])
        held.extend(pieces)
        by_key[key] = replace(by_key[key], hydrophone=hydrophone.instrument)
        together[by_key[key]] = held
        together.pop(hydrophone, None)
    return together


def _tasks(
    holdings: Holdings,
    plan: Plan,
    settings: InputSettings,
    part: Part | None = None,
) -> tuple[Tasks, set[Key]]:
    """Make the station tasks; returns them and the instruments that have one."""
    folders_are_chunks = plan.layout == "chunks" and settings.timechunk_min is None
    found: Found = []
    shared = False
    owners = _FolderOwners(plan.chunks, settings)
    grid = _ReadSpans(plan.chunks, settings.context_ns)
    for instrument in sorted(holdings, key=lambda item: (item.key, item.folder)):
        used: set[int] = set()
        held = holdings[instrument]
        if folders_are_chunks:
            own = owners.of(held.chunks)
            cut = _within_data(
                [(chunk, [p for p in held if p.chunk == chunk.name]) for chunk in own], plan.files
            )
        else:
            cut = grid.cut(held)
        # A chunk that owns nothing has no task.  Its neighbour has all of its samples, and reads
        # them here, too: they may contradict.
        idle = [piece for chunk, pieces in cut if not _owns(chunk) for piece in pieces]
        for at, (chunk, pieces) in enumerate(cut):
            if folders_are_chunks and part is not None and not part.owns(chunk.name):
                continue
            # A chunk that owns none of the data is left out by rule.
            if not any(_owned(piece, chunk) for piece in pieces):
                continue
            # Files are numbered in the order of their paths.
            read = (*pieces, *(piece for piece in idle if _owned(piece, chunk)))
            files = tuple(sorted({piece.file for piece in read}))
            shared = shared or any(file in used for file in files)
            used.update(files)
            beside = _beside(cut, at) if folders_are_chunks else ()
            found.append((instrument, chunk, files, beside))
    if settings.channel_priority:
        found = _of_best_instruments(found, plan, settings.channel_priority, part is not None)
    if settings.chunk_major or not shared:
        found.sort(key=lambda item: item[1].index)
    table = TaskTable(plan.files)
    for instrument, chunk, files, beside in found:
        codes = (*instrument.key, instrument.folder, instrument.hydrophone)
        table.append(codes, chunk, files, beside)
    table.seal()
    return Tasks(table, range(len(table))), {instrument.key for instrument, *_ in found}


# Instrument, chunk, numbers of its files, and numbers of files of neighbouring chunks.
Found = list[tuple[Instrument, Timechunk, tuple[int, ...], tuple[int, ...]]]


def _beside(cut: Sequence[tuple[Timechunk, list[_Piece]]], at: int) -> tuple[int, ...]:
    """Files of neighbouring chunks with records of the time that a chunk owns."""
    chunk = cut[at][0]
    first = max(at - NEIGHBOURS, 0)
    return tuple(
        sorted(
            {
                piece.file
                for number, (_, pieces) in enumerate(cut[first : at + NEIGHBOURS + 1], first)
                for piece in pieces
                if number != at and _owned(piece, chunk)
            }
        )
    )


def _of_best_instruments(
    found: Found, plan: Plan, order: Sequence[str], may_be_none: bool
) -> Found:
    """Station tasks of the best instrument of each station; the others are counted as skipped."""
    best = best_instruments([(one[0], one[1].index) for one in found], order)
    plan.skipped["lower_priority"] = best.count(False)
    if found and not any(best) and not may_be_none:
        codes = ", ".join(sorted({instrument.instrument for instrument, *_ in found}))
        raise SettingsError(
            f"channel_priority: no instrument is {' or '.join(order)}",
            hint=f"the input holds {codes}; a last * takes any other",
        )
    return [item for item, chosen in zip(found, best, strict=True) if chosen]


class _ReadSpans:
    """Sorted spans that chunks read, for finding the chunks of a span by bisection."""

    def __init__(self, chunks: Sequence[Timechunk], context_ns: int) -> None:
        spans = [read_span(chunk, context_ns) for chunk in chunks]
        self._chunks = chunks
        self._starts = [-FOREVER_NS if start is None else start for start, _ in spans]
        self._ends = [FOREVER_NS if end is None else end for _, end in spans]

    def cut(self, pieces: Iterable[_Piece]) -> list[tuple[Timechunk, list[_Piece]]]:
        """Chunks in order, each with the pieces that it reads."""
        found: dict[int, list[_Piece]] = {}
        for piece in pieces:
            first = bisect_right(self._ends, piece.start_ns)
            for index in range(first, bisect_right(self._starts, piece.end_ns)):
                found.setdefault(index, []).append(piece)
        return [(self._chunks[index], found[index]) for index in sorted(found)]


def _within_data(
    cut: list[tuple[Timechunk, list[_Piece]]], files: FileTable
) -> list[tuple[Timechunk, list[_Piece]]]:
    """Move the borders of folders' chunks to the data of an instrument."""
    held = [
        (min(piece.start_ns for piece in pieces), max(piece.end_ns for piece in pieces))
        for _, pieces in cut
    ]

    def holds_all(whole: int, part: int) -> bool:
        everything = _channels(cut[whole][1], files)
        return all(
            code in everything and everything[code][0] <= first and last <= everything[code][1]
            for code, (first, last) in _channels(cut[part][1], files).items()
        )

    chunks = borders_within_data([chunk for chunk, _ in cut], held, holds_all)
    return [(chunk, pieces) for chunk, (_, pieces) in zip(chunks, cut, strict=True)]


def _channels(pieces: Iterable[_Piece], files: FileTable) -> dict[Code, tuple[int, int]]:
    """First and last sample of each channel of the files of some pieces."""
    spans: dict[Code, tuple[int, int]] = {}
    for number in {piece.file for piece in pieces}:
        for code, start_ns, end_ns, *_ in files[number].channels:
            first, last = spans.get(code, (start_ns, end_ns))
            spans[code] = min(first, start_ns), max(last, end_ns)
    return spans


class _FolderOwners:
    """Chunks of the folders that contain a station.

    Borders are set between these folders only: data of a station beyond its folder's name belong
    to that folder if the neighbouring folder lacks the station.
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


def _owns(chunk: Timechunk) -> bool:
    return chunk.own_start_ns < chunk.own_end_ns


def _owned(piece: _Piece, chunk: Timechunk) -> bool:
    return _owns(chunk) and piece.start_ns < chunk.own_end_ns and piece.end_ns >= chunk.own_start_ns
