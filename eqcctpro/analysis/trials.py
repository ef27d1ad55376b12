"""Files of trials: where they are, and which trials in them belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from eqcctpro.errors import InputError, SettingsError
from eqcctpro.evaluation.results import EvalMode, Results, Trial, no_model, read_results_file

__all__ = [
    "METHODS",
    "TrialFile",
    "approach",
    "approaches",
    "concurrency_name",
    "find_trial_files",
    "load_trials",
    "matches_model",
    "method",
    "model_slug",
    "output_folder",
    "select_models",
    "slug",
    "trial_type",
]

#: What the modes are called in figures.
METHODS: Final = {
    "local": "Local",
    "modelactor": "ModelActor",
    "ripper": "Ripper",
    "baseline": "Baseline",
}

_PATTERN = "*_test_results.csv"


@dataclass(frozen=True)
class TrialFile:
    """One file of trials.

    Attributes
    ----------
    path : Path
    trials : tuple of Trial
        Also those that failed.
    notes : tuple of str
        On lines that could not be used as they stand.
    """

    path: Path
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]

    @property
    def succeeded(self) -> list[Trial]:
        """Trials in which no station failed."""
        return [trial for trial in self.trials if trial.success]

    @property
    def models(self) -> list[str]:
        """Models of the trials, sorted."""
        return sorted({trial.model for trial in self.trials})


def load_trials(csv_or_dir: Path | str, model: str | None = None) -> list[TrialFile]:
    """Read a file of trials, or the CPU and GPU files of a folder.

    Parameters
    ----------
    csv_or_dir : path
    model : str, optional
        Of rows that name none, as in files of EQCCTPro before 0.7.

    Raises
    ------
    InputError
        There is none, it cannot be read, or rows name no model and it is not given.
    """
    path = Path(csv_or_dir).expanduser()
    if path.is_dir():
        files = sorted(path.glob(_PATTERN))
        if not files:
            raise InputError(
                f"{path} holds no file {_PATTERN}", hint="name a folder of eqcctpro evaluate"
            )
    elif path.is_file():
        files = [path]
    else:
        raise InputError(f"{path} is not there", hint="name a file or a folder of trials")
    return [_load(file, model) for file in files]


def find_trial_files(root: Path | str, model: str | None = None) -> list[TrialFile]:
    """Read every file of trials below a folder.

    Folders may have EQCCTPro's names, such as ``eval_cpu_eqcct_ripper``, or any others:
    what a trial was is in its row.  Rows that name no model are of versions that had EQCCT alone:
    where `model` is one of EQCCT, they are of it, otherwise they are left out, with a note.

    Raises
    ------
    InputError
        There is no such folder, no file of trials in it, or no row names a model.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="see --results_root")
    files = sorted(folder.rglob(_PATTERN))
    if not files:
        raise InputError(f"{folder} holds no file {_PATTERN}", hint="see --results_root")
    name = model if model is not None and slug(model).startswith("eqcct") else None
    results = [_read(file, name) for file in files]
    if all(not trial.model for one in results for trial in one.trials):
        for one in results:
            if one.trials:
                raise no_model(one.path, one.trials)
    return [_named_alone(one) for one in results]


def _load(path: Path, model: str | None) -> TrialFile:
    results = _read(path, model)
    if not all(trial.model for trial in results.trials):
        raise no_model(path, results.trials)
    return TrialFile(path, results.trials, results.notes)


def _read(path: Path, model: str | None) -> Results:
    mode: EvalMode = "gpu" if path.name.startswith("gpu") else "cpu"
    return read_results_file(path, mode, model=model)


def _named_alone(results: Results) -> TrialFile:
    """A file without the trials that name no model, of which a note says how many they are."""
    kept = tuple(trial for trial in results.trials if trial.model)
    notes = results.notes
    if left_out := len(results.trials) - len(kept):
        notes += (f"{results.path}: {left_out} trials name no model, left out: see --model eqcct",)
    return TrialFile(results.path, kept, notes)


def slug(text: str) -> str:
    """A name for files: lower case, anything but letters and digits as ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"


def model_slug(model: str) -> str:
    """A model in the names of files, as EQCCTPro has them: ``eqcct``, ``phasenet_original``."""
    return "eqcct" if model == "EQCCT/original" else slug(model)


def matches_model(trial: Trial, wanted: str | None) -> bool:
    """True if a trial's model is the one that is asked for, in any of its spellings."""
    if wanted is None:
        return True
    parent = slug(trial.model.partition("/")[0])
    return slug(wanted) in {slug(trial.model), model_slug(trial.model), parent}


def select_models(trials: Iterable[Trial], wanted: str | None) -> list[Trial]:
    """Trials of a model.

    Raises
    ------
    SettingsError
        No trial is of that model.
    """
    listed = list(trials)
    chosen = [trial for trial in listed if matches_model(trial, wanted)]
    if listed and not chosen:
        known = ", ".join(sorted({model_slug(trial.model) for trial in listed}))
        raise SettingsError(f"--model: no trial is of {wanted!r}", hint=f"there are {known}")
    return chosen


def trial_type(trial: Trial) -> Literal["cpu", "gpu"]:
    """Type of a trial, by its use of GPUs."""
    return "gpu" if trial.gpus else "cpu"


def method(trial: Trial) -> str:
    """Method of a trial: ``ModelActor``, ``Ripper``, ``Local``, or the baseline's name."""
    if trial.mode == "baseline":
        return trial.baseline or METHODS["baseline"]
    return METHODS.get(trial.mode, trial.mode)


def approach(trial: Trial) -> str:
    """Device and method, such as ``CPU ModelActor``."""
    return f"{trial_type(trial).upper()} {method(trial)}"


def approaches(trials: Sequence[Trial]) -> list[str]:
    """Approaches of trials, in an order that is the same for every figure."""
    order = {name: index for index, name in enumerate(METHODS)}
    found = {approach(trial): (bool(trial.gpus), order.get(trial.mode, 9)) for trial in trials}
    return sorted(found, key=lambda name: (found[name], name))


def concurrency_name(trials: Sequence[Trial]) -> str:
    """Name of what the number of workers counts in these trials."""
    modes = {trial.mode for trial in trials}
    return {
        frozenset({"modelactor"}): "ModelActors",
        frozenset({"ripper"}): "Ripper tasks at a time",
    }.get(frozenset(modes), "Workers")


def output_folder(path: Path | str) -> Path:
    """A folder to write to, made if it is not there.

    Raises
    ------
    OutputError
        It cannot be made or written to.
    """
    from eqcctpro.picks.writers import check_writable

    folder = Path(os.fspath(path)).expanduser()
    check_writable(folder)
    return folder
