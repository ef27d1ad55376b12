"""The Python interface: names, cost of importing, and EQCCTPro's parameters."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eqcctpro
from eqcctpro import RunEQCCTPro
from eqcctpro.errors import (
    RuntimeUnavailableError,
    SettingsError,
    UnknownModelError,
    WeightsNotFoundError,
)
from eqcctpro.resources.nvml import Gpu

HEAVY = [
    "torch",
    "ray",
    "tensorflow",
    "seisbench",
    "obspy",
    "matplotlib",
    "plotly",
    "fastapi",
    "pandas",
    "pyarrow",
]

# What EQCCTPro 0.8.2's RunEQCCTPro takes.
EQCCTPRO_PARAMETERS = [
    "use_gpu",
    "input_dir",
    "output_dir",
    "log_filepath",
    "p_model_filepath",
    "s_model_filepath",
    "number_of_concurrent_station_predictions",
    "number_of_concurrent_timechunk_predictions",
    "intra_threads",
    "inter_threads",
    "P_threshold",
    "S_threshold",
    "specific_stations",
    "csv_dir",
    "best_usecase_config",
    "vram_mb",
    "stations2use",
    "selected_gpus",
    "gpu_vram_safety_cap",
    "cudnn_headroom",
    "ram_safety_cap",
    "cpu_id_list",
    "start_time",
    "end_time",
    "timechunk_dt",
    "waveform_overlap",
    "tmp_dir",
    "model_type",
    "seisbench_parent_model",
    "seisbench_child_model",
    "Detection_threshold",
    "ripper",
    "ripper_ignore_cpu_ram_cap",
    "ignore_cpu_ram_cap",
]

SEISBENCH = {
    "input_dir": "in",
    "output_dir": "out",
    "model_type": "seisbench",
    "seisbench_parent_model": "EQTransformer",
    "seisbench_child_model": "original",
}


def settings(**changes: Any) -> dict[str, Any]:
    """Settings of a run that was asked for with EQCCTPro's names."""
    return RunEQCCTPro(**(SEISBENCH | changes)).config.model_dump()


def modules_after(code: str) -> set[str]:
    """Names of the modules that code leaves loaded, less those of an idle interpreter."""
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    loaded = modules_after("import eqcctpro")
    assert not {name for name in loaded if name.partition(".")[0] in HEAVY}
    assert len(loaded) < 60


@pytest.mark.slow
def test_settings_and_interface_need_nothing_heavy() -> None:
    loaded = modules_after("from eqcctpro import PickConfig, RunEQCCTPro, EQCCTProError")
    assert not {name for name in loaded if name.partition(".")[0] in HEAVY}


@pytest.mark.parametrize("name", eqcctpro.__all__)
def test_public_names_can_be_imported(name: str) -> None:
    assert getattr(eqcctpro, name) is not None
    assert name in dir(eqcctpro)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="EvaluateSystems"):
        eqcctpro.EvaluateSystems  # noqa: B018


def test_every_parameter_of_eqcctpro_is_there() -> None:
    assert set(EQCCTPRO_PARAMETERS) <= set(inspect.signature(RunEQCCTPro).parameters)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"use_gpu": True}, {"device": "cuda:0"}),
        ({"use_gpu": True, "selected_gpus": [1, 3]}, {"device": "cuda:1,3"}),
        ({"log_filepath": "logs/a.log"}, {"log_file": Path("logs/a.log")}),
        ({"number_of_concurrent_station_predictions": 3}, {"workers": 3}),
        ({"number_of_concurrent_timechunk_predictions": 2}, {"concurrent_timechunks": 2}),
        ({"intra_threads": 2}, {"threads": 2}),
        ({"P_threshold": 0.4}, {"p_threshold": 0.4}),
        ({"S_threshold": 0.4}, {"s_threshold": 0.4}),
        ({"Detection_threshold": 0.4}, {"detection_threshold": 0.4}),
        ({"P_threshold": None, "S_threshold": None}, {"p_threshold": None, "s_threshold": None}),
        ({"specific_stations": "B050, PB35"}, {"stations": ("B050", "PB35")}),
        ({"stations2use": 4}, {"stations_at_most": 4}),
        ({"ram_safety_cap": 0.5}, {"ram_safety_cap": 0.5}),
        ({"cpu_id_list": [0]}, {"cpu_ids": (0,)}),
        (
            {
                "start_time": "2024-12-15 12:00:00",
                "end_time": "2024-12-15 13:00:00",
                "timechunk_dt": 30,
                "waveform_overlap": 2,
            },
            {
                "start": "2024-12-15 12:00:00",
                "end": "2024-12-15 13:00:00",
                "timechunk": 30.0,
                "overlap": 2.0,
            },
        ),
        ({"tmp_dir": "/tmp"}, {"ray_temp_dir": Path("/tmp")}),
        ({"model_type": "SeisBench"}, {"model": "EQTransformer/original"}),
        ({"seisbench_child_model": "stead"}, {"model": "EQTransformer/stead"}),
        ({}, {"mode": "modelactor", "formats": ("csv", "parquet", "eqcctpro")}),
        ({"ripper": True}, {"mode": "ripper"}),
        ({"ignore_cpu_ram_cap": True}, {"ignore_ram_cap": True}),
        ({"ripper": True, "ignore_cpu_ram_cap": True}, {"ignore_ram_cap": True}),
        ({"ripper": True, "ripper_ignore_cpu_ram_cap": True}, {"ignore_ram_cap": True}),
        ({"mode": "local", "runtime": "openvino"}, {"mode": "local", "runtime": "openvino"}),
        ({"model_arguments": {"overlap": 0.5}}, {"model_arguments": {"overlap": 0.5}}),
        ({"bandpass": (1, 45)}, {"bandpass": (1.0, 45.0)}),
        ({"exclude": "B*", "layout": "sds"}, {"exclude": ("B*",), "layout": "sds"}),
    ],
)
def test_parameter_reaches_the_settings(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = settings(**given)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"input_dir": None}, "input_dir"),
        ({"output_dir": None}, "output_dir"),
        ({"P_threshold": 1.5}, "p_threshold"),
        ({"S_threshold": 0}, "s_threshold"),
        ({"Detection_threshold": -0.1}, "detection_threshold"),
        ({"number_of_concurrent_station_predictions": 0}, "workers"),
        ({"number_of_concurrent_timechunk_predictions": 0}, "concurrent_timechunks"),
        ({"intra_threads": 0}, "threads"),
        ({"ram_safety_cap": 0.99}, "ram_safety_cap"),
        ({"stations2use": 0}, "stations_at_most"),
        ({"start_time": "2024-12-15 12:00:00"}, "end_time"),
        ({"end_time": "2024-12-15 12:00:00"}, "start_time"),
        ({"start_time": "noon", "end_time": "2024-12-15 13:00:00"}, "noon"),
        (
            {"start_time": "2024-12-15 13:00:00", "end_time": "2024-12-15 12:00:00"},
            "not after",
        ),
        ({"timechunk_dt": 30}, "timechunk_dt"),
        ({"waveform_overlap": 2}, "waveform_overlap"),
        (
            {
                "start_time": "2024-12-15 12:00:00",
                "end_time": "2024-12-15 13:00:00",
                "timechunk_dt": 2,
                "waveform_overlap": 2,
            },
            "overlap",
        ),
        ({"model_type": "eqtransformer"}, "model_type"),
        ({"seisbench_parent_model": None}, "seisbench_parent_model"),
        ({"seisbench_child_model": None}, "seisbench_child_model"),
        ({"model_type": "eqcct"}, "seisbench_parent_model is for model_type='seisbench'"),
        ({"mode": "threads"}, "mode"),
        ({"runtime": "jax"}, "runtime"),
        ({"formats": ("xml",)}, "formats"),
        ({"bandpass": (45, 1)}, "bandpass"),
        ({"bandpass": "45"}, "bandpass: '45' is not two corners in Hz"),
        ({"mode": "local", "number_of_concurrent_station_predictions": 2}, "number_of_concurrent"),
        ({"mode": "local", "tmp_dir": "/tmp"}, "tmp_dir"),
        ({"mode": "local", "number_of_concurrent_timechunk_predictions": 2}, "timechunk_pred"),
        ({"mode": "local", "ripper": True}, "ripper is set and the mode is local"),
        ({"exclud": "B*"}, "there is no parameter exclud"),
        ({"start": "2024-12-15"}, "there is no parameter start"),
        ({"layout": "folders"}, "layout"),
    ],
)
def test_wrong_parameter_is_named_before_any_work(given: dict[str, Any], names: str) -> None:
    with pytest.raises(SettingsError, match=names) as caught:
        RunEQCCTPro(**(SEISBENCH | given))
    assert caught.value.exit_code == 2


GPU = "this run uses no GPU"
PHASENET = {"seisbench_parent_model": "PhaseNet"}


@pytest.mark.parametrize(
    ("given", "words", "settled"),
    [
        ({"vram_mb": 2000}, f"vram_mb=2000 has no effect: {GPU}", {"vram_mb": None}),
        ({"max_vram_mb": 2000}, f"max_vram_mb=2000 has no effect: {GPU}", {"max_vram_mb": None}),
        ({"cudnn_headroom": 0.5}, "cudnn_headroom=0.5", {"cudnn_headroom": 0.25}),
        ({"gpu_vram_safety_cap": 0.5}, "gpu_vram_safety_cap=0.5", {"gpu_vram_safety_cap": 0.95}),
        ({"selected_gpus": [0, 1]}, r"selected_gpus=\[0, 1\] has no effect", {"device": "cpu"}),
        ({"inter_threads": 4}, "inter_threads=4 has no effect", {"inter_threads": None}),
        ({"csv_dir": "csv"}, "csv_dir='csv' has no effect", {"mode": "modelactor"}),
        (
            {"p_model_filepath": "p.h5", "s_model_filepath": "s.h5"},
            "p_model_filepath='p.h5' has no effect: the model is EQTransformer/original; s_model_f",
            {"p_model": None, "s_model": None, "model": "EQTransformer/original"},
        ),
        (
            {"ripper_ignore_cpu_ram_cap": True},
            "ripper_ignore_cpu_ram_cap=True has no effect: the mode is modelactor",
            {"ignore_ram_cap": False},
        ),
        (
            {"model_arguments": {"copy": True, "parallelism": 4, "overlap": 0.5}},
            "copy=True has no effect.*parallelism=4 has no effect",
            {"model_arguments": {"overlap": 0.5}},
        ),
        (
            PHASENET | {"Detection_threshold": 0.3},
            "detection_threshold=0.3 has no effect: PhaseNet/original yields no detections",
            {"detection_threshold": None},
        ),
        (
            PHASENET | {"Detection_threshold": 0.3, "vram_mb": 2500, "cudnn_headroom": 0.2},
            "vram_mb=2500.*cudnn_headroom=0.2.*detection_threshold=0.3",
            {"detection_threshold": None, "vram_mb": None},
        ),
    ],
)
def test_what_has_no_effect_is_accepted_and_said_once(
    seisbench_cache: Path, given: dict[str, Any], words: str, settled: dict[str, Any]
) -> None:
    assert seisbench_cache.is_dir()  # PhaseNet is there
    with pytest.warns(eqcctpro.SettingsWarning, match=words) as caught:
        found = RunEQCCTPro(**(SEISBENCH | given)).config
    (warning,) = caught
    assert Path(warning.filename) == Path(__file__)
    assert {name: getattr(found, name) for name in settled} == settled


def test_the_command_line_says_what_has_no_effect(
    cli: Callable[..., Any], seisbench_cache: Path, labelled: Path, tmp_path: Path
) -> None:
    assert seisbench_cache.is_dir()
    source = next(labelled.glob("*/*"))
    options = ("--model", "PhaseNet/original", "--runtime", "torch", "--no-overview")
    options += ("--detection-threshold", "0.3", "--vram-mb", "2500", "--set", "copy=True")
    loud = cli("pick", source, "-o", tmp_path / "loud", *options)
    assert loud.exit_code == 0, loud.stderr
    for words in (
        f"vram_mb=2500 has no effect: {GPU}",
        "copy=True has no effect",
        "warning: detection_threshold=0.3 has no effect: PhaseNet/original yields no detections",
    ):
        assert loud.stderr.count(words) == 1, words
    quiet = cli("pick", source, "-o", tmp_path / "quiet", "-q", *options)
    assert (quiet.exit_code, quiet.stderr) == (0, "")


def test_what_equals_the_defaults_is_no_warning() -> None:
    given = {
        "vram_mb": None,
        "gpu_vram_safety_cap": 0.95,
        "cudnn_headroom": 0.25,
        "inter_threads": 1,
        "selected_gpus": [],
        "Detection_threshold": 0.3,
        "P_threshold": 0.001,
        "S_threshold": 0.02,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunEQCCTPro(**(SEISBENCH | given))


def test_published_defaults_in_their_order(seisbench_cache: Path) -> None:
    """Every parameter of EQCCTPro 0.8.2, by position and with its default there."""
    assert seisbench_cache.is_dir()
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    times = ("2024-12-15 12:00:00", "2024-12-15 12:01:00")
    files_and_workers = (None, None, 2, 1, 1, 1)
    picks = (0.001, 0.02, None, None, False, None, None)
    memory = (None, 0.95, 0.25, 0.90, [core])
    model = ("seisbench", "EQTransformer", "original", 0.3, False, False, False)
    config = RunEQCCTPro(
        *(False, "in", "out", "out/a.log", *files_and_workers, *picks, *memory),
        *(*times, 1, 0, None, *model),
    ).config
    assert (config.workers, config.cpu_ids, config.timechunk) == (2, (core,), 1.0)
    assert (config.p_threshold, config.s_threshold) == (0.001, 0.02)
    assert (config.detection_threshold, config.model) == (0.3, "EQTransformer/original")
    steps = (None, [core], 1, 1, 1, 1, 1, 1, False)
    with pytest.warns(eqcctpro.SettingsWarning, match="gpu_vram_safety_cap=0.9 has no effect"):
        sweep = eqcctpro.EvaluateSystem(
            *("cpu", "in", "out", "out/a.log", "csv", None, None, 0.001, 0.02, 1, 1),
            *(*steps, None, 0.90, 0.25, 0.90, None, *times, 1, 1, 0, None, *model),
        ).config
    assert (sweep.station_counts, sweep.concurrency_step) == (tuple(range(10, 101, 5)), 1)
    assert (sweep.cpu_counts, sweep.timechunk_concurrency) == ((1,), (1,))


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"seisbench_parent_model": "PhaseNett"}, UnknownModelError, "PhaseNett"),
        ({"seisbench_child_model": "./mine.pt"}, WeightsNotFoundError, "mine.pt"),
        ({"seisbench_child_model": "a b"}, WeightsNotFoundError, "a b"),
        ({"cpu_id_list": [0, 9999]}, SettingsError, r"cpu_id_list: cores \[9999\]"),
        ({"best_usecase_config": True}, SettingsError, "needs csv_dir"),
        ({"runtime": "tensorflow"}, RuntimeUnavailableError, "tensorflow runs EQCCT only"),
        (
            {"use_gpu": True, "runtime": "openvino"},
            SettingsError,
            "openvino on device cuda:0: it is used on the CPU only",
        ),
    ],
)
def test_model_cores_and_files_are_checked_before_the_run(
    given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        RunEQCCTPro(**(SEISBENCH | given))


def test_a_runtime_that_is_not_installed_is_named_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("eqcctpro.runtimes.select.find_spec", lambda _: None)
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime is not installed"):
        RunEQCCTPro(**SEISBENCH, runtime="onnxruntime")


def test_files_of_eqcct_say_that_eqcct_is_meant(test_data: Path) -> None:
    files = {
        f"{phase}_model_filepath": test_data / "models" / "eqcct" / name
        for phase, name in (("p", "test_trainer_024.h5"), ("s", "test_trainer_021.h5"))
    }
    with pytest.warns(eqcctpro.SettingsWarning, match="seisbench_parent_model='EQTransformer'"):
        config = RunEQCCTPro(**(SEISBENCH | files | {"model_type": "eqcct"})).config
    assert config.model == "EQCCT/original"


def test_missing_weight_file_is_named_before_the_run() -> None:
    with pytest.raises(WeightsNotFoundError, match="nowhere"):
        RunEQCCTPro(input_dir="in", output_dir="out", p_model_filepath="nowhere.h5")


def test_the_model_is_checked_without_torch(seisbench_cache: Path) -> None:
    code = f"""
import warnings
from eqcctpro import RunEQCCTPro
warnings.simplefilter("ignore")
config = RunEQCCTPro(**{SEISBENCH | PHASENET | {"Detection_threshold": 0.3}!r}).config
assert config.detection_threshold is None
"""
    assert seisbench_cache.is_dir()
    loaded = {name.partition(".")[0] for name in modules_after(code)}
    assert not loaded & {"torch", "seisbench", "obspy", "tensorflow", "ray"}


@pytest.mark.parametrize("gpus", [(), (0,), (0, 2)])
def test_gpus_are_all_that_are_visible_unless_named(
    gpus: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tuple(Gpu(index, "GPU", str(index), 8e4, 8e4, 0.0) for index in gpus)
    monkeypatch.setattr("eqcctpro.resources.nvml.read_gpus", lambda: (there, ""))
    numbers = ",".join(map(str, gpus or (0,)))
    assert settings(use_gpu=True)["device"] == f"cuda:{numbers}"
    assert settings(use_gpu=True, selected_gpus=[])["device"] == f"cuda:{numbers}"
    assert settings(use_gpu=True, mode="local")["device"] == "cuda:0"
    assert settings(use_gpu=True, selected_gpus=[1])["device"] == "cuda:1"


def test_what_classes_yield_is_what_their_models_say() -> None:
    import seisbench.models as sbm

    from eqcctpro.models.known_curves import known_curves
    from eqcctpro.models.weight_files import WeightFiles

    made = {
        name: getattr(sbm, name)()
        for name in ("CRED", "EQCCTP", "EQCCTS", "EQTransformer", "GPD", "OBSTransformer")
    }
    made |= {name: getattr(sbm, name)() for name in ("LFEDetect", "PhaseNet", "PhaseNetLight")}
    made["GPD"] = sbm.GPD(phases=["P", "S", "N"])
    for name, model in made.items():
        weights = WeightFiles(name, "mine", Path("none"), None, "1", name, "path")
        labels = [str(label) for label in model.labels or model.phases]
        phases = {label for label in labels if label in {"P", "S"}}
        assert known_curves(weights) == (phases, "Detection" in labels), name


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ({"phases": "NP"}, (frozenset("P"), False)),
        ({"phases": ["P", "S", "N"]}, (frozenset("PS"), False)),
        ({"labels": ["Detection", "P"]}, None),
        ({}, (frozenset("PS"), False)),
    ],
)
def test_what_weights_of_ones_own_yield(arguments: Any, known: Any, tmp_path: Path) -> None:
    from eqcctpro.models.known_curves import known_curves
    from eqcctpro.models.weight_files import WeightFiles

    described = tmp_path / "mine.json"
    described.write_text(json.dumps({"model_args": arguments}), encoding="utf-8")
    files = WeightFiles("PhaseNet", "mine", tmp_path / "mine.pt", described, "1", "0", "path")
    assert known_curves(files) == known


def test_a_threshold_without_effect_changes_no_pick(
    seisbench_cache: Path, labelled: Path, pick: Callable[..., Any]
) -> None:
    """PhaseNet picks the same with and without EQCCTPro's Detection_threshold."""
    assert seisbench_cache.is_dir()
    source = next(labelled.glob("*/*"))
    plain = pick(source, model="PhaseNet/original")
    with pytest.warns(eqcctpro.SettingsWarning, match="yields no detections"):
        given = pick(source, model="PhaseNet/original", detection_threshold=0.3)
    assert given.summary["settings"]["detection_threshold"] is None
    assert list(given.picks["time"]) == list(plain.picks["time"]) != []


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        RunEQCCTPro(**(SEISBENCH | {"P_threshold": 2, "mode": "threads"}))
    assert "p_threshold" in str(caught.value) and "mode" in str(caught.value)


@pytest.fixture(scope="module")
def small_run(
    imported_model: str,
    generated_network: tuple[Path, list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Any]:
    def run(**changes: Any) -> Any:
        parent, child = imported_model.split("/")
        given = {
            "input_dir": generated_network[0],
            "output_dir": tmp_path_factory.mktemp("api"),
            "model_type": "seisbench",
            "seisbench_parent_model": parent,
            "seisbench_child_model": child,
            "mode": "local",
            "runtime": "torch",
            "overview": False,
        }
        return RunEQCCTPro(**(given | changes)).run_eqcctpro()

    return run


@pytest.mark.slow
def test_run_returns_picks_counts_seconds_and_paths(small_run: Callable[..., Any]) -> None:
    result = small_run(specific_stations="DEM01")
    assert result.counts["done"] == 1 and result.counts["failed"] == 0
    assert result.counts["picks"] == len(result.picks) == result.table.num_rows == 4
    assert list(result.picks["phase"]) == ["P", "S", "P", "S"]
    assert result.seconds["pick"] > 0 and result.exit_code == 0
    for kind in ("picks_csv", "picks_parquet", "detections_csv", "summary", "log"):
        assert Path(result.paths[kind]).stat().st_size > 0, kind


@pytest.mark.slow
def test_thresholds_have_an_effect(small_run: Callable[..., Any]) -> None:
    usual = small_run(specific_stations="DEM01,DEM06").picks
    strict = small_run(specific_stations="DEM01,DEM06", P_threshold=0.88, S_threshold=0.86).picks
    for phase, threshold in (("P", 0.88), ("S", 0.86)):
        expected = usual[(usual["phase"] == phase) & (usual["probability"] >= threshold)]
        found = strict[strict["phase"] == phase]
        assert 0 < len(found) < (usual["phase"] == phase).sum()
        assert list(found["time"]) == list(expected["time"])


@pytest.mark.slow
def test_detection_threshold_has_an_effect(small_run: Callable[..., Any]) -> None:
    usual = small_run(specific_stations="DEM01").detections
    strict = small_run(specific_stations="DEM01", Detection_threshold=0.999999).detections
    assert usual.num_rows == 2 and strict.num_rows < 2


@pytest.mark.slow
def test_stations2use_takes_the_same_stations_every_time(small_run: Callable[..., Any]) -> None:
    first, second = (small_run(stations2use=2) for _ in range(2))
    assert first.counts["done"] == 2
    assert set(first.picks["station"]) == set(second.picks["station"])


@pytest.mark.slow
def test_log_filepath_gets_the_log(small_run: Callable[..., Any], tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    result = small_run(specific_stations="DEM01", log_filepath=log)
    assert log.read_text() == Path(result.paths["log"]).read_text() != ""


@pytest.mark.slow
def test_times_cut_the_record(small_run: Callable[..., Any]) -> None:
    times = {"start_time": "2024-12-15 12:01:00", "end_time": "2024-12-15 12:02:00"}
    result = small_run(specific_stations="DEM01", timechunk_dt=1, waveform_overlap=0.5, **times)
    assert len(result.picks) == 2
    assert result.picks["time"].min().strftime("%H:%M") == "12:01"
    assert set(result.picks["timechunk"]) == {"20241215T120030Z_20241215T120200Z"}


@pytest.mark.slow
def test_run_with_an_exported_model_imports_no_framework(
    imported_model: str, generated_network: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    code = f"""
from eqcctpro import PickConfig, run_picking
result = run_picking(PickConfig(
    input={str(generated_network[0])!r}, output={str(tmp_path)!r}, model={imported_model!r},
    runtime="RUNTIME", overview=False))
assert result.counts["done"] == 6 and result.counts["picks"] > 20
"""
    modules_after(code.replace("RUNTIME", "openvino"))  # exports where that was not yet done
    for runtime in ("openvino", "onnxruntime", "auto"):
        loaded = modules_after(code.replace("RUNTIME", runtime))
        assert not loaded & {"torch", "seisbench", "obspy", "tensorflow", "ray"}, runtime
