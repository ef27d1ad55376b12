"""Scripts that were written for EQCCTPro run as they are, each in a process of its own.

The calls are those of EQCCTPro 0.8.2's and 0.3's documentation, with paths of the test's.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from finder_tables import Write, ours
from repository import ROOT
from user_program import as_script

SLOW = pytest.mark.slow
CORES = sorted(os.sched_getaffinity(0))

# "Running SeisBench PhaseNet on GPU"; here with input, output, and a CPU.
PHASENET = """
from eqcctpro import RunEQCCTPro

runner = RunEQCCTPro(
    model_type="seisbench",
    seisbench_parent_model="PhaseNet",
    seisbench_child_model="original",
    Detection_threshold=0.3,
    use_gpu=GPU,
    selected_gpus=[0, 1],
    vram_mb=2500,
    number_of_concurrent_station_predictions=WORKERS,
    number_of_concurrent_timechunk_predictions=2,
    start_time="2024-12-15 12:00:00",
    end_time="2024-12-15 13:00:00",
    timechunk_dt=30,
    waveform_overlap=2,
    PATHS
)
result = runner.run_eqcctpro()
"""

# "Evaluating GPU Performance".
EVALUATION = """
from eqcctpro import EvaluateSystem

evaluation = EvaluateSystem(
    eval_mode="MODE",
    model_type="seisbench",
    seisbench_parent_model="PhaseNet",
    seisbench_child_model="original",
    selected_gpus=[0, 1],
    max_vram_mb=48000,
    gpu_vram_safety_cap=0.95,
    ram_safety_cap=0.95,
    stations2use=STATIONS,
    cpu_id_list=CORES,
    input_dir="archive",
    csv_dir="results",
    MORE
)
evaluation.evaluate()
"""

# The example of EQCCTPro 0.3, and the options that came with 0.4; on the CPU.
SEED_RUNNER = """
from eqcctpro import EQCCTMSeedRunner

eqcct_runner = EQCCTMSeedRunner(
    use_gpu=False,
    intra_threads=1,
    inter_threads=1,
    cpu_id_list=CORES,
    input_dir="CHUNK",
    output_dir="outputs",
    log_filepath="outputs/eqcctpro.log",
    P_threshold=0.001,
    S_threshold=0.02,
    p_model_filepath="P_MODEL",
    s_model_filepath="S_MODEL",
    number_of_concurrent_predictions=2,
    best_usecase_config=False,
    csv_dir="csv",
    selected_gpus=[0],
    set_vram_mb=24750,
    specific_stations="DEM01, DEM03",
)
eqcct_runner.run_eqcctpro()
"""


@pytest.fixture
def folder(network: Path, tmp_path: Path) -> Path:
    """A working folder with an archive in it."""
    assert network.name == "archive"
    return tmp_path


def phasenet(gpu: bool = False, workers: int = 1, paths: str = "") -> str:
    text = PHASENET.replace("GPU,", f"{gpu},").replace("WORKERS", str(workers))
    return text.replace("PATHS", paths)


def evaluation(mode: str, stations: int, more: str = "") -> str:
    text = EVALUATION.replace("MODE", mode).replace("STATIONS", str(stations))
    return text.replace("CORES", str(CORES[:1])).replace("MORE", more)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def warnings_in(text: str) -> list[str]:
    """Warnings about settings on standard error, less those of libraries."""
    return re.findall(r"^(.*)SettingsWarning: (.*)$", text, re.MULTILINE)


@pytest.mark.slow
class TestRuns:
    def test_the_example_without_paths_says_what_is_missing(self, folder: Path) -> None:
        ended = as_script(phasenet(gpu=True), folder)
        assert ended.code == 1
        assert "input_dir, output_dir must be given" in ended.err.splitlines()[-1]

    def test_the_example_in_this_process_on_the_cpu(
        self, folder: Path, seisbench_cache: Path
    ) -> None:
        assert seisbench_cache.is_dir()
        paths = 'input_dir="archive", output_dir="out", mode="local", overview=False,'
        text = phasenet(paths=paths).replace("    number_of_concurrent", "    # ")
        ended = as_script(text + "say(picks=len(result.picks))", folder)
        assert ended.result["picks"] > 10
        ((where, what),) = warnings_in(ended.err)
        assert "script.py:" in where
        for name in ("Detection_threshold=0.3", "selected_gpus=[0, 1]", "vram_mb=2500"):
            assert name.lower() in what.lower()

    @SLOW
    @pytest.mark.parametrize("ripper", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
    def test_the_example_on_ray(self, folder: Path, seisbench_cache: Path, ripper: bool) -> None:
        assert seisbench_cache.is_dir()
        paths = f'input_dir="archive", output_dir="out", log_filepath="log/a.log", ripper={ripper},'
        ended = as_script(phasenet(workers=2, paths=paths), folder)
        assert ended.code == 0, ended.err
        assert len(warnings_in(ended.err)) == 1
        found = list((folder / "out").glob("*/DEM0*_outputs/X_prediction_results.csv"))
        assert len(found) == 6
        assert (folder / "log" / "a.log").stat().st_size > 0


@pytest.mark.slow
class TestSeedRunner:
    def text(self, folder: Path, cores: list[int], p: object = "", s: object = "") -> str:
        (chunk,) = (folder / "archive").iterdir()
        text = SEED_RUNNER.replace("CORES", str(cores)).replace("CHUNK", str(chunk))
        return text.replace("P_MODEL", str(p)).replace("S_MODEL", str(s))

    @SLOW
    def test_the_example(self, folder: Path, test_data: Path) -> None:
        models = test_data / "models" / "eqcct"
        p, s = models / "test_trainer_024.h5", models / "test_trainer_021.h5"
        ended = as_script(self.text(folder, CORES, p, s), folder)
        assert ended.code == 0, ended.err
        assert "DeprecationWarning: EQCCTMSeedRunner is now RunEQCCTPro" in ended.err
        ((where, what),) = warnings_in(ended.err)
        assert "script.py:" in where
        for name in ("set_vram_mb=24750", "selected_gpus=[0]", "csv_dir='csv'"):
            assert name in what
        found = sorted((folder / "outputs").glob("*/*_outputs/X_prediction_results.csv"))
        assert [path.parent.name for path in found] == ["DEM01_outputs", "DEM03_outputs"]
        assert all(len(rows(path)) > 1 for path in found)

    def test_what_its_parameters_become(self, folder: Path, imported_model: str) -> None:
        parent, child = imported_model.split("/")
        ended = as_script(
            f"""
            import warnings
            warnings.simplefilter("ignore")
            from eqcctpro import EQCCTMSeedRunner
            from eqcctpro.errors import SettingsError

            common = dict(
                input_dir="archive", output_dir="out", model_type="seisbench",
                seisbench_parent_model={parent!r}, seisbench_child_model={child!r},
            )
            config = EQCCTMSeedRunner(
                True, **common, number_of_concurrent_predictions=3, set_vram_mb=9000,
                selected_gpus=[1], timechunk_dt=None, waveform_overlap=None,
                number_of_concurrent_timechunk_predictions=None,
            ).config
            refused = []
            both = dict(
                number_of_concurrent_predictions=3, number_of_concurrent_station_predictions=4
            )
            for wrong in (both, dict(vram_per_task=3)):
                try:
                    EQCCTMSeedRunner(False, **common, **wrong)
                except SettingsError as error:
                    refused.append(str(error))
            say(config=config.model_dump(mode="json"), refused=refused)
            """,
            folder,
        )
        config, refused = ended.result["config"], ended.result["refused"]
        assert (config["workers"], config["max_vram_mb"], config["vram_mb"]) == (3, 9000, None)
        assert (config["device"], config["timechunk"]) == ("cuda:1", None)
        assert "are the same parameter" in refused[0]
        assert "no parameter vram_per_task" in refused[1]


class TestBenchmarks:
    @pytest.mark.slow
    def test_without_the_gpus_it_asks_for_nothing_is_measured(
        self, folder: Path, seisbench_cache: Path
    ) -> None:
        assert seisbench_cache.is_dir()
        ended = as_script(evaluation("gpu", 100), folder, CUDA_VISIBLE_DEVICES="")
        assert ended.code == 1
        assert "RuntimeUnavailableError" in ended.err.splitlines()[-1]
        assert not list(folder.glob("results/*.csv"))

    @SLOW
    def test_the_example_on_the_cpu(self, folder: Path, seisbench_cache: Path) -> None:
        assert seisbench_cache.is_dir()
        more = 'start_time="2024-12-15 12:00:00", end_time="2024-12-15 12:02:00", timechunk_dt=2,'
        more += " Detection_threshold=0.3, conc_station_tasks_max_only=True, repeats=1,"
        ended = as_script(evaluation("cpu", 2, more), folder)
        assert ended.code == 0, ended.err
        assert len(warnings_in(ended.err)) == 1
        (row,) = rows(folder / "results" / "cpu_test_results.csv")
        assert (row["Trial Success"], row["Model Used"]) == ("1", "PhaseNet/original")
        assert row["Number of Concurrent Station Tasks"] == "2"
        finder = """
            from eqcctpro import OptimalCPUConfigurationFinder

            finder = OptimalCPUConfigurationFinder(results_dir="results")
            best = finder.find_best_overall_usecase()
            exact = finder.find_optimal_for(cpu=1, station_count=2)
            say(best=best.seconds, exact=exact.seconds)
        """
        answer = as_script(finder, folder).result
        assert answer["best"] == answer["exact"] > 0

    def test_finders_of_gpus(self, folder: Path, write_trials: Write) -> None:
        results = write_trials(
            [ours(50, 4, 9.0, gpus=(0,)), ours(50, 4, 5.0, gpus=(0,), workers=2)], "gpu"
        )
        ended = as_script(
            f"""
            from eqcctpro import OptimalGPUConfigurationFinder

            finder = OptimalGPUConfigurationFinder(results_dir={str(results)!r})
            best_config = finder.find_best_overall_usecase()
            specific = finder.find_optimal_for(num_cpus=4, gpu_list=[0], station_count=50)
            say(best=best_config.seconds, specific=specific.seconds)
            """,
            folder,
        )
        assert ended.result == {"best": 5.0, "specific": 5.0}


def test_helpers_that_scripts_import(folder: Path) -> None:
    ended = as_script(
        """
        from eqcctpro.parallelization import (
            EQCCT_CPU_RAM_MB, EQCCT_GPU_RAM_MB, EQCCT_GPU_VRAM_MB, RAM_BUFFER_MB,
            SEISBENCH_MODEL_CPU_RAM_MB, SEISBENCH_MODEL_RAM_MB, SEISBENCH_MODEL_VRAM_MB,
            VRAM_BUFFER_MB, get_eqcct_ram_mb, get_eqcct_vram_mb, get_seisbench_model_ram_mb,
            get_seisbench_model_vram_mb, get_seisbench_model_vram_mb_ripper,
        )
        from eqcctpro.timing_util import cuda_synchronize_best_effort, monotonic_s
        from eqcctpro.tools import (
            CANONICAL_CSV_HEADER, build_station_list_from_dir, generate_station_list,
        )
        from pathlib import Path

        started = monotonic_s()
        cuda_synchronize_best_effort()
        (chunk,) = Path("archive").iterdir()
        say(
            seconds=monotonic_s() - started,
            header=CANONICAL_CSV_HEADER,
            stations=build_station_list_from_dir(str(chunk)),
            steps=generate_station_list(1, 13, 1),
            tables=[
                len(SEISBENCH_MODEL_VRAM_MB), SEISBENCH_MODEL_RAM_MB["PhaseNet", "stead"],
                SEISBENCH_MODEL_CPU_RAM_MB["GPD", "original"], EQCCT_CPU_RAM_MB,
                EQCCT_GPU_RAM_MB, EQCCT_GPU_VRAM_MB, RAM_BUFFER_MB, VRAM_BUFFER_MB,
            ],
            needs=[
                get_eqcct_ram_mb(), get_eqcct_ram_mb(use_gpu=False), get_eqcct_vram_mb(),
                get_seisbench_model_ram_mb("PhaseNet", "original"),
                get_seisbench_model_ram_mb("PhaseNet", "original", use_gpu=False),
                get_seisbench_model_vram_mb("PhaseNet", "original"),
                get_seisbench_model_vram_mb_ripper("EQTransformer", "original"),
                get_seisbench_model_vram_mb("Other", "weights", default_mb=600),
            ],
        )
        """,
        folder,
    )
    said = ended.result
    assert 0 <= said["seconds"] < 5
    assert len(said["header"]) == 38
    assert (said["header"][0], said["header"][-1]) == ("Trial Number", "Stations Used")
    assert said["stations"] == [f"DEM{number:02d}" for number in range(1, 7)]
    assert said["steps"] == [10, 11, 12, 13]
    # EQCCTPro 0.8.2's numbers.
    assert said["tables"] == [17, 889, 576, 728, 2311, 1732, 1536, 1024]
    assert said["needs"] == [3847, 2264, 2756, 2406, 2038, 1524, 1056, 1624]


class TestExamples:
    def run(self, folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

    @pytest.mark.exhaustive
    def test_a_production_run(self, folder: Path, imported_model: str) -> None:
        script = ROOT / "experiments" / "main" / "run.py"
        options = ("--model", imported_model, "--workers", "1", "--stations", "DEM01")
        done = self.run(folder, script, "archive", "out", *options)
        assert done.returncode == 0, done.stderr
        assert "4 picks of 1 station tasks" in done.stdout
        assert (folder / "out" / "eqcctpro.log").exists()

    @pytest.mark.exhaustive
    def test_a_benchmark(self, folder: Path, imported_model: str) -> None:
        assert imported_model == "EQTransformer/original"
        script = ROOT / "experiments" / "workbench" / "test_cpus_and_gpus.py"
        options = ["--model", "eqtransformer", "--stations_cap", "2", "--conc_max_only"]
        options += ["--cpu_start", str(CORES[0]), "--cpu_end", str(CORES[0] + 1)]
        options += ["--single_cpu_block", "--repeats", "1", "--results", "results"]
        done = self.run(folder, script, "archive", *options)
        assert done.returncode == 0, done.stderr
        results = folder / "results" / "eval_cpu_eqtransformer_original_modelactor"
        (row,) = rows(results / "cpu_test_results.csv")
        assert (row["Trial Success"], row["N ModelActors"]) == ("1", "2")

    @SLOW
    @pytest.mark.usefixtures("imported_model")
    def test_the_sample_archive(self, folder: Path) -> None:
        text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        bin_folder = str(Path(sys.executable).parent)
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=folder,
            env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "230 done" in done.stdout
        archive = folder / "data" / "sample" / "waveforms"
        (chunk,) = archive.iterdir()
        assert chunk.name == "20241215T120000Z_20241215T120100Z"
        assert len(list(chunk.iterdir())) == 230
