"""A sweep: trial after trial, each kept as soon as it is over."""

from __future__ import annotations

import logging
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.errors import EvaluationError, SettingsError
from eqcctpro.evaluation.baselines import baseline_names
from eqcctpro.evaluation.canonical import model_name, trial_row
from eqcctpro.evaluation.finder_files import write_finder_files
from eqcctpro.evaluation.grid import TrialSpec, station_limit, trial_specs
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.results import Trial
from eqcctpro.evaluation.settings import EvaluationConfig
from eqcctpro.evaluation.station_sets import StationSets
from eqcctpro.evaluation.trial import TrialResult, run_trial
from eqcctpro.evaluation.trial_store import TrialStore
from eqcctpro.notices import one_warning
from eqcctpro.orchestration.model_choice import prepare_model
from eqcctpro.orchestration.outputs import package_versions
from eqcctpro.orchestration.placement import check_gpus
from eqcctpro.orchestration.runlog import run_log
from eqcctpro.picks.writers import check_writable
from eqcctpro.places import local_paths
from eqcctpro.resources.hardware import read_hardware

__all__ = ["EvaluationReport", "Sweep", "duration", "run_sweep", "trial_line"]

logger = logging.getLogger("eqcctpro.evaluation")

# Seconds that a trial takes before it picks anything, by mode, where none was measured yet:
# imports and loading; Ray's start; Ray's start and the model for each task.
_START_S = {"local": 2.0, "modelactor": 8.0, "ripper": 8.0}
_RUN_S = {"local": 1.0, "modelactor": 1.0, "ripper": 8.0}
_BASELINE_S = (8.0, 10.0)

Runner = Callable[..., TrialResult]
Listener = Callable[[TrialSpec, TrialResult, "EvaluationReport"], None]


@dataclass
class EvaluationReport:
    """Report of a sweep.

    Attributes
    ----------
    planned : list of TrialSpec
    finished_before : int
        Trials that succeeded in an earlier sweep.
    failed_before : int
        Trials that failed in an earlier sweep and are not tried again.
    succeeded, failed : int
        Trials of this sweep.
    merged : int
        Trials left out because memory caps them to one that was measured.
    skipped : list of str
        Every trial that was not run, and why.
    errors : list of str
        Every trial that failed, and why.
    seconds : float
    seconds_left : float
        Estimated, for the trials still to come.
    csv_path : str
    notes : list of str
        What is wrong with the input.
    """

    planned: list[TrialSpec] = field(repr=False)
    finished_before: int = 0
    failed_before: int = 0
    succeeded: int = 0
    failed: int = 0
    merged: int = 0
    skipped: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    seconds_left: float = 0.0
    csv_path: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Trials that need not be run any more."""
        before = self.finished_before + self.failed_before
        return before + self.succeeded + self.failed + self.merged

    def conclusion(self) -> list[str]:
        """Summary of the sweep in lines: counts, failures with reasons, the file."""
        counts = {
            "measured": self.succeeded,
            "done before": self.finished_before,
            "left out, as memory caps them": self.merged,
            "failed": self.failed,
            "skipped, as they failed before": self.failed_before,
        }
        said = [f"{count} {what}" for what, count in counts.items() if count]
        lines = [f"trials: {', '.join(said) or 'none'}; {duration(self.seconds)}"]
        lines += [f"FAILED: {error}" for error in self.errors]
        return [*lines, self.csv_path]


class Sweep:
    """All trials of an evaluation.

    Parameters
    ----------
    config : EvaluationConfig

    Raises
    ------
    InputError
        There is nothing to pick.
    OutputError
        Results cannot be written.
    SettingsError, RuntimeUnavailableError
        A baseline or a GPU is not there.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        _check_names(config)
        if config.pick.gpu_ids:
            check_gpus(config.pick, read_hardware())
        check_writable(config.pick.output)
        with one_warning():
            config = config.model_copy(update={"pick": prepare_model(config.pick)})
        self.config, pick = config, config.pick
        self.store = TrialStore(config.csv_dir, config.eval_mode)
        plan = make_plan(InputSettings.of(pick))
        self.environment = {"machine": describe_machine(), "versions": package_versions()}
        inputs = local_paths(pick.input, "an evaluation")
        self._sets = StationSets(inputs, plan, pick.output / "station_sets", config.seed)
        counts = station_limit(config.station_counts, len(self._sets))
        self.specs = trial_specs(
            config, {count: self._sets.choose(count) for count in counts}, self.environment
        )
        self.report = EvaluationReport(self.specs, csv_path=str(self.store.path))
        self.report.notes += [f"unusable file: {problem.message}" for problem in plan.problems]
        if max(config.station_counts) > len(self._sets):
            self.report.notes.append(
                f"the input holds {len(self._sets)} stations, "
                f"{max(config.station_counts)} were asked for"
            )

    def pending(self) -> list[TrialSpec]:
        """Trials to run: those that succeeded are done, those that failed are tried again.

        With ``retry_failed=False`` those that failed count as done too.
        """
        before = self._before()
        retry = self.config.retry_failed
        done = {name for name, success in before.items() if success or not retry}
        return [spec for spec in self.specs if spec.configuration_id not in done]

    def _before(self) -> dict[str, bool]:
        """Trials of earlier sweeps: whether they ever succeeded."""
        ended: dict[str, bool] = {}
        for trial in self.store.trials():
            if name := trial.configuration_id:
                ended[name] = ended.get(name, False) or trial.success
        return ended

    def estimate_s(self, specs: Sequence[TrialSpec]) -> float:
        """Roughly how long trials will take, after trials of the same mode and model."""
        trials = self.store.trials()
        runs = self.config.repeats + self.config.warm_ups
        return sum(_estimate(spec, trials, runs) for spec in specs)

    def run(
        self, *, runner: Runner = run_trial, on_trial: Listener | None = None
    ) -> EvaluationReport:
        """Run what is pending; every trial is kept before the next one begins.

        Parameters
        ----------
        runner : callable
            Measures one configuration.
        on_trial : callable, optional
            Told of every trial that is over.

        Raises
        ------
        OutputError
            A trial cannot be kept.
        EvaluationError
            No trial succeeded, neither now nor before.
        """
        started = time.perf_counter()
        pending = self.pending()
        self._count_before(pending)
        logger.info("%d trials, %d to run", len(self.specs), len(pending))
        caps = self._caps_before()
        for position, spec in enumerate(pending):
            alike = _with_any_workers(spec)
            if alike in caps and caps[alike] < (spec.config.workers or 0):
                self.report.merged += 1
                why = f"left out, as memory caps it to {caps[alike]} workers"
                self.report.skipped.append(f"{spec.title}: {why}")
                logger.info("%s: %s", spec.title, why)
                continue
            result = self._measure(spec, runner)
            workers = result.facts.get("workers")
            if result.success and workers is not None and workers < (spec.config.workers or 0):
                caps[alike] = workers
            self.report.seconds = time.perf_counter() - started
            if on_trial is not None:
                self.report.seconds_left = self.estimate_s(pending[position + 1 :])
                on_trial(spec, result, self.report)
        self.report.seconds = time.perf_counter() - started
        self.report.seconds_left = 0.0
        if any(trial.success for trial in self.store.trials()):
            write_finder_files(self.config.csv_dir, self.config.eval_mode)
        self._refuse_nothing()
        return self.report

    def _count_before(self, pending: Sequence[TrialSpec]) -> None:
        """Take down which trials are not run, and why."""
        before, left = self._before(), {spec.configuration_id for spec in pending}
        for spec in self.specs:
            if spec.configuration_id in left:
                continue
            success = before[spec.configuration_id]
            self.report.finished_before += success
            self.report.failed_before += not success
            why = "done before" if success else "failed before, and failed ones are not retried"
            self.report.skipped.append(f"{spec.title}: {why}")

    def _refuse_nothing(self) -> None:
        """Raise if nothing at all was measured."""
        report = self.report
        if report.succeeded or report.finished_before or not self.specs:
            return
        reasons = Counter(error.partition(": ")[2] for error in report.errors)
        said = "; ".join(
            f"{reason} ({count} trials)" if count > 1 else reason
            for reason, count in reasons.most_common(3)
        )
        failed = report.failed + report.failed_before
        raise EvaluationError(
            f"{f'all {failed} trials' if failed > 1 else 'the only trial'} failed: "
            f"{said or 'in an earlier sweep'}",
            hint=f"every row of {report.csv_path} has its reason",
        )

    def outlook(self) -> str:
        """Number of trials, and rough time that the pending ones take."""
        pending = self.pending()
        finished = len(self.specs) - len(pending)
        done = f", {finished} of them done" if finished else ""
        to_go = duration(self.estimate_s(pending))
        return f"{len(self.specs)} trials{done}; about {to_go} to go"

    def _caps_before(self) -> dict[str, int]:
        """Workers that memory allowed in trials of earlier sweeps."""
        workers = {
            trial.configuration_id: trial.workers
            for trial in self.store.trials()
            if trial.configuration_id and trial.success
        }
        return {
            _with_any_workers(spec): workers[spec.configuration_id]
            for spec in self.specs
            if workers.get(spec.configuration_id, 10**9) < (spec.config.workers or 0)
        }

    def measure(self, spec: TrialSpec, runner: Runner, on_trial: Listener | None = None) -> None:
        """See to it that a trial is over: run and keep it, unless that has been done.

        Raises
        ------
        OutputError
            It cannot be kept.
        """
        if any(one.configuration_id == spec.configuration_id for one in self.pending()):
            result = self._measure(spec, runner)
            if on_trial is not None:
                on_trial(spec, result, self.report)

    def _measure(self, spec: TrialSpec, runner: Runner) -> TrialResult:
        folder = self.config.pick.output / "trials" / spec.configuration_id
        result = runner(
            spec,
            folder,
            repeats=self.config.repeats,
            warm_ups=self.config.warm_ups,
            timeout_s=self.config.trial_timeout_s,
        )
        row = trial_row(result, self.environment, seed=self.config.seed)
        self.store.append(row, result.lines())
        # Picks of trials are all alike; what was measured is kept elsewhere.
        shutil.rmtree(folder, ignore_errors=True)
        if result.success:
            self.report.succeeded += 1
            logger.info("%s", trial_line(spec, result))
        else:
            self.report.failed += 1
            self.report.errors.append(f"{spec.title}: {result.error}")
            logger.warning("trial failed: %s: %s", spec.title, result.error)
        return result


def run_sweep(
    config: EvaluationConfig,
    *,
    on_trial: Listener | None = None,
    show: Callable[[str], None] | None = None,
) -> EvaluationReport:
    """Run a sweep with its log, and show how far it is.

    Parameters
    ----------
    config : EvaluationConfig
    on_trial : callable, optional
        Told of every trial that is over.
    show : callable, optional
        Gets lines for a person: what is wrong with the input, how much there is to do, each
        trial, and what came of all.

    Raises
    ------
    EQCCTProError
        As `Sweep` and `Sweep.run`.
    """
    say = show or (lambda _: None)
    with run_log([config.pick.log_file or config.pick.output / "evaluation.log"], append=True):
        sweep = Sweep(config)
        for note in sweep.report.notes:
            logger.warning("%s", note)
            say(note)
        say(sweep.outlook())

        def listen(spec: TrialSpec, result: TrialResult, report: EvaluationReport) -> None:
            left = f"{duration(report.seconds_left)} left"
            say(f"[{report.done}/{len(report.planned)}, {left}] {trial_line(spec, result)}")
            if on_trial is not None:
                on_trial(spec, result, report)

        try:
            return sweep.run(on_trial=listen)
        finally:
            for line in sweep.report.conclusion():
                say(line)


def trial_line(spec: TrialSpec, result: TrialResult) -> str:
    """One line on the result of a trial."""
    if not result.success:
        return f"{spec.title}: FAILED: {result.error}"
    seconds = result.median().seconds
    rate = len(spec.station_set.stations) / seconds
    memory = result.use.peak_pss_mb
    line = f"{spec.title}: {seconds:.2f} s, {rate:.0f} stations/s, {memory:.0f} MB"
    unreadable = result.median().unreadable
    return f"{line}; {unreadable} unreadable" if unreadable else line


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _check_names(config: EvaluationConfig) -> None:
    """Refuse baselines that do not exist."""
    known = baseline_names()
    for name in config.baselines:
        if name not in known:
            raise SettingsError(f"baselines: {name!r} is not known", hint=", ".join(known))


def _with_any_workers(spec: TrialSpec) -> str:
    """The same for trials that differ in the number of workers only."""
    return spec.config.model_dump_json(exclude={"workers"}) + spec.baseline


def _estimate(spec: TrialSpec, trials: Sequence[Trial], runs: int) -> float:
    mode = "baseline" if spec.baseline else spec.config.mode
    model = model_name(spec.config.model)
    alike = [
        one
        for one in trials
        if (one.mode, one.model, one.baseline, one.success) == (mode, model, spec.baseline, True)
    ]
    if not alike:
        start, run = _BASELINE_S if spec.baseline else (_START_S[mode], _RUN_S[mode])
        return start + run * runs
    stations = len(spec.station_set.stations)
    starts = [(one.total_seconds or one.seconds) - one.seconds for one in alike]
    # A trial with a similar number of stations says more than the others.
    nearest = min(abs(one.stations - stations) for one in alike)
    times = [
        one.seconds * max(stations / one.stations, 0.2)
        for one in alike
        if abs(one.stations - stations) == nearest
    ]
    return statistics.median(starts) + statistics.median(times) * runs
