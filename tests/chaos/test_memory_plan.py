"""Memory is planned by what records hold, and a station without room fails alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import ResourceError
from eqcctpro.orchestration import placement
from eqcctpro.orchestration.run import run_picking
from eqcctpro.orchestration.waveform_memory import waveforms_mb
from eqcctpro.resources.hardware import Hardware, read_hardware


def write(path: Path, rate: float, starts_s: Any, seconds: float, station: str = "LONG") -> None:
    stream = obspy.Stream()
    for start in starts_s:
        samples = np.random.default_rng(1).integers(-99, 99, int(seconds * rate), dtype=np.int32)
        header = {"network": "XX", "station": station, "channel": "HHZ", "sampling_rate": rate}
        trace = obspy.Trace(samples, header)
        trace.stats.starttime = obspy.UTCDateTime(2024, 1, 1) + start
        stream += trace
    stream.write(path, format="MSEED")


def test_gaps_take_no_memory(tmp_path: Path) -> None:
    write(tmp_path / "gaps.mseed", 100.0, np.arange(400) * 23 * 3600.0, 5.0)
    (needed,) = waveforms_mb(make_plan(InputSettings((tmp_path,))))
    assert needed < 400 * 5 * 100 * 5 * 30 / 2**20


def test_high_rates_take_theirs(tmp_path: Path) -> None:
    write(tmp_path / "fast.mseed", 10_000.0, [0.0], 200.0)
    (needed,) = waveforms_mb(make_plan(InputSettings((tmp_path,))))
    assert needed == pytest.approx(200 * 10_000 * 30 / 2**20 - 5, rel=0.01)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 700 MB."""
    machine = replace(read_hardware(), ram_available_mb=700.0)

    def read() -> Hardware:
        return machine

    monkeypatch.setattr(placement, "read_hardware", read)


def config(archive: Path, output: Path, model: str, **more: Any) -> PickConfig:
    common = {"model": model, "runtime": "openvino", "overview": False, "layout": "files"}
    return PickConfig.checked(input=archive, output=output, **common, **more)


@pytest.mark.usefixtures("little_memory")
def test_a_station_without_room_fails_alone(
    generated_network: Any, imported_model: str, tmp_path: Path
) -> None:
    archive = Path(shutil.copytree(generated_network[0], tmp_path / "archive"))
    calm = run_picking(config(archive, tmp_path / "calm", imported_model))
    write(archive / "long.mseed", 1000.0, [0.0], 40_000.0)
    result = run_picking(config(archive, tmp_path / "out", imported_model))
    named = ["timechunk", "run_id"]  # after the span of the data
    assert result.picks.drop(columns=named).equals(calm.picks.drop(columns=named))
    assert result.counts["failed"] == 1
    (failed,) = result.summary["failed"]
    assert failed["station"].startswith("XX.LONG") and failed["error"] == "ResourceError"
    assert "its waveforms need 1139 MB, more than a worker can have" in failed["reason"]


@pytest.mark.usefixtures("little_memory")
def test_a_run_without_room_names_its_largest_station(imported_model: str, tmp_path: Path) -> None:
    write(tmp_path / "long.mseed", 1000.0, [0.0], 40_000.0)
    with pytest.raises(ResourceError, match=r"Waveforms of XX\.LONG.* take 1139 MB of it"):
        run_picking(config(tmp_path / "long.mseed", tmp_path / "out", imported_model))
