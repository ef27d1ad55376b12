"""Interactive pages of sweeps: single files, batches, comparisons, best configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from eqcctpro.analysis.comparison_figures import comparison_figures, optimal_figure
from eqcctpro.analysis.efficiency_metrics import chunks_title, efficiency_table
from eqcctpro.analysis.trial_figures import trial_figures
from eqcctpro.analysis.trial_points import FILTERS, page_rows
from eqcctpro.analysis.trials import (
    METHODS,
    TrialFile,
    concurrency_name,
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
from eqcctpro.report.page import Figure, Table, write_page

__all__ = ["Pages", "compare", "compare_batch", "optimal", "visualize", "visualize_batch"]


@dataclass(frozen=True)
class Pages:
    """Pages that were written, and notes on lines that could not be used as they stand."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def visualize(
    csv_or_dir: Path | str,
    output_dir: Path | str = "visualizations",
    *,
    model: str | None = None,
    threshold: float | None = None,
    desired_runtime: float | None = None,
) -> Pages:
    """Draw the trials of a file, or of a folder's CPU and GPU files.

    Writes for each mode a page for every plot, with EQCCTPro's names such as
    ``runtime_3d_modelactor.html``, and ``dashboard_{mode}.html`` with all of them.  Several
    models, or CPU and GPU trials, get a folder each.

    Parameters
    ----------
    csv_or_dir : path
    output_dir : path
    model : str, optional
        Only of this model; another text is taken for the title.
    threshold : float, optional
        Also draw the trials that took at most so many seconds, as ``..._filtered_{s}s_...``.
    desired_runtime : float, optional
        Seconds, drawn as a line.

    Raises
    ------
    InputError
        There is nothing to draw.
    OutputError
        The pages cannot be written.
    """
    return _visualize(
        load_trials(csv_or_dir, model), output_folder(output_dir), model, threshold, desired_runtime
    )


def visualize_batch(
    results_root: Path | str,
    output_dir: Path | str = "visualizations",
    *,
    model: str | None = None,
    threshold: float | None = None,
    desired_runtime: float | None = None,
) -> Pages:
    """Draw every file of trials below a folder, each into a folder of the same name."""
    root, folder = Path(results_root).expanduser(), output_folder(output_dir)
    pages: list[Path] = []
    notes: list[str] = []
    for file in find_trial_files(root, model):
        if not any(trial.success and matches_model(trial, model) for trial in file.trials):
            notes += [f"{file.path}: no trial to draw", *file.notes]
            continue
        where = output_folder(folder / file.path.parent.relative_to(root))
        done = _visualize([file], where, model, threshold, desired_runtime)
        pages += done.files
        notes += done.notes
    if not pages:
        raise InputError(f"{root}: no trial succeeded", hint="; ".join(notes) or None)
    return Pages(tuple(pages), tuple(notes))


def compare(
    results_root: Path | str,
    output_dir: Path | str = "visualizations",
    *,
    model: str,
    trial_type_: str | None = None,
    desired_runtime: float | None = None,
) -> Pages:
    """Compare the methods of one model: those of CPUs or GPUs, or of both.

    Without `trial_type_` it is the four-way comparison of ModelActor and Ripper on CPUs and
    GPUs, of those that were measured.

    Raises
    ------
    InputError
        Fewer than two methods were measured.
    """
    folder, files = output_folder(output_dir), find_trial_files(results_root, model)
    trials = _of_model(files, model)
    wanted = [t for t in trials if trial_type_ is None or trial_type(t) == trial_type_]
    table = efficiency_table(wanted).reset_index(drop=True) if wanted else pd.DataFrame()
    if table.empty or table["Approach"].nunique() < 2:
        raise InputError(
            f"{results_root} holds trials of {model} in fewer than two modes",
            hint="a comparison needs trials in two modes, or on CPUs and GPUs",
        )
    name = f"{model_slug(wanted[0].model)}_{trial_type_ or 'all'}"
    title = f"{wanted[0].model}: methods compared"
    figures = comparison_figures(table, desired_runtime)
    rows, summary = page_rows(table), _summary(table)
    paths = [
        write_page(
            folder / f"{figure.name}_{name}.html",
            title=title,
            figures=[figure],
            rows=rows,
            filters=FILTERS,
        )
        for figure in figures
    ]
    paths.append(
        write_page(
            folder / f"comparison_summary_table_{name}.html",
            title=title,
            figures=(),
            tables=[summary],
        )
    )
    paths.append(
        write_page(
            folder / f"comparison_{name}.html",
            title=title,
            subtitle=_origin(wanted),
            figures=figures,
            rows=rows,
            filters=FILTERS,
            tables=[summary],
        )
    )
    return Pages(tuple(paths), _notes(files))


def compare_batch(
    results_root: Path | str,
    output_dir: Path | str = "visualizations",
    *,
    trial_type_: str | None = None,
    desired_runtime: float | None = None,
) -> Pages:
    """Compare the methods of every model that is found, each in a folder of its own."""
    trials = [trial for file in find_trial_files(results_root) for trial in file.succeeded]
    pages: list[Path] = []
    notes: dict[str, None] = {}
    for model in sorted({trial.model for trial in trials}):
        try:
            done = compare(
                results_root,
                Path(output_dir) / model_slug(model),
                model=model,
                trial_type_=trial_type_,
                desired_runtime=desired_runtime,
            )
        except InputError as error:
            notes[error.message] = None
            continue
        pages += done.files
        notes.update(dict.fromkeys(done.notes))
    if not pages:
        raise InputError(f"{results_root}: nothing to compare", hint="; ".join(notes) or None)
    return Pages(tuple(pages), tuple(notes))


def optimal(
    source: Path | str,
    output_dir: Path | str = "visualizations",
    *,
    model: str | None = None,
    by_model: bool = False,
    together: bool = True,
) -> Pages:
    """Draw the best configurations, and a table of how the methods compare.

    Parameters
    ----------
    source : path
        A folder of results, searched with its subfolders, or a file of trials, which may be
        ``optimal_configurations_cpu.csv``.
    output_dir : path
    model : str, optional
        Only of this model.
    by_model : bool
        A folder for every model.
    together : bool
        Methods and devices in one picture; otherwise a page for each.

    Raises
    ------
    InputError
        There is nothing to draw.
    """
    path = Path(source).expanduser()
    files = load_trials(path, model) if path.is_file() else find_trial_files(path, model)
    folder = output_folder(output_dir)
    trials = _of_model(files, model)
    if not trials:
        raise InputError(f"{source}: no trial succeeded")
    pages: list[Path] = []
    for name in sorted({trial.model for trial in trials}):
        same = [trial for trial in trials if trial.model == name]
        where = output_folder(folder / model_slug(name)) if by_model else folder
        table = _best(efficiency_table(same))
        parts = {"": table}
        if not together:
            groups = table.groupby("Approach")
            parts = {f"_{model_slug(str(key))}": part for key, part in groups}
        for suffix, part in parts.items():
            pages.append(_optimal_page(where, name, suffix, part, same))
    return Pages(tuple(pages), _notes(files))


def _optimal_page(
    folder: Path, model: str, suffix: str, part: pd.DataFrame, trials: Sequence[Trial]
) -> Path:
    table = part.reset_index(drop=True)
    return write_page(
        folder / f"optimal_configurations_3d_{model_slug(model)}{suffix}.html",
        title=f"{model}: best configurations",
        subtitle=_origin(trials),
        figures=[optimal_figure(table)],
        rows=page_rows(table),
        filters=FILTERS,
        tables=[_optimal_table(table), _compared_table(table)],
    )


def _visualize(
    files: Sequence[TrialFile],
    folder: Path,
    model: str | None,
    threshold: float | None,
    desired: float | None,
) -> Pages:
    done = [trial for file in files for trial in file.succeeded]
    named = [trial for trial in done if matches_model(trial, model)]
    # EQCCTPro's script takes --model for a title.
    title = None if named else model
    trials = [trial for trial in named or done if trial.mode != "baseline"]
    if not trials:
        raise InputError(
            f"{files[0].path}: no trial succeeded", hint="see the column Error Message"
        )
    kinds = sorted({(trial.model, trial_type(trial)) for trial in trials})
    pages: list[Path] = []
    for name, kind in kinds:
        where = folder
        if len(kinds) > 1:
            where = output_folder(folder / f"{model_slug(name)}_{kind}")
        same = [trial for trial in trials if (trial.model, trial_type(trial)) == (name, kind)]
        for mode in sorted({trial.mode for trial in same}):
            one = [trial for trial in same if trial.mode == mode]
            heading = f"{title or name}, {kind.upper()} {METHODS.get(mode, mode)}"
            pages += _mode_pages(where, one, mode, heading, desired)
            few = [trial for trial in one if threshold is not None and trial.seconds <= threshold]
            if few:
                suffix = f"filtered_{threshold:g}s_{mode}"
                heading += f", at most {threshold:g} s"
                pages += _mode_pages(where, few, suffix, heading, desired)
    return Pages(tuple(pages), _notes(files))


def _mode_pages(
    folder: Path, trials: Sequence[Trial], suffix: str, title: str, desired: float | None
) -> list[Path]:
    table = efficiency_table(trials).reset_index(drop=True)
    figures = trial_figures(table, concurrency_name(trials), desired)
    rows, subtitle = page_rows(table), _origin(trials)

    def page(name: str, shown: Sequence[Figure]) -> Path:
        return write_page(
            folder / f"{name}_{suffix}.html",
            title=title,
            subtitle=subtitle,
            figures=shown,
            rows=rows,
            filters=FILTERS,
        )

    return [page("dashboard", figures), *(page(figure.name, [figure]) for figure in figures)]


def _of_model(files: Sequence[TrialFile], model: str | None) -> list[Trial]:
    return select_models([trial for file in files for trial in file.succeeded], model)


def _notes(files: Sequence[TrialFile]) -> tuple[str, ...]:
    return tuple(note for file in files for note in file.notes)


def _origin(trials: Sequence[Trial]) -> str:
    first = trials[0]
    by = "" if first.layout == "ours" else f", measured by {first.layout}"
    where = f" on {first.machine}" if first.machine else ""
    return f"{len(trials)} trials{where}{by}{chunks_title(trials)}"


def _best(table: pd.DataFrame) -> pd.DataFrame:
    """The fastest trial of each approach, station count, CPUs and GPUs."""
    keys = ["Approach", "Stations", "CPUs", "GPU Count"]
    return table.loc[table.groupby(keys)["Picker Time (s)"].idxmin()].sort_values(keys)


def _summary(table: pd.DataFrame) -> Table:
    """Statistics of each approach; a metric in each row."""
    return _statistics(table, table["Approach"])


#: Label, column, statistic and format of the rows of a comparison.
_METRICS: Final = (
    ("Trials", "Picker Time (s)", "count", ",.0f"),
    ("Picker throughput, mean (stations/s)", "Picker Throughput (Stations/s)", "mean", ",.3g"),
    ("Picker throughput, median (stations/s)", "Picker Throughput (Stations/s)", "median", ",.3g"),
    ("Picker throughput, highest (stations/s)", "Picker Throughput (Stations/s)", "max", ",.3g"),
    ("Throughput of whole trials, mean (stations/s)", "Throughput (Stations/s)", "mean", ",.3g"),
    ("Picker time, mean (s)", "Picker Time (s)", "mean", ",.3g"),
    ("Picker time, shortest (s)", "Picker Time (s)", "min", ",.3g"),
    ("Whole trial, mean (s)", "Trial Time (s)", "mean", ",.3g"),
    ("Whole trial, shortest (s)", "Trial Time (s)", "min", ",.3g"),
    ("Mean Actor Creation Time (s)", "Actor Creation Time (s)", "mean", ",.3g"),
    ("Mean start of workers (s)", "Start of Workers (s)", "mean", ",.3g"),
    ("Mean Model Load Time (s)", "Loading of the Model (s)", "mean", ",.3g"),
    ("Waveforms of a station, mean (s)", "Waveform Processing Time (s)", "mean", ",.3g"),
    ("Mean RAM (MB)", "Measured RAM (MB)", "mean", ",.0f"),
    ("Mean VRAM (MB)", "Process Tree VRAM (MB)", "mean", ",.0f"),
    ("Real-time stations, most", "Real-time Stations", "max", ",.0f"),
)


def _statistics(table: pd.DataFrame, by: pd.Series[str]) -> Table:
    """`_METRICS` of groups of trials, a column for each group."""
    names = sorted(set(by))
    rows = []
    for label, column, how, form in _METRICS:
        if column not in table:
            continue
        values = pd.to_numeric(table[column], errors="coerce").groupby(by).agg(how)
        if values.notna().any():
            rows.append([label, *(_cell(values[name], form) for name in names)])
    return ["", *names], rows


def _optimal_table(table: pd.DataFrame) -> Table:
    """The best of each approach and number of GPUs at each station count, compared."""
    keys = ["Stations", "Approach", "GPU Count"]
    best = table.loc[table.groupby(keys)["Picker Time (s)"].idxmin()]
    rows: list[list[Any]] = []
    for stations, part in best.groupby("Stations"):
        fastest = part["Picker Time (s)"].min()
        for _, row in part.sort_values("Picker Time (s)").iterrows():
            rows.append(
                [
                    f"{stations} stations, {_with_gpus(row)}",
                    *(_cell(row.get(column), form) for column, form in _OPTIMAL.values()),
                    f"{row['Picker Time (s)'] / fastest:.3g} x",
                ]
            )
    return ["", *_OPTIMAL, "Time"], rows


#: Columns of the table of the best configurations.
_OPTIMAL: Final = {
    "CPUs": ("CPUs", ".0f"),
    "Workers": ("Effective Concurrency", ".0f"),
    "Picker s": ("Picker Time (s)", ",.3g"),
    "Trial s": ("Trial Time (s)", ",.3g"),
    "Picker stations/s": ("Picker Throughput (Stations/s)", ",.3g"),
    "RAM MB": ("Measured RAM (MB)", ",.0f"),
    "VRAM MB": ("Process Tree VRAM (MB)", ",.0f"),
    "Actor creation s": ("Actor Creation Time (s)", ",.3g"),
    "Model load s": ("Loading of the Model (s)", ",.3g"),
}


def _compared_table(table: pd.DataFrame) -> Table:
    """Means over the best configurations: a column for each method, and for each GPU count."""
    return _statistics(table, table.apply(_with_gpus, axis=1))


def _with_gpus(row: Any) -> str:
    """A method with its number of GPUs, such as ``GPU (2) ModelActor``."""
    if not row["GPU Count"]:
        return str(row["Approach"])
    return f"GPU ({row['GPU Count']:.0f}) {row['Method']}"


def _cell(value: Any, form: str) -> str:
    return "–" if value is None or pd.isna(value) else f"{float(value):{form}}"
