"""Every runtime gives torch's curves, whatever a batch holds."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from eqcctpro.errors import ExportError, RuntimeUnavailableError, SettingsError
from eqcctpro.models.export import cached_export, trial_windows
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.models.weights import find_weights
from eqcctpro.runtimes import calibration, select
from eqcctpro.runtimes.base import Runtime
from eqcctpro.runtimes.calibration import Cost, fastest
from eqcctpro.runtimes.select import default_batch_size, load_picker, open_picker, open_runtime
from eqcctpro.runtimes.slices import shared_bounds, slice_bounds, slice_size

MODELS = [
    ("PhaseNet", "original"),
    ("PhaseNetLight", "ethz"),
    ("EQTransformer", "original"),
    ("EQTransformer", "original_nonconservative"),
    ("GPD", "original"),
    ("EQCCTP", "original"),
    ("EQCCTS", "original"),
]
KINDS = ("torch", "onnxruntime", "openvino")


def real_windows(archive: Path, picker: Picker, count: int) -> NDArray[np.float32]:
    """Windows around the arrivals of three-component records."""
    from pymseed import MS3TraceList

    windows: list[NDArray[np.float32]] = []
    for station in sorted(archive.glob("*/*")):
        if len(windows) == count:
            break
        rows = {}
        for path in station.glob("*.mseed"):
            for trace in MS3TraceList.from_file(str(path), unpack_data=True):
                component = trace.sourceid[-1]
                rows[component] = trace[0].np_datasamples.astype(np.float32)
        if set(picker.components) <= set(rows) and min(map(len, rows.values())) >= 9001:
            start = 2900 - picker.in_samples // 3
            stop = start + picker.in_samples
            windows.append(np.stack([rows[c][start:stop] for c in picker.components]))
    assert len(windows) == count
    return np.ascontiguousarray(windows)


@pytest.fixture(params=MODELS, ids="/".join)
def files(request: pytest.FixtureRequest, seisbench_cache: Path) -> WeightFiles:
    return find_weights(*request.param)


@pytest.fixture
def light(seisbench_cache: Path) -> WeightFiles:
    return find_weights("PhaseNetLight", "ethz")


@pytest.fixture(params=KINDS)
def small(request: pytest.FixtureRequest, light: WeightFiles) -> Iterator[Runtime]:
    """The smallest model on each runtime, 40 windows a batch."""
    runtime = open_picker(light, runtime=request.param, batch_size=40, threads=2)[1]
    yield runtime
    runtime.close()


@pytest.mark.slow
def test_runtimes_equal_torch_on_real_windows(files: WeightFiles, labelled: Path) -> None:
    picker, reference = open_picker(files, runtime="torch", threads=1)
    windows = real_windows(labelled, picker, 20)
    expected = reference.predict(windows)
    assert expected.shape == (20, picker.out_samples, len(picker.labels))
    best = [expected[..., picker.labels.index(phase)].max() for phase in picker.phases]
    assert min(best) > 0.3, "the windows hold arrivals"
    for kind in KINDS[1:]:
        described, runtime = open_picker(files, runtime=kind, threads=2)
        assert described == picker
        found = runtime.predict(windows)
        assert found.dtype == np.float32
        # Torch itself is up to 8e-6 from double precision on these windows, and a runtime
        # may round to the other side.
        assert np.abs(found - expected).max() <= 2e-5, kind


def test_torch_runtime_equals_seisbench(light: WeightFiles) -> None:
    import seisbench.models as sbm
    import torch

    from eqcctpro.runtimes.torch_runtime import TORCH_SLICE

    windows = trial_windows(3, 3001)
    # A full slice: what fills another one up changes how torch adds, in the seventh digit.
    windows = np.concatenate([windows, windows[: TORCH_SLICE - len(windows)]])
    model = sbm.PhaseNetLight.from_pretrained("ethz").eval()
    with torch.no_grad():
        prepared = model.annotate_batch_pre(torch.from_numpy(windows), {})
        expected = model.annotate_batch_post(model(prepared), None, {}).numpy()
    runtime = open_picker(light, runtime="torch", threads=1)[1]
    assert np.array_equal(runtime.predict(windows), expected)


@pytest.mark.parametrize("count", [1, 5, 16, 17, 40])
def test_partial_batches(small: Runtime, count: int) -> None:
    windows = np.tile(trial_windows(3, 3001)[:10], (4, 1, 1))
    windows *= np.linspace(1, 3, 40, dtype=np.float32)[:, None, None]
    full = small.predict(windows).copy()
    part = small.predict(windows[:count])
    assert part.shape[0] == count
    # Batches of another size may be summed in another order.
    np.testing.assert_allclose(part, full[:count], atol=2e-6)
    assert np.abs(np.diff(full, axis=0)).max() > 0.01, "windows differ"


def test_windows_of_zeros(small: Runtime) -> None:
    curves = small.predict(np.zeros((3, 3, 3001), np.float32))
    assert np.isfinite(curves).all()
    assert curves.min() >= 0 and curves.max() <= 1


def test_nans_stay_in_their_window(small: Runtime) -> None:
    windows = trial_windows(3, 3001)
    clean = small.predict(windows).copy()
    for spoiled in (np.nan, np.inf):
        windows[4, 1, 100] = spoiled
        curves = small.predict(windows)
        others = np.arange(12) != 4
        np.testing.assert_allclose(curves[others], clean[others], atol=2e-6)
    # Nor does a NaN stay behind in a buffer for the next batch.
    after = small.predict(trial_windows(3, 3001)[:3])
    np.testing.assert_allclose(after, clean[:3], atol=2e-6)


def test_close_twice(light: WeightFiles) -> None:
    for kind in KINDS:
        runtime = open_picker(light, runtime=kind, threads=1)[1]
        runtime.close()
        runtime.close()
        with pytest.raises(RuntimeError, match="closed"):
            runtime.predict(np.zeros((1, 3, 3001), np.float32))


@pytest.mark.parametrize(
    ("kind", "extra"), [("onnxruntime", r"eqcctpro\[onnx\]"), ("openvino", r"eqcctpro\[openvino\]")]
)
def test_missing_runtime_names_the_command(
    light: WeightFiles, kind: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, kind)
    with pytest.raises(RuntimeUnavailableError, match=f"pip install '{extra}'"):
        open_picker(light, runtime=kind)


def test_auto_without_runtimes_is_torch(
    light: WeightFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, "openvino", "onnxruntime")
    runtime = open_picker(light, threads=1)[1]
    assert runtime.kind == "torch"
    assert "no other runtime" in runtime.reason  # type: ignore[attr-defined]


def test_auto_with_one_runtime(light: WeightFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "openvino")
    assert open_picker(light, threads=1)[1].kind == "onnxruntime"


def test_auto_when_the_export_fails(
    light: WeightFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(files: WeightFiles) -> None:
        raise ExportError("the graph is wrong")

    monkeypatch.setattr(select, "cached_export", fails)
    with caplog.at_level(logging.WARNING, "eqcctpro"):
        assert open_picker(light, threads=1)[1].kind == "torch"
    assert "the graph is wrong" in caplog.text
    with pytest.raises(ExportError):
        open_picker(light, runtime="openvino")


@pytest.mark.slow
def test_auto_measures_once(
    light: WeightFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_export(light)
    monkeypatch.setattr(calibration, "cache_folder", lambda _name: tmp_path)
    measured: list[int] = []
    real = calibration._measure

    def counted(*arguments):  # type: ignore[no-untyped-def]
        measured.append(1)
        return real(*arguments)

    monkeypatch.setattr(calibration, "_measure", counted)
    assert open_picker(light, threads=1, expected_windows=10)[1].kind == "openvino"
    assert measured == []
    first = open_picker(light, threads=1)[1]
    again = open_picker(light, threads=1)[1]
    assert measured == [1]
    assert first.kind == again.kind
    assert "expected for 10000 windows" in first.reason  # type: ignore[attr-defined]
    (file,) = tmp_path.iterdir()
    costs = json.loads(file.read_text())
    assert set(costs) == {"onnxruntime", "openvino"}
    file.write_text("{")
    assert open_picker(light, threads=1)[1].kind in costs
    assert measured == [1, 1]


def test_short_jobs_weigh_the_loading_time() -> None:
    costs = {"quick to load": Cost(0.01, 0.004), "quick to run": Cost(0.5, 0.001)}
    assert fastest(costs, 100) == "quick to load"
    assert fastest(costs, 1000) == "quick to run"


def test_a_runtime_that_disagrees_is_not_used(light: WeightFiles) -> None:
    from dataclasses import replace

    export = replace(cached_export(light), differences={"onnxruntime": 1e-7, "openvino": 1e-3})
    assert open_runtime(export, "onnxruntime").kind == "onnxruntime"
    with pytest.raises(ExportError, match=r"openvino by 1\.0e-03"):
        open_runtime(export, "openvino")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtime": "theano"}, "theano"),
        ({"device": "tpu"}, "tpu"),
        ({"batch_size": 0}, "batch_size"),
        ({"threads": -1}, "threads"),
    ],
)
def test_bad_arguments(light: WeightFiles, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        open_picker(light, **arguments)  # type: ignore[arg-type]


def test_devices_that_are_not_there(light: WeightFiles) -> None:
    import torch

    with pytest.raises(RuntimeUnavailableError, match="cuda:99"):
        open_picker(light, device="cuda:99")
    with pytest.raises(RuntimeUnavailableError, match="CPU only"):
        open_picker(light, device="cuda", runtime="openvino")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeUnavailableError, match="finds no CUDA device"):
            open_picker(light, device="cuda")


@pytest.mark.gpu
def test_cuda_equals_cpu(files: WeightFiles) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    picker, cpu = open_picker(files, runtime="torch")
    cuda = open_picker(files, device="cuda", batch_size=16)[1]
    windows = trial_windows(len(picker.components), picker.in_samples)
    expected = cpu.predict(windows)
    np.testing.assert_allclose(cuda.predict(windows), expected, atol=1e-4)
    np.testing.assert_allclose(cuda.predict(windows[:3]), expected[:3], atol=1e-4)


def test_load_picker(light: WeightFiles) -> None:
    assert load_picker(light) == cached_export(light).picker


def test_batch_sizes_fill_the_threads(light: WeightFiles) -> None:
    picker = load_picker(light)
    assert default_batch_size(picker, threads=2) == 64
    assert default_batch_size(picker, threads=8) == 256
    assert default_batch_size(picker, "cuda:0") == 2048


def test_slices_cover_a_batch() -> None:
    assert slice_size(6000, 64) == 8
    assert slice_size(6000, 5) == 5
    assert slice_size(1_000_000, 64) == 1
    assert slice_bounds(17, 8) == [(0, 8), (8, 16), (16, 17)]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_shared_slices_cover_any_number_of_windows(threads: int) -> None:
    sizes = (16, 8, 4, 2, 1)
    for windows in range(1, 65):
        bounds = shared_bounds(windows, sizes, threads)
        lengths = [stop - start for start, stop in bounds]
        assert bounds[0][0] == 0
        assert [start for start, _ in bounds[1:]] == [stop for _, stop in bounds[:-1]]
        # What is filled up is less than a slice.
        assert 0 <= bounds[-1][1] - windows < lengths[-1]
        assert all(start % (stop - start) == 0 and stop - start in sizes for start, stop in bounds)
        if len(bounds) >= 4 * threads and lengths[0] > 1:
            assert len(set(lengths)) == 1


def test_shared_slices_of_two_threads() -> None:
    def sizes(windows: int) -> list[int]:
        bounds = shared_bounds(windows, (16, 8, 4, 2, 1), 2)
        return [stop - start for start, stop in bounds]

    assert sizes(3) == [2, 2]
    assert sizes(24) == 12 * [2]
    assert sizes(48) == 12 * [4]
    assert sizes(63) == 8 * [8]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_adaptive_slices_give_the_same_curves(light: WeightFiles, kind: str) -> None:
    usual, adaptive = (
        open_picker(light, runtime=kind, batch_size=40, threads=2, slice_windows=slices)[1]
        for slices in (None, "adaptive")
    )
    windows = np.tile(trial_windows(3, 3001)[:10], (4, 1, 1))
    windows *= np.linspace(1, 3, 40, dtype=np.float32)[:, None, None]
    try:
        # The fullest first: what it leaves behind must not come up again.
        for count in (40, 1, 3, 9, 21, 24, 39):
            part = windows[-count:]
            found = adaptive.predict(part)
            assert found.shape == (count, *found.shape[1:])
            np.testing.assert_allclose(found, usual.predict(part), atol=1e-5)
    finally:
        usual.close()
        adaptive.close()


def _hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages look as if they were not installed."""
    real = select.find_spec
    monkeypatch.setattr(
        select, "find_spec", lambda name, *rest: None if name in packages else real(name, *rest)
    )


@pytest.mark.slow
def test_batches_under_way_do_not_mix(files: WeightFiles, labelled: Path) -> None:
    """Results are those of the batch that was submitted, whoever's memory it lies in."""
    export = cached_export(files)
    windows = real_windows(labelled, export.picker, 6)
    for kind in ("onnxruntime", "openvino"):
        with_arena = open_runtime(export, kind, batch_size=4, threads=2)
        expected = [with_arena.predict(part).copy() for part in (windows[:4], windows[4:])]
        arena = with_arena.arena(*windows.shape[1:])
        assert len(arena) == with_arena.ahead
        for first, second in ((arena[0], arena[1]), (windows[:4].copy(), windows[4:].copy())):
            first[:4], second[:2] = windows[:4], windows[4:]
            results = [with_arena.submit(first[:4]), with_arena.submit(second[:2])]
            for result, curves in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result(), curves)
        with_arena.close()


def test_precision_needs_openvino_on_a_cpu(seisbench_cache: Path) -> None:
    files = find_weights("PhaseNet", "original")
    for wrong in ({"runtime": "torch"}, {"precision": "fp16"}, {"precision": "tf32"}):
        given = {"precision": "bf16"} | wrong
        with pytest.raises(RuntimeUnavailableError, match=given["precision"]):
            open_picker(files, **given)  # type: ignore[arg-type]
    with pytest.raises(RuntimeUnavailableError, match="openvino runs on the CPU only"):
        open_picker(files, precision="bf16", runtime="openvino", device="cuda")
    with pytest.raises(SettingsError, match="int4"):
        open_picker(files, precision="int4")


def test_short_numbers_give_similar_curves(seisbench_cache: Path, labelled: Path) -> None:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no arithmetic in bf16")
    files = find_weights("PhaseNet", "original")
    picker, short = open_picker(files, precision="bf16", batch_size=8)
    _, whole = open_picker(files, runtime="openvino", batch_size=8)
    windows = real_windows(labelled, picker, 8)
    difference = np.abs(short.predict(windows) - whole.predict(windows))
    assert 1e-4 < difference.max() < 0.2
    assert difference.mean() < 2e-3


def test_openvino_tells_nobody_of_its_use() -> None:
    program = """
import os, sys
def fork(): raise AssertionError("forked")
os.fork = fork
from eqcctpro.models.openvino_import import import_openvino
openvino = import_openvino()
openvino.Core()
print(sorted(name for name in sys.modules if "telemetry" in name))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.stdout, ended.stderr) == (
        "['openvino.tools.ovc.telemetry_params', 'openvino.tools.ovc.telemetry_stub', "
        "'openvino.tools.ovc.telemetry_utils']\n",
        "",
    )


def test_a_signal_while_openvino_is_imported_is_heeded_afterwards() -> None:
    program = """
import os, signal, sys
from eqcctpro.models.openvino_import import import_openvino
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "openvino._pyopenvino":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
try:
    import_openvino()
except KeyboardInterrupt:
    import openvino
    print(openvino.Core().available_devices[0])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.stdout, ended.stderr) == ("CPU\n", "")
