"""From picks to events: PyOcto in whatever environment it runs, and what is written of it."""

from __future__ import annotations

import csv
import importlib
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from eqcctpro.association import AssociationSettings, associate, read_stations
from eqcctpro.association.associate import Association
from eqcctpro.association.pyocto_environment import python_with_pyocto
from eqcctpro.association.writers import write_association
from eqcctpro.errors import InputError, RuntimeUnavailableError, SettingsError
from eqcctpro.picks.formats import write_picks
from eqcctpro.picks.reading import read_picks
from eqcctpro.synthetic.dataset import Synthesis, synthesize

NEAR_KM, NEAR_S = 5.0, 1.0


@pytest.fixture(scope="session")
def pyocto_python() -> Path:
    """An interpreter with PyOcto; it is installed for the session if need be."""
    try:
        return python_with_pyocto()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("association") / "network"
    synthesize(folder, Synthesis(stations=12, duration_s=240, earthquakes=3, seed=5))
    return folder


def distances(found: Any, true: Any) -> list[tuple[float, float]]:
    """Kilometres (in space) and seconds between the origins of two catalogues."""
    from obspy.geodetics import gps2dist_azimuth

    apart = []
    for ours, real in zip(found, true, strict=True):
        a, b = ours.preferred_origin(), real.preferred_origin()
        away, _, _ = gps2dist_azimuth(a.latitude, a.longitude, b.latitude, b.longitude)
        apart.append((np.hypot(away, a.depth - b.depth) / 1000, abs(a.time - b.time)))
    return apart


class TestWithoutPyOcto:
    def test_stations_from_both_files_are_the_same(self, network: Path) -> None:
        xml, table = (
            read_stations(network / "stations.xml"),
            read_stations(network / "stations.csv"),
        )
        assert xml.names == table.names == [f"XX.S{n:04d}" for n in range(1, 13)]
        assert np.allclose(xml.latitude, table.latitude, atol=1e-6)
        assert np.allclose(xml.longitude, table.longitude, atol=1e-6)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("station,lat\nXX.A,1\n", "no column longitude"),
            ("station,lat,lon\nXX.A,1,x\n", "line 2"),
            ("station,lat,lon\nXX.A,100,0\n", "latitude 100"),
            ("station,lat,lon\n", "no station"),
        ],
    )
    def test_what_is_wrong_with_stations_is_said(
        self, text: str, message: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "stations.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_stations(path)
        path.rename(tmp_path / "stations.xml")
        with pytest.raises(InputError, match="no inventory"):
            read_stations(tmp_path / "stations.xml")

    def test_no_station_is_known(self, network: Path, tmp_path: Path) -> None:
        path = tmp_path / "stations.csv"
        path.write_text("network,station,latitude,longitude\nYY,B,1,2\n")
        with pytest.raises(InputError, match=r"XX\.S0001"):
            associate(read_picks(network / "arrivals.csv"), read_stations(path))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"s_velocity": 7.0},
            {"depth_km": (10.0, 0.0)},
            {"threads": 0},
            {"travel_times": Path("none")},
        ],
    )
    def test_wrong_settings(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(SettingsError):
            AssociationSettings(**wrong)

    @pytest.mark.parametrize(
        ("stations", "picks", "each"),
        [(1, 4, 2), (3, 4, 2), (4, 6, 3), (5, 8, 3), (6, 10, 3), (400, 10, 3)],
    )
    def test_an_event_of_a_small_network_has_fewer_picks(
        self, stations: int, picks: int, each: int
    ) -> None:
        found = AssociationSettings().for_stations(stations)
        assert found.n_picks == picks
        assert (found.n_p, found.n_s, found.n_p_and_s) == (each, each, each)
        assert AssociationSettings(n_picks=2, n_s=0).for_stations(stations).n_picks == 2
        assert AssociationSettings(n_picks=2, n_s=0).for_stations(stations).n_s == 0

    def test_more_picks_than_there_can_be_are_refused(self, network: Path) -> None:
        """And that before PyOcto is asked for, let alone installed."""
        with pytest.raises(SettingsError, match=r"n_picks: .* 10, and 4 stations .* give 8"):
            AssociationSettings(n_picks=10).for_stations(4)
        picks = of_four(read_picks(network / "arrivals.csv"))
        with pytest.raises(SettingsError, match="n_p_and_s"):
            associate(
                picks, read_stations(network / "stations.csv"), AssociationSettings(n_p_and_s=5)
            )

    def test_it_is_not_installed_when_not_wanted(
        self, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path))
        monkeypatch.delenv("EQCCTPRO_PYOCTO", raising=False)
        monkeypatch.setattr("eqcctpro.association.pyocto_environment.find_spec", lambda _: None)
        stations = read_stations(network / "stations.csv")
        with pytest.raises(RuntimeUnavailableError, match="not installed"):
            associate(read_picks(network / "arrivals.csv"), stations, install=False)
        monkeypatch.setenv("EQCCTPRO_PYOCTO", str(tmp_path / "python"))
        with pytest.raises(RuntimeUnavailableError, match="not there"):
            python_with_pyocto()

    def test_events_are_written_as_obspy_reads_them(self, network: Path, tmp_path: Path) -> None:
        from lxml import etree
        from obspy import UTCDateTime, read_events
        from obspy.io import quakeml, seiscomp

        picks = read_picks(network / "arrivals.csv").slice(0, 5)
        found = Association(
            pa.table(
                {
                    "event": [0, 1],
                    "time": picks["time"].slice(0, 2),
                    "latitude": [31.5, 31.6],
                    "longitude": [-103.0, -103.1],
                    "depth_km": [7.5, 8.0],
                    "picks": [3, 2],
                    "p_picks": [2, 1],
                    "s_picks": [1, 1],
                    "stations": [2, 1],
                    "rms_s": [0.1, 0.2],
                }
            ),
            pa.table(
                {
                    "event": [0, 0, 0, 1, 1],
                    "pick": [4, 1, 2, 3, 0],
                    "residual_s": [0.1, -0.2, 0.3, 0.0, 0.0],
                }
            ),
            picks,
            [],
        )
        write_association(found, tmp_path)
        catalogue = read_events(str(tmp_path / "events.quakeml"))
        assert [len(event.picks) for event in catalogue] == [3, 2]
        origin = catalogue[0].preferred_origin()
        assert (origin.latitude, origin.longitude, origin.depth) == (31.5, -103.0, 7500.0)
        assert origin.time == UTCDateTime(picks["time"][0].as_py())
        by_id = {pick.resource_id: pick for pick in catalogue[0].picks}
        for arrival, row in zip(origin.arrivals, (4, 1, 2), strict=True):
            assert by_id[arrival.pick_id].time == UTCDateTime(picks["time"][row].as_py())
        assert [a.time_residual for a in origin.arrivals] == [0.1, -0.2, 0.3]
        schema = Path(quakeml.__file__).parent / "data" / "QuakeML-1.2.xsd"
        document = etree.parse(str(tmp_path / "events.quakeml"))
        etree.XMLSchema(etree.parse(str(schema))).assertValid(document)
        schema = Path(seiscomp.__file__).parent / "data" / "sc3ml_0.12.xsd"
        document = etree.parse(str(tmp_path / "events.scml"))
        etree.XMLSchema(etree.parse(str(schema))).assertValid(document)
        same = read_events(str(tmp_path / "events.scml"), format="SCML")
        assert [len(event.picks) for event in same] == [3, 2]
        other = same[0].preferred_origin()
        assert (other.latitude, other.longitude, other.depth) == (31.5, -103.0, 7500.0)
        assert other.time == origin.time
        assert [a.time_residual for a in other.arrivals] == [0.1, -0.2, 0.3]
        blocks = (tmp_path / "events.obs").read_text().strip().split("\n\n")
        assert [len(block.splitlines()) for block in blocks] == [3, 2]
        with (tmp_path / "event_picks.csv").open(newline="") as file:
            assert [row["event"] for row in csv.DictReader(file)] == ["0", "0", "0", "1", "1"]


def of_four(picks: pa.Table) -> pa.Table:
    """Picks at the first four stations."""
    names = sorted(set(picks["station"].to_pylist()))[:4]
    return picks.filter(pa.compute.is_in(picks["station"], pa.array(names)))


@pytest.mark.slow
@pytest.mark.usefixtures("pyocto_python")
class TestWithPyOcto:
    def test_four_stations_have_events(self, network: Path, tmp_path: Path, cli: Any) -> None:
        """Eight picks are all that four stations give; ten were wanted of each event."""
        picks = of_four(read_picks(network / "arrivals.csv"))
        write_picks(picks, tmp_path / "picks.csv", "csv")
        stations = ["--stations", network / "stations.csv"]
        run = cli("associate", tmp_path / "picks.csv", *stations)
        assert run.exit_code == 0, run.output
        said = run.output.splitlines()
        assert said[0] == "an event has at least 6 picks: 3 P, 3 S, and both at 3 of 4 stations"
        with (tmp_path / "event_picks.csv").open(newline="") as file:
            events = Counter(row["event"] for row in csv.DictReader(file))
        assert sorted(events.values()) == [8, 8, 8]
        assert said[1].startswith("3 events of 24 picks")

    def test_from_waveforms_to_events(
        self, network: Path, imported_model: str, tmp_path: Path, cli: Any
    ) -> None:
        """End to end: picked by a real model, associated, and where the earthquakes were."""
        from obspy import read_events

        out = tmp_path / "out"
        options = ("--model", imported_model, "--format", "csv", "--no-overview", "-q")
        run = cli("pick", network / "waveforms", "-o", out, *options)
        assert run.exit_code == 0, run.output
        run = cli("associate", out, "--stations", network / "stations.xml", "--agency", "TEST")
        assert run.exit_code == 0, run.output
        found = read_events(str(out / "events.quakeml"))
        apart = distances(found, read_events(str(network / "events.xml")))
        assert max(km for km, _ in apart) < NEAR_KM
        assert max(seconds for _, seconds in apart) < NEAR_S
        assert all(len(event.picks) >= 20 for event in found)

    def test_false_picks_and_unknown_stations(self, network: Path) -> None:
        """Picks of no earthquake stay out, and stations without coordinates are named."""
        true = read_picks(network / "arrivals.csv")
        rng = np.random.default_rng(0)
        false = true.take(pa.array(rng.integers(0, true.num_rows, 60)))
        moved = false["time"].cast(pa.int64()).to_numpy() + rng.integers(-30e6, 30e6, 60)
        column = pa.array(moved).cast(pa.timestamp("us", tz="UTC"))
        false = false.set_column(false.column_names.index("time"), "time", column)
        lost = true.slice(0, 1).set_column(1, "station", pa.array(["LOST"]))
        both = pa.concat_tables([true, false, lost])
        found = associate(both, read_stations(network / "stations.csv"))
        assert found.without_coordinates == ["XX.LOST"]
        assert found.events.num_rows == 3
        which = found.assignments["pick"].to_numpy()
        assert (which < true.num_rows).sum() >= 0.9 * true.num_rows
        assert (which >= true.num_rows).sum() <= 12
        assert len(np.unique(which)) == len(which)
        assert np.abs(found.assignments["residual_s"].to_numpy()).max() <= 1.5
        nothing = associate(both.slice(0, 5), read_stations(network / "stations.csv"))
        assert nothing.events.num_rows == nothing.assignments.num_rows == 0

    def test_a_table_of_travel_times(self, network: Path, tmp_path: Path) -> None:
        """A table that holds the times of a half-space gives the events of the velocities."""
        spacing, wide, deep = 0.5, 500, 120
        path = np.hypot(*np.meshgrid(np.arange(wide), np.arange(deep), indexing="ij")) * spacing
        table = tmp_path / "times"
        table.write_bytes(
            struct.pack("iid", wide, deep, spacing)
            + (path / 6.0).tobytes()
            + (path * 1.73 / 6.0).tobytes()
        )
        picks, stations = (
            read_picks(network / "arrivals.csv"),
            read_stations(network / "stations.csv"),
        )
        tabulated = associate(picks, stations, AssociationSettings(travel_times=table)).events
        uniform = associate(picks, stations).events
        assert tabulated.num_rows == uniform.num_rows == 3
        for name, limit in (("latitude", 0.02), ("longitude", 0.02), ("depth_km", 3.0)):
            assert np.abs(tabulated[name].to_numpy() - uniform[name].to_numpy()).max() < limit

    @pytest.mark.parametrize("kind", ["pyocto", "gamma"])
    def test_pyocto_reads_what_is_exported(
        self, kind: str, network: Path, pyocto_python: Path, tmp_path: Path
    ) -> None:
        """A user's own script: our pick file, our station table, PyOcto's own functions."""
        from obspy import UTCDateTime, read_events

        write_picks(read_picks(network / "arrivals.csv"), tmp_path / "picks.csv", kind)
        script = tmp_path / "script.py"
        script.write_text(_SCRIPT)
        done = subprocess.run(
            [str(pyocto_python), str(script), kind, str(tmp_path / "picks.csv"), str(network)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        times = [UTCDateTime(float(line)) for line in done.stdout.split()]
        true = [event.origins[0].time for event in read_events(str(network / "events.xml"))]
        assert len(times) == 3
        assert all(abs(a - b) < NEAR_S for a, b in zip(times, true, strict=True))


_SCRIPT = """
import sys
import pandas as pd
import pyocto

kind, path, network = sys.argv[1:]
stations = pd.read_csv(network + "/stations.csv", dtype={"location": str})
stations["id"] = stations["network"] + "." + stations["station"] + "." + stations["location"]
stations["elevation"] = stations["elevation_m"]
associator = pyocto.OctoAssociator.from_area(
    lat=(30.5, 32.5), lon=(-104.2, -101.8), zlim=(0, 30), time_before=60,
    velocity_model=pyocto.VelocityModel0D(6.0, 6.0 / 1.73, tolerance=1.5),
)
stations = associator.transform_stations(stations)
if kind == "gamma":
    picks = pd.read_csv(path, parse_dates=["timestamp"])
    picks["timestamp"] = picks["timestamp"].dt.tz_localize("UTC")
    stations = stations.rename(columns={"x": "x(km)", "y": "y(km)", "z": "z(km)"})
    events, _ = associator.associate_gamma(picks, stations)
else:
    events, _ = associator.associate(pd.read_csv(path), stations)
print(*sorted(events["time"]), sep="\\n")
"""


def test_the_earlier_place_of_coordinates_warns() -> None:
    from eqcctpro.station_coordinates import read_stations

    sys.modules.pop("eqcctpro.association.stations", None)
    with pytest.warns(DeprecationWarning, match="eqcctpro.station_coordinates"):
        earlier = importlib.import_module("eqcctpro.association.stations")
    assert earlier.read_stations is read_stations
