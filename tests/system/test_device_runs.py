"""Whole runs by the engine on a device, here the CPU, pick for pick as other runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest

torch = pytest.importorskip("torch")

from eqcctpro.models.picker import Picker  # noqa: E402
from eqcctpro.models.weight_files import WeightFiles  # noqa: E402
from eqcctpro.runtimes import select  # noqa: E402
from eqcctpro.runtimes.base import Runtime  # noqa: E402

ALL = (
    "PhaseNet/original", "EQTransformer/original_nonconservative", "GPD/original",
    "PhaseNetLight/ethz", "EQCCT/original",
)  # fmt: skip


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the runtime torch take the way of GPUs."""

    def install(batch_size: int = 64, part: int = 16, precision: str = "f32") -> None:
        def opened(files: WeightFiles, *_: Any) -> tuple[Picker, Runtime]:
            from eqcctpro.models.exportable import exportable
            from eqcctpro.models.loading import load_model
            from eqcctpro.runtimes.device_runtime import DeviceRuntime

            picker, module = load_model(files)
            runtime = DeviceRuntime(
                exportable(module), components=len(picker.components),
                in_samples=picker.in_samples, batch_size=batch_size, part=part,
                precision=precision,
            )  # fmt: skip
            return picker, runtime

        monkeypatch.setattr(select, "_open_torch", opened)

    return install


def rows(result: Any) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """Picks of each channel and phase: time, onset, end (us) and probability."""
    names = ("network", "station", "location", "channel", "phase")
    found: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for row in result.table.to_pylist():
        numbers = [
            row[name].timestamp() if row[name] is not None else None
            for name in ("time", "start_time", "end_time")
        ]
        key = tuple(row[name] for name in names)
        found.setdefault(key, []).append((*numbers, row["probability"]))
    return {key: sorted(values) for key, values in found.items()}


def assert_same(there: Any, here: Any, *, edges: int = 0) -> None:
    """The same picks; onsets and ends may be a sample off where a curve touches its threshold."""
    assert there.counts == here.counts
    mine, theirs = rows(there), rows(here)
    assert {key: len(value) for key, value in mine.items()} == {
        key: len(value) for key, value in theirs.items()
    }
    one = np.array([row for key in sorted(mine) for row in mine[key]], dtype=float)
    other = np.array([row for key in sorted(theirs) for row in theirs[key]], dtype=float)
    assert len(one) > 10
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    np.testing.assert_allclose(one[:, 3], other[:, 3], rtol=0, atol=1e-4)
    off = np.abs(one[:, 1:3] - other[:, 1:3])
    assert off.max() < 0.0151 and (off > 1e-6).sum() <= edges


@pytest.fixture(scope="module")
def hard(continuous: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes of a station with a gap on one component, and of one with dead channels."""
    folder = tmp_path_factory.mktemp("hard") / "archive"
    folder.mkdir()
    records = obspy.read(str(continuous / "*" / "WILZ" / "*"))
    start = max(trace.stats.starttime for trace in records)
    records.trim(start, start + 1200)
    for trace in records:
        if trace.stats.channel.endswith("N"):
            parts = [trace.slice(start, start + 340), trace.slice(start + 355.5)]
        else:
            parts = [trace]
        stream = obspy.Stream(part.copy() for part in parts)
        stream.write(str(folder / f"gap_{trace.id}.mseed"), format="MSEED")
        dead = trace.copy()
        dead.stats.station = "DEAD"
        if not trace.stats.channel.endswith("Z"):
            dead.data = np.full_like(dead.data, 7 if trace.stats.channel.endswith("N") else 0)
        dead.write(str(folder / f"dead_{dead.id}.mseed"), format="MSEED")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [name if name == ALL[0] else pytest.param(name, marks=pytest.mark.exhaustive) for name in ALL],
)
def test_labelled_records(
    labelled: Path, seisbench_cache: Path, pick: Any, on_device: Any, model: str
) -> None:
    here = pick(labelled, model=model)
    on_device()
    there = pick(labelled, model=model)
    assert_same(there, here, edges=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [name if name == ALL[0] else pytest.param(name, marks=pytest.mark.exhaustive) for name in ALL],
)
def test_gaps_and_dead_channels(
    hard: Path, seisbench_cache: Path, pick: Any, on_device: Any, model: str
) -> None:
    thresholds = {"p_threshold": 0.1, "s_threshold": 0.1}
    here = pick(hard, model=model, **thresholds)
    on_device(batch_size=24, part=8)
    there = pick(hard, model=model, **thresholds)
    assert_same(there, here, edges=2)
    assert any("DEAD" in key for key in rows(here))


@pytest.mark.exhaustive
def test_the_same_network_gives_the_same_bits(
    continuous: Path, seisbench_cache: Path, pick: Any, on_device: Any, monkeypatch: Any
) -> None:
    """Two hours: batches that a block goes through many of, against the engine on arrays."""
    from eqcctpro.pipeline import opening
    from eqcctpro.pipeline.engine import Pipeline
    from eqcctpro.runtimes.base import Runtime as Base

    on_device(batch_size=40, part=8)
    for model, stacking in (("PhaseNet/original", "avg"), ("PhaseNet/original", "max")):
        there = pick(continuous, model=model, model_arguments={"stacking": stacking})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "eqcctpro.orchestration.worker.pipeline_on",
                lambda picker, runtime, settings: Pipeline(picker, runtime, settings),
            )
            patch.setattr("eqcctpro.runtimes.device_runtime.DeviceRuntime.arena", Base.arena)
            here = pick(continuous, model=model, model_arguments={"stacking": stacking})
        assert opening.pipeline_on is not None
        assert rows(there) == rows(here)
