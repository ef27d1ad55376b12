"""Streams in memory: the picks of the same records in files, and of SeisBench's ``classify``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest

import eqcctpro
from eqcctpro.errors import InputError, SettingsError

# What says where a pick was found, and not what.
NOT_SHARED = {"timechunk", "run_id"}


@pytest.fixture(scope="module")
def stream(generated_network: tuple[Path, Any]) -> obspy.Stream:
    return obspy.read(str(generated_network[0] / "*" / "*" / "*.mseed"))


@pytest.fixture(scope="module")
def picker(imported_model: str) -> Iterator[eqcctpro.StreamPicker]:
    with eqcctpro.StreamPicker(imported_model, runtime="torch", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def in_files(pick: Any, generated_network: tuple[Path, Any], imported_model: str) -> Any:
    return pick(generated_network[0], model=imported_model)


@pytest.fixture(scope="module")
def result(picker: eqcctpro.StreamPicker, stream: obspy.Stream) -> eqcctpro.StreamResult:
    return picker.pick(stream)


def shared(table: Any) -> Any:
    return table.drop_columns([name for name in table.column_names if name in NOT_SHARED])


@pytest.mark.slow
def test_picks_are_those_of_files(
    result: eqcctpro.StreamResult, in_files: Any, stream: obspy.Stream, picker: Any
) -> None:
    assert len(result.table) > 15 and len(result.detections) > 5
    assert shared(result.table).equals(shared(in_files.table))
    assert shared(result.detections).equals(shared(in_files.detections))
    counts = {name: n for name, n in in_files.counts.items() if name != "files_failed"}
    assert result.counts == counts
    assert result.problems == in_files.problems
    # Gaps that are masked, in floats and long integers, and in another order.
    before = stream.copy()
    merged = stream.copy().merge()
    assert any(np.ma.isMaskedArray(trace.data) for trace in merged)
    for number, trace in enumerate(merged):
        trace.data = trace.data.astype(("i8", "f8", "f4")[number % 3])
    assert picker.pick(merged[::-1]).table.equals(result.table)
    assert stream == before


@pytest.mark.slow
def test_settings_are_those_of_runs(
    pick: Any, generated_network: tuple[Path, Any], imported_model: str, stream: obspy.Stream
) -> None:
    settings = {"p_threshold": 0.5, "filters": "highpass:2", "fill_gaps": "zero"}
    settings |= {"model_arguments": {"overlap": 0.5}, "runtime": "torch", "threads": 1}
    one = stream.select(station="DEM05")
    found = eqcctpro.pick_stream(one, imported_model, **settings)
    expected = pick(generated_network[0], model=imported_model, stations="DEM05", **settings)
    assert len(found.table) and shared(found.table).equals(shared(expected.table))
    for name, value in {"workers": 2, "p_treshold": 0.1}.items():
        with pytest.raises(SettingsError, match=f"{name}: there is no such setting"):
            eqcctpro.pick_stream(one, imported_model, **{name: value})


@pytest.mark.slow
def test_lists_are_those_of_classify(stream: obspy.Stream, seisbench_cache: Path) -> None:
    import seisbench.models
    from seisbench.util import PickList

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEISBENCH_CACHE_ROOT", str(seisbench_cache))
        patch.setattr(seisbench, "cache_root", seisbench_cache)
        patch.setattr(seisbench, "cache_model_root", seisbench_cache / "models" / "v3")
        model = seisbench.models.PhaseNet.from_pretrained("original")
        found = eqcctpro.pick_stream(stream, "PhaseNet/original", threads=1)
    assert found.detections is None and not found.to_detectionlist()
    expected = sorted(model.classify(stream.copy()).picks, key=lambda one: str(one))
    ours = found.to_picklist()
    assert isinstance(ours, PickList) and len(ours) > 15
    for mine, theirs in zip(sorted(ours, key=str), expected, strict=True):
        assert (mine.trace_id, mine.phase) == (theirs.trace_id, theirs.phase)
        assert abs(mine.peak_value - theirs.peak_value) < 1e-4
        for name in ("start_time", "peak_time", "end_time"):
            assert abs(getattr(mine, name) - getattr(theirs, name)) < 1e-5


@pytest.mark.slow
def test_objects_of_a_result(result: eqcctpro.StreamResult, tmp_path: Path) -> None:
    from seisbench.util import DetectionList

    rows, detections = result.table.to_pylist(), result.to_detectionlist()
    assert isinstance(detections, DetectionList) and len(detections) == len(result.detections)
    (event,) = result.to_catalog(agency="NET")
    found = sorted((pick.time.ns, pick.waveform_id.station_code) for pick in event.picks)
    times = result.table["time"].cast("int64").to_pylist()
    expected = zip((1000 * time for time in times), (row["station"] for row in rows), strict=True)
    assert found == sorted(expected)
    assert {pick.creation_info.agency_id for pick in event.picks} == {"NET"}
    assert len(result.picks) == len(rows)


def test_what_cannot_be_picked_is_said(picker: eqcctpro.StreamPicker, stream: obspy.Stream) -> None:
    one = stream.select(station="DEM01").copy()
    one[0].stats.sampling_rate = 0.1
    bare = obspy.Trace(np.zeros(100, "i4"))
    texts = obspy.Trace(np.zeros(100, "S1"), {"station": "A", "channel": "LOG"})
    found = picker.pick([*one, bare, texts])
    assert [line.partition(": ")[2] for line in found.problems[:3]] == [
        f"{one[0].id}: its sampling rate is 0.1 Hz; nothing below 1 Hz is picked",
        "...: it has no station or channel code",
        ".A..LOG: its samples are no numbers",
    ]
    assert found.counts["done"] == 1
    short = picker.pick(one[1].slice(endtime=one[1].stats.starttime + 10))
    assert not len(short.table) and short.counts["empty"] == 1
    assert any("window" in line for line in short.problems)
    for nothing in (obspy.Stream(), [bare], "network/*.mseed", None):
        with pytest.raises(InputError, match="stream"):
            picker.pick(nothing)  # type: ignore[arg-type]
