"""`EvaluateSystem`: a benchmark of this machine, with the names that EQCCTPro's users know."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqcctpro.config import PickConfig
from eqcctpro.errors import SettingsError
from eqcctpro.evaluation.grid import published_station_counts
from eqcctpro.evaluation.settings import EvaluationConfig
from eqcctpro.notices import one_warning, warn_user, without_effect
from eqcctpro.parameters import (
    check_times,
    device_of,
    known_parameters,
    model_fields,
    require,
)
from eqcctpro.resources.hardware import available_cores, require_cores

if TYPE_CHECKING:
    from eqcctpro.evaluation.sweep import EvaluationReport, Listener
    from eqcctpro.times import Time

__all__ = ["EvaluateSystem"]

PathLike = str | Path

# EQCCTPro's largest number of stations, where none is given.
_MOST_STATIONS = 100

# Names of parameters before 0.7, and what they are called now.
_HISTORICAL = {
    "mode": "eval_mode",
    "set_vram_mb": "max_vram_mb",
    "used_cpu_test_step_size": "cpu_test_step_size",
}

# Parameters of trials on Ray.
_OF_RAY = (
    *("intra_threads", "tmp_dir", "ignore_cpu_ram_cap", "conc_timechunk_tasks_step_size"),
    *("min_conc_stations", "conc_station_tasks_step_size", "conc_station_tasks_max_only"),
    "concurrency_values",
)


class EvaluateSystem:
    """Measures how fast this machine picks in each configuration.

    Every trial is one row of ``csv_dir/cpu_test_results.csv`` or ``gpu_test_results.csv``;
    the finders answer from these files.  A sweep that is stopped goes on where it was when it
    is started again.  See ``docs/evaluation.md``.

    Parameters
    ----------
    eval_mode : {"cpu", "gpu"}
    input_dir : path
        The archive; it is only read.
    output_dir : path, optional
        Where trials work: everything is written below it and `csv_dir`; `csv_dir` by default.
    log_filepath : path, optional
        The log of the sweep.
    csv_dir : path, optional
        Where results are kept; `output_dir` by default.
    stations2use : int, optional
        The most stations of a trial, 100 by default.
    starting_amount_of_stations, station_list_step_size : int
        First number of stations, and the step up to `stations2use`: EQCCTPro 0.8.2's numbers.
        From 1 by 1 it takes 10, 15 ... and every number from the last multiple of five on, but
        without `stations2use` only 10, 15 ... 100; otherwise the numbers as given, which need
        not reach `stations2use`; below ten stations only `stations2use`.  Numbers that the
        input lacks are replaced by all stations.
    station_counts : sequence of int, optional
        Our own parameter: these numbers of stations, instead of the three above.
    cpu_id_list : list of int, optional
        Cores to use; all by default.
    min_cpu_amount, cpu_test_step_size : int
        Trials use the first `min_cpu_amount` cores, then a step more, up to all of them.
    min_gpu_amount : int
        Trials use the first so many of `selected_gpus`, then one more each, up to all.
    conc_station_tasks_step_size, min_conc_stations : int
        Step of the number of stations that are picked at once, from `min_conc_stations` on, and
        always all; 0 takes 20, 40, 60, 80 and 100 % of the stations, but not fewer than
        `min_conc_stations`.
    conc_station_tasks_max_only : bool
        Only pick all stations at once.
    concurrency_values : sequence of int, optional
        Numbers of stations that are picked at once, instead of the steps.
    conc_timechunk_tasks_step_size : int
        Step of the number of time chunks that are worked on at once; 0 takes only one.
    ripper : bool
        Measure Ripper tasks instead of persistent actors.
    ripper_ignore_cpu_ram_cap : bool
        Ripper trials start all workers that are asked for, whatever the memory.
    modes : sequence of {"local", "modelactor", "ripper"}, optional
        Overrides `ripper`.
    runtimes, batch_sizes : sequence, optional
        Runtimes and batch sizes to compare; by default those that a run would choose.
    baselines : sequence of str
        Other programs to measure in the same way: names of
        `eqcctpro.evaluation.baselines.baseline_names`.
    repeats, warm_ups : int
        Runs that count, and runs before them that do not.  The CSV has the median.
    seed : int
        Of the choice of stations, which is the same for all configurations.
    retry_failed : bool
        Run trials again that failed before; otherwise they are skipped, and the report says so.
    trial_timeout_s : float
        A trial that takes longer is ended, and is not a success.
    exact_resume_match : bool
        Always true: only a trial that is equal in everything counts as done.
    p_model_filepath, s_model_filepath, P_threshold, S_threshold, Detection_threshold
        As in `eqcctpro.RunEQCCTPro`.
    intra_threads, inter_threads, max_vram_mb, gpu_vram_safety_cap, cudnn_headroom
        As in `eqcctpro.RunEQCCTPro`.
    ram_safety_cap, selected_gpus, start_time, end_time, timechunk_dt, waveform_overlap
        As in `eqcctpro.RunEQCCTPro`.
    tmp_dir, model_type, seisbench_parent_model, seisbench_child_model
        As in `eqcctpro.RunEQCCTPro`.
    ignore_cpu_ram_cap, bandpass, model_arguments
        As in `eqcctpro.RunEQCCTPro`.
    **historical
        ``mode``, ``set_vram_mb`` and ``used_cpu_test_step_size``: names of `eval_mode`,
        `max_vram_mb` and `cpu_test_step_size` before EQCCTPro 0.7, deprecated.

    Attributes
    ----------
    config : EvaluationConfig

    Raises
    ------
    SettingsError
        A parameter cannot be honoured.
    RuntimeUnavailableError
        A runtime is not installed, or does not execute this model on this device.
    UnknownModelError, WeightsNotFoundError, WeightsError
        There is no such model or file of weights, or it is damaged.  Weights that are to be
        downloaded are looked for by `evaluate`, before the first trial.

    Warns
    -----
    SettingsWarning
        Parameters have no effect, as in `eqcctpro.RunEQCCTPro`.
    """

    def __init__(
        self,
        eval_mode: str | None = None,
        input_dir: PathLike | None = None,
        output_dir: PathLike | None = None,
        log_filepath: PathLike | None = None,
        csv_dir: PathLike | None = None,
        p_model_filepath: PathLike | None = None,
        s_model_filepath: PathLike | None = None,
        P_threshold: float | None = None,
        S_threshold: float | None = None,
        intra_threads: int = 1,
        inter_threads: int = 1,
        stations2use: int | None = None,
        cpu_id_list: Sequence[int] | None = None,
        cpu_test_step_size: int = 1,
        starting_amount_of_stations: int = 1,
        station_list_step_size: int = 1,
        min_cpu_amount: int = 1,
        min_conc_stations: int = 1,
        conc_station_tasks_step_size: int = 0,
        conc_station_tasks_max_only: bool = False,
        max_vram_mb: float | None = None,
        gpu_vram_safety_cap: float = 0.95,
        cudnn_headroom: float = 0.25,
        ram_safety_cap: float = 0.90,
        selected_gpus: Sequence[int] | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        conc_timechunk_tasks_step_size: int = 1,
        timechunk_dt: float = 1,
        waveform_overlap: float = 0,
        tmp_dir: PathLike | None = None,
        model_type: str = "eqcct",
        seisbench_parent_model: str | None = None,
        seisbench_child_model: str | None = None,
        Detection_threshold: float | None = None,
        ripper: bool = False,
        ripper_ignore_cpu_ram_cap: bool = False,
        ignore_cpu_ram_cap: bool = False,
        *,
        modes: Sequence[str] | None = None,
        runtimes: Sequence[str] = ("auto",),
        batch_sizes: Sequence[int | None] = (None,),
        baselines: Sequence[str] = (),
        concurrency_values: Sequence[int] | None = None,
        station_counts: Sequence[int] | None = None,
        min_gpu_amount: int = 1,
        repeats: int = 3,
        warm_ups: int = 1,
        seed: int = 0,
        retry_failed: bool = True,
        trial_timeout_s: float = 3600.0,
        exact_resume_match: bool = True,
        bandpass: tuple[float, float] | str | None = None,
        model_arguments: Mapping[str, Any] | None = None,
        **historical: Any,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in {"self", "historical"}}
        with one_warning():
            _take_historical(given, historical)
            _check(given)
            pick = _picked(given)
            self.config = EvaluationConfig.checked(
                pick=pick,
                eval_mode=given["eval_mode"],
                csv_dir=csv_dir or output_dir,
                **_axes(given, pick),
                runtimes=runtimes,
                batch_sizes=batch_sizes,
                baselines=baselines,
                repeats=repeats,
                warm_ups=warm_ups,
                seed=seed,
                retry_failed=retry_failed,
                trial_timeout_s=trial_timeout_s,
            )

    def evaluate(
        self, *, on_trial: Listener | None = None, quiet: bool = False
    ) -> EvaluationReport:
        """Run every trial that is not done yet.

        Trials run in processes of their own, which do not import the calling program.  The
        log goes on where an earlier sweep's ended.

        Parameters
        ----------
        on_trial : callable, optional
            Told of each trial that is over: its spec, its result and the report so far.
        quiet : bool
            Show no progress.  Otherwise there is a line on standard error for each trial, and
            at the end one for each that failed.

        Returns
        -------
        EvaluationReport
            How many trials succeeded, failed and were skipped, which, and where the rows are.

        Raises
        ------
        EvaluationError
            No trial succeeded, neither now nor before.
        EQCCTProError
            The input cannot be used, or results cannot be kept.  As long as a trial succeeds,
            those that fail do not raise: they have a row that says why.
        """
        from eqcctpro.evaluation.sweep import run_sweep

        return run_sweep(self.config, on_trial=on_trial, show=None if quiet else _to_stderr)

    def evaluate_cpu(self, *, quiet: bool = False) -> EvaluationReport:
        """`evaluate`, for scripts that call it by EQCCTPro's name."""
        return self._of_mode("cpu", quiet)

    def evaluate_gpu(self, *, quiet: bool = False) -> EvaluationReport:
        """`evaluate`, for scripts that call it by EQCCTPro's name."""
        return self._of_mode("gpu", quiet)

    def _of_mode(self, mode: str, quiet: bool) -> EvaluationReport:
        if self.config.eval_mode != mode:
            raise SettingsError(f"eval_mode is {self.config.eval_mode!r}, not {mode!r}")
        return self.evaluate(quiet=quiet)


def _to_stderr(line: str) -> None:
    """Leave standard output to what the program prints."""
    print(line, file=sys.stderr, flush=True)


def _take_historical(given: dict[str, Any], historical: dict[str, Any]) -> None:
    """Take parameters under the names of releases before 0.7, with a warning."""
    known_parameters(EvaluateSystem, historical, _HISTORICAL)
    for old, value in historical.items():
        new = _HISTORICAL[old]
        if given[new] != signature(EvaluateSystem).parameters[new].default:
            raise SettingsError(f"{old} and {new} are the same parameter: give one of them")
        given[new] = value
        warn_user(f"{old} is now {new}", DeprecationWarning)


def _check(given: dict[str, Any]) -> None:
    require(given, "eval_mode", "input_dir")
    given["eval_mode"] = str(given["eval_mode"]).lower()
    if given["eval_mode"] not in {"cpu", "gpu"}:
        raise SettingsError(f"eval_mode: {given['eval_mode']!r} is not known", hint="cpu or gpu")
    if given["output_dir"] is None and given["csv_dir"] is None:
        raise SettingsError(
            "output_dir must be given", hint="or csv_dir, which then serves as both"
        )
    if not given["exact_resume_match"]:
        raise SettingsError(
            "exact_resume_match=False cannot be honoured: it would skip trials that nobody ran"
        )
    check_times(given)
    at_least_one = ("cpu_test_step_size", "station_list_step_size", "starting_amount_of_stations")
    for name in (*at_least_one, "min_conc_stations"):
        if given[name] < 1:
            raise SettingsError(f"{name}: {given[name]} is not 1 or more")
    if given["stations2use"] is not None and given["stations2use"] < 1:
        raise SettingsError(f"stations2use: {given['stations2use']} is not 1 or more")
    for name in ("conc_station_tasks_step_size", "conc_timechunk_tasks_step_size"):
        if given[name] < 0:
            raise SettingsError(f"{name}: {given[name]} is negative")


def _picked(given: Mapping[str, Any]) -> PickConfig:
    """Validated fields of `PickConfig` that all trials share, from parameters."""
    from eqcctpro.orchestration.model_choice import check_model

    timed = given["start_time"] is not None and given["end_time"] is not None
    cores = given["cpu_id_list"]
    require_cores(cores, "cpu_id_list")
    same = ("max_vram_mb", "gpu_vram_safety_cap", "cudnn_headroom", "ram_safety_cap", "bandpass")
    values: dict[str, Any] = {name: given[name] for name in same} | dict(
        input=given["input_dir"],
        output=given["output_dir"] or given["csv_dir"],
        log_file=given["log_filepath"],
        **model_fields(given),
        start=given["start_time"],
        end=given["end_time"],
        timechunk=given["timechunk_dt"] if timed else None,
        overlap=given["waveform_overlap"] if timed else 0.0,
        mode="modelactor",
        # An axis; here it says whether `inter_threads` has an effect in any trial.
        runtime="tensorflow" if "tensorflow" in given["runtimes"] else "auto",
        device=device_of(given["eval_mode"] == "gpu", given["selected_gpus"]),
        threads=given["intra_threads"],
        inter_threads=None if given["inter_threads"] == 1 else given["inter_threads"],
        cpu_ids=tuple(available_cores() if cores is None else cores),
        ignore_ram_cap=given["ignore_cpu_ram_cap"],
        ray_temp_dir=given["tmp_dir"],
        p_threshold=given["P_threshold"],
        s_threshold=given["S_threshold"],
        detection_threshold=given["Detection_threshold"],
        model_arguments=dict(given["model_arguments"] or {}),
    )
    return check_model(PickConfig.checked(**values), given["runtimes"])


def _axes(given: Mapping[str, Any], pick: PickConfig) -> dict[str, Any]:
    """Fields of `EvaluationConfig` that span the trials."""
    modes = given["modes"] or (("ripper",) if given["ripper"] else ("modelactor",))
    if given["ripper"] and "ripper" not in modes:
        without_effect("ripper=True", "modes names what is measured")
    free = given["ripper_ignore_cpu_ram_cap"]
    if free and "ripper" not in modes:
        without_effect(
            "ripper_ignore_cpu_ram_cap=True",
            "no Ripper tasks are measured; ignore_cpu_ram_cap is for every mode",
        )
    if set(modes) == {"local"}:
        _unused(given, _OF_RAY, "the mode local is one process, which takes all cores of a trial")
    if given["start_time"] is None:
        chunks = ("conc_timechunk_tasks_step_size",)
        _unused(given, chunks, "start_time and end_time are not given")
    cores, gpus = len(pick.cpu_ids or ()), len(pick.gpu_ids)
    return {
        "modes": modes,
        "cpu_counts": _steps("min_cpu_amount", given, cores, given["cpu_test_step_size"]),
        "gpu_counts": _steps("min_gpu_amount", given, gpus, 1) if gpus else (0,),
        "station_counts": _station_counts(given),
        **_concurrency(given),
        "timechunk_concurrency": _timechunks(given),
        "ripper_ignores_ram_cap": bool(free),
    }


def _steps(name: str, given: Mapping[str, Any], last: int, step: int) -> tuple[int, ...]:
    """From the first number to the last one, which is always among them."""
    first = given[name]
    if not 1 <= first <= last:
        raise SettingsError(f"{name}: {first} of {last} that there are")
    return tuple(dict.fromkeys([*range(first, last, step), last]))


def _station_counts(given: Mapping[str, Any]) -> tuple[int, ...]:
    """Those that are named, or EQCCTPro's."""
    names = ("stations2use", "starting_amount_of_stations", "station_list_step_size")
    most, start, step = (given[name] for name in names)
    if given["station_counts"]:
        _unused(given, names, "station_counts names the numbers of stations")
        return tuple(given["station_counts"])
    if most is None and start == step == 1:
        return tuple(range(10, _MOST_STATIONS + 1, 5))
    counts = published_station_counts(most or _MOST_STATIONS, start, step)
    if not counts:
        raise SettingsError(
            f"starting_amount_of_stations: {start} of at most {most or _MOST_STATIONS}",
            hint="stations2use is the largest number",
        )
    return counts


def _concurrency(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `EvaluationConfig` that say how many stations are picked at once."""
    least, step = given["min_conc_stations"], given["conc_station_tasks_step_size"]
    steps = ("min_conc_stations", "conc_station_tasks_step_size")
    if given["concurrency_values"] is not None:
        reason = "concurrency_values names the numbers"
        _unused(given, (*steps, "conc_station_tasks_max_only"), reason)
        return {"concurrency": tuple(given["concurrency_values"])}
    if given["conc_station_tasks_max_only"]:
        _unused(given, steps, "conc_station_tasks_max_only is set")
        return {"concurrency": "max"}
    return {"concurrency": "percent", "min_concurrency": least, "concurrency_step": step or None}


def _unused(given: Mapping[str, Any], names: Sequence[str], reason: str) -> None:
    """Say of parameters that were given that they have no effect."""
    defaults = signature(EvaluateSystem).parameters
    for name in names:
        if given[name] != defaults[name].default:
            without_effect(f"{name}={given[name]}", reason)


def _timechunks(given: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of time chunks to try at once; those that the input lacks are left out."""
    step = given["conc_timechunk_tasks_step_size"]
    if step == 0 or given["start_time"] is None:
        return (1,)
    from eqcctpro.times import parse_utc

    span = parse_utc(given["end_time"], "end_time") - parse_utc(given["start_time"], "start_time")
    chunks = max(-(-span // round(given["timechunk_dt"] * 60e9)), 1)
    return tuple(range(1, int(chunks) + 1, step))
