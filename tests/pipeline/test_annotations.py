"""Probability curves as miniSEED, against those of SeisBench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest

from eqcctpro.picks.annotations import curve_channels


def curves_of(folder: Path) -> obspy.Stream:
    stream = obspy.Stream()
    for path in sorted(folder.glob("*/*.mseed")):
        stream += obspy.read(str(path))
    return stream


@pytest.fixture(scope="module")
def reference(imported_weights: Path, imported_model: str) -> Any:
    from eqcctpro.models.seisbench import load_module
    from eqcctpro.models.weight_files import split_name
    from eqcctpro.models.weights import find_weights

    files = find_weights(*split_name(imported_model))
    return load_module(files.parent, files.weight_path, files.metadata_path)


@pytest.mark.slow
def test_curves_are_those_of_seisbench(
    pick: Any, imported_model: str, reference: Any, generated_network: Any, tmp_path: Path
) -> None:
    archive = Path(generated_network[0])
    result = pick(archive, model=imported_model, annotations=True, output=tmp_path)
    folder = Path(result.summary["paths"]["annotations"])
    ours = curves_of(folder)
    assert all(
        trace.data.dtype == np.dtype(">f4") or trace.data.dtype == np.float32 for trace in ours
    )
    compared = 0
    for station in ("DEM01", "DEM03", "DEM05"):
        waveforms = obspy.Stream()
        for path in sorted(archive.glob(f"*/{station}/*.mseed")):
            waveforms += obspy.read(str(path))
        theirs = reference.annotate(waveforms)
        names = {"Detection": "HHD", "P": "HHP", "S": "HHS"}
        for expected in theirs:
            label = expected.stats.channel.rpartition("_")[2]
            found = [
                trace
                for trace in ours.select(station=station, channel=names[label])
                if abs(trace.stats.starttime - expected.stats.starttime) < 0.005
            ]
            (one,) = found
            assert one.id == f"XX.{station}.00.{names[label]}"
            assert one.stats.sampling_rate == expected.stats.sampling_rate
            assert one.stats.npts == expected.stats.npts
            np.testing.assert_allclose(one.data, expected.data, rtol=0, atol=1e-4)
            compared += 1
    assert compared >= 9


@pytest.mark.slow
def test_chunks_join_without_overlapping(
    pick: Any, imported_model: str, around_midnight: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, sds = around_midnight
    given = {
        "model": imported_model,
        "annotations": True,
        "window_grid": "absolute",
        "stations": "DEM01",
    }
    once = pick(whole, **given, output=tmp_path / "once")
    cut = pick(sds, **given, output=tmp_path / "cut", timechunk=4)
    plain = pick(whole, **{**given, "annotations": False}, output=tmp_path / "plain")
    assert once.table.equals(
        plain.table.set_column(
            plain.table.column_names.index("run_id"), "run_id", once.table["run_id"]
        )
    )
    expected, pieces = (curves_of(tmp_path / name / "annotations") for name in ("once", "cut"))
    assert len(list((tmp_path / "cut" / "annotations").iterdir())) == 4
    pieces.sort(["channel", "starttime"])
    ends: dict[str, Any] = {}
    for trace in pieces:
        if trace.id in ends:
            assert abs(trace.stats.starttime - ends[trace.id] - trace.stats.delta) < 1e-3
        ends[trace.id] = trace.stats.endtime
    pieces.merge(method=-1)
    for trace in expected:
        (other,) = pieces.select(id=trace.id)
        assert (other.stats.npts, other.stats.starttime) == (
            trace.stats.npts,
            trace.stats.starttime,
        )
        np.testing.assert_allclose(other.data, trace.data, rtol=0, atol=1e-4)
    assert cut.table.num_rows == once.table.num_rows


def test_letters() -> None:
    assert curve_channels(["N", "P", "S"], "HH") == {"N": "HHX", "P": "HHP", "S": "HHS"}
    assert curve_channels(["Pg", "Sg", "Pn", "Sn"], "EH") == {
        "Pg": "EHP",
        "Sg": "EHS",
        "Pn": "EHA",
        "Sn": "EHB",
    }


@pytest.mark.slow
def test_single_windows_show_the_highest_of_all(
    pick: Any, test_data: Path, labelled: Path, tmp_path: Path
) -> None:
    folder = test_data / "models" / "eqcct"
    if not folder.is_dir():
        pytest.skip(f"no weights in {folder}")
    files = {
        "p_model": folder / "test_trainer_024.h5",
        "s_model": folder / "test_trainer_021.h5",
    }
    stations = ["ACR", "BUC", "CLV"]
    result = pick(labelled, **files, stations=stations, annotations=True, output=tmp_path)
    ours = curves_of(Path(result.summary["paths"]["annotations"]))
    assert len(result.picks) > 0
    for row in result.picks.itertuples():
        (curve,) = ours.select(station=row.station, channel=f"??{row.phase}").slice(
            obspy.UTCDateTime(row.time.isoformat()) - 0.005,
            obspy.UTCDateTime(row.time.isoformat()) + 0.005,
        )
        assert max(curve.data) >= row.probability - 1e-4
        assert max(curve.data) <= 1
