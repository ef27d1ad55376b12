"""Network of any size, made of real records that are repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.codes import file_name
from eqcctpro.errors import InputError, OutputError
from eqcctpro.picks.writers import atomic_file
from eqcctpro.sources.files import FileCache
from eqcctpro.sources.task_waveforms import load_segments
from eqcctpro.times import NS_PER_S, chunk_name, format_utc, parse_utc
from eqcctpro.waveform.encode import encode_file
from eqcctpro.waveform.segments import ChannelCode, Segment, trim

__all__ = ["tile_labelled", "tile_network"]

NETWORK = "XX"
START_NS = parse_utc("2024-12-15T12:00:00")


def tile_network(
    records: Path, output: Path, *, stations: int, seconds: float = 60.0, skip_s: float = 15.0
) -> Path:
    """Write an archive of synthetic stations that repeat real three-component records.

    Parameters
    ----------
    records : Path
        An archive in EQCCTPro's layout.
    output : Path
        Where the new archive is written, with one time chunk.
    stations : int
        Stations ``XX.T0000``, ``XX.T0001`` ... in hexadecimal, at most 65,536.
    seconds : float
        Length of each record.
    skip_s : float
        Seconds left out at the beginning of each source record.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    InputError
        No source record has three components and is long enough.
    """
    sources = _sources(records, seconds, skip_s)
    if not sources:
        raise InputError(f"{records} holds no three-component record of {seconds} s")
    _write(sources, output, stations, seconds)
    return output


def tile_labelled(
    records: Path,
    labels: pa.Table,
    output: Path,
    *,
    stations: int,
    seconds: float = 60.0,
    skip_s: float = 15.0,
) -> int:
    """Write the same archive with its labels: ``waveforms`` and ``arrivals.csv``.

    Parameters
    ----------
    records, stations, seconds, skip_s
        As for `tile_network`.
    labels : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`, of the records' stations.
    output : Path
        A folder; there must be no archive in it.

    Returns
    -------
    int
        Number of arrivals.

    Raises
    ------
    InputError
        No source record has three components and is long enough, or none has a label.
    OutputError
        The folder is in use.
    """
    if (output / "waveforms").exists():
        raise OutputError(
            f"{output / 'waveforms'} is there already", hint="choose another folder, or remove it"
        )
    sources = _sources(records, seconds, skip_s)
    if not sources:
        raise InputError(f"{records} holds no three-component record of {seconds} s")
    times: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for row in labels.to_pylist():
        time_ns = round(row["time"].timestamp() * 1e6) * 1000
        times.setdefault((row["network"], row["station"]), []).append((time_ns, row["phase"]))
    lines = []
    for number in range(stations):
        segment = sources[number % len(sources)][0]
        end_ns = segment.start_ns + round(seconds * NS_PER_S)
        for time_ns, phase in times.get((segment.code.network, segment.code.station), []):
            if segment.start_ns <= time_ns < end_ns:
                moved = format_utc(time_ns - segment.start_ns + START_NS)
                lines.append(f"{NETWORK},{_code(number)},{phase},{moved}\n")
    if not lines:
        raise InputError(
            f"no label is on a record of {records}",
            hint="labels are found by network, station and time",
        )
    _write(sources, output / "waveforms", stations, seconds)
    with atomic_file(output / "arrivals.csv") as file:
        file.write("".join(["network,station,phase,time\n", *lines]).encode())
    return len(lines)


def _code(number: int) -> str:
    return f"T{number:04X}"  # miniSEED 2 holds five letters


def _write(sources: list[list[Segment]], output: Path, stations: int, seconds: float) -> None:
    end_ns = START_NS + round(seconds * NS_PER_S)
    chunk = output / chunk_name(START_NS, end_ns)
    for number in range(stations):
        station = _code(number)
        folder = chunk / station
        folder.mkdir(parents=True, exist_ok=True)
        for segment in sources[number % len(sources)]:
            code = ChannelCode(NETWORK, station, "", segment.code.channel)
            name = f"{file_name(*code)}__{chunk.name.replace('_', '__')}.mseed"
            moved = replace(segment, code=code, start_ns=START_NS, anchor_ns=None, samples_behind=0)
            encode_file(folder / name, [moved])


def _sources(records: Path, seconds: float, skip_s: float) -> list[list[Segment]]:
    sources = []
    for task in make_plan(InputSettings((records,))).tasks:
        segments = load_segments(task, FileCache().read(task, None, 0), 0)
        if len(segments) == 3 and len({segment.code for segment in segments}) == 3:
            parts = [_part(segment, seconds, skip_s) for segment in segments]
            sources.append([part for part in parts if part is not None])
    return [source for source in sources if len(source) == 3]


def _part(segment: Segment, seconds: float, skip_s: float) -> Segment | None:
    start = segment.start_ns + round(skip_s * NS_PER_S)
    part = trim(segment, start, start + round(seconds * NS_PER_S))
    wanted = round(seconds * segment.sampling_rate)
    if part is None or len(part.samples) != wanted or part.samples.dtype.kind != "i":
        return None
    return part
