"""The Python interface with the parameter names that EQCCTPro's users know."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eqcctpro.config import PickConfig
from eqcctpro.errors import SettingsError
from eqcctpro.notices import one_warning, without_effect
from eqcctpro.parameters import (
    check_times,
    device_of,
    known_parameters,
    model_fields,
    model_name,
    require,
)
from eqcctpro.resources.hardware import require_cores

if TYPE_CHECKING:
    from eqcctpro.evaluation.configuration import BestConfiguration
    from eqcctpro.orchestration.result import RunResult
    from eqcctpro.times import Time

__all__ = ["RunEQCCTPro"]

logger = logging.getLogger("eqcctpro")

#: Lines on what was not picked; the summary has the others.
_MOST_SAID = 20

PathLike = str | Path

# Parameters that are called as the fields of `PickConfig` are.
_SAME_NAMES = (
    *("window_grid", "runtime", "batch_size", "max_vram_mb", "vram_mb", "bandpass"),
    *("gpu_vram_safety_cap", "cudnn_headroom", "ram_safety_cap", "overview", "report"),
    *("journal", "resume", "retry_failed", "item_timeout", "address"),
    *("contradictions", "fill_gaps", "longest_gap", "filters"),
)


class RunEQCCTPro:
    """One picking run over an archive of time-chunk and station folders.

    Every parameter is checked here, before any work starts, and so is the model as far as it
    is on this machine.  What contradicts the request raises and says why.  What has no effect in
    this run, such as a limit of GPU memory on the CPU, or a threshold of detections for a model
    without any, is accepted and named by one `eqcctpro.SettingsWarning`.

    Parameters
    ----------
    use_gpu : bool
        Run the model on CUDA devices.
    input_dir, output_dir : path
        The archive, and where results go.
    log_filepath : path, optional
        A second place for the log, beside ``output_dir/run.log``.
    p_model_filepath, s_model_filepath : path, optional
        Weights of EQCCT's two networks, Keras's ``.h5`` or SeisBench's ``.pt``; no effect with
        ``model_type="seisbench"``.  Without them ``EQCCT/original`` is found by name.
    number_of_concurrent_station_predictions : int, optional
        Workers: Ray actors, or Ripper tasks at a time.  One for each core by default.
    number_of_concurrent_timechunk_predictions : int
        Time chunks that are worked on at once.
    intra_threads : int
        Threads of each worker.  With ``mode="local"``, 1 stands for one on each core.
    inter_threads : int
        Operators that TensorFlow executes at a time.  No effect with the other runtimes,
        which execute one operator after the other.
    P_threshold, S_threshold, Detection_threshold : float, optional
        Probabilities in 0..1.  None takes the defaults of the weights: 0.001 for P and
        0.02 for S with EQCCT.  No effect for what the model does not yield.
    specific_stations : str, optional
        Station folders or codes, separated by commas; patterns are allowed.
    stations2use : int, optional
        Pick a random choice of that many stations, the same in every run.
    csv_dir, best_usecase_config : path, bool
        Run as the benchmark in `csv_dir` found best for the model: mode, workers, threads,
        batch size, runtime, cores and GPUs are taken from it, whatever is given here.
        `csv_dir` alone has no effect.
    vram_mb : float, optional
        GPU memory of each worker, MB; by default what its model needs, see
        ``docs/resources.md``.  It is a limit: a worker that meets it takes smaller batches.
    gpu_vram_safety_cap : float
        Share of each GPU's memory that may be full, at most 0.99.
    cudnn_headroom : float
        Share of the workers' GPU memory that is left for workspaces, at most 0.80.
    selected_gpus : list of int, optional
        CUDA devices.  By default all that CUDA shows to this process, one worker on each unless
        more are asked for; the first one with ``mode="local"``, which uses one.  The three
        parameters above and this one have no effect without `use_gpu`.
    ram_safety_cap : float
        Share of the available memory that workers may fill, at most 0.98.
    cpu_id_list : list of int, optional
        Cores to use; all by default.
    start_time, end_time : str, datetime or UTCDateTime, optional
        UTC: ``"2024-12-15 12:00:00"``, ``"2024-350"``.  Without them everything is picked, and the
        folders are the time chunks.
    timechunk_dt, waveform_overlap : float
        Length of a time chunk and what neighbours share, in minutes; used with
        `start_time` and `end_time`.
    tmp_dir : path, optional
        Ray's folder for sockets and logs.
    model_type : {"eqcct", "seisbench"}
    seisbench_parent_model, seisbench_child_model : str, optional
        For example ``"PhaseNet"`` and ``"original"``.
    ripper : bool
        One Ray task per bundle of stations instead of persistent actors.
    ripper_ignore_cpu_ram_cap, ignore_cpu_ram_cap : bool
        Start all workers that are asked for, whatever the memory; the first one has an effect
        with `ripper` only.
    mode : {"local", "modelactor", "ripper"}, optional
        ``"local"`` runs in this process; by default ``"ripper"`` with `ripper`, else
        ``"modelactor"``.
    runtime, batch_size, window_grid, bandpass, model_arguments, formats, overview, report
        As in `eqcctpro.PickConfig`.  ``runtime="tensorflow"`` runs EQCCT as published.
    contradictions : {"cut", "drop"}
        Of records of a channel that contradict each other, leave out the stretch where they do,
        or all of them, as SeisBench does.
    fill_gaps : {"none", "zero", "interpolate"}
        Fill gaps as ObsPy's ``Stream.merge(fill_value=0)`` or ``fill_value="interpolate"`` do.
    longest_gap : float
        Seconds, a day at most; longer gaps stay gaps.
    filters : str or sequence of str
        Filters and detrending as by ObsPy, before everything else and in their order:
        ``"highpass:1"``, ``"bandpass:3,15,corners=2,zerophase"``, ``"detrend:linear"``; see
        ``docs/picking.md``.
    journal : bool
        Record what is done, so that a killed run goes on where it was.
    resume : {"auto", "require", "never"}
        Whether an unfinished run in `output_dir` is gone on with; ``"never"`` discards it, or
        the results of a finished run, which are otherwise replaced by those of the same settings
        only.  See ``docs/faults.md``.
    retry_failed : bool
        On going on, pick again what failed.
    item_timeout : float, optional
        Seconds in which a station must be read; None waits as long as it takes.
    address : str, optional
        A running Ray cluster on which to pick, ``"HOST:PORT"`` or ``"auto"``; see
        ``docs/cluster.md``.
    max_vram_mb : float, optional
        GPU memory of all workers together, MB; an even part of it on each GPU.
    configuration : BestConfiguration, optional
        The answer of a finder; taken as with `best_usecase_config`.
    **settings
        Any other field of `eqcctpro.PickConfig`, such as ``exclude``, ``layout`` or
        ``amplitudes``.

    Attributes
    ----------
    config : PickConfig
        The settings of the run.
    configuration : BestConfiguration or None
        What was taken from a benchmark.
    overridden : dict
        Parameters that were given and replaced by it, and what they were.

    Raises
    ------
    SettingsError
        A parameter is wrong, or cannot be honoured.
    UnknownModelError, WeightsNotFoundError, WeightsError
        There is no such model or file of weights, or it is damaged.  Weights that are to be
        downloaded are looked for when the run starts.
    RuntimeUnavailableError
        The runtime is not installed, or does not execute this model on this device; or a GPU of
        the configuration is not here.
    InputError
        There is no benchmark in `csv_dir`, or nothing in it succeeded.

    Examples
    --------
    >>> run = RunEQCCTPro(
    ...     input_dir="network",
    ...     output_dir="out",
    ...     model_type="seisbench",
    ...     seisbench_parent_model="EQTransformer",
    ...     seisbench_child_model="original",
    ...     mode="local",
    ... )
    >>> result = run.run_eqcctpro()  # doctest: +SKIP
    """

    def __init__(
        self,
        use_gpu: bool = False,
        input_dir: PathLike | None = None,
        output_dir: PathLike | None = None,
        log_filepath: PathLike | None = None,
        p_model_filepath: PathLike | None = None,
        s_model_filepath: PathLike | None = None,
        number_of_concurrent_station_predictions: int | None = None,
        number_of_concurrent_timechunk_predictions: int = 1,
        intra_threads: int = 1,
        inter_threads: int = 1,
        P_threshold: float | None = None,
        S_threshold: float | None = None,
        specific_stations: str | None = None,
        csv_dir: PathLike | None = None,
        best_usecase_config: bool = False,
        vram_mb: float | None = None,
        stations2use: int | None = None,
        selected_gpus: Sequence[int] | None = None,
        gpu_vram_safety_cap: float = 0.95,
        cudnn_headroom: float = 0.25,
        ram_safety_cap: float = 0.90,
        cpu_id_list: Sequence[int] | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
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
        mode: str | None = None,
        runtime: str = "auto",
        batch_size: int | None = None,
        window_grid: str = "trace",
        bandpass: tuple[float, float] | Literal["off"] | None = None,
        model_arguments: Mapping[str, Any] | None = None,
        formats: Sequence[str] = ("csv", "parquet", "eqcctpro"),
        overview: bool = True,
        report: bool = False,
        contradictions: str = "cut",
        fill_gaps: str = "none",
        longest_gap: float = 60.0,
        filters: str | Sequence[str] = (),
        max_vram_mb: float | None = None,
        journal: bool = True,
        resume: str = "auto",
        retry_failed: bool = True,
        item_timeout: float | None = 600.0,
        address: str | None = None,
        configuration: BestConfiguration | None = None,
        **settings: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _parameters()}
        self.configuration: BestConfiguration | None = None
        self.overridden: dict[str, Any] = {}
        with one_warning():
            self.config = self._configured(given, settings)

    def _configured(self, given: Mapping[str, Any], more: Mapping[str, Any]) -> PickConfig:
        """The settings of a run from the parameters, checked with all that can be checked now."""
        from eqcctpro.orchestration.model_choice import check_model

        require(given, "input_dir", "output_dir")
        self.configuration = _find_configuration(given)
        _refuse_impossible(given)
        values = _settings(given)
        values |= known_parameters(RunEQCCTPro, more, PickConfig.model_fields.keys() - values)
        if self.configuration is not None:
            from eqcctpro.evaluation.machine import take_configuration

            values, self.overridden = take_configuration(self.configuration, values, _stated(given))
        config = PickConfig.checked(**values)
        if config.address is None:
            require_cores(config.cpu_ids, "cpu_id_list")
        return check_model(config)

    def run_eqcctpro(self, *, quiet: bool = True) -> RunResult:
        """Pick, and write the results to `output_dir`.

        What was not picked is logged as a warning, which Python prints on standard error
        unless the program sets up logging of its own.

        Parameters
        ----------
        quiet : bool
            Show no progress.

        Returns
        -------
        RunResult
            The pick table, counts, seconds and paths.

        Raises
        ------
        EQCCTProError
            The run cannot start or cannot be finished.  Single stations that fail
            are in the result's summary instead.
        """
        from eqcctpro.orchestration.run import run_picking

        result = run_picking(self.config, quiet=quiet)
        problems = result.problems
        for line in problems[:_MOST_SAID]:
            logger.warning("%s", line)
        if len(problems) > _MOST_SAID:
            more = len(problems) - _MOST_SAID
            logger.warning("and %d more, see %s", more, result.paths["summary"])
        return result


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `PickConfig` from parameters."""
    mode = _mode(given)
    on_ray = mode != "local"
    threads, runtime = given["intra_threads"], given["runtime"]
    one_by_default = on_ray or runtime == "tensorflow"
    timed = given["start_time"] is not None and given["end_time"] is not None
    cores = given["cpu_id_list"]
    return {name: given[name] for name in _SAME_NAMES} | dict(
        input=given["input_dir"],
        output=given["output_dir"],
        log_file=given["log_filepath"],
        **model_fields(given),
        start=given["start_time"],
        end=given["end_time"],
        timechunk=given["timechunk_dt"] if timed else None,
        overlap=given["waveform_overlap"] if timed else 0.0,
        stations=given["specific_stations"] or (),
        stations_at_most=given["stations2use"],
        mode=mode,
        workers=given["number_of_concurrent_station_predictions"] if on_ray else None,
        concurrent_timechunks=given["number_of_concurrent_timechunk_predictions"]
        if on_ray
        else None,
        device=device_of(
            given["use_gpu"],
            given["selected_gpus"],
            several=on_ray and given["address"] is None,
        ),
        threads=threads if threads != 1 or one_by_default else None,
        inter_threads=None if given["inter_threads"] == 1 else given["inter_threads"],
        cpu_ids=None if cores is None else tuple(cores),
        ignore_ram_cap=given["ignore_cpu_ram_cap"]
        or (given["ripper_ignore_cpu_ram_cap"] and mode == "ripper"),
        ray_temp_dir=given["tmp_dir"],
        p_threshold=given["P_threshold"],
        s_threshold=given["S_threshold"],
        detection_threshold=given["Detection_threshold"],
        model_arguments=dict(given["model_arguments"] or {}),
        formats=tuple(given["formats"]),
    )


def _mode(given: Mapping[str, Any]) -> str:
    return str(given["mode"] or ("ripper" if given["ripper"] else "modelactor"))


def _refuse_impossible(given: Mapping[str, Any]) -> None:
    """Refuse what contradicts the request."""
    mode, stated = _mode(given), _stated(given)
    if mode == "local":
        for name in (
            "number_of_concurrent_station_predictions",
            "number_of_concurrent_timechunk_predictions",
            "tmp_dir",
        ):
            if name in stated:
                raise SettingsError(f"{name} applies to the modes modelactor and ripper")
    if given["ripper"] and mode != "ripper":
        raise SettingsError(
            f"ripper is set and the mode is {mode}", hint="mode='ripper', or leave it out"
        )
    if given["ripper_ignore_cpu_ram_cap"] and mode != "ripper":
        without_effect(
            "ripper_ignore_cpu_ram_cap=True",
            f"the mode is {mode}; ignore_cpu_ram_cap is for every mode",
        )
    check_times(given)


def _stated(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that differ from their defaults."""
    return {name: value for name, value in given.items() if value != _parameters()[name].default}


@cache
def _parameters() -> dict[str, Parameter]:
    """The parameters that have a name."""
    found = signature(RunEQCCTPro).parameters
    return {name: one for name, one in found.items() if one.kind is not Parameter.VAR_KEYWORD}


def _find_configuration(given: Mapping[str, Any]) -> BestConfiguration | None:
    """The configuration that a benchmark found and this run is to take."""
    if not given["best_usecase_config"]:
        if given["csv_dir"] is not None:
            without_effect(f"csv_dir={str(given['csv_dir'])!r}", "best_usecase_config is not set")
        return given["configuration"]
    if given["csv_dir"] is None:
        raise SettingsError(
            "best_usecase_config=True needs csv_dir",
            hint="csv_dir is the folder that EvaluateSystem wrote its CSV files to",
        )
    if given["configuration"] is not None:
        raise SettingsError("best_usecase_config and configuration exclude each other")
    from eqcctpro.evaluation import finders

    kind = "GPU" if given["use_gpu"] else "CPU"
    finder = getattr(finders, f"Optimal{kind}ConfigurationFinder")(given["csv_dir"])
    return finder.find_best_overall_usecase(model_name(given))
