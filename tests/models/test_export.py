"""SeisBench models as pickers, and their exports."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from eqcctpro.errors import ExportError, ModelError, UnknownModelError, WeightsError
from eqcctpro.models.cache import cache_folder
from eqcctpro.models.export import (
    TOLERANCE,
    cached_export,
    export_key,
    export_onnx,
    find_export,
    trial_windows,
)
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.models.seisbench import curve_module, describe, load_module
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.models.weights import find_weights

PUBLISHED = [
    ("PhaseNet", "original"),
    ("PhaseNetLight", "ethz"),
    ("EQTransformer", "original"),
    ("EQTransformer", "original_nonconservative"),
    ("GPD", "original"),
    ("EQCCTP", "original"),
    ("EQCCTS", "original"),
]

#: Classes without weights at hand, with arguments that take other ways through them.
UNTRAINED = [
    ("BasicPhaseAE", {}),
    ("CRED", {}),
    ("CRED", {"original_compatible": True}),
    ("EQTransformer", {"in_samples": 4001}),
    ("EQTransformer", {"norm_detrend": True, "norm": "peak"}),
    ("LFEDetect", {}),
    ("OBSTransformer", {}),
    ("PhaseNet", {"norm_amp_per_comp": True, "in_channels": 4, "component_order": "Z12H"}),
    ("PhaseNet", {"filter_factor": 2, "norm_detrend": True}),
    ("PhaseNetLight", {"norm": "peak"}),
    ("Skynet", {}),
    ("VariableLengthPhaseNet", {"in_samples": 1001}),
]


@pytest.fixture
def weights(seisbench_cache: Path) -> WeightFiles:
    """Small weights: those of PhaseNetLight."""
    return find_weights("PhaseNetLight", "ethz")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EQCCTPRO_CACHE", str(folder))
    return folder


def untrained(parent: str, **arguments: object):  # type: ignore[no-untyped-def]
    import seisbench.models as sbm
    import torch

    torch.manual_seed(11)
    module = getattr(sbm, parent)(**arguments).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):  # a new one changes nothing
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 1.5)
            for values in (layer.bias.data, layer.running_mean):
                values.uniform_(-0.2, 0.2)
    return module


@pytest.mark.parametrize(("parent", "child"), PUBLISHED)
def test_picker_says_what_seisbench_does(seisbench_cache: Path, parent: str, child: str) -> None:
    import seisbench.models as sbm

    files = find_weights(parent, child)
    module = load_module(parent, files.weight_path, files.metadata_path)
    picker = describe(module, parent, child, files.sha256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = getattr(sbm, parent).from_pretrained(child)

    def argument(key: str) -> object:
        return oracle.default_args.get(key, oracle._annotate_args.get(key, (None, None))[1])

    assert picker.components == oracle.component_order
    assert picker.sampling_rate == oracle.sampling_rate
    assert picker.in_samples == oracle.in_samples
    assert picker.labels == tuple(oracle.labels)
    assert picker.phases == tuple(p for p in oracle.labels if p in "PS")
    assert picker.windows.overlap == oracle._get_overlap(oracle.in_samples, oracle.default_args)
    assert picker.windows.stride == argument("stride")
    assert picker.windows.stacking == argument("stacking")
    assert picker.windows.blinding == tuple(argument("blinding") or (0, 0))  # type: ignore[arg-type]
    assert Picker.from_json(picker.to_json()) == picker
    assert picker.weights_sha256 == files.sha256


def test_thresholds_are_the_weights_own(seisbench_cache: Path) -> None:
    expected = {
        ("PhaseNetLight", "ethz"): {"P": 0.4439247878516038, "S": 0.4502677090692625},
        ("PhaseNet", "original"): {"P": 0.3, "S": 0.3},
        ("EQTransformer", "original"): {"P": 0.1, "S": 0.1, "Detection": 0.3},
        ("EQCCTS", "original"): {"S": 0.5},
    }
    for (parent, child), thresholds in expected.items():
        files = find_weights(parent, child)
        module = load_module(parent, files.weight_path, files.metadata_path)
        assert describe(module, parent, child, "").thresholds == pytest.approx(thresholds)


def test_point_and_detection_models() -> None:
    gpd = describe(untrained("GPD", phases="PSN"), "GPD", "w", "")
    assert (gpd.output, gpd.pred_sample, gpd.out_samples) == ("point", (0, 200), 1)
    assert gpd.windows == WindowSettings(overlap=0, stride=10, stacking="avg", blinding=(0, 0))
    cred = describe(untrained("CRED"), "CRED", "w", "")
    assert cred.phases == () and cred.detection_label == "Detection"
    assert cred.thresholds == {"Detection": 0.5}
    # One sample for each 40 of the window.
    assert (cred.in_samples, cred.out_samples) == (3000, 19)


def test_arguments_of_the_weights_win() -> None:
    module = untrained("PhaseNet")
    module.default_args.update(overlap=0.5, blinding=[10, 20], stacking="MAX", S_threshold=0.7)
    picker = describe(module, "PhaseNet", "w", "")
    assert picker.windows == WindowSettings(1500, 1, "max", (10, 20))
    assert picker.thresholds == {"P": 0.3, "S": 0.7}


def test_unknown_class_names_the_close_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="did you mean EQTransformer"):
        load_module("EQTransfomer", tmp_path / "w.pt", None)
    with pytest.raises(UnknownModelError, match="not a picker"):
        load_module("DeepPhasePick", tmp_path / "w.pt", None)


def test_weights_of_another_class(seisbench_cache: Path) -> None:
    light = find_weights("PhaseNetLight", "ethz").weight_path
    with pytest.raises(WeightsError, match=r"missing down_branch.*unexpected conv1.*shape"):
        load_module("PhaseNet", light, None)


def test_damaged_weights_and_metadata(weights: WeightFiles, tmp_path: Path) -> None:
    broken = tmp_path / "w.pt"
    broken.write_bytes(weights.weight_path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"w\.pt"):
        load_module("PhaseNetLight", broken, weights.metadata_path)
    with pytest.raises(WeightsError, match="no such weight file"):
        load_module("PhaseNetLight", tmp_path / "gone.pt", None)
    metadata = tmp_path / "w.json"
    metadata.write_text("{not json")
    with pytest.raises(WeightsError, match=r"w\.json"):
        load_module("PhaseNetLight", weights.weight_path, metadata)
    metadata.write_text('{"model_args": {"colour": "blue"}}')
    with pytest.raises(WeightsError, match="colour"):
        load_module("PhaseNetLight", weights.weight_path, metadata)
    metadata.write_text('{"seisbench_requirement": "99.0"}')
    with pytest.raises(WeightsError, match=r"99\.0"):
        load_module("PhaseNetLight", weights.weight_path, metadata)


def test_weights_that_would_execute_code(tmp_path: Path) -> None:
    import torch

    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    torch.save({"inc.weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(WeightsError, match=r"trap\.pt"):
        load_module("PhaseNet", tmp_path / "trap.pt", None)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ("DeepDenoiser", "groups traces by 'channel'"),
        ("DepthPhaseNet", "in a way of its own"),
        ("PhaseTEAM", "groups traces by 'full'"),
    ],
)
def test_models_that_windows_cannot_drive(parent: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        describe(untrained(parent), parent, "w", "")


def test_channels_that_do_not_fit_the_components() -> None:
    with pytest.raises(ModelError, match="does not take 3 components"):
        describe(untrained("PhaseNet", in_channels=4), "PhaseNet", "w", "")


@pytest.mark.parametrize(("parent", "arguments"), UNTRAINED)
@pytest.mark.slow
def test_untrained_models_export(parent: str, arguments: dict[str, object], tmp_path: Path) -> None:
    module = untrained(parent, **arguments)
    picker = describe(module, parent, "w", "")
    differences = export_onnx(module, picker, tmp_path / "model.onnx")
    assert max(differences.values()) <= TOLERANCE
    assert {"onnxruntime", "openvino"} == set(differences)


@pytest.mark.slow
def test_exporting_leaves_the_model_as_it_was(weights: WeightFiles, tmp_path: Path) -> None:
    import torch

    module = load_module("PhaseNetLight", weights.weight_path, weights.metadata_path)
    windows = torch.from_numpy(trial_windows(3, 3001))
    before = curve_module(module)(windows)
    export_onnx(module, describe(module, "PhaseNetLight", "ethz", ""), tmp_path / "m.onnx")
    assert torch.equal(curve_module(module)(windows), before)


@pytest.mark.exhaustive
def test_recurrences_stay_loops(seisbench_cache: Path, tmp_path: Path) -> None:
    import onnx

    files = find_weights("EQTransformer", "original")
    module = load_module("EQTransformer", files.weight_path, files.metadata_path)
    picker = describe(module, "EQTransformer", "original", files.sha256)
    export_onnx(module, picker, tmp_path / "m.onnx")
    nodes = onnx.load(str(tmp_path / "m.onnx")).graph.node
    assert sum(node.op_type == "Scan" for node in nodes) == 5
    # Unrolled over 47 steps, the five recurrences would take thousands of nodes.
    assert len(nodes) < 1200


@pytest.mark.slow
def test_a_wrong_export_is_refused(
    weights: WeightFiles, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from eqcctpro.models import exportable

    real = exportable.exportable

    def wrong(module):  # type: ignore[no-untyped-def]
        changed = real(module)
        with torch.no_grad():
            for weights_of_a_layer in changed.parameters():
                weights_of_a_layer += 0.01
        return changed

    monkeypatch.setattr(exportable, "exportable", wrong)
    with pytest.raises(ExportError, match="differ from torch"):
        cached_export(weights)
    assert find_export(weights) is None
    assert list((own_cache / "exports").iterdir()) == []


def test_export_is_made_once(
    weights: WeightFiles, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_export(weights) is None
    with caplog.at_level(logging.INFO, "eqcctpro"):
        made = cached_export(weights)
        again = cached_export(weights)
    assert made == again
    assert sum("exporting" in message for message in caplog.messages) == 1
    folder = own_cache / "exports" / export_key(weights)
    assert sorted(p.name for p in folder.iterdir()) == ["export.json", "model.onnx", "picker.json"]
    record = json.loads((folder / "export.json").read_text())
    assert record["weights_sha256"] == weights.sha256
    assert max(record["max_difference"].values()) <= TOLERANCE


def test_key_follows_what_the_export_is_made_of(weights: WeightFiles, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"model_args": {"norm": "std"}}')
    keys = {
        export_key(files)
        for files in (
            weights,
            replace(weights, metadata_path=other),
            replace(weights, sha256="0" * 64),
            replace(weights, parent="PhaseNet"),
        )
    }
    assert len(keys) == 4
    assert export_key(replace(weights, child="my_copy")) == export_key(weights)


@pytest.mark.slow
def test_export_under_another_name(weights: WeightFiles, own_cache: Path) -> None:
    cached_export(weights)
    assert cached_export(replace(weights, child="my_copy")).picker.weights == "my_copy"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["model.onnx", "export.json", "picker.json"])
def test_damaged_export_is_made_again(weights: WeightFiles, own_cache: Path, damage: str) -> None:
    made = cached_export(weights)
    victim = made.onnx_path.with_name(damage)
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    assert find_export(weights) is None
    assert cached_export(weights).picker == made.picker
    assert victim.read_bytes()[:20] == whole[:20]
    assert len(list((own_cache / "exports").iterdir())) == 1


@pytest.mark.slow
def test_export_is_made_again_for_a_runtime_that_came_later(
    weights: WeightFiles, own_cache: Path
) -> None:
    folder = cached_export(weights).onnx_path.parent
    record = json.loads((folder / "export.json").read_text())
    del record["max_difference"]["openvino"]
    (folder / "export.json").write_text(json.dumps(record))
    assert not find_export(weights).agrees("openvino")  # type: ignore[union-attr]
    assert cached_export(weights).agrees("openvino")


def _export_in_another_process(files: WeightFiles) -> str:
    return str(cached_export(files).onnx_path)


@pytest.mark.exhaustive
def test_processes_that_export_at_once(weights: WeightFiles, own_cache: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        paths = set(pool.map(_export_in_another_process, [weights] * 3))
    assert len(paths) == 1
    assert [path.name for path in (own_cache / "exports").iterdir()] == [export_key(weights)]


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path / "a"))
    assert cache_folder("exports") == tmp_path / "a" / "exports"
    monkeypatch.delenv("EQCCTPRO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder("exports") == tmp_path / "b" / "eqcctpro" / "exports"


def test_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with caplog.at_level(logging.WARNING, "eqcctpro"):
        folder = cache_folder("exports")
        cache_folder("exports")
    assert folder.is_dir() and tmp_path in folder.parents
    assert [("cannot be written" in message) for message in caplog.messages] == [True]


@pytest.mark.slow
def test_a_cached_export_needs_neither_torch_nor_seisbench(
    weights: WeightFiles, own_cache: Path
) -> None:
    cached_export(weights)
    code = """
import sys
from eqcctpro.models.weights import find_weights
from eqcctpro.runtimes.select import open_picker
import numpy as np
files = find_weights("PhaseNetLight", "ethz")
for kind in ("onnxruntime", "openvino", "auto"):
    picker, runtime = open_picker(files, runtime=kind, threads=1)
    assert runtime.predict(np.ones((3, 3, 3001), np.float32)).shape == (3, 3001, 3)
heavy = {"torch", "seisbench", "obspy", "ray", "tensorflow", "matplotlib", "onnx", "scipy"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_trial_windows_are_the_same_everywhere() -> None:
    windows = trial_windows(3, 600)
    assert windows.shape == (12, 3, 600) and windows.dtype == np.float32
    assert np.array_equal(windows, trial_windows(3, 600))
    assert np.isfinite(windows).all() and not windows[-1].any()
