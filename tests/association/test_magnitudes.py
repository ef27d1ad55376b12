"""Local magnitudes: published anchors, a network of known magnitude, and what is written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from obspy import UTCDateTime, read_events
from obspy.geodetics import gps2dist_azimuth

from eqcctpro.amplitudes import measure_amplitudes, write_amplitudes
from eqcctpro.association import ATTENUATIONS, Association, local_magnitudes, read_stations
from eqcctpro.association.magnitudes import amplitudes_of
from eqcctpro.association.writers import write_association
from eqcctpro.errors import SettingsError
from eqcctpro.picks.formats import ExportOptions
from eqcctpro.picks.reading import read_picks
from eqcctpro.synthetic.dataset import COUNTS_PER_M_S, Synthesis, synthesize
from eqcctpro.times import NS_PER_S, parse_utc

MAGNITUDE, FREQUENCY = 2.6, 3.0
LATITUDE, LONGITUDE, DEPTH_KM = 31.52, -103.03, 9.0
START = parse_utc("2024-12-15T12:00:00")


def test_anchors_of_the_publications() -> None:
    """Magnitude 3 writes 1 mm at 100 km, and in two of them 10 mm at 17 km."""
    correction = {name: law.correction for name, law in ATTENUATIONS.items()}
    assert correction["hutton-boore"](100) == pytest.approx(3.0)
    assert correction["bakun-joyner"](100) == pytest.approx(3.0)
    assert correction["hutton-boore"](17) + 1 == pytest.approx(3.0, abs=0.02)
    assert correction["langston"](17) + 1 == pytest.approx(3.0)
    # IASPEI (2013): log10 of nm of ground motion, 1.11 log10 R + 0.00189 R - 2.09.
    for distance in (10.0, 60.0, 400.0):
        millimetre_in_nm = 1e6 / 2080
        standard = (
            np.log10(millimetre_in_nm) + 1.11 * np.log10(distance) + 0.00189 * distance - 2.09
        )
        assert correction["hutton-boore"](distance) == pytest.approx(standard, abs=0.01)
    assert all(law.source.count("19") for law in ATTENUATIONS.values())


def seismometer(frequency: float) -> float:
    """Gain of a Wood-Anderson seismometer for a steady sine of displacement."""
    omega, natural = 2 * np.pi * frequency, 2 * np.pi / 0.8
    return float(2080 * omega**2 / abs(natural**2 - omega**2 + 1.4j * natural * omega))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, write_mseed: Any) -> tuple[Path, Association]:
    """Eight stations that record an S wave as a magnitude of 2.6 has it, over noise."""
    folder = tmp_path_factory.mktemp("magnitudes") / "network"
    synthesize(folder, Synthesis(stations=8, duration_s=60, earthquakes=0, radius_km=90))
    stations = read_stations(folder / "stations.xml")
    random, rows = np.random.default_rng(4), []
    times = np.arange(0, 60, 0.01)
    places = zip(stations.names, stations.latitude, stations.longitude, strict=True)
    for name, latitude, longitude in places:
        away_m, *_ = gps2dist_azimuth(LATITUDE, LONGITUDE, latitude, longitude)
        distance = np.hypot(away_m / 1000, DEPTH_KM)
        # Hutton and Boore, as they wrote it, with the scatter of sites.
        site = random.normal(0, 0.1)
        written_mm = 10 ** (
            MAGNITUDE + site - 1.110 * np.log10(distance / 100) - 0.00189 * (distance - 100) - 3
        )
        ground_m = written_mm / 1000 / seismometer(FREQUENCY)
        arrival = 10 + distance / 3.5
        swell = np.clip((times - arrival) / 1.5, 0, 1) ** 2 * (times < arrival + 8)
        velocity = ground_m * 2 * np.pi * FREQUENCY * np.sin(2 * np.pi * FREQUENCY * times) * swell
        for component, share in (("Z", 0.3), ("N", 1.0), ("E", 0.6)):
            samples = share * velocity * COUNTS_PER_M_S + random.normal(0, 50, len(times))
            code = f"{name}.00.HH{component}"
            path = folder / "in" / f"{code}.mseed"
            write_mseed(path, code, [(START, np.round(samples).astype("i4"))])
        for phase, seconds in (("P", 10 + distance / 6), ("S", arrival)):
            moment = UTCDateTime(ns=round(START + seconds * NS_PER_S))
            rows.append((*name.split("."), "00", "HH", phase, str(moment)))
    with (folder / "picks.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["network", "station", "location", "channel", "phase", "time"])
        table.writerows(rows)
    picks = read_picks(folder / "picks.csv")
    events = {"event": [0], "time": picks["time"].slice(0, 1), "latitude": [LATITUDE]}
    events |= {"longitude": [LONGITUDE], "depth_km": [DEPTH_KM], "picks": [len(rows)]}
    events |= {"p_picks": [8], "s_picks": [8], "stations": [8], "rms_s": [0.1]}
    members = {"event": [0] * 16, "pick": list(range(16)), "residual_s": [0.0] * 16}
    return folder, Association(pa.table(events), pa.table(members), picks, [])


@pytest.mark.slow
def test_a_known_magnitude_is_found_and_written(
    network: tuple[Path, Association], tmp_path: Path
) -> None:
    from lxml import etree
    from obspy.io import quakeml, seiscomp

    folder, found = network
    response, stations = folder / "stations.xml", read_stations(folder / "stations.xml")
    measured = measure_amplitudes(found.picks, folder / "in", response)
    sizes = local_magnitudes(found, measured["wood_anderson_mm"], stations)
    (row,) = sizes.events.to_pylist()
    assert abs(row["local_magnitude"] - MAGNITUDE) < 0.2
    assert row["magnitude_stations"] == 8 and 0.03 < row["magnitude_std"] < 0.25
    write_association(found, tmp_path, ExportOptions(agency="TEST"), sizes)
    (event,) = read_events(str(tmp_path / "events.quakeml"))
    magnitude = event.preferred_magnitude()
    assert magnitude.mag == pytest.approx(row["local_magnitude"], abs=0.001)
    assert (magnitude.magnitude_type, magnitude.station_count) == ("ML", 8)
    assert magnitude.origin_id == event.preferred_origin().resource_id
    assert "hutton-boore" in magnitude.method_id.id
    by_id = {one.resource_id: one for one in event.station_magnitudes}
    picks = {one.resource_id: one for one in event.picks}
    amplitudes = {one.resource_id: one for one in event.amplitudes}
    contributions = magnitude.station_magnitude_contributions
    assert len(contributions) == len(by_id) == len(amplitudes) == 8
    for contribution in contributions:
        one = by_id[contribution.station_magnitude_id]
        assert one.mag - magnitude.mag == pytest.approx(contribution.residual, abs=0.002)
        amplitude = amplitudes[one.amplitude_id]
        pick = picks[amplitude.pick_id]
        assert pick.phase_hint == "S" and pick.waveform_id == one.waveform_id
        assert (amplitude.type, amplitude.unit) == ("AML", "m")
    for name, module, schema in (
        ("events.quakeml", quakeml, "QuakeML-1.2.xsd"),
        ("events.scml", seiscomp, "sc3ml_0.12.xsd"),
    ):
        rules = etree.XMLSchema(etree.parse(str(Path(module.__file__).parent / "data" / schema)))
        rules.assertValid(etree.parse(str(tmp_path / name)))
    (same,) = read_events(str(tmp_path / "events.scml"), format="SCML")
    assert same.preferred_magnitude().mag == pytest.approx(magnitude.mag)
    with (tmp_path / "station_magnitudes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {one["station"] for one in rows} == {name[3:] for name in stations.names}
    assert "local_magnitude" in (tmp_path / "events.csv").read_text()
    # The file of amplitudes beside the picks says the same.
    write_amplitudes(measured, tmp_path / "amplitudes.csv")
    from eqcctpro.picks.reading import read_pick_batches
    from eqcctpro.picks.table import MEASURED_SCHEMA

    batches = read_pick_batches(tmp_path / "amplitudes.csv", amplitudes=True)
    before = pa.Table.from_batches(batches, schema=MEASURED_SCHEMA)
    again = local_magnitudes(found, amplitudes_of(found.picks, before), stations)
    assert again.events["local_magnitude"][0].as_py() == pytest.approx(row["local_magnitude"])


@pytest.mark.slow
def test_what_is_not_known_has_no_magnitude(
    network: tuple[Path, Association], tmp_path: Path
) -> None:
    folder, found = network
    stations = read_stations(folder / "stations.xml")
    values = np.full(16, np.nan)
    values[1], values[3], values[0] = 2.0, 0.0, 99.0  # the last one is a P
    amplitudes = pa.array(values, mask=np.isnan(values))
    sizes = local_magnitudes(found, amplitudes, stations, "langston")
    assert sizes.stations["pick"].to_pylist() == [1]
    assert sizes.events["magnitude_std"].to_pylist() == [None]
    sizes = local_magnitudes(found, pa.nulls(16, pa.float64()), stations)
    assert sizes.events["local_magnitude"].to_pylist() == [None]
    write_association(found, tmp_path, magnitudes=sizes)
    assert not read_events(str(tmp_path / "events.quakeml"))[0].magnitudes
    with pytest.raises(SettingsError, match="hutton-boore, bakun-joyner, langston"):
        local_magnitudes(found, amplitudes, stations, "richter")
