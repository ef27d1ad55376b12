"""Output layouts of a download: time-chunk folders or SDS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from eqcctpro.archive.timechunks import DAY_NS
from eqcctpro.codes import file_name, safe_name
from eqcctpro.download.asking import Request
from eqcctpro.download.received import ReceivedRecord, read_records
from eqcctpro.picks.writers import atomic_file
from eqcctpro.times import NS_PER_S

__all__ = ["write_chunk", "write_days"]


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
