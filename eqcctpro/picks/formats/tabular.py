"""Tables of picks as associators and other pickers write and read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from eqcctpro.picks.formats.rows import Batches, ExportOptions, PickRow, pick_rows
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.picks.writers import atomic_file, csv_lines
from eqcctpro.times import US_PER_S, epoch_text, parse_chunk_name, parse_utc, rounded_ratio

__all__ = [
    "write_csv_table",
    "write_gamma",
    "write_parquet_table",
    "write_phasenet",
    "write_pyocto",
    "write_seisbench",
]

_SEISBENCH = ("time", "start_time", "end_time", "probability", "phase")

# PhaseNet counts samples of its own 100 Hz, whatever the record's rate is.
PHASENET_RATE_HZ = 100


def write_csv_table(batches: Batches, path: Path, options: ExportOptions) -> None:
    """Our own table as CSV, the same columns as ``picks.csv`` of a run."""
    del options
    with atomic_file(path) as file:
        file.write((",".join(PICK_SCHEMA.names) + "\n").encode())
        for batch in batches:
            file.write(csv_lines(pa.Table.from_batches([batch]).select(PICK_SCHEMA.names)))


def write_parquet_table(batches: Batches, path: Path, options: ExportOptions) -> None:
    """Our own table as Parquet, compressed with Zstandard."""
    del options
    with (
        atomic_file(path) as file,
        pyarrow.parquet.ParquetWriter(file, PICK_SCHEMA, compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write_batch(batch.select(PICK_SCHEMA.names))


def write_seisbench(batches: Batches, path: Path, options: ExportOptions) -> None:
    """SeisBench's picks, as ``PickList.to_dataframe`` has them: times in UTC without a zone."""
    del options
    with atomic_file(path) as file:
        file.write((",".join(("station", *_SEISBENCH)) + "\n").encode())
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            codes = [pc.fill_null(rows[name], "") for name in ("network", "station", "location")]
            columns = {"station": pc.binary_join_element_wise(*codes, ".")}
            columns |= {name: _without_zone(rows[name]) for name in _SEISBENCH}
            file.write(csv_lines(pa.table(columns)))


def _without_zone(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if not pa.types.is_timestamp(column.type):
        return column
    times = column.to_numpy().astype("M8[us]")
    missing = np.isnat(times)
    return pa.array(np.datetime_as_string(times, unit="us"), pa.string(), mask=missing)


def write_pyocto(batches: Batches, path: Path, options: ExportOptions) -> None:
    """PyOcto's picks: station (NET.STA.LOC), phase (P or S), time (s since 1970), probability.

    `pick` is the row in our table; PyOcto hands further columns through.
    """
    del options
    _write(
        batches,
        path,
        ("station", "phase", "time", "probability", "pick"),
        lambda row, number: (
            row.trace_id,
            row.phase[:1].upper(),
            epoch_text(row.time_us),
            _number(row.probability),
            number,
        ),
    )


def write_gamma(batches: Batches, path: Path, options: ExportOptions) -> None:
    """GaMMA's picks: id, timestamp, prob, amp, type (p or s).

    `amp` is the ground velocity in m/s where it was measured; where it is empty, GaMMA has to run
    with ``use_amplitude: False``.
    """
    del options
    _write(
        batches,
        path,
        ("id", "timestamp", "prob", "amp", "type"),
        lambda row, _: (
            row.trace_id,
            row.time,
            _number(row.probability),
            _small(row.velocity_m_s),
            row.phase[:1].lower(),
        ),
    )


def write_phasenet(batches: Batches, path: Path, options: ExportOptions) -> None:
    """PhaseNet's and QuakeFlow's columns, `file_name` to `phase_type`.

    `phase_index` counts samples of 100 Hz from `begin_time`, which is that of the time chunk, or
    midnight where the chunk's name tells no time.  `phase_amp` is the ground velocity in m/s
    where it was measured.
    """
    del options
    columns = ("file_name", "begin_time", "station_id", "phase_index", "phase_time", "phase_score")
    _write(batches, path, (*columns, "phase_amp", "phase_type"), _phasenet_row)


def _phasenet_row(row: PickRow, number: int) -> tuple[object, ...]:
    del number
    begin_us, begin = _beginning(row.timechunk, row.time[:10])
    return (
        row.timechunk,
        begin,
        row.instrument_id,
        rounded_ratio((row.time_us - begin_us) * PHASENET_RATE_HZ, US_PER_S),
        row.time[:-3],
        _number(row.probability),
        _small(row.velocity_m_s),
        row.phase[:1].upper(),
    )


@lru_cache(maxsize=4096)
def _beginning(timechunk: str, day: str) -> tuple[int, str]:
    """Beginning of a time chunk, or of a day, in microseconds and as text."""
    span = parse_chunk_name(timechunk)
    begin_us = span[0] // 1000 if span is not None else parse_utc(day) // 1000
    return begin_us, str(np.datetime64(begin_us, "us").astype("M8[ms]"))


def _write(
    batches: Batches,
    path: Path,
    header: tuple[str, ...],
    cells: Callable[[PickRow, int], tuple[object, ...]],
) -> None:
    with atomic_file(path) as file:
        file.write((",".join(header) + "\n").encode())
        for text in _texts(batches, cells):
            file.write(text.encode())


def _texts(batches: Batches, cells: Callable[[PickRow, int], tuple[object, ...]]) -> Iterator[str]:
    number = 0
    for batch in batches:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        for row in pick_rows(batch):
            writer.writerow(cells(row, number))
            number += 1
        yield text.getvalue()


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6f}"


def _small(value: float) -> str:
    return "" if value != value else f"{value:.6g}"
