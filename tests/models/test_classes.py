"""Every class of SeisBench that yields P or S, with random weights, against its ``annotate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pytest

from eqcctpro.errors import ExportError, ModelError
from eqcctpro.picks.annotations import curve_channels
from eqcctpro.waveform.blocks import Block
from eqcctpro.waveform.features import FeatureSettings, feature_block

sbm = pytest.importorskip("seisbench.models")
torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

#: How each class is built where its defaults are not a picker of P and S.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "EQTP": {"in_samples": 3000, "default_args": {"overlap": 1500}},
    "GPD": {"phases": ["P", "S", "N"]},
    "DPPPicker": {"mode": "P"},
}

#: What `annotate` is told; GPD's windows are many.
CALLED: dict[str, dict[str, Any]] = {"GPD": {"stride": 50}}

#: Classes that are refused, and words of the reason.
REFUSED = {
    "DPPDetector": "neither curves nor point probabilities",
    "DPPPicker": "neither curves nor point probabilities",
    "DeepDenoiser": "groups traces by 'channel'",
    "SeisDAE": "groups traces by 'channel'",
    "DepthPhaseNet": "in a way of its own",
    "DepthPhaseTEAM": "in a way of its own",
    "PhaseTEAM": "groups traces by 'full'",
}

#: Classes whose export takes many seconds; their layers are those of the others.
LARGE = ("EQTP", "EQTransformer", "OBSTransformer", "Skynet", "EQCCTS", "EQCCTP")

CLASSES = sorted(
    name
    for name in sbm.__all__
    if isinstance(getattr(sbm, name), type)
    and issubclass(getattr(sbm, name), sbm.WaveformModel)
    and name != "WaveformModel"
)
EQUAL = [name for name in CLASSES if name not in REFUSED]


#: Weights are larger than PyTorch draws them, so that signals do not vanish on their way.
GAIN = {
    **{"EQTP": 2.6, "EQTransformer": 2.6, "OBSTransformer": 2.6, "Skynet": 2.6},
    **{"EQCCTP": 1.0, "EQCCTS": 1.0},
}
LAYERS = (torch.nn.Conv1d, torch.nn.ConvTranspose1d, torch.nn.Conv2d, torch.nn.Linear)
NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def random_model(name: str) -> Any:
    """A model whose weights are random, and whose curves are not flat."""
    torch.manual_seed(7)
    model = getattr(sbm, name)(**ARGUMENTS.get(name, {})).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NORMS):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.7, 1.5)
                module.bias.normal_(0, 0.1)
            elif isinstance(module, LAYERS):
                module.weight *= GAIN.get(name, 2.0)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A class's model and where SeisBench's ``save`` put it."""
    known: dict[str, tuple[Any, Path]] = {}

    def make(name: str) -> tuple[Any, Path]:
        if name not in known:
            model = random_model(name)
            path = tmp_path_factory.mktemp(name) / "random"
            model.save(str(path))
            known[name] = model, path
        return known[name]

    return make


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Three stations, the last but one with a gap, the last with a vertical component alone."""
    from eqcctpro.synthetic.network import synthetic_network

    made: dict[float, Path] = {}

    def archive(name: str) -> Path:
        seconds = 340.0 if name == "Skynet" else 140.0
        if seconds not in made:
            made[seconds] = tmp_path_factory.mktemp("classes") / "archive"
            synthetic_network(made[seconds], stations=3, duration_s=seconds)
        return made[seconds]

    return archive


def cases() -> list[Any]:
    return [
        pytest.param(name, kind, marks=pytest.mark.exhaustive)
        if name in LARGE and kind != "torch"
        else (name, kind)
        for name in EQUAL
        for kind in ("torch", "onnxruntime", "openvino")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runtime"), cases())
def test_curves_equal_those_of_annotate(
    name: str, runtime: str, saved: Any, archives: Any, pick: Any, tmp_path: Path
) -> None:
    model, path = saved(name)
    called, archive = CALLED.get(name, {}), archives(name)
    given = {"model": f"{name}/{path}", "model_arguments": dict(called), "annotations": True}
    try:
        result = pick(archive, **given, runtime=runtime, output=tmp_path)
    except ExportError as error:
        # With other weights a runtime may round too differently, and then is not used.
        assert name == "EQTP" and f"differs on {runtime}" in error.message
        return
    assert result.counts["failed"] == 0
    theirs = model.annotate(obspy.read(str(archive / "*" / "*" / "*.mseed")), **called)
    ours = obspy.read(str(tmp_path / "annotations" / "*" / "*.mseed"))
    labels = [str(label) for label in model.labels or model.phases]
    letters = curve_channels(labels, "")
    spread = 0.0
    for expected in theirs:
        stats = expected.stats
        letter = letters[stats.channel.removeprefix(f"{name}_")]
        values = np.full(stats.npts, np.nan, dtype=np.float32)
        for piece in ours.select(station=stats.station, channel=f"??{letter}"):
            first = round((piece.stats.starttime - stats.starttime) * stats.sampling_rate)
            if 0 <= first < stats.npts:  # else of the record on the other side of a gap
                values[first : first + piece.stats.npts] = piece.data
        np.testing.assert_allclose(values, expected.data, rtol=0, atol=1e-4, equal_nan=True)
        spread = max(spread, float(np.nanstd(expected.data)))
    n_expected = sum(int(np.isfinite(trace.data).sum()) for trace in theirs)
    assert sum(trace.stats.npts for trace in ours) == n_expected > 0
    assert spread > 0.003


def test_every_class_is_equal_or_refused() -> None:
    assert set(REFUSED) <= set(CLASSES)
    assert {"BasicPhaseAE", "DKPN", "EQTransformer", "GPD", "PhaseNet", "Skynet"} <= set(EQUAL)


@pytest.mark.parametrize("name", REFUSED)
def test_other_classes_are_refused_with_the_reason(
    name: str, pick: Any, archives: Any, tmp_path: Path
) -> None:
    arguments = ARGUMENTS.get(name, {})
    path = tmp_path / "random.pt"
    torch.save(getattr(sbm, name)(**arguments).state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps({"model_args": arguments}))
    with pytest.raises(ModelError) as caught:
        pick(archives(name), model=f"{name}/{path}", output=tmp_path / "out")
    assert f"{name} cannot be run on batches of windows" in caught.value.message
    assert REFUSED[name] in caught.value.message


@pytest.mark.parametrize("changed", [{}, {"use_amax_only": True}, {"normalize": True, "clip": 4}])
@pytest.mark.parametrize("rate", [100.0, 20.0])
def test_features_equal_those_of_seisbench(changed: dict[str, Any], rate: float) -> None:
    shared = pytest.importorskip("seisbench.util.dkpn_shared")
    given = {**shared._DKPN_FEATURE_DEFAULTS, **changed}
    waveforms = np.random.default_rng(4).normal(50, 100, (3, 6000)).astype(np.float32)
    waveforms[:, 4000:] *= 20
    expected = shared._DKPNFeatureExtractor(**given).matrix_cfs(waveforms, sampling_rate=rate)
    block = feature_block(Block(0, rate, waveforms, 0), FeatureSettings.of(given))
    assert block is not None and block.start_ns == block.origin_ns == 4 * 10**9
    np.testing.assert_allclose(block.data, expected[:, round(4 * rate) :], rtol=0, atol=1e-5)


def test_dkpn_needs_three_components(saved: Any, archives: Any, pick: Any) -> None:
    _, path = saved("DKPN")
    result = pick(archives("DKPN"), model=f"DKPN/{path}")
    (empty,) = result.summary["empty"]
    assert empty["reason"] == "components N, E missing, and DKPN needs all three"
    assert result.counts["done"] == 2


def loose_tensors(module: Any) -> list[str]:
    """Tensors that would stay where they are when the module goes to another device."""
    # LSTMs of torch list their parameters once more.
    seen = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    found: list[str] = []

    def walk(value: Any, place: str) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found.append(place)
        elif isinstance(value, torch.nn.Module):
            for name, inner in vars(value).items():
                if name not in ("_parameters", "_buffers"):
                    walk(inner, f"{place}.{name}")
        elif isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{place}[{name!r}]")
        elif isinstance(value, (list, tuple, set)):
            for number, inner in enumerate(value):
                walk(inner, f"{place}[{number}]")
        elif callable(value) and getattr(value, "__closure__", None):
            for cell in value.__closure__:
                walk(cell.cell_contents, f"{place}()")

    walk(module, type(module).__name__)
    return found


class Recordable(TorchDispatchMode):  # type: ignore[misc]
    """Refuses operations that cannot be recorded as a CUDA graph: what the host waits for."""

    WAITED_FOR = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITED_FOR, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        tensors = [one for one in (*args, result) if isinstance(one, torch.Tensor) and one.ndim]
        devices = {one.device.type for one in tensors}
        assert len(devices) < 2, f"{name} copies between {devices}"
        return result


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in EQUAL],
)
def test_all_of_a_network_goes_to_another_device(name: str) -> None:
    from eqcctpro.models.exportable import exportable

    model = random_model(name)
    module = exportable(model)
    assert loose_tensors(module) == []
    samples = int(model.in_samples or 3000)
    rows = 5 if name == "DKPN" else len(model.component_order)
    here = torch.randn(2, rows, samples, generator=torch.Generator().manual_seed(1))
    expected = module(here)
    assert expected.device.type == "cpu"
    # A device without data: whatever has stayed behind cannot be used together with it.
    module, windows = module.to("meta"), here.to("meta")
    with Recordable():
        there = module(windows)
    assert there.device.type == "meta" and there.shape == expected.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CRED", "EQTransformer", "PhaseNet"])
def test_short_numbers_are_those_of_layers_alone(name: str) -> None:
    """Counts of a million, and values that mask others, are beyond fp16."""
    from eqcctpro.models.export import trial_windows
    from eqcctpro.models.exportable import exportable
    from eqcctpro.runtimes.device_runtime import DeviceRuntime

    model = random_model(name)
    samples = int(model.in_samples)
    windows = trial_windows(3, samples)[[0, 11]]
    curves = {}
    for precision in ("f32", "fp16", "bf16"):
        runtime = DeviceRuntime(
            exportable(model), components=3, in_samples=samples, batch_size=2, precision=precision
        )
        curves[precision] = runtime.predict(windows)
        assert curves[precision].dtype == np.float32
    for precision, most in (("fp16", 0.02), ("bf16", 0.1)):
        difference = np.abs(curves[precision] - curves["f32"]).max()
        assert 0 < difference < most
