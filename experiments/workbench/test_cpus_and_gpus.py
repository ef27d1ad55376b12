"""Which configuration is fastest here?  A benchmark of models, modes, cores and GPUs.

    python experiments/workbench/test_cpus_and_gpus.py INPUT --mode cpu --arch both --model all

The options are those of EQCCTPro's script of this name.  Results go to a folder for each model and
mode, RESULTS/eval_cpu_phasenet_original_modelactor and so on, where `eqcctpro optimal`, `analyze`
and `plot` find them; what they hold is not measured again.  INPUT is an archive of time-chunk and
station folders: `eqcctpro dataset synthesize data/sample` makes one, in data/sample/waveforms.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from eqcctpro import EvaluateSystem
from eqcctpro.resources.hardware import available_cores

ROOT = Path(__file__).parents[2]
EQCCT_FILES = ROOT / "models" / "EQCCT"

#: Name of a model in the folders of results, and SeisBench's names.
MODELS = {
    "eqcct": ("eqcct", None),
    "phasenet": ("phasenet_original", ("PhaseNet", "original")),
    "eqtransformer": ("eqtransformer_original", ("EQTransformer", "original")),
    "phasenetlight": ("phasenetlight_stead", ("PhaseNetLight", "stead")),
    "eqtransformer_non_conservative": (
        "eqtransformer_nonconservative",
        ("EQTransformer", "original_nonconservative"),
    ),
}


def main() -> int:
    options = read_options()
    models = list(MODELS) if options.model == "all" else [options.model]
    modes = ["modelactor", "ripper"] if options.arch == "both" else [options.arch]
    failed = 0
    for mode in modes:
        for model in models:
            name, _ = MODELS[model]
            folder = options.results / f"eval_{options.mode}_{name}_{mode}"
            report = EvaluateSystem(
                input_dir=options.input,
                csv_dir=folder,
                output_dir=folder / "logs",
                log_filepath=folder / "logs" / "eqcctpro.log",
                ripper=mode == "ripper",
                **model_parameters(model),
                **parameters(options, mode),
            ).evaluate()
            failed += report.failed
    return 10 if failed else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path, help="archive of time-chunk and station folders")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "csv")
    parser.add_argument("--mode", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--arch", choices=["modelactor", "ripper", "both"], default="modelactor")
    parser.add_argument("--model", choices=[*MODELS, "all"], default="eqcct")
    parser.add_argument("--cpu_start", type=int, default=0, help="first core")
    parser.add_argument("--cpu_end", type=int, help="the core after the last; all by default")
    parser.add_argument("--gpus", help="such as 0,1; all by default")
    parser.add_argument("--max_vram_mb", type=float, help="GPU memory of all workers, MB")
    parser.add_argument("--conc_step", type=int, default=0, help="0 takes 20 to 100 %% in steps")
    parser.add_argument("--conc_max_only", action="store_true", help="all stations at once only")
    parser.add_argument("--stations_cap", type=int, help="only this number of stations")
    parser.add_argument("--single_cpu_block", action="store_true", help="only all of the cores")
    parser.add_argument("--ripper_ignore_cpu_ram_cap", action="store_true")
    parser.add_argument("--ignore_cpu_ram_cap", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def model_parameters(model: str) -> dict[str, Any]:
    _, names = MODELS[model]
    if names is not None:
        parent, child = names
        return {
            "model_type": "seisbench",
            "seisbench_parent_model": parent,
            "seisbench_child_model": child,
        }
    files = {"p": EQCCT_FILES / "test_trainer_024.h5", "s": EQCCT_FILES / "test_trainer_021.h5"}
    there = {f"{phase}_model_filepath": path for phase, path in files.items() if path.exists()}
    return {"model_type": "eqcct", **there}  # files that are not there are found by name


def parameters(options: argparse.Namespace, mode: str) -> dict[str, Any]:
    cores = [core for core in available_cores() if core >= options.cpu_start]
    if options.cpu_end is not None:
        cores = list(range(options.cpu_start, options.cpu_end))
    block = options.single_cpu_block
    gpus = None if options.gpus is None else [int(gpu) for gpu in options.gpus.split(",")]
    on_gpus = {"selected_gpus": gpus, "max_vram_mb": options.max_vram_mb}
    cap = options.stations_cap
    return {
        "eval_mode": options.mode,
        "cpu_id_list": cores,
        "min_cpu_amount": len(cores) if block else min(5, len(cores)),
        "cpu_test_step_size": 1 if block else 3,
        "stations2use": cap or 240,
        "starting_amount_of_stations": cap or 1,
        "conc_station_tasks_step_size": options.conc_step,
        "conc_station_tasks_max_only": options.conc_max_only,
        "ram_safety_cap": 0.95,
        "ripper_ignore_cpu_ram_cap": mode == "ripper" and options.ripper_ignore_cpu_ram_cap,
        "ignore_cpu_ram_cap": options.ignore_cpu_ram_cap,
        "repeats": options.repeats,
        **(on_gpus if options.mode == "gpu" else {}),
    }


if __name__ == "__main__":
    raise SystemExit(main())
