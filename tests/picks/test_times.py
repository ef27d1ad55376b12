"""Times on both sides of 1970, from the year 1 to 2500, read and written by integers."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eqcctpro.association.writers import moment_text
from eqcctpro.picks.formats import write_picks
from eqcctpro.picks.reading import read_picks
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.picks.writers import write_csv
from eqcctpro.times import (
    chunk_name,
    epoch_text,
    format_utc,
    moment_of,
    parse_chunk_name,
    parse_utc,
    rounded_ratio,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    span = moment - EPOCH
    return (span.days * 86_400 + span.seconds) * 10**6 + span.microseconds


moments = st.datetimes(datetime(1, 1, 1), datetime(2500, 12, 31), timezones=st.just(UTC))
# Around 1970, where signs change, and with few digits.
near = st.integers(-3_000_000, 3_000_000).map(lambda us: EPOCH + timedelta(microseconds=us))
times = (moments | near).map(microseconds)


def table_of(times_us: list[int]) -> pa.Table:
    moment = pa.array(times_us, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    count = len(times_us)
    columns = {name: pa.array([""] * count) for name in PICK_SCHEMA.names}
    columns |= {"network": pa.array(["XX"] * count), "station": pa.array(["A"] * count)}
    columns |= {"channel": pa.array(["HH"] * count), "phase": pa.array(["P"] * count)}
    columns |= dict.fromkeys(("time", "start_time", "end_time"), moment)
    columns["probability"] = pa.array(np.full(count, 0.5, np.float32))
    return pa.table([columns[name] for name in PICK_SCHEMA.names], schema=PICK_SCHEMA)


@given(times)
def test_text_and_number_are_the_same_time(time_us: int) -> None:
    moment = moment_of(time_us)
    assert microseconds(moment) == time_us
    assert Fraction(epoch_text(time_us)) == Fraction(time_us, 10**6)
    text = format_utc(time_us * 1000)
    assert text == moment_text(moment) + "Z"
    assert parse_utc(text) == time_us * 1000
    assert len(text) == len("2024-12-15T12:00:00.000000Z")


@given(times, st.integers(-500, 499))
def test_nanoseconds_are_rounded_to_the_nearest(time_us: int, rest_ns: int) -> None:
    assert parse_utc(format_utc(time_us * 1000 + rest_ns)) == time_us * 1000


@given(times, st.integers(1, 10**9))
def test_names_of_chunks(start_us: int, seconds: int) -> None:
    start = start_us // 10**6 * 10**9
    end = start + seconds * 10**9
    assert parse_chunk_name(chunk_name(start, end)) == (start, end)


@given(st.integers(), st.integers(1, 10**12))
def test_ratios(value: int, divisor: int) -> None:
    assert -Fraction(1, 2) < rounded_ratio(value, divisor) - Fraction(value, divisor) <= 0.5


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(times, min_size=1, max_size=30))
def test_tables_come_back(tmp_path: Path, times_us: list[int]) -> None:
    table = table_of(times_us)
    write_csv(table, tmp_path / "ours.csv")
    assert read_picks(tmp_path / "ours.csv")["time"].cast(pa.int64()).to_pylist() == times_us
    for name in ("pyocto", "gamma", "quakeml", "scml"):
        path = tmp_path / ("picks.csv" if name in ("pyocto", "gamma") else "picks.xml")
        write_picks(table, path, name)
        assert read_picks(path)["time"].cast(pa.int64()).to_pylist() == times_us, name
    write_picks(table, tmp_path / "picks.obs", "nonlinloc")
    lines = (tmp_path / "picks.obs").read_text().splitlines()
    for line, time_us in zip(lines, times_us, strict=True):
        _, _, _, _, _, _, date, minute, second, *_ = line.split()
        assert float(second) < 60
        begin = datetime.strptime(date + minute, "%Y%m%d%H%M").replace(tzinfo=UTC)
        read_us = microseconds(begin) + round(Fraction(second) * 10**6)
        assert abs(read_us - time_us) <= 50


@pytest.mark.parametrize("text", ["-0.500000", "-12345678.25", "-62135596800.000001", "1734264000"])
def test_seconds_since_1970(text: str, tmp_path: Path) -> None:
    """PyOcto's table, of a catalogue before 1970."""
    path = tmp_path / "picks.csv"
    path.write_text(f"station,phase,time\nXX.A.,P,{text}\n")
    (moment,) = read_picks(path)["time"].cast(pa.int64()).to_pylist()
    assert moment == Fraction(text) * 10**6
    write_picks(read_picks(path), tmp_path / "again.csv", "pyocto")
    with (tmp_path / "again.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert Fraction(row["time"]) == Fraction(text)


def test_samples_of_phasenet_before_1970(tmp_path: Path) -> None:
    start, end = (parse_utc(f"1962-08-30T13:{minute}:00") for minute in ("30", "40"))
    pick_us = start // 1000 + 12_345_678
    table = table_of([pick_us])
    chunk = pa.array([chunk_name(start, end)])
    table = table.set_column(table.column_names.index("timechunk"), "timechunk", chunk)
    write_picks(table, tmp_path / "picks.csv", "phasenet")
    with (tmp_path / "picks.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["phase_index"], row["begin_time"]) == ("1235", "1962-08-30T13:30:00.000")
    assert row["phase_time"] == "1962-08-30T13:30:12.345"


@pytest.mark.slow
@pytest.mark.parametrize("year", [1700, 1823, 2117, 2200, 2261])
def test_no_hidden_span(
    year: int, pick: Any, labelled: Path, seisbench_cache: Path, tmp_path: Path
) -> None:
    """Records of any year that nanoseconds can tell have the same picks."""
    import obspy
    import odd_records

    stream = obspy.read(str(labelled / "*" / "ACR" / "*.mseed"))
    starts = {1970: obspy.UTCDateTime(1970, 6, 1).ns, year: obspy.UTCDateTime(year, 6, 1).ns}
    found = []
    for name, start_ns in starts.items():
        for trace in stream:
            scale = 1e5 / abs(trace.data).max()
            samples = np.rint(trace.data * scale).astype(np.int32)
            channel = trace.stats.channel.encode()
            fields = odd_records.fields(b"XX", b"A", b"", channel)
            content = odd_records.records(fields, samples, start_ns)
            odd_records.write(tmp_path / f"{name}/{channel.decode()}.mseed", content)
        table = pick(tmp_path / str(name), model="PhaseNet/original").table
        times_us = table["time"].cast(pa.int64()).to_numpy() - start_ns // 1000
        found.append((table["phase"].to_pylist(), times_us.tolist()))
    assert found[0] == found[1]
    assert found[0][0]
