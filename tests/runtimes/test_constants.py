"""A component that is constant within its window is zero after normalisation, in every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eqcctpro.models.export import trial_windows
from eqcctpro.models.weights import find_weights
from eqcctpro.runtimes.select import open_picker

KINDS = ("torch", "onnxruntime", "openvino")
CONSTANTS = (
    *(1e-3, 0.1, 34.641132, 337.37442, 1e6 / 7, 8388607.0, 123456789.0, 1e9),
    *(-1e-3, -34.641132, -1e4 / 3, -1e9),
)
MODELS = (
    *(("PhaseNet", "original"), ("PhaseNetLight", "ethz"), ("EQTransformer", "original")),
    *(("GPD", "original"), ("EQCCTP", "original")),
)
START_NS = 1_700_000_000_000_000_000


def dead_windows(samples: int, component: slice) -> tuple[NDArray[np.float32], ...]:
    """Windows with a component, or all, constant, and the same with zeros in their place.

    Every second sample of the odd windows is off by one step of float32.
    """
    live = np.tile(trial_windows(3, samples)[:6], (2, 1, 1))
    zeros, constants = live.copy(), live.copy()
    values = np.array(CONSTANTS, dtype=np.float32)
    constants[:, component] = values[:, None, None]
    constants[1::2, component, ::2] = np.nextafter(values, np.float32(0))[1::2, None, None]
    zeros[:, component] = 0
    return constants, zeros


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS, ids="/".join)
def test_constant_components_are_zeros(
    name: tuple[str, str], kind: str, seisbench_cache: Path
) -> None:
    picker, runtime = open_picker(find_weights(*name), runtime=kind, threads=1)
    for component in (slice(1, 2), slice(0, 3)):
        constants, zeros = dead_windows(picker.in_samples, component)
        expected = runtime.predict(zeros).copy()
        assert np.array_equal(runtime.predict(constants), expected)
    runtime.close()


def test_small_signals_on_large_offsets_are_no_constants(seisbench_cache: Path) -> None:
    """One count on an offset of a 24-bit digitiser's millions is a signal."""
    windows = trial_windows(3, 3001)[:2]
    windows[:, 1] = 4e6 + np.round(windows[:, 1] / np.abs(windows[:, 1]).max(axis=-1)[:, None])
    zeros = windows.copy()
    zeros[:, 1] = 0
    for kind in KINDS:
        files = find_weights("PhaseNetLight", "ethz")
        runtime = open_picker(files, runtime=kind, threads=1)[1]
        difference = np.abs(runtime.predict(windows).copy() - runtime.predict(zeros))
        assert difference.max() > 0.01, kind
        runtime.close()


def constant_records() -> dict[str, list[NDArray[Any]]]:
    """Records of two minutes with stretches that are constant, by station."""
    random = np.random.default_rng(11)

    def noise() -> NDArray[np.float64]:
        samples = random.normal(0, 30, 12000)
        for onset, size in ((1800, 400), (2300, 900), (8100, 500), (8700, 1000)):
            length = 12000 - onset
            decay = np.exp(-np.arange(length) / 150)
            samples[onset:] += size * decay * np.sin(np.arange(length) / 3)
        return samples

    records: dict[str, list[NDArray[Any]]] = {}
    for number, (kind, constant) in enumerate(
        (
            *((np.float32, 34.641132), (np.float32, -1e-3), (np.float32, 1e9)),
            *((np.float64, 34.641132), (np.float64, 1e-3), (np.float64, -1e6 / 7)),
            *((np.int32, 34), (np.int32, 8388607), (np.int32, -100_000_000)),
        )
    ):
        for place, span in (("E", slice(-6000, None)), ("M", slice(4000, 9000))):
            rows = [noise() for _ in range(3)]
            rows[2][:] = constant  # a channel that is dead from end to end
            rows[0][span] = constant
            code = f"{place}{number}"
            records[code] = [row.astype(kind) for row in rows]
        records[f"Z{number}"] = records[f"E{number}"][:1]
    return records


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, write_mseed: Any) -> Path:
    """An archive of records that are constant in part, of one and of three components."""
    folder = tmp_path_factory.mktemp("constants")
    for station, rows in constant_records().items():
        for component, row in zip("ZNE", rows, strict=False):
            code = f"XX.{station}..HH{component}"
            write_mseed(folder / f"{code}.mseed", code, [(START_NS, row)])
    return folder


@pytest.fixture(scope="module")
def oracle(seisbench_cache: Path) -> Any:
    """SeisBench's model, with components whose samples are all equal set to zero."""
    import torch

    from eqcctpro.models.seisbench import load_module

    files = find_weights("PhaseNetLight", "ethz")
    model: Any = load_module(files.parent, files.weight_path, files.metadata_path)
    normalise = model.annotate_batch_pre

    def without_constants(batch: torch.Tensor, argdict: Any) -> torch.Tensor:
        equal = (batch == batch[..., :1]).all(dim=-1, keepdim=True)
        normalised: torch.Tensor = normalise(batch.masked_fill(equal, 0), argdict)
        return normalised

    model.annotate_batch_pre = without_constants
    return model


@pytest.mark.slow
def test_runs_equal_seisbench_without_constants(
    archive: Path, oracle: Any, pick: Any, tmp_path: Path
) -> None:
    import obspy

    stream = obspy.read(str(archive / "*.mseed"))
    annotated = {trace.id: trace for trace in oracle.annotate(stream.copy())}
    classified = sorted(
        (p.trace_id, p.phase, p.peak_time.ns // 10**6) for p in oracle.classify(stream).picks
    )
    assert len(classified) > 20
    for kind in KINDS:
        result = pick(
            archive,
            model="PhaseNetLight/ethz",
            runtime=kind,
            annotations=True,
            output=tmp_path / kind,
        )
        rows = result.table.to_pandas().itertuples()
        found = sorted((f"XX.{r.station}.", r.phase, r.time.value // 10**6) for r in rows)
        assert found == classified, kind
        compared = 0
        for trace in obspy.read(str(tmp_path / kind / "annotations" / "*" / "*.mseed")):
            label = trace.stats.channel[-1].replace("X", "N")
            expected = annotated[f"XX.{trace.stats.station}..PhaseNetLight_{label}"]
            assert trace.stats.npts == expected.stats.npts
            np.testing.assert_allclose(trace.data, expected.data, rtol=0, atol=1e-4)
            compared += 1
        assert compared == len(annotated)
