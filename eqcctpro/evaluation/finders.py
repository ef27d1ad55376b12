"""The finders: which configuration to run, from what benchmarks measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from eqcctpro.errors import InputError, OutputError, SettingsError
from eqcctpro.evaluation.canonical import model_name
from eqcctpro.evaluation.configuration import BestConfiguration
from eqcctpro.evaluation.ranking import (
    best_overall,
    choose_workload,
    measured_at,
    nearest,
    predicted_at,
    rank,
    usable,
)
from eqcctpro.evaluation.results import EvalMode, Trial, named, no_model, read_results

__all__ = ["OptimalCPUConfigurationFinder", "OptimalGPUConfigurationFinder"]

PathLike = str | Path


class _Finder:
    """Base of both finders.

    Attributes
    ----------
    models : tuple of str
        Models with at least one successful trial.
    notes : tuple of str
        Lines of the file that could not be used, and why.
    """

    eval_mode: ClassVar[EvalMode]

    def __init__(
        self,
        results_dir: PathLike | None = None,
        log_file_path: PathLike | None = None,
        *,
        eval_sys_results_dir: PathLike | None = None,
        model: str | None = None,
    ) -> None:
        if results_dir is not None and eval_sys_results_dir is not None:
            raise SettingsError(
                "results_dir and eval_sys_results_dir are the same parameter: give one of them"
            )
        folder = results_dir if results_dir is not None else eval_sys_results_dir
        if folder is None:
            raise SettingsError("results_dir must be given")
        results = read_results(folder, self.eval_mode, model=model)
        self.path = results.path
        self.notes = results.notes
        self.models = tuple(dict.fromkeys(trial.model for trial in self._usable(results.trials)))
        self._trials = results.trials
        if unnamed := sum(not trial.model for trial in results.trials):
            self.notes += (
                f"{self.path.name}: {unnamed} trials name no model, and are answers only "
                "where one is named: model=, --model",
            )
        self._log = None if log_file_path is None else Path(log_file_path).expanduser()

    def find_best_overall_usecase(self, model: str | None = None) -> BestConfiguration:
        """The fastest configuration at the largest station count that succeeded.

        Parameters
        ----------
        model : str, optional
            ``Parent/child``; may be left out if only one was benchmarked.

        Raises
        ------
        SettingsError
            Several models were benchmarked and none is named, or the named one was not.
        InputError
            No trial succeeded.
        """
        return self._answer(*best_overall(self._of(model)))

    def find_fastest_under(
        self,
        memory_mb: float | None = None,
        gpus: int | Sequence[int] | None = None,
        model: str | None = None,
        station_count: int | None = None,
        *,
        cpus: int | None = None,
        vram_mb: float | None = None,
    ) -> BestConfiguration:
        """The fastest configuration that stays within limits.

        Parameters
        ----------
        memory_mb, vram_mb : float, optional
            Highest memory of all processes together, and of the GPUs.  A trial whose memory
            is not known does not count as within.
        gpus : int or sequence of int, optional
            How many GPUs there are, or which.
        model : str, optional
        station_count : int, optional
            By default the largest with a trial within the limits.
        cpus : int, optional
            CPUs at most.

        Raises
        ------
        SettingsError
            As in `find_best_overall_usecase`, or nothing is within the limits.
        InputError
            No trial succeeded.
        """

        def within(option: BestConfiguration) -> bool:
            return (
                _at_most(option.ram_mb, memory_mb)
                and _at_most(option.vram_mb if option.gpus else 0.0, vram_mb)
                and _has_gpus(option, gpus)
                and (cpus is None or option.cpus <= cpus)
            )

        trials, notes = choose_workload(self._of(model), station_count)
        if station_count is None:
            fitting = [t for t in trials if within(BestConfiguration.measured(t))]
            counts = {trial.stations for trial in fitting}
            # Cells are chosen among all trials, so that limits do not mix station sets.
            for count in sorted(counts, reverse=True):
                if options := [o for o in measured_at(trials, count) if within(o)]:
                    return self._answer(rank(options), notes)
        else:
            options, more = self._at(trials, station_count, within)
            if options:
                return self._answer(rank(options), [*notes, *more])
        least = min(trials, key=lambda trial: trial.ram_mb or float("inf"))
        raise SettingsError(
            f"no configuration in {self.path} is within these limits",
            hint=f"least memory: {BestConfiguration.measured(least)}",
        )

    def find_smallest_for(
        self, deadline_s: float, station_count: int, model: str | None = None
    ) -> BestConfiguration:
        """Find the configuration that takes least and still keeps a deadline.

        Least is fewest GPUs, then CPUs, then memory.  The slowest of the repeats has to keep
        the deadline, or the upper end of a prediction's interval.

        Parameters
        ----------
        deadline_s : float
            Seconds from files to picks, with the model loaded.
        station_count : int
        model : str, optional

        Raises
        ------
        SettingsError
            As in `find_best_overall_usecase`, or nothing keeps the deadline.
        InputError
            No trial succeeded.
        """
        trials, notes = choose_workload(self._of(model), station_count)
        options, more = self._at(
            trials, station_count, lambda option: option.seconds_high <= deadline_s
        )
        if options:
            best = rank(options, lambda option: (*option.cost, option.seconds))
            return self._answer(best, [*notes, *more])
        every, _ = self._at(trials, station_count, lambda _: True)
        if not every:
            raise self._unknown(trials, station_count, None)
        fastest = min(every, key=lambda option: option.seconds_high)
        raise SettingsError(
            f"nothing keeps {deadline_s:g} s with {station_count} stations",
            hint=f"fastest: {fastest}",
        )

    def _usable(self, trials: Sequence[Trial]) -> list[Trial]:
        return usable(trials, gpus=self.eval_mode == "gpu")

    def _of(self, model: str | None) -> list[Trial]:
        """Successful trials of one model; where rows name none, they are of the one asked for."""
        trials = named(self._trials, model)
        usable_here = self._usable(trials)
        if not usable_here:
            if any(trial.success and not trial.model for trial in trials):
                raise no_model(self.path, trials)
            failed = [trial for trial in trials if not trial.success]
            first = f": {failed[0].error} ({failed[0].place})" if failed else ""
            raise InputError(
                f"{self.path} has no successful trial; {len(failed)} failed{first}",
                hint="run the benchmark again",
            )
        names = ", ".join(self.models)
        if model is None and len(self.models) > 1:
            raise SettingsError(
                f"{self.path} has trials of several models: {names}", hint="name one with model="
            )
        wanted = model_name(model or self.models[0]).casefold()
        found = [t for t in usable_here if t.model.casefold() == wanted]
        if not found:
            raise SettingsError(
                f"model: {self.path} has no successful trial of {model}", hint=f"it has {names}"
            )
        return found

    def _at(
        self,
        trials: Sequence[Trial],
        stations: int,
        wanted: Callable[[BestConfiguration], bool],
    ) -> tuple[list[BestConfiguration], list[str]]:
        """Configurations at a station count: measured ones, else predictions."""
        measured = [option for option in measured_at(trials, stations) if wanted(option)]
        if measured:
            return measured, []
        predicted, _ = predicted_at(trials, _positive(stations, "station_count"))
        found = [option for option in predicted if wanted(option)]
        return found, [f"Nearest measured: {nearest(trials, stations, None)}"]

    def _at_cpus(self, trials: Sequence[Trial], stations: int, cpus: int) -> BestConfiguration:
        """The fastest configuration with so many stations and CPUs, measured or predicted."""
        _positive(stations, "station_count")
        trials, notes = choose_workload(trials, stations)
        exact = [option for option in measured_at(trials, stations) if option.cpus == cpus]
        if exact:
            return self._answer(rank(exact), notes)
        predicted, reasons = predicted_at(trials, stations, cpus)
        if not predicted:
            raise self._unknown(trials, stations, cpus, reasons)
        near = f"Nearest measured: {nearest(trials, stations, cpus)}"
        return self._answer(rank(predicted), [*notes, near])

    def _unknown(
        self,
        trials: Sequence[Trial],
        stations: int,
        cpus: int | None,
        reasons: Sequence[str] = (),
    ) -> SettingsError:
        what = f"{stations} stations" + ("" if cpus is None else f" and {cpus} CPUs")
        why = f": {'; '.join(reasons[:2])}" if reasons else ""
        return SettingsError(
            f"{self.path} has no successful trial with {what}, and none can be predicted{why}",
            hint=f"nearest measured: {nearest(trials, stations, cpus)}",
        )

    def _answer(self, best: BestConfiguration, notes: Sequence[str]) -> BestConfiguration:
        every = [*notes]
        if best.trial.layout != "ours":
            every.append(
                f"Measured by {best.trial.layout}: the same settings take another time here"
            )
        if any(not trial.model and trial.line == best.trial.line for trial in self._trials):
            every.append(f"The file names no model: taken as measured with {best.model}")
        if self.notes:
            every.append(f"{len(self.notes)} notes on the lines of {self.path.name}: see notes")
        best = replace(best, notes=tuple(every))
        self._write_log(best)
        return best

    def _write_log(self, best: BestConfiguration) -> None:
        if self._log is None:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{stamp} - INFO - {best}\n")
        except OSError as error:
            raise OutputError(
                f"cannot write the log {self._log}: {error.strerror or error}",
                hint="choose another log_file_path",
            ) from error


class OptimalCPUConfigurationFinder(_Finder):
    """Answers from ``cpu_test_results.csv``.

    Parameters
    ----------
    results_dir : path
        Folder of the CSV files, `csv_dir` of `EvaluateSystem`.
    log_file_path : path, optional
        Answers are appended to this file.
    eval_sys_results_dir : path, optional
        EQCCTPro's name for `results_dir`.
    model : str, optional
        What was measured in rows that name no model, as in files of EQCCTPro before 0.7; the
        argument of the same name of each question does that too.

    Attributes
    ----------
    models : tuple of str
        Models with at least one successful trial.
    notes : tuple of str
        Lines of the file that could not be used, and why.

    Raises
    ------
    InputError
        There is no such file, it cannot be read, or essential columns are missing.
    SettingsError
        The folder is given twice or not at all.
    """

    eval_mode = "cpu"

    def find_optimal_for(
        self, cpu: int, station_count: int, model: str | None = None
    ) -> BestConfiguration:
        """The fastest configuration with so many CPUs and stations.

        Where nothing was measured with both, a prediction is returned, marked as one.

        Raises
        ------
        SettingsError
            As in `find_best_overall_usecase`, or it can be neither found nor predicted.
        InputError
            No trial succeeded.
        """
        return self._at_cpus(self._of(model), station_count, _positive(cpu, "cpu"))


class OptimalGPUConfigurationFinder(_Finder):
    """Answers from ``gpu_test_results.csv``; parameters as `OptimalCPUConfigurationFinder`."""

    eval_mode = "gpu"

    def find_optimal_for(
        self,
        num_cpus: int,
        gpu_list: Sequence[int],
        station_count: int,
        model: str | None = None,
    ) -> BestConfiguration:
        """The fastest configuration with these CPUs, GPUs and stations.

        Where nothing was measured with these, a prediction is returned, marked as one;
        only the GPUs that are asked for are considered.

        Raises
        ------
        SettingsError
            As in `find_best_overall_usecase`, or it can be neither found nor predicted.
        InputError
            No trial succeeded.
        """
        trials = self._of(model)
        wanted = sorted(set(gpu_list))
        fitting = [trial for trial in trials if sorted(trial.gpus) == wanted]
        if not fitting:
            known = sorted({trial.gpus for trial in trials})
            raise SettingsError(
                f"gpu_list: nothing was measured on GPUs {wanted}",
                hint=f"measured: {', '.join(str(list(gpus)) for gpus in known)}",
            )
        return self._at_cpus(fitting, station_count, _positive(num_cpus, "num_cpus"))


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise SettingsError(f"{name}: {value} is not a positive number")
    return value


def _at_most(value: float | None, limit: float | None) -> bool:
    return limit is None or (value is not None and value <= limit)


def _has_gpus(option: BestConfiguration, gpus: int | Sequence[int] | None) -> bool:
    if gpus is None:
        return True
    if isinstance(gpus, int):
        return len(option.gpus) <= gpus
    return set(option.gpus) <= set(gpus)
