"""Memory is planned by what records hold, and a station without room fails alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import ResourceError
from eqcctpro.orchestration import placement
from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
from eqcctpro.orchestration.run import run_picking
from eqcctpro.orchestration.waveform_memory import FOURIER_BYTES, waveform_memory
from eqcctpro.resources.hardware import read_hardware


def write(path: Path, rate: float, starts_s: Any, seconds: float, station: str = "LONG") -> None:
    stream = obspy.Stream()
    for start in starts_s:
        samples = np.random.default_rng(1).integers(-99, 99, int(seconds * rate), dtype=np.int32)
        header = {"network": "XX", "station": station, "channel": "HHZ", "sampling_rate": rate}
        trace = obspy.Trace(samples, header)
        trace.stats.starttime = obspy.UTCDateTime(2024, 1, 1) + start
        stream += trace
    path.parent.mkdir(exist_ok=True)
    stream.write(path, format="MSEED")


def needed_mb(archive: Path, model: str, **more: Any) -> float:
    """What the one station task of an archive needs."""
    settings_of = config(archive, archive, model, **more)
    picker, settings = describe_run(settings_of, find_run_weights(settings_of))
    inputs = InputSettings.of(settings_of, context_ns=settings.context_ns)
    memory = waveform_memory(make_plan(inputs), settings, picker)
    return float(memory.needed.max()) + 5


MB = 2**20


def test_what_takes_memory(imported_model: str, tmp_path: Path) -> None:
    for rate, starts, seconds in (
        (100.0, np.arange(400) * 23 * 3600.0, 5.0),
        (2_000.0, [0.0], 1000.0),
        (20.0, [0.0], 100_000.0),
        (250.0, [0.0], 10_000.0),
    ):
        write(tmp_path / f"{rate:g}" / "a.mseed", rate, starts, seconds)

    def needed(rate: int, **more: Any) -> float:
        return needed_mb(tmp_path / str(rate), imported_model, **more)

    gaps, fast, slow, sharp = map(needed, (100, 2_000, 20, 250))
    # Gaps take none, unless they are filled; then no more than the record has, or a day.
    assert gaps == pytest.approx(400 * 5 * 100 * 30 / MB, abs=2)
    filled = needed(100, fill_gaps="zero")
    assert filled - gaps == pytest.approx(8_640_000 * 30 / MB, rel=0.01)
    assert fast == pytest.approx(1000 * 2_000 * 30 / MB, rel=0.01)
    # Of what is resampled, whichever is more; in the Fourier domain all of it at once.
    assert slow == pytest.approx(100_000 * 100 * (30 + FOURIER_BYTES) / MB, rel=0.01)
    assert sharp == pytest.approx(2_500_000 * (30 + FOURIER_BYTES) / MB, rel=0.01)
    assert needed(250, window_grid="absolute") < sharp
    # Chunks take what they read, but for records that are resampled as a whole.
    assert needed(2_000, timechunk=1) < fast / 2
    assert needed(250, timechunk=10) > needed(250, timechunk=10, window_grid="absolute") + 50


@pytest.fixture
def little_memory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control group with 700 MB."""
    folder = tmp_path_factory.mktemp("groups")
    (folder / "own").write_text("0::/job\n")
    (folder / "job").mkdir()
    for name, value in (("memory.max", 700 * MB), ("memory.current", 0), ("memory.stat", "")):
        (folder / "job" / name).write_text(f"{value}\n")
    machine = read_hardware(root=folder, own=folder / "own")
    assert machine.ram_bound == "control group" and machine.ram_available_mb == 700
    monkeypatch.setattr(placement, "read_hardware", lambda: machine)


def config(archive: Path, output: Path, model: str, **more: Any) -> PickConfig:
    common = {"model": model, "runtime": "openvino", "overview": False, "layout": "files"}
    return PickConfig.checked(input=archive, output=output, **common, **more)


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_a_station_without_room_fails_alone(
    generated_network: Any, imported_model: str, tmp_path: Path
) -> None:
    archive = Path(shutil.copytree(generated_network[0], tmp_path / "archive"))
    calm = run_picking(config(archive, tmp_path / "calm", imported_model))
    write(archive / "long.mseed", 250.0, [0.0], 50_000.0)
    result = run_picking(config(archive, tmp_path / "out", imported_model))
    named = ["timechunk", "run_id"]  # after the span of the data
    assert result.picks.drop(columns=named).equals(calm.picks.drop(columns=named))
    assert result.counts["failed"] == 1
    (failed,) = result.summary["failed"]
    assert failed["station"].startswith("XX.LONG") and failed["error"] == "ResourceError"
    assert re.search(
        r"its waveforms need \d+ MB, more than a worker can have \(\d+ MB\)", failed["reason"]
    )
    assert "250 Hz are resampled as a whole" in failed["reason"]
    assert "--window-grid absolute" in failed["reason"]


@pytest.mark.usefixtures("little_memory")
def test_a_run_without_room_names_its_largest_station(imported_model: str, tmp_path: Path) -> None:
    write(tmp_path / "long.mseed", 250.0, [0.0], 50_000.0)
    with pytest.raises(ResourceError, match=r"Waveforms of XX\.LONG.* take \d+ MB of it"):
        run_picking(config(tmp_path / "long.mseed", tmp_path / "out", imported_model))


LIMITED = """
import resource
from eqcctpro.resources.hardware import read_hardware
resource.setrlimit(resource.RLIMIT_{}, (2**31, 2**31))
machine = read_hardware()
print(machine.ram_bound, machine.ram_total_mb, 0 < machine.ram_available_mb < 2048)
"""


@pytest.mark.parametrize("kind", ["AS", "DATA"])
def test_limits_of_the_process_count(kind: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", LIMITED.format(kind)], capture_output=True, text=True, check=True
    )
    assert told.stdout == "process limit 2048.0 True\n"
