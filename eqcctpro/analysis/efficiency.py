"""Efficiency analysis: what a sweep's trials say, as text, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eqcctpro.analysis.efficiency_figures import draw_comparison, draw_figures
from eqcctpro.analysis.efficiency_metrics import efficiency_table
from eqcctpro.analysis.efficiency_text import comparison_text, summary_text
from eqcctpro.analysis.trials import (
    TrialFile,
    find_trial_files,
    load_trials,
    matches_model,
    model_slug,
    output_folder,
    select_models,
    trial_type,
)
from eqcctpro.errors import InputError
from eqcctpro.evaluation.results import Trial
from eqcctpro.picks.writers import atomic_file

__all__ = ["Analysis", "analyze", "analyze_batch", "compare_methods"]


@dataclass(frozen=True)
class Analysis:
    """Files and tables that one analysis wrote.

    Attributes
    ----------
    table : pandas.DataFrame
        See `eqcctpro.analysis.efficiency_metrics.efficiency_table`.
    text : str
        The summary, of all models and modes one after the other.
    files : tuple of Path
    notes : tuple of str
        On lines of the file that could not be used as they stand.
    """

    table: pd.DataFrame
    text: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def analyze(
    csv_or_dir: Path | str,
    output_dir: Path | str = "analysis_results",
    *,
    model: str | None = None,
    desired_runtime: float | None = None,
) -> Analysis:
    """Analyse a file of trials, of this version, EQCCTPro 0.8.2 or RAPID.

    Writes for every mode in it ``efficiency_summary_{mode}.txt``,
    ``efficiency_analysis_results_{mode}.csv`` and figures with the names that EQCCTPro's
    script gives them; for several models or CPU and GPU trials, each in a folder of its own.

    Parameters
    ----------
    csv_or_dir : path
        A file of trials, or a folder of ``cpu_test_results.csv`` or ``gpu_test_results.csv``.
    output_dir : path
    model : str, optional
        Only of this model.
    desired_runtime : float, optional
        Seconds; drawn as a line, and the smallest configurations that keep it are named.

    Returns
    -------
    Analysis

    Raises
    ------
    InputError
        There are no trials that succeeded.
    OutputError
        The results cannot be written.
    """
    files = load_trials(csv_or_dir, model)
    return _analyse(files, output_folder(output_dir), model, desired_runtime)


def analyze_batch(
    results_root: Path | str,
    output_dir: Path | str = "analysis_results",
    *,
    model: str | None = None,
    desired_runtime: float | None = None,
) -> Analysis:
    """Analyse every file of trials below a folder, each into a folder of the same name.

    Also writes ``batch_analysis_summary.csv`` with a row for every file, model and method.

    Raises
    ------
    InputError
        There are no trials that succeeded.
    """
    root, folder = Path(results_root).expanduser(), output_folder(output_dir)
    found: list[Analysis] = []
    summary: list[dict[str, Any]] = []
    notes: list[str] = []
    for file in find_trial_files(root, model):
        chosen = [trial for trial in file.succeeded if matches_model(trial, model)]
        if not chosen:
            notes += [f"{file.path}: no trial to analyse", *file.notes]
            continue
        name = file.path.parent.relative_to(root)
        found.append(_analyse([file], output_folder(folder / name), model, desired_runtime))
        summary += _batch_rows(str(name), chosen)
    if not found:
        raise InputError(f"{root}: no trial succeeded", hint="; ".join(notes) or None)
    table = pd.DataFrame(summary)
    path = folder / "batch_analysis_summary.csv"
    _write_table(path, table)
    text = "BATCH ANALYSIS SUMMARY\n\n" + table.to_string(index=False, float_format="%.3g") + "\n"
    return Analysis(
        table,
        text,
        (path, *(file for analysis in found for file in analysis.files)),
        (*notes, *(note for analysis in found for note in analysis.notes)),
    )


def compare_methods(
    results_root: Path | str,
    output_dir: Path | str = "analysis_results",
    *,
    model: str,
    trial_type_: str | None = None,
    desired_runtime: float | None = None,
) -> Analysis:
    """Compare ModelActor, Ripper and the other modes of one model.

    Parameters
    ----------
    results_root : path
        Searched with its subfolders; what a trial was is in its row.
    output_dir : path
    model : str
        ``Parent/child``, or as in the names of folders: ``eqcct``, ``phasenet_original``.
    trial_type_ : {"cpu", "gpu"}, optional
        Both by default.
    desired_runtime : float, optional

    Raises
    ------
    InputError
        Fewer than two methods were measured.
    """
    folder = output_folder(output_dir)
    files = find_trial_files(results_root, model)
    trials = select_models([trial for file in files for trial in file.succeeded], model)
    wanted = [t for t in trials if trial_type_ is None or trial_type(t) == trial_type_]
    table = efficiency_table(wanted)
    approaches = sorted(set(table["Approach"])) if wanted else []
    if len(approaches) < 2:
        raise InputError(
            f"{results_root} holds only {' and '.join(approaches) or 'no trials'} of {model}",
            hint="a comparison needs trials in two modes, or on CPUs and GPUs",
        )
    name = f"{model_slug(wanted[0].model)}_{trial_type_ or 'all'}"
    text = comparison_text(table, wanted)
    paths = (
        folder / f"comparison_modelactor_vs_ripper_{name}.png",
        folder / f"comparison_modelactor_vs_ripper_{name}.txt",
        folder / f"comparison_modelactor_vs_ripper_{name}.csv",
    )
    draw_comparison(paths[0], table, wanted[0].model, desired_runtime)
    _write_text(paths[1], text)
    _write_table(paths[2], table)
    return Analysis(table, text, paths, tuple(note for file in files for note in file.notes))


def _analyse(
    files: Sequence[TrialFile], folder: Path, model: str | None, desired: float | None
) -> Analysis:
    trials = select_models([trial for file in files for trial in file.trials], model)
    notes = tuple(note for file in files for note in file.notes)
    done = [trial for trial in trials if trial.success and trial.mode != "baseline"]
    if not done:
        raise InputError(
            f"{files[0].path}: none of {len(trials)} trials succeeded",
            hint="see the column Error Message",
        )
    kinds = sorted({(trial.model, trial_type(trial)) for trial in done})
    parts: list[Analysis] = []
    for name, kind in kinds:
        where = folder
        if len(kinds) > 1:
            where = output_folder(folder / f"{model_slug(name)}_{kind}")
        same = [trial for trial in trials if (trial.model, trial_type(trial)) == (name, kind)]
        for mode in sorted({trial.mode for trial in same if trial.success} - {"baseline"}):
            one = [trial for trial in same if trial.mode == mode]
            parts.append(_one_mode(one, mode, where, desired))
    return Analysis(
        pd.concat([part.table for part in parts], ignore_index=True),
        "\n".join(part.text for part in parts),
        tuple(path for part in parts for path in part.files),
        notes,
    )


def _one_mode(trials: Sequence[Trial], mode: str, folder: Path, desired: float | None) -> Analysis:
    table = efficiency_table(trials)
    text = summary_text(table, trials, mode, desired)
    written = draw_figures(folder, table, trials, mode, desired)
    paths = (
        folder / f"efficiency_summary_{mode}.txt",
        folder / f"efficiency_analysis_results_{mode}.csv",
    )
    _write_text(paths[0], text)
    _write_table(paths[1], table)
    return Analysis(table, text, (*paths, *written))


def _batch_rows(name: str, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    table = efficiency_table(trials)
    rows = []
    for (model, kind, how), part in table.groupby(["Model", "Trial Type", "Method"]):
        rows.append(
            {
                "Directory": name,
                "Model": model,
                "Trial Type": kind.upper(),
                "Execution Mode": how,
                "Total Trials": len(part),
                "Mean Throughput (st/s)": part["Throughput (Stations/s)"].mean(),
                "Best Picker Throughput (st/s)": part["Picker Throughput (Stations/s)"].max(),
                "Mean Total Trial Time (s)": part["Trial Time (s)"].mean(),
                "Min Total Trial Time (s)": part["Trial Time (s)"].min(),
                "Largest Number of Stations": part["Stations"].max(),
                "Real-time Stations": part["Real-time Stations"].max(),
            }
        )
    return rows


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


def _write_table(path: Path, table: pd.DataFrame) -> None:
    # Columns of the file and derived ones never share a name, so that a reader finds both.
    _write_text(path, table.loc[:, ~table.columns.duplicated()].to_csv(index=False))
