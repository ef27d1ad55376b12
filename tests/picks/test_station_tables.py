"""Stations beside the picks: names and places agree, and NonLinLoc's control file reads back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from obspy.geodetics import gps2dist_azimuth
from obspy.taup import TauPyModel

from eqcctpro.picks.formats.station_tables import VELOCITY_MODELS

PICKS = """network,station,location,channel,phase,time,probability
XX,A,00,HH,P,2024-12-15T12:00:00Z,0.9
XX,A,10,HN,P,2024-12-15T12:00:00Z,0.9
YY,A,,HH,S,2024-12-15T12:00:09Z,0.8
XX,B,00,HH,P,2024-12-15T12:00:02Z,0.7
XX,NONE,00,HH,P,2024-12-15T12:00:03Z,0.7
"""
STATIONS = """network,station,latitude,longitude,elevation_m,start_time,end_time
XX,A,10.0,179.9,1200,2000-01-01,2020-01-01
XX,A,10.5,-179.9,1300,2020-01-01,
YY,A,10.2,179.8,-30,,
XX,B,10.4,-179.7,0,,
ZZ,C,50,50,0,,
"""


@pytest.fixture
def given(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text(PICKS)
    (tmp_path / "stations.csv").write_text(STATIONS)
    return tmp_path


def convert(cli: Any, folder: Path, kind: str, name: str, *more: str) -> Any:
    options = ["--to", kind, "-o", folder / name, "--stations", folder / "stations.csv", *more]
    return cli("convert", folder / "in.csv", *options)


def test_names_are_those_of_the_picks(
    given: Path, cli: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for kind, column in (("gamma", "id"), ("pyocto", "station")):
        with caplog.at_level(logging.WARNING, logger="eqcctpro"):
            done = convert(cli, given, kind, f"{kind}.csv")
        assert done.exit_code == 0, done.output
        assert done.output.split()[-1] == str(given / f"{kind}_stations.csv")
        assert "no coordinates of XX.NONE" in caplog.text
        picks = pd.read_csv(given / f"{kind}.csv")
        stations = pd.read_csv(given / f"{kind}_stations.csv").set_index("id")
        assert set(stations.index) == set(picks[column]) - {"XX.NONE.00"}
        assert stations.loc["XX.A.00", "latitude"] == 10.5  # where it was then
        assert stations.loc["YY.A.", "longitude"] == 179.8
    gamma = pd.read_csv(given / "gamma_stations.csv").set_index("id")
    for one in gamma.index:
        for other in gamma.index:
            places = [gamma.loc[name, ["latitude", "longitude"]] for name in (one, other)]
            away = gps2dist_azimuth(*places[0], *places[1])[0] / 1000
            flat = gamma.loc[one, ["x(km)", "y(km)"]] - gamma.loc[other, ["x(km)", "y(km)"]]
            assert np.hypot(*flat) == pytest.approx(away, abs=0.01)
    assert gamma.loc["XX.A.00", "z(km)"] == -1.3
    assert abs(gamma[["x(km)", "y(km)"]].to_numpy()).max() < 40  # across the date line


def test_the_control_file_reads_back(given: Path, cli: Any) -> None:
    done = convert(cli, given, "nonlinloc", "picks.obs", "--velocity-model", "ak135")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in (given / "picks.in").read_text().splitlines()]
    control = [words for words in lines if not words[0].startswith("#")]
    statements: dict[str, list[list[str]]] = {}
    for name, *values in control:
        statements.setdefault(name, []).append(values)
    labels = {line.split()[0] for line in (given / "picks.obs").read_text().splitlines() if line}
    sources = {values[0]: values[1:] for values in statements["GTSRCE"]}
    assert set(sources) == labels - {"NONE"} == {"XX_A", "YY_A", "B"}
    assert sources["XX_A"] == ["LATLON", "10.500000", "-179.900000", "0", "1.3000"]
    assert float(sources["YY_A"][-1]) == -0.03
    (files,) = statements["LOCFILES"]
    assert files[0] == "picks.obs" and files[1] == "NLLOC_OBS"
    assert statements["GTFILES"][0][1] == files[2] and statements["GTFILES"][0][2] == "P"
    # The grids hold all stations: the travel times reach from corner to corner of the search.
    (search,) = statements["LOCGRID"]
    n_x, n_y, n_z = map(int, search[:3])
    x, y, z, step = map(float, search[3:7])
    assert x + (n_x - 1) * step == -x and y + (n_y - 1) * step == -y
    (grid,) = statements["VGGRID"]
    assert (int(grid[1]) - 1) * step >= np.hypot(2 * x, 2 * y)
    assert int(grid[2]) == n_z and float(grid[5]) == z < -1.3
    layers = np.array(statements["LAYER"], float)
    assert (np.diff(layers[:, 0]) > 0).all() and layers[0, 0] == z
    assert layers[1:, 0].tolist() == [20.0, 35.0]


@pytest.mark.parametrize("name", ["iasp91", "ak135"])
def test_velocities_are_those_of_the_published_models(name: str) -> None:
    published = TauPyModel(name).model.s_mod.v_mod
    for top, p, s, _ in VELOCITY_MODELS[name]:
        assert published.evaluate_below(top, "p")[0] == pytest.approx(p, abs=0.005)
        assert published.evaluate_below(top, "s")[0] == pytest.approx(s, abs=0.005)


@pytest.mark.parametrize(
    ("kind", "more", "code", "message"),
    [
        ("quakeml", (), 2, "for gamma, pyocto, nonlinloc"),
        ("nonlinloc", ("--velocity-model", "prem"), 2, "iasp91, ak135, halfspace"),
    ],
)
def test_what_is_wrong_is_said_before_work(
    kind: str, more: tuple[str, ...], code: int, message: str, given: Path, cli: Any
) -> None:
    done = convert(cli, given, kind, "out", *more)
    assert done.exit_code == code and message in done.output
    assert not (given / "out").exists()


def test_no_station_is_known(given: Path, cli: Any) -> None:
    (given / "stations.csv").write_text("network,station,latitude,longitude\nZZ,C,50,50\n")
    done = convert(cli, given, "pyocto", "out.csv")
    assert done.exit_code == 3 and "XX.A" in done.output and "ZZ.C" in done.output
