"""A network of any size, made of real records that are used again and again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.errors import InputError
from eqcctpro.pipeline.prepare import FileCache, load_segments
from eqcctpro.times import NS_PER_S, chunk_name, parse_utc
from eqcctpro.waveform.encode import encode_file
from eqcctpro.waveform.segments import ChannelCode, Segment, trim

__all__ = ["tile_network"]

NETWORK = "XX"
START_NS = parse_utc("2024-12-15T12:00:00")


def tile_network(
    records: Path, output: Path, *, stations: int, seconds: float = 60.0, skip_s: float = 15.0
) -> Path:
    """Write an archive of made-up stations that repeat real three-component records.

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
    end_ns = START_NS + round(seconds * NS_PER_S)
    chunk = output / chunk_name(START_NS, end_ns)
    for number in range(stations):
        station = f"T{number:04X}"  # miniSEED 2 holds five letters
        folder = chunk / station
        folder.mkdir(parents=True, exist_ok=True)
        for segment in sources[number % len(sources)]:
            code = ChannelCode(NETWORK, station, "", segment.code.channel)
            name = f"{code}__{chunk.name.replace('_', '__')}.mseed"
            moved = replace(segment, code=code, start_ns=START_NS, anchor_ns=None)
            encode_file(folder / name, [moved])
    return output


def _sources(records: Path, seconds: float, skip_s: float) -> list[list[Segment]]:
    sources = []
    for task in make_plan(InputSettings((records,))).tasks:
        segments = load_segments(task, FileCache().read(task, None, 0), 0, [])
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
