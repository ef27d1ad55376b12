"""The made-up data set: what is written is what the manifest says."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eqcctpro.errors import OutputError, SettingsError
from eqcctpro.scoring import read_labels, score_picks
from eqcctpro.synthetic.dataset import Synthesis, synthesize
from eqcctpro.synthetic.scenario import draw_scenario
from eqcctpro.synthetic.station_record import Defects, StationRecord

SCENARIO: dict[str, Any] = {
    "stations": 9,
    "duration_s": 180.0,
    "earthquakes": 2,
    "seed": 3,
    "centre": (31.5, -103.0),
    "radius_km": 60.0,
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthesis") / "data"
    settings = Synthesis(
        stations=4,
        duration_s=180.0,
        timechunk_min=1.0,
        overlap_min=0.5,
        seed=1,
        defects=Defects(gaps=1.0, glitches=1.0, dead=1.0),
    )
    synthesize(folder, settings)
    return folder


def read(folder: Path) -> Any:
    from obspy import Stream, read

    stream = Stream()
    for path in sorted(folder.rglob("*.mseed")):
        stream += read(str(path))
    return stream


def test_files_and_arrivals(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    arrivals = rows(made / "arrivals.csv")
    lost = sum(len(station["not_recorded"]) for station in manifest["stations"])
    assert len(arrivals) == manifest["arrivals"]
    assert len(arrivals) + lost == 4 * 3 * 2
    assert read_labels(made).num_rows == len(arrivals)
    assert len(list((made / "waveforms").iterdir())) == 3


def test_overlapping_chunks_hold_the_same_samples(made: Path) -> None:
    """A part does not depend on which parts are asked for."""
    stream = read(made / "waveforms")
    before = sum(trace.stats.npts for trace in stream)
    stream.merge(method=-1)  # raises nothing, joins overlaps only where samples are equal
    gaps = json.loads((made / "manifest.json").read_text())["stations"]
    pieces = {gap["station"]: len(gap["gaps_s"]) + 1 for gap in gaps}
    for station, most in pieces.items():
        network, code = station.split(".")
        assert len(stream.select(network=network, station=code, component="Z")) <= most
    assert sum(trace.stats.npts for trace in stream) < before


def test_defects_are_where_the_manifest_says(made: Path) -> None:
    from obspy import UTCDateTime

    manifest = json.loads((made / "manifest.json").read_text())
    stream = read(made / "waveforms")
    stream.merge(method=-1)
    start = UTCDateTime(manifest["start"])
    for station in manifest["stations"]:
        traces = stream.select(station=station["station"].split(".")[1])
        assert not traces.select(channel=station["dead"])[0].data.any()
        for begin, end in station["gaps_s"]:
            inside = traces.slice(start + begin + 0.001, start + end - 0.011)
            assert sum(trace.stats.npts for trace in inside) == 0
        alive = [trace for trace in traces if trace.stats.channel != station["dead"]]
        assert all(trace.data.any() for trace in alive)


def test_stations_and_events_are_read_by_obspy(made: Path) -> None:
    from obspy import UTCDateTime, read_events, read_inventory
    from obspy.geodetics import gps2dist_azimuth

    inventory = read_inventory(str(made / "stations.xml"))
    table = {row["station"]: row for row in rows(made / "stations.csv")}
    response = inventory.get_response("XX.S0001.00.HHZ", UTCDateTime("2024-12-15T12:01:00"))
    assert response.instrument_sensitivity.value == pytest.approx(6e8, rel=1e-4)
    amplitude = response.get_evalresp_response_for_frequencies([1.0], "VEL")
    assert abs(amplitude[0]) == pytest.approx(6e8, rel=0.01)
    events = read_events(str(made / "events.xml"))
    assert len(events) == 3
    for arrival in rows(made / "arrivals.csv"):
        station = inventory.select(station=arrival["station"])[0][0]
        assert station.latitude == pytest.approx(float(table[station.code]["latitude"]), abs=1e-6)
        origin = events[int(arrival["event"])].origins[0]
        away, _, _ = gps2dist_azimuth(
            origin.latitude, origin.longitude, station.latitude, station.longitude
        )
        path = np.hypot(away, origin.depth) / 1000
        velocity = {"P": 6.0, "S": 6.0 / 1.73}[arrival["phase"]]
        expected = origin.time + path / velocity
        assert abs(UTCDateTime(arrival["time"]) - expected) < 0.002


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(made: Path, tmp_path: Path, cli: Any) -> None:
    options = ["--stations", 4, "--duration", 180, "--timechunk", 1, "--overlap", 0.5]
    options += ["--gaps", 1, "--glitches", 1, "--dead", 1]
    for seed, folder in ((1, "again"), (2, "other")):
        run = cli("dataset", "synthesize", tmp_path / folder, *options, "--seed", seed)
        assert run.exit_code == 0, run.output
    for path in (path for path in made.rglob("*") if path.is_file()):
        if path.name == "stations.xml":  # it says when it was written
            continue
        name = path.relative_to(made)
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes(), name
    name = "arrivals.csv"
    assert (tmp_path / "other" / name).read_bytes() != (made / name).read_bytes()
    again = cli("dataset", "synthesize", tmp_path / "again")
    assert again.exit_code == OutputError.exit_code
    assert "there already" in again.output


@pytest.mark.slow
def test_layers_delay_and_bend() -> None:
    """TauP's arrivals against an own call of TauP, at stations off the grid of distances."""
    from obspy.geodetics import kilometers2degrees
    from obspy.taup import TauPyModel

    layered = draw_scenario(**(SCENARIO | {"stations": 200}), earth="iasp91")
    uniform = draw_scenario(**(SCENARIO | {"stations": 200}), earth="homogeneous")
    assert np.array_equal(layered.latitude, uniform.latitude)
    travel = layered.arrivals.p_s - layered.origin_s[:, None]
    model = TauPyModel("iasp91")
    for station in (0, 57, 199):
        depth = layered.depth_km[0]
        away = np.sqrt(layered.arrivals.distance_km[0, station] ** 2 - depth**2)
        found = model.get_travel_times(depth, kilometers2degrees(away), ["p", "P", "Pn", "Pg"])
        assert travel[0, station] == pytest.approx(min(f.time for f in found), abs=0.005)
    assert (layered.arrivals.p_s > uniform.arrivals.p_s).mean() > 0.9


def test_long_records_have_steady_noise() -> None:
    scenario = draw_scenario(**(SCENARIO | {"earthquakes": 0}), earth="homogeneous")
    record = StationRecord(
        scenario, 0, seed=0, duration_s=3600, sampling_rate=100, defects=Defects()
    )
    whole = record.counts(0, 120_000).astype(float)
    assert np.array_equal(record.counts(50_000, 60_001), whole[:, 50_000:60_001])
    levels = whole.reshape(3, -1, 12_000).std(axis=-1)
    assert levels.max() / levels.min() < 1.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"stations": 0},
        {"duration_s": 10},
        {"sampling_rate": 20},
        {"earth": "flat"},
        {"defects": Defects(gaps=2)},
        {"radius_km": 1000},
    ],
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="out of range"):
        Synthesis(**wrong)


def test_wrong_places(tmp_path: Path, cli: Any) -> None:
    assert cli("dataset", "synthesize", tmp_path / "a", "--centre", "here").exit_code == 2
    assert cli("dataset", "synthesize", tmp_path / "a", "--centre", "95,0").exit_code == 2
    assert cli("dataset", "synthesize", tmp_path / "a", "--start", "now").exit_code == 2
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_a_network_of_labelled_records(
    labelled: Path, test_data: Path, pick: Any, tmp_path: Path, cli: Any
) -> None:
    """The labels move with the records: what is found of them is found again."""
    labels = test_data / "waveforms" / "picks.csv"
    out = tmp_path / "tiled"
    arguments = ("dataset", "tile", labelled, out, "--labels", labels, "--stations", 90)
    assert cli(*arguments).exit_code == 0
    again = cli(*arguments)
    assert again.exit_code == OutputError.exit_code
    arrivals = rows(out / "arrivals.csv")
    assert len({row["station"] for row in arrivals}) == 90
    by_station = {row["station"]: row["time"] for row in arrivals if row["phase"] == "P"}
    # 77 records have three components; the 78th station repeats the first.
    assert by_station["T0000"] == by_station[f"T{77:04X}"]
    result = pick(out / "waveforms", model="PhaseNet/original")
    scores = score_picks(result.table, read_labels(out))
    assert scores.phases["P"].counts.recall == 1.0
    assert scores.phases["S"].counts.recall > 0.97
    residuals = scores.phases["P"].residuals
    assert residuals is not None and residuals.mae < 0.05
