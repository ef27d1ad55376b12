"""Received miniSEED records: parsing, gaps in what was requested, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pymseed import MiniSEEDError, MS3Record

from eqcctpro.archive.timechunks import DAY_NS
from eqcctpro.codes import Code, file_name, record_code, safe_name
from eqcctpro.download.asking import Request
from eqcctpro.miniseed.salvage import incomplete_bytes
from eqcctpro.picks.writers import atomic_file
from eqcctpro.times import NS_PER_S, format_utc

__all__ = [
    "Gap",
    "ReceivedRecord",
    "find_gaps",
    "read_records",
    "what_is_wrong",
    "write_chunk",
    "write_days",
]


@dataclass(frozen=True, slots=True)
class ReceivedRecord:
    """One record of miniSEED.

    Attributes
    ----------
    content : bytes
    code : tuple of str
        Network, station, location and channel.
    start_ns, end_ns : int
        First and last sample.
    interval_ns : float
        Between samples; 0 for records without a time series.
    """

    content: bytes
    code: Code
    start_ns: int
    end_ns: int
    interval_ns: float


@dataclass(frozen=True, slots=True)
class Gap:
    """A time for which a channel was asked and did not arrive."""

    code: Code
    start_ns: int
    end_ns: int

    def as_dict(self) -> dict[str, str | float]:
        """For a file."""
        return {
            "channel": ".".join(self.code),
            "start": format_utc(self.start_ns),
            "end": format_utc(self.end_ns),
            "seconds": round((self.end_ns - self.start_ns) / NS_PER_S, 6),
        }


def what_is_wrong(content: bytes) -> str:
    """Why an answer is not the miniSEED that was asked for, or nothing."""
    if not content:
        return "the answer is empty"
    try:
        MS3Record.parse(content)
    except (MiniSEEDError, ValueError):
        beginning = " ".join(content[:200].decode(errors="replace").split())
        return f"the answer is no miniSEED: {beginning}"
    lost = incomplete_bytes(content)
    return f"the answer is cut off ({lost} bytes are no whole record)" if lost else ""


def read_records(content: bytes) -> list[ReceivedRecord]:
    """The records of an answer that hold time series, those that come twice once."""
    view = memoryview(content)
    records: dict[bytes, ReceivedRecord] = {}
    position = 0
    while position < len(content):
        head = MS3Record.parse(view[position:])
        body = content[position : position + head.reclen]
        position += head.reclen
        rate = float(head.samprate)
        if rate <= 0 or head.samplecnt <= 0 or body in records:
            continue
        interval = NS_PER_S / rate
        last = head.starttime + round((head.samplecnt - 1) * interval)
        records[body] = ReceivedRecord(body, record_code(body), head.starttime, last, interval)
    return list(records.values())


def find_gaps(
    expected: dict[Code, list[tuple[int, int]]], records: Iterable[ReceivedRecord]
) -> list[Gap]:
    """Find the gaps of each channel.

    Up to one and a half intervals between samples are none.
    """
    held: dict[Code, list[ReceivedRecord]] = {}
    for record in records:
        held.setdefault(record.code, []).append(record)
    gaps = []
    for code, spans in sorted(expected.items()):
        own = sorted(held.get(code, []), key=lambda record: record.start_ns)
        for start, end in spans:
            gaps += [Gap(code, first, last) for first, last in _uncovered(own, start, end)]
    return gaps


def _uncovered(records: Sequence[ReceivedRecord], start: int, end: int) -> list[tuple[int, int]]:
    gaps = []
    reached = float(start)
    interval = records[0].interval_ns if records else 0.0
    for record in records:
        if record.end_ns < start or record.start_ns >= end:
            continue
        if record.start_ns - reached > 1.5 * record.interval_ns:
            gaps.append((round(reached), record.start_ns))
        # A sample stands for the time until the next one.
        reached = max(reached, record.end_ns + record.interval_ns)
        interval = record.interval_ns
    if end - reached > 1.5 * interval:
        gaps.append((round(reached), end))
    return gaps


def write_chunk(
    output: Path, request: Request, records: Iterable[ReceivedRecord]
) -> dict[str, int]:
    """Write a file for each channel into the station's folder of the time chunk.

    Returns
    -------
    dict of str to int
        Size of each file, by its name below the output folder.

    Raises
    ------
    OutputError
    """
    start, _, end = request.chunk.name.partition("_")
    written = {}
    for code, own in _by_channel(records).items():
        name = f"{request.chunk.name}/{safe_name(code[1])}/{file_name(*code)}__{start}__{end}.mseed"
        written[name] = _write(output / name, own)
    return written


def write_days(output: Path, request: Request, records: Iterable[ReceivedRecord]) -> dict[str, int]:
    """Write the records to the day files of SDS in which they begin.

    What a file already holds stays in it: a day may be asked for in several pieces.

    Raises
    ------
    OutputError
    """
    written = {}
    for code, own in _by_channel(records).items():
        days: dict[int, list[ReceivedRecord]] = {}
        for record in own:
            day = record.start_ns // DAY_NS
            first = request.start_ns // DAY_NS
            # The record over midnight is in the answers for both days; nobody asks for the day
            # before the first.
            if day >= first or request.chunk.index == 0:
                days.setdefault(max(day, first), []).append(record)
        for day, part in days.items():
            name = _sds_name(code, day)
            path = output / name
            earlier = read_records(path.read_bytes()) if path.exists() else []
            together = {record.content: record for record in (*earlier, *part)}
            written[name] = _write(path, list(together.values()))
    return written


def _by_channel(
    records: Iterable[ReceivedRecord],
) -> dict[tuple[str, str, str, str], list[ReceivedRecord]]:
    channels: dict[tuple[str, str, str, str], list[ReceivedRecord]] = {}
    for record in records:
        channels.setdefault(record.code, []).append(record)
    return channels


def _sds_name(code: Sequence[str], day: int) -> str:
    network, station, _, channel = map(file_name, code)
    moment = datetime.fromtimestamp(day * DAY_NS // NS_PER_S, UTC)
    year, number = f"{moment:%Y}", f"{moment:%j}"
    name = f"{file_name(*code)}.D.{year}.{number}"
    return f"{year}/{network}/{station}/{channel}.D/{name}"


def _write(path: Path, records: Sequence[ReceivedRecord]) -> int:
    content = b"".join(
        record.content for record in sorted(records, key=lambda record: record.start_ns)
    )
    with atomic_file(path) as file:
        file.write(content)
    return len(content)
