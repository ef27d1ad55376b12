"""A finished run, read back from its output folder and its archive."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pymseed import MiniSEEDError, MS3TraceList

from eqcctpro.archive.hydrophones import has_hydrophone
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.archive.timechunks import DAY_NS
from eqcctpro.codes import Code
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, InputError
from eqcctpro.journal.task_table import read_tasks
from eqcctpro.miniseed.index import IndexedFile
from eqcctpro.miniseed.unusual_codes import trace_code, with_placeholders
from eqcctpro.picks.day_tables import DayTables
from eqcctpro.picks.reading import read_picks
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.places import is_address
from eqcctpro.station_coordinates import Coordinates, find_station_file, read_stations
from eqcctpro.times import NS_PER_S, format_utc, parse_chunk_name

__all__ = [
    "Coverage",
    "Picks",
    "RunData",
    "StationFiles",
    "load_run",
    "load_summary",
    "measure_coverage",
    "run_config",
    "run_plan",
]

#: One file of coordinates, or several.
StationFiles = Path | str | Sequence[Path | str] | None


@dataclass(frozen=True)
class Picks:
    """The pick table as columns.

    Attributes
    ----------
    table : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    """

    table: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def time_ns(self) -> NDArray[np.int64]:
        """Nanoseconds since 1970."""
        column = self.table["time"].cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
        return np.asarray(column.to_numpy(), dtype=np.int64)

    @cached_property
    def probability(self) -> NDArray[np.float64]:
        """Between 0 and 1."""
        return np.nan_to_num(np.asarray(self.table["probability"].to_numpy(), dtype=np.float64))

    @cached_property
    def phase(self) -> NDArray[np.str_]:
        """``P``, ``S``, or what else the model names."""
        return np.asarray(self.table["phase"].to_pylist(), dtype=np.str_)

    @cached_property
    def station(self) -> NDArray[np.str_]:
        """``NET.STA``."""
        codes = (self.table[name].to_pylist() for name in ("network", "station"))
        return np.asarray([".".join(pair) for pair in zip(*codes, strict=True)], dtype=np.str_)

    @cached_property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Picks by station and phase."""
        return Counter(zip(self.station.tolist(), self.phase.tolist(), strict=True))


@dataclass(frozen=True)
class RunData:
    """Everything that a report tells.

    Attributes
    ----------
    folder : Path
        The output folder.
    summary : mapping
        Content of ``summary.json``.
    picks : Picks
    plan : Plan or None
        What was to be picked; None when the archive is not there any more.
    coverage : mapping of str to Coverage
        Data by station; empty without an archive.
    gaps_known : bool
        Whether gaps within files are known.
    coordinates : Coordinates
    missing : tuple of str
        What could not be read, and is not in the report.
    """

    folder: Path
    summary: Mapping[str, Any]
    picks: Picks
    plan: Plan | None = None
    coverage: Mapping[str, Coverage] = field(default_factory=dict)
    gaps_known: bool = True
    coordinates: Coordinates = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def stations(self) -> list[str]:
        """``NET.STA`` of all stations, with data or only in the summary."""
        names = set(self.coverage) | set(self.picks.station.tolist())
        if self.plan is not None:
            names = {f"{task.network}.{task.station}" for task in self.plan.tasks}
        names |= {station_of(item["station"]) for item in self.told}
        return sorted(names)

    @cached_property
    def told(self) -> list[dict[str, Any]]:
        """Station tasks that are empty or failed, or that there is a note on.

        Each with station, timechunk, status, reason and notes; from ``tasks.parquet``, and
        from the summary where the run is of a version before it.
        """
        table = read_tasks(self.folder)
        if table is None:
            return _told_by_summary(self.summary)
        if (sample := sampled_chunk(self.summary)) is not None:
            table = table.filter(pc.equal(table["timechunk"], sample))
        columns = ["network", "station", "location", "channel", "timechunk", "status", "reason"]
        rows = table.select([*columns, "notes"]).to_pylist()
        return [
            {
                "station": ".".join(row[name] for name in columns[:4]),
                **{name: row[name] for name in columns[4:]},
                "notes": row["notes"],
            }
            for row in rows
            if row["status"] != "done" or row["notes"]
        ]

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """First and last time of the data, else of the picks."""
        ends = [end for item in self.coverage.values() for span in item.spans for end in span]
        if not ends:
            ends = self.picks.time_ns.tolist()
        return (min(ends), max(ends)) if ends else None


def _told_by_summary(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    told = [
        {**item, "status": status, "notes": []}
        for status in ("empty", "failed")
        for item in summary.get(status, ())
    ]
    noted = summary.get("notes", ())
    return told + [{**item, "status": "done", "reason": ""} for item in noted]


def station_of(name: str) -> str:
    """``NET.STA`` of ``NET.STA.LOC.INSTRUMENT``."""
    return ".".join(name.split(".")[:2])


def load_summary(folder: Path | str) -> dict[str, Any]:
    """The content of a run's ``summary.json``.

    Raises
    ------
    InputError
        It is not there, or cannot be read.
    """
    path = Path(folder).expanduser() / "summary.json"
    hint = "name the output folder of a run that has ended"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint=hint) from error
    if not isinstance(summary, dict) or not {"settings", "tasks", "picks"} <= set(summary):
        raise InputError(f"{path} is not the summary of a run", hint=hint)
    return summary


def run_config(summary: Mapping[str, Any], **changes: Any) -> PickConfig:
    """Configuration of a run; `changes` are settings to use instead.

    Raises
    ------
    SettingsError
        The settings are of another version.
    """
    return PickConfig.checked(**{**summary["settings"], **changes})


def run_plan(config: PickConfig, context_ns: int = 0, *, hydrophone: bool = False) -> Plan:
    """The plan of a run, made anew.

    Parameters
    ----------
    config : PickConfig
    context_ns : int
        Data wanted around what a chunk owns.
    hydrophone : bool
        Whether the model has such a component.

    Raises
    ------
    EQCCTProError
        The archive is not there any more, or holds something else.
    """
    return make_plan(InputSettings.of(config, context_ns=context_ns, hydrophone=hydrophone))


def load_run(
    folder: Path | str, *, stations: StationFiles = None, table: pa.Table | None = None
) -> RunData:
    """Read a run.

    Parameters
    ----------
    folder : path
        The output folder.
    stations : path or sequence of path, optional
        StationXML, FDSN text or CSV; of a station that several hold, the first counts.  By default
        one beside the waveforms or the results is taken.
    table : pyarrow.Table, optional
        The picks, when they are at hand.

    Raises
    ------
    InputError
        The folder holds no finished run, or `stations` cannot be read.
    """
    out = Path(folder).expanduser()
    summary = load_summary(out)
    missing: list[str] = []
    sample = sampled_chunk(summary)
    if sample is not None:
        of = summary["plan"]["timechunks"]
        missing.append(f"All but the time chunk with the most picks, {sample}, of {of}.")
        table = _sampled_picks(out, sample)
    if table is None:
        table, why = _read_table(out, summary)
        missing += why
    plan, known = None, True
    coverage: dict[str, Coverage] = {}
    try:
        config = run_config(summary) if sample is None else _sampled_config(summary, sample)
        order = summary.get("applied", {}).get("component_order", "")
        plan = run_plan(config, hydrophone=has_hydrophone(order))
        coverage, known = measure_coverage(plan.files)
        folders = [out, *(place for place in config.input if isinstance(place, Path))]
    except EQCCTProError as error:
        missing.append(f"Waveforms and gaps: {error.message}.")
        folders = [out]
    if stations is None:
        found = find_station_file(folders)
        stations = [] if found is None else [found]
    named = [stations] if isinstance(stations, (str, Path)) else stations
    coordinates = read_stations(*named).at(_first_time(table))
    return RunData(out, summary, Picks(table), plan, coverage, known, coordinates, tuple(missing))


def sampled_chunk(summary: Mapping[str, Any]) -> str | None:
    """Time chunk that stands for a run in partitions, which is too large to be shown as a whole."""
    sample = (summary.get("partitions") or {}).get("sample")
    return None if sample is None else str(sample["timechunk"])


def _sampled_config(summary: Mapping[str, Any], chunk: str) -> PickConfig:
    """Configuration of a run that is asked for one of its time chunks."""
    start_ns, end_ns = parse_chunk_name(chunk) or (None, None)
    config = run_config(summary, partition="off")
    if start_ns is None or end_ns is None:
        return config
    start_ns += round(config.overlap * 60 * NS_PER_S)
    return run_config(summary, partition="off", start=format_utc(start_ns), end=format_utc(end_ns))


def _sampled_picks(out: Path, chunk: str) -> pa.Table:
    """Picks of one time chunk of a run in partitions."""
    days = DayTables(out / "picks.parquet", PICK_SCHEMA)
    span = parse_chunk_name(chunk)
    around = None if span is None else (span[0] // DAY_NS - 1, span[1] // DAY_NS + 2)
    table = days.read(around)
    return table.filter(pc.equal(table["timechunk"], chunk))


def _first_time(table: pa.Table) -> int | None:
    """Time of the first pick, nanoseconds since 1970."""
    first = pc.min(table["time"].cast(pa.int64())).as_py()
    return None if first is None else int(first) * 1000


def _read_table(out: Path, summary: Mapping[str, Any]) -> tuple[pa.Table, list[str]]:
    if summary["picks"]["total"] == 0:
        return PICK_SCHEMA.empty_table(), []
    try:
        return read_picks(out), []
    except InputError as error:
        return PICK_SCHEMA.empty_table(), [f"Picks: {error.message}."]


#: Headers of archives up to this size are all read; of larger ones the first and last.
MOST_BYTES = 8 * 2**30

Span = tuple[int, int]


@dataclass(frozen=True)
class Coverage:
    """Data coverage of one station.

    Attributes
    ----------
    spans : tuple of (int, int)
        Beginning and end of each stretch in which some component has data, in nanoseconds
        since 1970, ascending.
    """

    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """Length of all stretches."""
        return sum(end - start for start, end in self.spans) / 1e9

    @property
    def gaps(self) -> int:
        """Interruptions between the first and the last sample."""
        return max(len(self.spans) - 1, 0)

    @property
    def gap_seconds(self) -> float:
        """Length of all interruptions."""
        if not self.spans:
            return 0.0
        return (self.spans[-1][1] - self.spans[0][0]) / 1e9 - self.seconds


def measure_coverage(files: Sequence[IndexedFile]) -> tuple[dict[str, Coverage], bool]:
    """Data of every station in some files.

    Returns
    -------
    dict of str to Coverage
        By ``NET.STA``.
    bool
        Whether gaps within files are known; in a large archive only those between them are.
    """
    whole = sum(file.size for file in files) <= MOST_BYTES
    # Nor is every object of a store fetched for this.
    whole = whole and not any(is_address(file.path) for file in files)
    spans: dict[str, list[Span]] = defaultdict(list)
    for file in files:
        for station, span in _scanned(Path(file.path)) if whole else _indexed(file):
            spans[station].append(span)
    return {name: Coverage(_joined(found)) for name, found in sorted(spans.items())}, whole


def _indexed(file: IndexedFile) -> Iterable[tuple[str, Span]]:
    for extent in file.channels:
        yield f"{extent.code[0]}.{extent.code[1]}", (extent.start_ns, extent.end_ns)


def _scanned(path: Path) -> Iterable[tuple[str, Span]]:
    traces = MS3TraceList()
    names: dict[Code, Code] = {}
    # What is damaged is among the files that failed.
    with suppress(MiniSEEDError, ValueError, OSError):
        content, names = with_placeholders(path.read_bytes())
        traces.add_buffer(content, skip_not_data=True)
    for trace in traces:
        try:
            network, station, *_ = trace_code(trace, names)
        except ValueError:
            continue
        for piece in trace:
            if piece.samprate > 0:
                # A sample stands for the time until the next one.
                end = piece.endtime + round(1e9 / piece.samprate)
                yield f"{network}.{station}", (piece.starttime, end)


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        # Channels that begin a little apart, and rounded times, are no gap.
        if joined and start <= joined[-1][1] + 50_000_000:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)
