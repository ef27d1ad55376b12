"""The files that a sweep ends with: what was fastest, group by group, and over all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER, CONCURRENCY
from eqcctpro.evaluation.configuration import BestConfiguration
from eqcctpro.evaluation.ranking import best_overall, usable
from eqcctpro.evaluation.results import EvalMode, Trial, read_results
from eqcctpro.picks.writers import atomic_file

__all__ = ["BEST_COLUMNS", "write_finder_files"]

_FIRST: Final = (
    "Trial Number",
    "Number of Stations Used",
    "Total Number of Timechunks",
    "Concurrent Timechunks Used",
    "Length of Timechunk (min)",
    "Total Waveform Analysis Timespace (min)",
    f"{CONCURRENCY} per Timechunk",
    "Number of CPUs Allocated for Ray to Use",
)
_GPU: Final = ("GPUs Used", "Inference Actor Memory Limit (MB)")
_LAST: Final = (
    "Intra-parallelism Threads",
    "Inter-parallelism Threads",
    "Total Run time for Picker (s)",
    "Model Used",
    "Trial Success",
    "Error Message",
)
_OURS: Final = (
    "Mode",
    "N ModelActors",
    "Workers",
    "Runtime",
    "Device",
    "Batch Size",
    "Settings (JSON)",
    "Repeats",
    "Picker Time Min (s)",
    "Picker Time Max (s)",
    "Picker Time Spread (%)",
    "Total Trial Time (s)",
    "Stations per Second",
    "Peak RAM (MB)",
    "Peak PSS (MB)",
    "Process Tree VRAM (MB)",
    "Runner-up Trial Number",
    "Margin (%)",
    "Tie",
    "Configuration ID",
    "Cell ID",
    "EQCCTPro Version",
    "Machine",
)

#: Columns of ``best_overall_usecase_*.csv``: EQCCTPro's 14 and 16, then ours.
BEST_COLUMNS: Final[Mapping[EvalMode, tuple[str, ...]]] = {
    "cpu": (*_FIRST, *_LAST, *_OURS),
    "gpu": (*_FIRST, *_GPU, *_LAST, *_OURS),
}


def write_finder_files(csv_dir: Path | str, eval_mode: EvalMode) -> tuple[Path, Path]:
    """Write ``optimal_configurations_*.csv`` and ``best_overall_usecase_*.csv``.

    The first has, with the canonical columns, the fastest successful row of each model,
    station count, concurrency of time chunks, number of CPUs (GPUs and memory limit), among
    trials of the same work.  The second has one row for each model, EQCCTPro's columns first.
    Each file is replaced as a whole; without successful trials only the header is left.

    Parameters
    ----------
    csv_dir : path
        Folder of ``cpu_test_results.csv`` or ``gpu_test_results.csv``.
    eval_mode : {"cpu", "gpu"}

    Returns
    -------
    Path, Path
        The two files.

    Raises
    ------
    InputError
        The results cannot be read.
    OutputError
        A file cannot be written.
    """
    results = read_results(csv_dir, eval_mode)
    trials = usable(results.trials, gpus=eval_mode == "gpu")
    folder = results.path.parent
    optimal = folder / f"optimal_configurations_{eval_mode}.csv"
    best = folder / f"best_overall_usecase_{eval_mode}.csv"
    _write(optimal, CANONICAL_CSV_HEADER, (trial.cells for trial in _fastest(trials, eval_mode)))
    _write(best, BEST_COLUMNS[eval_mode], (_best_cells(answer) for answer in _best(trials)))
    return optimal, best


def _fastest(trials: Sequence[Trial], eval_mode: EvalMode) -> list[Trial]:
    groups: dict[tuple[Any, ...], Trial] = {}
    for trial in trials:
        key: tuple[Any, ...] = (
            *(trial.stations, trial.concurrent_timechunks, trial.cpus),
            *(trial.model.casefold(), trial.cell_id, trial.machine),
            *(trial.timespan_min, trial.timechunk_min, trial.total_timechunks),
        )
        if eval_mode == "gpu":
            key += (trial.gpus, trial.cells.get("Inference Actor Memory Limit (MB)", ""))
        if key not in groups or trial.seconds < groups[key].seconds:
            groups[key] = trial
    return sorted(groups.values(), key=lambda trial: (trial.model, trial.stations, trial.cpus))


def _best(trials: Sequence[Trial]) -> list[BestConfiguration]:
    """The best overall of each model, most stations first."""
    models: dict[str, list[Trial]] = {}
    for trial in trials:
        models.setdefault(trial.model.casefold(), []).append(trial)
    answers = [best_overall(of_model)[0] for of_model in models.values()]
    return sorted(answers, key=lambda answer: -answer.stations)


def _best_cells(best: BestConfiguration) -> dict[str, str]:
    other, margin = best.runner_up, best.margin_percent
    return {
        **best.trial.cells,
        f"{CONCURRENCY} per Timechunk": best.trial.cells.get(CONCURRENCY, ""),
        "Mode": best.mode,
        "Settings (JSON)": json.dumps(best.pick_settings(), sort_keys=True),
        "Stations per Second": f"{best.stations_per_second:.4g}",
        "Runner-up Trial Number": "" if other is None else str(other.trial.number),
        "Margin (%)": "" if margin is None else f"{margin:.2f}",
        "Tie": "" if other is None else str(int(best.is_tie)),
    }


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
