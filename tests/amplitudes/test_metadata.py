"""Metadata in the epoch of a pick: where stations were, and what their channels measure."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pyarrow as pa
import pytest
from obspy import UTCDateTime
from obspy.core.inventory import Channel, Inventory, Network, Response, Site, Station

from eqcctpro.amplitudes import measure_amplitudes
from eqcctpro.association import associate, read_stations
from eqcctpro.association.pyocto_environment import python_with_pyocto
from eqcctpro.errors import InputError, RuntimeUnavailableError
from eqcctpro.picks.reading import read_picks
from eqcctpro.times import parse_utc

START = "2024-12-15T12:00:00"
MOVED_AT = UTCDateTime(2020, 1, 1)

# A ring of stations, and where three of them were before 2020, some 45 km away.
SITES = {
    f"S{k:02d}": (35 + 0.2 * math.cos(a), -117 + 0.25 * math.sin(a))
    for k, a in enumerate(np.linspace(0, 2 * np.pi, 8, endpoint=False).tolist())
}
MOVED = {"S00": (35.55, -117.3), "S03": (34.7, -116.5), "S05": (35.4, -117.4)}
EPICENTRE, DEPTH_KM = (35.03, -117.04), 8.0
ORIGIN = UTCDateTime(START) + 10


@pytest.fixture(scope="module")
def pyocto_python() -> Path:
    try:
        return python_with_pyocto()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


def site(code: str, place: tuple[float, float], start: Any, end: Any = None) -> Station:
    return Station(code, *place, 0.0, site=Site("x"), start_date=start, end_date=end)


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """StationXML as a service sends it: the epochs of a station one after the other."""
    stations = []
    for code, place in SITES.items():
        if code in MOVED:
            stations.append(site(code, MOVED[code], UTCDateTime(2010, 1, 1), MOVED_AT))
        start = MOVED_AT if code in MOVED else UTCDateTime(2010, 1, 1)
        stations.append(site(code, place, start))
    path = tmp_path / "stations.xml"
    Inventory([Network("XX", stations)], source="x").write(str(path), "STATIONXML")
    return path


@pytest.fixture
def arrivals(tmp_path: Path) -> pa.Table:
    """Exact arrivals in a half-space at where the stations are now."""
    path = tmp_path / "picks.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("network", "station", "phase", "time"))
        for code, (latitude, longitude) in SITES.items():
            north, east = latitude - EPICENTRE[0], longitude - EPICENTRE[1]
            east *= math.cos(math.radians(EPICENTRE[0]))
            distance = math.hypot(north * 111.2, east * 111.2, DEPTH_KM)
            for phase, speed in (("P", 6.0), ("S", 6.0 / 1.73)):
                table.writerow(("XX", code, phase, ORIGIN + distance / speed))
    return read_picks(path)


@pytest.mark.slow
def test_stations_of_the_time(moved: Path, arrivals: pa.Table, pyocto_python: Path) -> None:
    found = associate(arrivals, read_stations(moved))
    assert found.assignments.num_rows == 16
    (event,) = found.events.to_pylist()
    assert event["latitude"] == pytest.approx(EPICENTRE[0], abs=0.01)
    assert event["longitude"] == pytest.approx(EPICENTRE[1], abs=0.01)
    assert found.outside_epochs == []
    # The same as from a table of where they are now.
    table = moved.with_name("now.csv")
    rows = [f"XX,{code},{place[0]},{place[1]}" for code, place in SITES.items()]
    table.write_text("\n".join(["network,station,latitude,longitude", *rows]))
    assert associate(arrivals, read_stations(table)).events.equals(found.events)
    # And from a table with epochs.
    rows = [f"XX,{code},{p[0]},{p[1]},2020-01-01," for code, p in SITES.items()]
    rows += [f"XX,{code},{p[0]},{p[1]},,2020-01-01" for code, p in MOVED.items()]
    table.write_text("\n".join(["network,station,latitude,longitude,start_time,end_time", *rows]))
    assert associate(arrivals, read_stations(table)).events.equals(found.events)


@pytest.mark.slow
def test_a_station_that_is_moved_between_two_picks(
    arrivals: pa.Table, pyocto_python: Path, tmp_path: Path
) -> None:
    """Both places take part, each for the picks of its time."""
    earlier = arrivals.set_column(
        arrivals.column_names.index("time"),
        "time",
        pa.array((arrivals["time"].cast(pa.int64()).to_numpy() - 86_400_000_000).tolist()).cast(
            pa.timestamp("us", tz="UTC")
        ),
    )
    between = "2024-12-15T00:00:00"
    rows = [f"XX,{code},{p[0]},{p[1]},{between}," for code, p in SITES.items()]
    rows += [f"XX,{code},{p[0]},{p[1]},,{between}" for code, p in {**SITES, **MOVED}.items()]
    path = tmp_path / "stations.csv"
    path.write_text("\n".join(["network,station,latitude,longitude,start_time,end_time", *rows]))
    found = associate(pa.concat_tables([earlier, arrivals]), read_stations(path))
    by_day = {event["time"].day: event for event in found.events.to_pylist()}
    assert by_day[15]["picks"] == 16
    assert by_day[15]["stations"] == 8
    # On the day before the three were elsewhere than where these picks were made.
    assert 14 not in by_day or by_day[14]["picks"] < 16


@pytest.mark.slow
def test_picks_outside_of_all_epochs_are_named(
    moved: Path, arrivals: pa.Table, pyocto_python: Path, cli: Any, tmp_path: Path
) -> None:
    text = moved.read_text().replace('code="S07" startDate="2010', 'code="S07" startDate="2025')
    moved.write_text(text)
    found = associate(arrivals, read_stations(moved))
    assert found.outside_epochs == ["XX.S07 (2025-01-01 to now)"]
    assert found.assignments.num_rows == 14
    said = cli("associate", tmp_path / "picks.csv", "--stations", moved, "-o", tmp_path / "out")
    assert "left out: picks outside of the epochs of 1 stations: XX.S07 (2025" in said.output
    moved.write_text(text.replace('startDate="20', 'startDate="29'))
    with pytest.raises(InputError, match="that has an epoch then"):
        associate(arrivals, read_stations(moved))


def test_coordinates_of_the_report(moved: Path) -> None:
    before, after = parse_utc("2015-01-01"), parse_utc("2024-01-01")
    for code, place in MOVED.items():
        assert read_stations(moved).at(before)["XX", code] == pytest.approx(place)
        assert read_stations(moved).at(after)["XX", code] == pytest.approx(SITES[code])
    text = "#Network|Station|Latitude|Longitude|Elevation|SiteName|StartTime|EndTime\n"
    lines = "XX|A|2|2|0|x|2020-01-01T00:00:00|\nXX|A|1|1|0|x|2010-01-01T00:00:00|2020-01-01\n"
    path = moved.with_name("stations.txt")
    path.write_text(text + lines)
    assert read_stations(path).at(before)["XX", "A"] == (1.0, 1.0)
    assert read_stations(path).at(after)["XX", "A"] == (2.0, 2.0)
    assert read_stations(path).latitude == [2.0, 1.0]
    channels = "#Network|Station|Channel|Latitude|Longitude|Elevation|StartTime|EndTime\n"
    spans = ("2010-01-01|2012-01-01", "2013-01-01|2020-01-01", "2010-01-01|2020-01-01")
    rows = [f"XX|A|{code}|1|1|0|{span}\n" for code, span in zip("ZZN", spans, strict=True)]
    path.write_text(channels + "".join([*rows, "XX|A|Z|2|2|0|2020-01-01|\n"]))
    table = read_stations(path)
    assert (table.latitude, table.epochs_text("XX.A")) == (
        [1.0, 2.0],
        "2010-01-01 to 2020-01-01, 2020-01-01 to now",
    )


# Amplitudes


def channel(
    code: str, units: str, gain: float, dip: float | None, start: Any, end: Any = None
) -> Channel:
    made = Channel(
        code, "", 45, -130, -2500, 0, sample_rate=100.0, start_date=start, end_date=end, dip=dip
    )
    made.response = Response.from_paz(
        zeros=[0j, 0j],
        poles=[-0.037 + 0.037j, -0.037 - 0.037j],
        stage_gain=gain,
        input_units=units,
        output_units="COUNTS",
        stage_gain_frequency=1.0,
        normalization_frequency=1.0,
    )
    return made


def inventory(path: Path, channels: list[Channel]) -> Path:
    station = Station("OBS", 45, -130, -2500, channels=channels, site=Site("x"))
    Inventory([Network("XO", [station])], source="x").write(str(path), "STATIONXML")
    return path


@pytest.fixture
def seafloor(write_mseed: Any, tmp_path: Path) -> Path:
    """A sine from 30 s on, on three components and, fifty times as large, a hydrophone."""
    times = np.arange(0, 90, 0.01)
    sine = np.clip((times - 30) / 2, 0, 1) ** 2 * np.sin(2 * np.pi * 4 * times)
    for component, counts in (("Z", 2e5), ("N", 1e5), ("E", 5e4), ("H", 1e7)):
        samples = np.round(counts * sine).astype("i4")
        code = f"XO.OBS..HH{component}"
        write_mseed(tmp_path / "in" / component, code, [(parse_utc(START), samples)])
    (tmp_path / "picks.csv").write_text(
        "network,station,location,channel,phase,time\nXO,OBS,,HH,S,2024-12-15T12:00:40Z\n"
    )
    return tmp_path


def measured(folder: Path, response: Path | None) -> dict[str, Any]:
    (row,) = measure_amplitudes(
        read_picks(folder / "picks.csv"), folder / "in", response
    ).to_pylist()
    return row


ALWAYS = UTCDateTime(2020, 1, 1)
DIPS = {"HHZ": -90.0, "HHN": 0.0, "HHE": 0.0}


def test_a_pressure_is_no_velocity(seafloor: Path, caplog: pytest.LogCaptureFixture) -> None:
    channels = [channel(code, "M/S", 1e9, dip, ALWAYS) for code, dip in DIPS.items()]
    channels.append(channel("HHH", "PA", 1e6, 0.0, ALWAYS))
    with caplog.at_level(logging.WARNING, logger="eqcctpro"):
        row = measured(seafloor, inventory(seafloor / "s.xml", channels))
    assert row["amplitude_counts"] == pytest.approx(2e5, rel=0.01)
    assert row["velocity_m_s"] == pytest.approx(2e-4, rel=0.02)
    assert "no velocity of XO.OBS..HHH (PA): no ground motion" in caplog.text
    # Counts are those of the seismometer without metadata, too.
    assert measured(seafloor, None)["amplitude_counts"] == row["amplitude_counts"]
    without = measured(seafloor, inventory(seafloor / "s.xml", channels[:3]))
    assert without == row


@pytest.mark.parametrize(
    ("units", "motion"),
    [
        *(("M", True), ("M/S", True), ("m/s", True), ("M/S**2", True), ("nm/s", True)),
        *(("PA", False), ("V", False), ("M/M", False), ("RAD/S", False), ("DEGC", False)),
    ],
)
def test_input_units(units: str, motion: bool, seafloor: Path) -> None:
    channels = [channel(code, units, 1e9, dip, ALWAYS) for code, dip in DIPS.items()]
    row = measured(seafloor, inventory(seafloor / "s.xml", channels))
    assert (row["velocity_m_s"] is not None) is motion
    assert (row["wood_anderson_mm"] is not None) is motion


def test_orientations_are_those_of_the_metadata(seafloor: Path) -> None:
    """Channels are named as they may be; the Wood-Anderson seismometer is horizontal."""
    usual = [channel(code, "M/S", 1e9, dip, ALWAYS) for code, dip in DIPS.items()]
    expected = measured(seafloor, inventory(seafloor / "s.xml", usual))
    # Half as strong on E as on N: without N it is half of it.
    tilted = [channel(code, "M/S", 1e9, dip, ALWAYS) for code, dip in DIPS.items()]
    tilted[1].dip = -90.0
    row = measured(seafloor, inventory(seafloor / "s.xml", tilted))
    assert row["wood_anderson_mm"] == pytest.approx(expected["wood_anderson_mm"] / 2, rel=1e-3)
    turned = [channel(code, "M/S", 1e9, 0.0, ALWAYS) for code in DIPS]
    row = measured(seafloor, inventory(seafloor / "s.xml", turned))
    assert row["wood_anderson_mm"] == pytest.approx(expected["wood_anderson_mm"] * 2, rel=1e-3)
    unknown = [channel(code, "M/S", 1e9, None, ALWAYS) for code in DIPS]
    row = measured(seafloor, inventory(seafloor / "s.xml", unknown))
    assert row == expected


def test_the_epoch_of_the_pick(seafloor: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The gain changed between the data that fade in and the pick."""
    change, end = UTCDateTime(START) + 39, UTCDateTime(START) + 3600
    channels = [
        channel(code, "M/S", gain, dip, *epoch)
        for code, dip in DIPS.items()
        for gain, epoch in ((1e6, (ALWAYS, change)), (1e9, (change, end)))
    ]
    path = inventory(seafloor / "s.xml", channels)
    with caplog.at_level(logging.WARNING, logger="eqcctpro"):
        assert measured(seafloor, path)["velocity_m_s"] == pytest.approx(2e-4, rel=0.02)
        assert "XO.OBS..HHZ" not in caplog.text
        for made in channels:
            made.start_date = max(made.start_date, UTCDateTime(START) + 60)
        row = measured(seafloor, inventory(seafloor / "late.xml", channels[1::2]))
    assert row["velocity_m_s"] is None
    assert row["amplitude_counts"] is not None
    assert "XO.OBS..HHZ (2024-12-15 to 2024-12-15)" in caplog.text
    assert "no epoch at the time of a pick" in caplog.text
    assert "no velocity of XO.OBS..HHH: not in the inventory" in caplog.text


@pytest.mark.slow
def test_a_run_says_what_has_no_response(
    seafloor: Path, seisbench_cache: Path, labelled: Path, write_mseed: Any, cli: Any
) -> None:
    """On the terminal and in the summary, once; the same for names that NonLinLoc does not have."""
    stream = obspy.read(str(labelled / "*" / "ACR" / "*.mseed"))
    for network in ("XA", "XB"):
        for trace in stream:
            samples = np.rint(trace.data * (1e5 / abs(trace.data).max())).astype("i4")
            code = f"{network}.A..HH{trace.stats.channel[-1]}"
            path = seafloor / "two" / f"{code}.mseed"
            write_mseed(path, code, [(parse_utc(START), samples)])
    channels = [channel(code, "M/S", 1e9, dip, ALWAYS) for code, dip in DIPS.items()]
    response = inventory(seafloor / "s.xml", channels)
    done = cli(
        *("pick", seafloor / "two", "-o", seafloor / "out", "--model", "PhaseNet/original"),
        *("--format", "csv,nonlinloc", "--no-overview", "--amplitudes", "--response", response),
    )
    assert done.exit_code == 0, done.output
    said = "no velocity of XA.A..HHE, XA.A..HHN, XA.A..HHZ, XB.A..HHE"
    assert done.output.count(said) == 1
    assert "XA.A is XA_A, XB.A is XB_A" in done.output
    summary = json.loads((seafloor / "out" / "summary.json").read_text())
    assert [text[:11] for text in summary["warnings"]] == ["no velocity", "NonLinLoc h"]
