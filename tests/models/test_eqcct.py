"""EQCCT: its weight files, its two networks as one picker, its picking, and TensorFlow."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from eqcctpro import PickConfig, RunEQCCTPro
from eqcctpro.errors import (
    EQCCTProError,
    RuntimeUnavailableError,
    SettingsError,
    WeightsError,
    WeightsNotFoundError,
)
from eqcctpro.models.checksums import tensors_sha256
from eqcctpro.models.eqcct import VARIANTS, branch_state, describe_eqcct, find_eqcct
from eqcctpro.models.export import trial_windows
from eqcctpro.models.keras_import import import_weights
from eqcctpro.models.registry import find_known
from eqcctpro.models.weight_store import read_state, state_arrays
from eqcctpro.models.weights import find_weights
from eqcctpro.picks.window_peak import WindowPeaks, highest_peaks
from eqcctpro.runtimes.select import open_picker

SLOW = pytest.mark.slow
P_FILE, S_FILE = "test_trainer_024.h5", "test_trainer_021.h5"
needs_tensorflow = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)


@pytest.fixture(scope="session")
def files(test_data: Path) -> dict[str, Path]:
    """The authors' two files."""
    folder = test_data / "models" / "eqcct"
    if not folder.is_dir():
        pytest.skip(f"no weights in {folder}")
    return {"p_model": folder / P_FILE, "s_model": folder / S_FILE}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for weights, and nothing elsewhere."""
    import seisbench  # noqa: F401  (reads its cache's place once, on import)

    monkeypatch.setenv("EQCCTPRO_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path / "ours"))
    return tmp_path / "models"


# --- weight files -----------------------------------------------------------------


@pytest.mark.parametrize(("file", "name"), [(P_FILE, "EQCCTP"), (S_FILE, "EQCCTS")])
def test_import_gives_seisbench_weights(
    cache: Path, files: dict[str, Path], seisbench_cache: Path, file: str, name: str
) -> None:
    (made,) = import_weights(str(files["p_model"].with_name(file)))
    folder = cache / "models" / "v3" / name.lower()
    assert made.name == f"{name}/original"
    assert made.weight_path == folder / "original.pt.v1"
    assert (folder / "original.json.v1").is_file()
    ours = state_arrays(read_state(made.weight_path))
    reference = seisbench_cache / "models" / "v3" / name.lower() / "original.pt.v1"
    theirs = state_arrays(read_state(reference))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    known = find_known(made.name)
    assert known is not None and tensors_sha256(ours) == known.tensors_sha256


def test_imported_files_are_found_as_one_picker(cache: Path, files: dict[str, Path]) -> None:
    for path in files.values():
        import_weights(str(path))
    found = find_weights("eqcct", "original", fetch=False)
    assert found.name == "EQCCT/original"
    assert [part.name for part in found.parts] == ["EQCCTP/original", "EQCCTS/original"]
    assert [part.weight_path.parent.parent for part in found.parts] == [cache / "models/v3"] * 2
    picker = describe_eqcct(found)
    assert (picker.labels, picker.components, picker.in_samples) == (("P", "S"), "ENZ", 6000)
    assert picker.thresholds == {"P": 0.001, "S": 0.02} and picker.bandpass == (1.0, 45.0)


def test_one_network_alone_is_not_enough(cache: Path, files: dict[str, Path]) -> None:
    import_weights(str(files["p_model"]))
    with pytest.raises(WeightsNotFoundError, match="no weights EQCCTS/original") as error:
        find_weights("EQCCT", "original", fetch=False)
    assert error.value.hint is not None
    assert "test_trainer_021.h5 and run: eqcctpro models import FILE" in error.value.hint


def edited(source: Path, target: Path, edit: Callable[[h5py.File], None]) -> Path:
    shutil.copy(source, target)
    target.chmod(0o600)
    with h5py.File(target, "r+") as file:
        edit(file)
    return target


def without(layer: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        names = [name for name in file.attrs["layer_names"] if name not in (layer, layer.encode())]
        assert len(names) == len(file.attrs["layer_names"]) - 1
        file.attrs["layer_names"] = np.array(names, dtype="S")
        del file[layer]

    return edit


def reshaped(weight: str, shape: tuple[int, ...]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        path = f"{weight.partition('/')[0]}/{weight}:0"
        assert file[path].shape != shape
        del file[path]
        file[path] = np.zeros(shape, dtype=np.float32)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("conv1d_4"), r"'conv1d_4/kernel' is missing; its shape is \(11, 10, 10\)"),
        (without("dense_8"), r"'dense_8/kernel' is missing; its shape is \(40, 40\)"),
        (without("layer_normalization"), r"'layer_normalization/gamma' is missing"),
        (without("multi_head_attention_2"), r"'multi_head_attention_2/query/kernel' is missing"),
        (without("patch_encoder"), r"'patch_encoder/dense/kernel' is missing.*\(1600, 40\)"),
        (without("picker_P"), r"no last layer: 'picker_P' or 'picker_S', kernel \(15, 1, 1\)"),
        (
            reshaped("conv1d_6/kernel", (11, 20, 40)),
            r"'conv1d_6/kernel' has the shape \(11, 20, 40\), not \(11, 20, 20\)",
        ),
        (
            reshaped("picker_P/kernel", (11, 1, 1)),
            r"'picker_P/kernel' has the shape \(11, 1, 1\), not \(15, 1, 1\)",
        ),
    ],
)
def test_damaged_file_names_layer_and_shapes(
    cache: Path, files: dict[str, Path], tmp_path: Path, edit: Any, message: str
) -> None:
    path = edited(files["p_model"], tmp_path / "broken.h5", edit)
    for load in (
        lambda: import_weights(str(path)),
        lambda: find_eqcct("original", find_weights, p_model=path, s_model=files["s_model"]),
    ):
        with pytest.raises(WeightsError, match=message) as error:
            load()
        assert str(path) in error.value.message
    assert not cache.exists()


def test_swapped_files_are_detected(files: dict[str, Path], seisbench_cache: Path) -> None:
    p, s = files["p_model"], files["s_model"]
    with pytest.raises(WeightsError, match="holds EQCCT's S network, and was given as its P"):
        find_eqcct("original", find_weights, p_model=s, s_model=p)
    with pytest.raises(WeightsError, match="holds EQCCT's P network, and was given as its S"):
        find_eqcct("original", find_weights, p_model=p, s_model=p)
    folder = seisbench_cache / "models" / "v3"
    with pytest.raises(WeightsError, match="holds EQCCT's S network") as error:
        find_eqcct(
            "original", find_weights, p_model=folder / "eqccts" / "original.pt.v1", s_model=s
        )
    assert error.value.hint == "are the P and the S file swapped?"


def test_files_that_are_something_else(
    files: dict[str, Path], seisbench_cache: Path, tmp_path: Path
) -> None:
    text = tmp_path / "weights.h5"
    text.write_text("not HDF5")
    gpd = seisbench_cache / "models" / "v3" / "gpd" / "original.pt.v1"
    for path, message in (
        (text, "is not an HDF5 file"),
        (gpd, "holds no network of EQCCT: tensor .* is missing"),
        (tmp_path / "weights.onnx", "there is no weight file"),
        (Path(__file__), "is no weight file"),
    ):
        with pytest.raises(EQCCTProError, match=message) as error:
            find_eqcct("original", find_weights, p_model=path, s_model=files["s_model"])
        assert str(path) in error.value.message


def test_torch_and_keras_files_hold_the_same(files: dict[str, Path], seisbench_cache: Path) -> None:
    by_path = find_eqcct("original", find_weights, **files)
    by_name = find_eqcct("original", find_weights, fetch=False)
    assert by_path.name == by_name.name == "EQCCT/original"
    for one, other in zip(by_path.parts, by_name.parts, strict=True):
        assert one.weight_path.suffix == ".h5" and one.weight_path != other.weight_path
        assert tensors_sha256(branch_state(one)) == tensors_sha256(branch_state(other))


# --- download ---------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a server that stands for the authors' one."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        monkeypatch.setenv("EQCCTPRO_MIRROR", f"http://127.0.0.1:{web.server_port}/")
        yield folder
        web.shutdown()


def test_published_files_are_downloaded_once(
    cache: Path, server: Path, files: dict[str, Path]
) -> None:
    for path in files.values():
        shutil.copy(path, server)
    first = find_weights("EQCCT", "original")
    assert [part.source for part in first.parts] == ["download", "download"]
    for path in server.iterdir():
        path.unlink()
    again = find_weights("EQCCT", "original")
    assert [part.source for part in again.parts] == ["cache", "cache"]
    assert again.sha256 == first.sha256


def test_only_the_known_file_is_taken(cache: Path, server: Path, files: dict[str, Path]) -> None:
    shutil.copy(files["s_model"], server / P_FILE)
    with pytest.raises(WeightsNotFoundError, match="is not the known file: sha256 ccf3dae3"):
        find_weights("EQCCTP", "original")
    (server / P_FILE).unlink()
    with pytest.raises(WeightsNotFoundError, match="cannot be had: HTTP status 404"):
        find_weights("EQCCTP", "original")
    assert not cache.exists()


# --- picking ----------------------------------------------------------------------


def slow_peak(curve: np.ndarray, threshold: float) -> int:
    """The rule in words: higher than the one before, not lower than the one after."""
    best = -1
    for i in range(1, len(curve) - 1):
        if curve[i] > curve[i - 1] and curve[i] >= curve[i + 1] and curve[i] >= threshold:
            best = i if best < 0 or curve[i] > curve[best] else best
    return best


def test_highest_peak_of_every_window() -> None:
    random = np.random.default_rng(3)
    curves = random.integers(0, 9, (300, 40)).astype(np.float32) / 10
    curves[0], curves[1] = 0.5, np.linspace(0, 1, 40)  # flat, and highest at its end
    for threshold in (0.05, 0.5, 0.8):
        expected = [slow_peak(curve, threshold) for curve in curves]
        assert highest_peaks(curves, threshold).tolist() == expected
    assert expected[0] == expected[1] == -1


def bumps(length: int, *peaks: tuple[int, float]) -> np.ndarray:
    curve = np.zeros((length, 1), dtype=np.float32)
    for place, height in peaks:
        curve[place - 2 : place + 3, 0] = np.float32(height) * np.array([0.2, 0.6, 1, 0.6, 0.2])
    return curve


def peaks_of(offsets: list[int], curves: list[np.ndarray], split: int) -> Any:
    collected = WindowPeaks(np.array(offsets), [0.1], 100.0)
    stacked = np.stack(curves)
    for part in (stacked[:split], stacked[split:]):
        if len(part):
            assert not collected.complete
            collected.add(part)
    assert collected.complete
    return collected.triggers(0)


def test_arrival_seen_by_several_windows_is_one_pick() -> None:
    # The arrival at sample 500 is in three windows, which place it a little differently.
    curves = [
        bumps(600, (500, 0.5), (100, 0.4)),  # 500: the window's highest
        bumps(600, (90, 0.8)),  # 410 + 90
        bumps(600, (31, 0.7), (400, 0.6)),  # 470 + 31
        bumps(600, (50, 0.09)),  # too low
    ]
    for split in range(5):
        found = peaks_of([0, 410, 470, 900], curves, split)
        assert found.peak.tolist() == [500]
        assert found.value.tolist() == [np.float32(0.8)]
        assert (found.onset.tolist(), found.end.tolist()) == ([498], [502])


def test_arrivals_further_apart_are_kept() -> None:
    curves = [bumps(600, (500, 0.5)), bumps(600, (152, 0.8))]
    found = peaks_of([0, 400], curves, 1)  # 500 and 552: more than half a second apart
    assert found.peak.tolist() == [500, 552]
    assert peaks_of([0, 398], curves, 1).peak.tolist() == [550]


def test_bandpass_is_obspys() -> None:
    from obspy import Trace

    from eqcctpro.waveform.conditioning import Bandpass, Conditioning, condition
    from eqcctpro.waveform.segments import ChannelCode, Segment

    random = np.random.default_rng(0)
    for samples, rate in ((9001, 100.0), (700, 100.0), (6000, 80.0), (9001, 50.0)):
        data = 50 + np.cumsum(random.standard_normal(samples))
        trace = Trace(data.copy(), header={"sampling_rate": rate})
        with warnings.catch_warnings():
            # It warns of tapers longer than the trace, and that 90 Hz leave only a high-pass.
            warnings.simplefilter("ignore")
            trace.detrend("demean").taper(5 / (samples / rate), type="cosine")
            trace.filter("bandpass", freqmin=1, freqmax=45, corners=2, zerophase=True)
        segment = Segment(ChannelCode("A", "B", "", "HHZ"), 0, rate, data)
        (ours,) = condition([segment], Conditioning(None, bandpass=Bandpass()))
        np.testing.assert_allclose(ours.samples, trace.data, atol=1e-9)


@pytest.mark.slow
def test_normalisation_is_eqcctpros(files: dict[str, Path]) -> None:
    import torch

    from eqcctpro.models.eqcct_curves import load_eqcct

    windows = trial_windows(3, 6000)
    windows[0, 1] = 12345.0  # a dead channel
    centred = windows.astype(np.float64) - windows.astype(np.float64).mean(axis=-1, keepdims=True)
    deviation = centred.std(axis=-1, keepdims=True)
    deviation[deviation == 0] = 1
    prepared = torch.from_numpy((centred / deviation).astype(np.float32))
    module = load_eqcct(find_eqcct("original", find_weights, **files))
    with torch.no_grad():
        expected = torch.cat([network(prepared) for network in module.networks], dim=1)
        found = module(torch.from_numpy(windows))
    assert found.shape == (12, 6000, 2)
    assert float((found.transpose(1, 2) - expected).abs().max()) < 1e-5
    assert float(expected.max()) > 0.5


# --- settings ---------------------------------------------------------------------


def test_files_choose_the_model() -> None:
    assert PickConfig.checked(input="a", output="b", p_model="p.h5").model == "EQCCT/original"
    with pytest.raises(SettingsError, match="p_model is for the model EQCCT"):
        PickConfig.checked(input="a", output="b", p_model="p.h5", model="PhaseNet/original")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_arguments": {"variant": "other"}}, "variant: 'other' is not known"),
        ({"model_arguments": {"stacking": "avg"}}, "stacking: .* which are not joined"),
        ({"model_arguments": {"blinding": "5,5"}}, "blinding: .* which are not joined"),
        ({"model": "EQCCT/nothing"}, "no weights EQCCTP/nothing"),
        ({"model": "EQCCT/x.h5"}, "which has two networks"),
    ],
)
def test_wrong_settings(
    pick: Any, labelled: Path, seisbench_cache: Path, settings: Any, message: str
) -> None:
    with pytest.raises(EQCCTProError, match=message):
        pick(labelled, **({"model": "EQCCT/original"} | settings))


def test_tensorflow_runs_eqcct_only(pick: Any, labelled: Path, seisbench_cache: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="tensorflow runs EQCCT only"):
        pick(labelled, model="PhaseNet/original", runtime="tensorflow")


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed")
@pytest.mark.parametrize(
    "mode", ["local", pytest.param("modelactor", marks=pytest.mark.exhaustive)]
)
def test_missing_tensorflow_says_what_installs_it(
    pick: Any, labelled: Path, files: dict[str, Path], mode: str
) -> None:
    with pytest.raises(RuntimeUnavailableError, match="tensorflow is not installed") as error:
        pick(labelled, **files, runtime="tensorflow", mode=mode)
    assert error.value.hint == "pip install 'eqcctpro[tensorflow]'"


# --- real records -----------------------------------------------------------------


def hits(picks: pd.DataFrame, analyst: pd.DataFrame, phase: str) -> int:
    """Records with a pick within 0.5 s of the analyst's."""
    keys = ["timechunk", "network", "station"]
    joined = analyst.merge(picks[picks.phase == phase], on=keys)
    times = pd.to_datetime(joined[f"{phase.lower()}_time"])
    near = (joined.time - times).abs() <= pd.Timedelta(seconds=0.5)
    return len(joined[near].drop_duplicates(keys))


@pytest.fixture(scope="module")
def records(
    labelled: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Path:
    """The labelled records; in the ordinary suite those of two of their five time chunks."""
    if pytestconfig.getoption("--exhaustive"):
        return labelled
    folder = tmp_path_factory.mktemp("records")
    for chunk in sorted(path for path in labelled.iterdir() if path.is_dir())[:2]:
        (folder / chunk.name).symlink_to(chunk)
    return folder


@pytest.fixture(scope="module")
def picked(
    pick: Any, records: Path, files: dict[str, Path], seisbench_cache: Path
) -> Callable[..., Any]:
    """A run on the labelled records; kept for the module."""

    @functools.cache
    def run(variant: str, runtime: str, mode: str = "local", **settings: Any) -> Any:
        arguments = {"variant": variant}
        if mode != "local":
            settings |= {"workers": 2, "ignore_ram_cap": True}
        return pick(
            records, **files, runtime=runtime, mode=mode, model_arguments=arguments, **settings
        )

    return run


# Regression values: these records are not independent of what pickers were trained on.
@pytest.mark.parametrize(
    ("variant", "counts", "found"),
    [
        pytest.param("eqcctpro", (154, 106), (97, 100), marks=pytest.mark.exhaustive),
        pytest.param("seisbench", (117, 87), (98, 81), marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.slow
def test_hits_on_the_labelled_records(
    picked: Any, test_data: Path, variant: str, counts: Any, found: Any
) -> None:
    analyst = pd.read_csv(test_data / "waveforms" / "picks.csv", dtype={"station": str})
    result = picked(variant, "onnxruntime")
    assert tuple((result.picks.phase == phase).sum() for phase in "PS") == counts
    assert tuple(hits(result.picks, analyst, phase) for phase in "PS") == found
    assert result.summary["weights"]["files"] == [
        str(test_data / "models" / "eqcct" / name) for name in (P_FILE, S_FILE)
    ]


def assert_same_picks(found: pd.DataFrame, expected: pd.DataFrame, tolerance: float) -> None:
    order = ["timechunk", "network", "station", "phase", "time"]
    found, expected = (p.sort_values(order, ignore_index=True) for p in (found, expected))
    assert len(found) == len(expected)
    assert found[order[:-1]].equals(expected[order[:-1]])
    assert (found.time - expected.time).abs().max() <= pd.Timedelta(seconds=0.01)
    assert (found.probability - expected.probability).abs().max() < tolerance


@pytest.mark.parametrize(
    "variant",
    [
        one if one == "eqcctpro" else pytest.param(one, marks=pytest.mark.exhaustive)
        for one in VARIANTS
    ],
)
@pytest.mark.slow
def test_exported_networks_give_the_picks_of_torch(picked: Any, variant: str) -> None:
    expected = picked(variant, "torch").picks
    for runtime in ("onnxruntime", "openvino"):
        assert_same_picks(picked(variant, runtime).picks, expected, 1e-4)


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["modelactor", "ripper"])
def test_modes_give_identical_picks(picked: Any, mode: str) -> None:
    expected = picked("eqcctpro", "openvino")
    result = picked("eqcctpro", "openvino", mode)
    assert result.table.equals(expected.table)


@SLOW
def test_seisbench_variant_is_seisbenchs(picked: Any, records: Path) -> None:
    import obspy
    import seisbench.models as sbm

    networks = [sbm.EQCCTP.from_pretrained("original"), sbm.EQCCTS.from_pretrained("original")]
    rows = []
    for folder in sorted(records.glob("*/*"))[:25]:
        stream = obspy.read(str(folder / "*.mseed"))
        for network in networks:
            for found in network.classify(stream).picks:
                time = pd.Timestamp(found.peak_time.datetime, tz="UTC")
                place = found.trace_id.split(".")
                key = (folder.parent.name, *place[:2], found.phase)
                rows.append((*key, time, found.peak_value))
    names = ["timechunk", "network", "station", "phase", "time", "probability"]
    expected = pd.DataFrame(rows, columns=names)
    ours = picked("seisbench", "torch").picks
    folders = expected[["timechunk", "station"]].drop_duplicates()
    ours = ours.merge(folders, on=["timechunk", "station"])
    assert len(expected) > 30
    assert_same_picks(ours, expected.astype({"time": ours.time.dtype}), 1e-5)


@SLOW
def test_chunks_of_a_record_give_its_picks(
    pick: Any, continuous: Path, files: dict[str, Path]
) -> None:
    span = {"start": "2024-02-03T05:20:00", "end": "2024-02-03T06:00:00"}
    settings = {**files, "runtime": "onnxruntime", **span}
    whole = pick(continuous, **settings).picks.drop(columns=["timechunk", "run_id"])
    cut = pick(continuous, **settings, timechunk=10, overlap=2).picks
    assert cut.timechunk.nunique() > 1
    assert len(whole) > 50
    pd.testing.assert_frame_equal(cut.drop(columns=["timechunk", "run_id"]), whole, atol=1e-5)


@SLOW
@pytest.mark.parametrize(
    "mode",
    ["local", *(pytest.param(m, marks=pytest.mark.exhaustive) for m in ("modelactor", "ripper"))],
)
def test_run_eqcctpro_with_eqcct(
    records: Path, files: dict[str, Path], tmp_path: Path, picked: Any, mode: str
) -> None:
    run = RunEQCCTPro(
        input_dir=records,
        output_dir=tmp_path,
        p_model_filepath=str(files["p_model"]),
        s_model_filepath=str(files["s_model"]),
        mode=mode,
        number_of_concurrent_station_predictions=None if mode == "local" else 2,
        runtime="openvino",
        overview=False,
    )
    result = run.run_eqcctpro()
    expected = picked("eqcctpro", "openvino").picks
    assert_same_picks(result.picks, expected, 1e-5)
    (csv,) = tmp_path.glob("20260101T000000Z_*/SQK_outputs/X_prediction_results.csv")
    assert len(pd.read_csv(csv)) >= 1


@SLOW
def test_default_worker_imports_no_framework(picked: Any, files: dict[str, Path]) -> None:
    picked("eqcctpro", "openvino")  # exports, where that has not been done
    code = (
        "import sys; from pathlib import Path\n"
        "from eqcctpro.models.eqcct import find_eqcct\n"
        "from eqcctpro.models.weights import find_weights\n"
        "from eqcctpro.runtimes.select import open_picker\n"
        "paths = dict(zip(('p_model', 's_model'), map(Path, sys.argv[1:]), strict=True))\n"
        "files = find_eqcct('original', find_weights, **paths)\n"
        "open_picker(files, runtime='openvino')\n"
        "print(sorted({'torch', 'tensorflow', 'keras', 'seisbench'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(files["p_model"]), str(files["s_model"])]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    assert ran.stdout.strip() == "[]"


# --- TensorFlow -------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("variant", VARIANTS)
def test_tensorflow_gives_the_curves_of_torch(files: dict[str, Path], variant: str) -> None:
    weights = find_eqcct("original", find_weights, **files, variant=variant)
    windows = trial_windows(3, 6000)
    windows[0, 1] = 12345.0
    curves = {}
    for runtime in ("tensorflow", "torch"):
        _, opened = open_picker(weights, runtime=runtime, batch_size=12)
        curves[runtime] = opened.predict(windows).copy()
        opened.close()
        with pytest.raises(RuntimeError, match="closed"):
            opened.predict(windows)
    assert curves["torch"].max() > 0.5
    assert np.abs(curves["tensorflow"] - curves["torch"]).max() < 1e-5


@needs_tensorflow
@SLOW
@pytest.mark.parametrize("variant", VARIANTS)
def test_tensorflow_gives_the_picks_of_the_others(picked: Any, variant: str) -> None:
    expected = picked(variant, "tensorflow")
    assert expected.summary["runtime"] == "tensorflow"
    for runtime in ("torch", "openvino"):
        assert_same_picks(picked(variant, runtime).picks, expected.picks, 1e-4)


@needs_tensorflow
@SLOW
@pytest.mark.parametrize("mode", ["modelactor", "ripper"])
def test_tensorflow_in_ray_workers(picked: Any, mode: str) -> None:
    result = picked("eqcctpro", "tensorflow", mode, inter_threads=2, threads=1)
    assert_same_picks(result.picks, picked("eqcctpro", "tensorflow").picks, 1e-5)


@needs_tensorflow
def test_tensorflow_without_the_gpu_that_is_asked_for(files: dict[str, Path]) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"GPUs, and not cuda:77"):
        open_picker(
            find_eqcct("original", find_weights, **files), runtime="tensorflow", device="cuda:77"
        )
