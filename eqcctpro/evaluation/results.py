"""Results of benchmarks: the CSV files of a sweep as one table of trials.

Files of this version, of EQCCTPro since 0.3 and of RAPID (53 columns) are read;
`docs/evaluation.md` says how their meanings differ.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from eqcctpro.errors import InputError
from eqcctpro.evaluation.canonical import (
    CONCURRENCY,
    EARLIER_NAMES,
    ESSENTIAL,
    RIPPER,
    RIPPER_TASKS,
    model_name,
    published_name,
)
from eqcctpro.evaluation.csvrows import CsvFile, CsvRow, read_csv_file

__all__ = [
    "EvalMode",
    "Layout",
    "Results",
    "Trial",
    "cell_number",
    "named",
    "no_model",
    "parse_results",
    "read_results",
    "read_results_file",
    "results_path",
]

EvalMode = Literal["cpu", "gpu"]
Layout = Literal["ours", "EQCCTPro", "RAPID"]

_TRUE, _FALSE = {"1", "1.0", "true"}, {"0", "0.0", "false"}
#: Columns that are younger than Model Used, and that rows of every later version fill.
_SINCE_MODELS = ("N ModelActors", "Comments", "Configuration ID")
_BEFORE_ACTORS = next(name for name, now in EARLIER_NAMES.items() if now == CONCURRENCY)


@dataclass(frozen=True)
class Trial:
    """One row of a benchmark's CSV file.

    Attributes
    ----------
    number : int
        Trial Number.
    model : str
        ``Parent/child``; EQCCTPro's ``eqcct`` is ``EQCCT/original``.  Empty where the row names
        none, as before EQCCTPro 0.7: see `named`.
    stations, cpus, workers : int
        `workers` are those that really ran: actors, or Ripper tasks at a time.
    gpus : tuple of int
    mode : str
        ``"local"``, ``"modelactor"``, ``"ripper"`` or ``"baseline"``.
    baseline : str
        What a baseline measured; it is never an answer.
    settings : mapping
        Fields of `eqcctpro.PickConfig` that the trial ran with.
    seconds, seconds_min, seconds_max : float
        From files to picks, warm: median and range of the repeats.  Not a number for
        trials that failed.
    repeats : int
    total_seconds, ram_mb, vram_mb : float or None
        Whole trial; highest memory of the process tree; GPU memory.  None where not known.
    concurrent_timechunks, total_timechunks : int
    timechunk_min, timespan_min : float or None
        Length of a time chunk, and of all that was picked, in minutes.
    success : bool
        No station failed.
    error : str
    configuration_id, cell_id : str
        Empty in files of EQCCTPro and RAPID.
    machine : str
    layout : {"ours", "EQCCTPro", "RAPID"}
        Whose row it is.
    source : Path
    line : int
    cells : mapping
        The row as it was read.
    """

    number: int
    model: str
    stations: int
    cpus: int
    gpus: tuple[int, ...]
    mode: str
    baseline: str
    workers: int
    settings: Mapping[str, Any]
    seconds: float
    seconds_min: float
    seconds_max: float
    repeats: int
    total_seconds: float | None
    ram_mb: float | None
    vram_mb: float | None
    concurrent_timechunks: int
    total_timechunks: int
    timechunk_min: float | None
    timespan_min: float | None
    success: bool
    error: str
    configuration_id: str
    cell_id: str
    machine: str
    layout: Layout
    source: Path
    line: int
    cells: Mapping[str, str]

    @property
    def spread_percent(self) -> float | None:
        """Range of the repeats in percent of the median; None for a single one."""
        if self.repeats < 2:
            return None
        return (self.seconds_max - self.seconds_min) / self.seconds * 100

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.source.name}, line {self.line}"


@dataclass(frozen=True)
class Results:
    """Trials of one file, and a note on every line that could not be used as it stands."""

    path: Path
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]


def results_path(csv_dir: Path | str, eval_mode: EvalMode) -> Path:
    """Path of the trials of a sweep."""
    return Path(csv_dir).expanduser() / f"{eval_mode}_test_results.csv"


def read_results(csv_dir: Path | str, eval_mode: EvalMode, *, model: str | None = None) -> Results:
    """Read ``cpu_test_results.csv`` or ``gpu_test_results.csv``.

    Parameters
    ----------
    csv_dir : path
    eval_mode : {"cpu", "gpu"}
    model : str, optional
        Of the rows that name none.

    Raises
    ------
    InputError
        There is no such file, it cannot be read, or essential columns are missing.
    """
    path = results_path(csv_dir, eval_mode)
    if not path.is_file():
        raise InputError(
            f"{path} is not there", hint=f"run EvaluateSystem(eval_mode='{eval_mode}', ...) first"
        )
    return read_results_file(path, eval_mode, model=model)


def read_results_file(path: Path, eval_mode: EvalMode, *, model: str | None = None) -> Results:
    """Read a file of trials, whatever its name; parameters as `read_results`.

    Raises
    ------
    InputError
        It cannot be read, or essential columns are missing.
    """
    return parse_results(read_csv_file(path), eval_mode, model=model)


def parse_results(file: CsvFile, eval_mode: EvalMode, *, model: str | None = None) -> Results:
    """Read the rows of a file of trials; parameters and errors as `read_results_file`."""
    path = file.path
    essential = (*ESSENTIAL, "GPUs Used") if eval_mode == "gpu" else ESSENTIAL
    if "N ModelActors" in file.columns:
        essential = ("Model Used", *essential)
    missing = [name for name in essential if name not in file.columns]
    if missing:
        raise InputError(
            f"{path}, line 1: the columns {missing} are missing",
            hint="the first line has to name the columns as EvaluateSystem writes them",
        )
    notes = list(file.notes)
    trials = []
    for row in file.rows:
        try:
            trials.append(_trial(_with_present_names(row), path, notes))
        except ValueError as error:
            notes.append(f"{path.name}, line {row.line} cannot be used: {error}; left out")
    found = _latest(trials)
    if model is not None and (unnamed := sum(not trial.model for trial in found)):
        notes.append(f"{path.name}: {unnamed} trials name no model and count as {model}")
    return Results(path, named(found, model), tuple(notes))


def named(trials: Iterable[Trial], model: str | None) -> tuple[Trial, ...]:
    """Trials, those whose rows name no model as trials of `model`."""
    if model is None:
        return tuple(trials)
    name = model_name(model)
    return tuple(
        replace(trial, model=name, cells={**trial.cells, "Model Used": published_name(name)})
        if not trial.model
        else trial
        for trial in trials
    )


def no_model(path: Path, trials: Iterable[Trial]) -> InputError:
    """The error for trials whose rows name no model."""
    lines = [str(trial.line) for trial in trials if not trial.model]
    which = f"lines {', '.join(lines[:3])}" + (" and others" if len(lines) > 3 else "")
    return InputError(
        f"{path}: Model Used is missing in {which}, as in files of EQCCTPro before 0.7",
        hint="name the model that was measured, such as --model eqcct, in Python model='eqcct'",
    )


def _with_present_names(row: CsvRow) -> CsvRow:
    """A row with its columns under the names that they have now."""
    cells = dict(row.cells)
    for earlier, name in EARLIER_NAMES.items():
        if earlier in cells and not cells.get(name, "").strip():
            cells[name] = cells[earlier]
    return CsvRow(row.line, cells)


def _layout(cells: Mapping[str, str]) -> Layout:
    """Whose row it is; a sweep adds its columns and rows to a file of earlier versions."""
    if cells.get("Configuration ID", "").strip():
        return "ours"
    return "RAPID" if "Successful Inference Tasks" in cells else "EQCCTPro"


def _latest(trials: list[Trial]) -> tuple[Trial, ...]:
    """Of the rows of one configuration the newest that succeeded, else the newest."""
    kept: dict[tuple[str, str, str], Trial] = {}
    for trial in trials:
        key = (trial.configuration_id or f"line {trial.line}", trial.cell_id, trial.machine)
        if trial.success or key not in kept or not kept[key].success:
            kept.pop(key, None)
            kept[key] = trial
    return tuple(kept.values())


def _trial(row: CsvRow, path: Path, notes: list[str]) -> Trial:
    """Read one row.

    Raises
    ------
    ValueError
        An essential cell is not what its column needs.
    """
    cells = row.cells
    layout = _layout(cells)
    success = _success(cells) and not _stations_lost(row, path, layout, notes)
    cpus = _whole(cells, "Number of CPUs Allocated for Ray to Use")
    gpus = _gpus(cells.get("GPUs Used", ""))
    mode = _mode(cells)
    workers = _workers(cells, mode, cpus, gpus, layout)
    return Trial(
        number=_whole(cells, "Trial Number", row.line - 1),
        model=_model(cells),
        stations=_whole(cells, "Number of Stations Used"),
        cpus=cpus,
        gpus=gpus,
        mode=mode,
        baseline=cells.get("Baseline", "").strip(),
        workers=workers,
        settings=_settings(cells, mode, workers, gpus),
        **_timing(cells, success),
        total_seconds=cell_number(cells, "Total Trial Time (s)"),
        ram_mb=_peak_ram(cells, layout),
        vram_mb=cell_number(cells, "Process Tree VRAM (MB)") if gpus else None,
        concurrent_timechunks=_whole(cells, "Concurrent Timechunks Used", 1),
        total_timechunks=_whole(cells, "Total Number of Timechunks", 1),
        timechunk_min=cell_number(cells, "Length of Timechunk (min)"),
        timespan_min=cell_number(cells, "Total Waveform Analysis Timespace (min)"),
        success=success,
        error=cells.get("Error Message", "").strip(),
        configuration_id=cells.get("Configuration ID", "").strip(),
        cell_id=cells.get("Cell ID", "").strip(),
        machine=cells.get("Machine", "").strip(),
        layout=layout,
        source=path,
        line=row.line,
        cells=cells,
    )


def _timing(cells: Mapping[str, str], success: bool) -> dict[str, Any]:
    """Median, range and number of the repeats."""
    seconds = cell_number(cells, "Total Run time for Picker (s)")
    if success and not (seconds and seconds > 0):
        raise ValueError("a successful trial without Total Run time for Picker (s)")
    median = seconds if seconds and seconds > 0 else math.nan
    low, high = (cell_number(cells, f"Picker Time {end} (s)") for end in ("Min", "Max"))
    repeats = _whole(cells, "Repeats", 1)
    if repeats == 1 or not low or not high:
        return {"seconds": median, "seconds_min": median, "seconds_max": median, "repeats": 1}
    return {"seconds": median, "seconds_min": low, "seconds_max": high, "repeats": repeats}


def cell_number(cells: Mapping[str, str], name: str) -> float | None:
    """A cell's number; None where it is empty, missing or no number."""
    try:
        value = float(cells.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(cells: Mapping[str, str], name: str, default: int | None = None) -> int:
    value = cell_number(cells, name)
    if value is not None and value >= 1 and value == int(value):
        return int(value)
    if default is not None:
        return default
    raise ValueError(f"{name} is {cells.get(name, '')!r}")


def _model(cells: Mapping[str, str]) -> str:
    """The row's model; empty where rows of its version named none.

    Raises
    ------
    ValueError
        It names none although its version did.
    """
    name = model_name(cells.get("Model Used", ""))
    if not name and any(cells.get(column, "").strip() for column in _SINCE_MODELS):
        raise ValueError("Model Used is empty")
    return name


def _success(cells: Mapping[str, str]) -> bool:
    text = cells["Trial Success"].strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"Trial Success is {text!r}, neither 0 nor 1")


def _stations_lost(row: CsvRow, path: Path, layout: Layout, notes: list[str]) -> bool:
    """True if stations failed in a trial that RAPID calls a success."""
    if layout != "RAPID":
        return False
    done = cell_number(row.cells, "Successful Inference Tasks")
    of = cell_number(row.cells, "Total Station Tasks")
    if done is None or of is None or done >= of:
        return False
    notes.append(
        f"{path.name}, line {row.line}: {of - done:.0f} of {of:.0f} stations failed, "
        "so the trial counts as failed"
    )
    return True


def _gpus(text: str) -> tuple[int, ...]:
    """Numbers of a list such as ``[0, 1]``, ``(0, 1)``, ``0`` or ``0.0``."""
    return tuple(int(number) for number in re.findall(r"(?<![\d.])\d+", text))


def _mode(cells: Mapping[str, str]) -> str:
    if cells.get("Mode", "").strip():
        return cells["Mode"].strip().lower()
    ripper = (
        RIPPER in cells.get("Comments", "")
        or (not cell_number(cells, "N ModelActors") and cell_number(cells, RIPPER_TASKS))
        # Before there were actors, every task loaded the model.
        or _BEFORE_ACTORS in cells
    )
    return "ripper" if ripper else "modelactor"


def _workers(
    cells: Mapping[str, str], mode: str, cpus: int, gpus: tuple[int, ...], layout: Layout
) -> int:
    if cell_number(cells, "Workers"):
        return _whole(cells, "Workers")
    asked = _whole(cells, CONCURRENCY, 1)
    if mode == "modelactor":
        return _whole(cells, "N ModelActors", asked)
    if mode == "ripper":
        tasks = _whole(cells, RIPPER_TASKS, asked)
        # EQCCTPro and RAPID record the length of a queue; on the CPU, cores bound what runs.
        return tasks if gpus or layout == "ours" else min(tasks, cpus)
    return 1


def _settings(
    cells: Mapping[str, str], mode: str, workers: int, gpus: tuple[int, ...]
) -> dict[str, Any]:
    text = cells.get("Settings (JSON)", "").strip()
    if text:
        try:
            settings = json.loads(text)
        except ValueError as error:
            raise ValueError(f"Settings (JSON) is not JSON: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError("Settings (JSON) is not an object")
        return settings
    limit = cell_number(cells, "Inference Actor Memory Limit (MB)")
    return {
        "mode": mode,
        "workers": workers,
        "threads": _whole(cells, "Intra-parallelism Threads", 1),
        "concurrent_timechunks": _whole(cells, "Concurrent Timechunks Used", 1),
        "device": "cuda:" + ",".join(map(str, gpus)) if gpus else "cpu",
        **({"vram_mb": limit} if gpus and limit else {}),
    }


def _peak_ram(cells: Mapping[str, str], layout: Layout) -> float | None:
    """Highest memory of all processes together, MB."""
    if pss := cell_number(cells, "Peak PSS (MB)"):
        return pss
    # Before there was that column, our Peak RAM had it; RAPID's has a sum over processes.
    known = [cell_number(cells, "Peak RAM (MB)")]
    if layout == "EQCCTPro":
        # Its peak is that of the driver alone; its sum over processes was taken afterwards.
        known.append(cell_number(cells, "Process Tree RAM (MB)"))
    return max((value for value in known if value), default=None)
