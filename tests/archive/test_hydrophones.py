"""Hydrophones of ocean-bottom stations are picked with the seismometer beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest
from stamped import real_rows

from eqcctpro.archive.hydrophones import has_hydrophone, seismometer_of
from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.models.picker import Picker
from eqcctpro.runtimes.select import load_picker
from eqcctpro.times import parse_utc

START_NS = parse_utc("2024-12-15T12:00:00")
SAMPLES = 60_000


def test_which_seismometer() -> None:
    place = ("XO", "OBS", "")
    known = {(*place, "HH"), (*place, "HN"), (*place, "BL"), ("XO", "OBS", "01", "EH")}
    assert seismometer_of((*place, "HD"), known) == (*place, "HH")
    assert seismometer_of((*place, "BD"), known) == (*place, "BL")
    assert seismometer_of((*place, "ED"), known) is None  # at another location
    assert seismometer_of((*place, "HH"), known) is None
    assert has_hydrophone("ZNEH")
    assert has_hydrophone("Z12H")
    assert not has_hydrophone("ZNE")


@pytest.fixture(scope="module")
def rows(continuous: Path) -> np.ndarray:
    return real_rows(continuous, SAMPLES)


def write_station(
    write_mseed: Any, folder: Path, rows: np.ndarray, hydrophone: str, station: str = "OBS"
) -> None:
    """Seismometer, and a hydrophone with a channel code of its own."""
    z, n, e = rows
    sound = np.roll(z, 3)
    for channel, row in (("HHZ", z), ("HH1", n), ("HH2", e), (hydrophone, sound)):
        path = folder / station / f"{channel}.mseed"
        write_mseed(path, f"XO.{station}..{channel}", [(START_NS, row)])


@pytest.fixture
def obs(write_mseed: Any, rows: np.ndarray, tmp_path: Path) -> Path:
    write_station(write_mseed, tmp_path / "obs", rows, "HDH")
    return tmp_path / "obs"


@pytest.fixture(scope="module")
def four_components(
    seisbench_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Any]]:
    """Weights of PhaseNet for ZNEH, and SeisBench's model of them.

    The hydrophone enters the published network as another vertical.
    """
    sbm = pytest.importorskip("seisbench.models")
    import torch

    source = seisbench_cache / "models/v3/phasenet"
    state = torch.load(source / "original.pt.v1", weights_only=True)
    first = state["inc.weight"]  # in the order Z, N, E after this
    state["inc.weight"] = torch.cat([first[:, 2:3], first[:, 1:2], first[:, :1], first[:, 2:3]], 1)
    described = json.loads((source / "original.json.v1").read_text())
    described["model_args"] |= {"component_order": "ZNEH", "in_channels": 4}
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / "obs.pt")
    (folder / "obs.json").write_text(json.dumps(described))
    model = sbm.PhaseNet(**described["model_args"])
    model.load_state_dict(state)
    model._weights_metadata = described
    model._parse_metadata()
    yield f"PhaseNet/{folder / 'obs.pt'}", model.eval()


def picks_of(table: Any) -> list[tuple[str, int, float]]:
    times = (table["time"].cast("int64").to_numpy() * 1000).tolist()
    return sorted(
        zip(table["phase"].to_pylist(), times, table["probability"].to_pylist(), strict=True)
    )


def same_as_seisbench(table: Any, model: Any, folder: Path) -> None:
    stream = obspy.read(str(folder / "*/*.mseed"))
    expected = sorted(
        (one.phase, one.peak_time.ns, one.peak_value) for one in model.classify(stream).picks
    )
    ours = picks_of(table)
    assert len(expected) > 3
    assert [one[0] for one in ours] == [one[0] for one in expected]
    np.testing.assert_allclose([o[1] for o in ours], [e[1] for e in expected], atol=1e7, rtol=0)
    np.testing.assert_allclose([o[2] for o in ours], [e[2] for e in expected], atol=1e-4)


@pytest.mark.parametrize("hydrophone", ["HDH", "HHH"])
def test_one_set_of_picks_on_all_four(
    pick: Any,
    write_mseed: Any,
    rows: np.ndarray,
    four_components: tuple[str, Any],
    tmp_path: Path,
    hydrophone: str,
) -> None:
    name, model = four_components
    write_station(write_mseed, tmp_path / "in", rows, hydrophone)
    result = pick(tmp_path / "in", model=name)
    assert result.counts["done"] == 1
    assert set(result.table["channel"].to_pylist()) == {"HH"}
    assert not result.summary["notes"]  # no component is missing
    same_as_seisbench(result.table, model, tmp_path / "in")


def test_in_time_chunks_and_with_stations(
    pick: Any, obs: Path, four_components: tuple[str, Any]
) -> None:
    """The hydrophone goes with the seismometer that was asked for, in every chunk."""
    name, model = four_components
    result = pick(obs, model=name, stations=("XO.OBS..HH",), timechunk=2.0, overlap=1.0)
    same_as_seisbench(result.table, model, obs)


def test_without_such_a_component(pick: Any, obs: Path, seisbench_cache: Path) -> None:
    """A model of three components leaves the hydrophone apart, and says so."""
    result = pick(obs, model="PhaseNet/original")
    assert result.counts["done"] == 1
    assert result.summary["empty"][0]["station"] == "XO.OBS..HD"
    assert "no component that PhaseNet/original knows" in result.summary["empty"][0]["reason"]


def test_what_is_excluded_stays_out(obs: Path) -> None:
    def plan(**settings: Any) -> list[tuple[str, str]]:
        tasks = make_plan(InputSettings((obs,), hydrophone=True, **settings)).tasks
        return [(task.instrument, task.hydrophone) for task in tasks]

    assert plan() == [("HH", "HD")]
    assert plan(exclude=("*.HD",)) == [("HH", "")]
    assert plan(stations=("*.HD",)) == [("HD", "")]  # it alone was asked for


def test_a_request_to_the_service(obs: Path, four_components: tuple[str, Any]) -> None:
    from eqcctpro.models.weight_files import split_name
    from eqcctpro.models.weights import find_weights
    from eqcctpro.pipeline.settings import resolve_settings
    from eqcctpro.serving.stations import lay_out
    from eqcctpro.waveform.decode import DecodedFile, decode_file

    picker: Picker = load_picker(find_weights(*split_name(four_components[0])))
    segments = [s for path in obs.glob("*/*.mseed") for s in decode_file(path).segments]
    request = lay_out(DecodedFile(segments), picker, resolve_settings(picker), max_samples=10**9)
    assert request.stations == [("XO", "OBS", "", "HH")]
    ((block, _),) = request.prepared[0].blocks
    assert block.data.any(axis=1).tolist() == [True] * 4
