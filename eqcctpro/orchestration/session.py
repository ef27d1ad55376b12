"""Session of consecutive runs that share their workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from eqcctpro import errors
from eqcctpro.archive.hydrophones import has_hydrophone
from eqcctpro.archive.partitions import (
    PartitionPlanner,
    PlannedPartition,
    partition_planner,
)
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import (
    EQCCTProError,
    InputError,
    ReplaceError,
    ResumeError,
    SettingsError,
)
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.lock import OutputLock
from eqcctpro.journal.partition_record import partition_facts
from eqcctpro.models.description import assumed_text
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.notices import one_warning
from eqcctpro.orchestration.execution import Execution
from eqcctpro.orchestration.facts import run_facts, run_id
from eqcctpro.orchestration.finished import keep_finished
from eqcctpro.orchestration.interrupt import (
    Interruption,
    RunInterrupted,
    termination_interrupts,
)
from eqcctpro.orchestration.keeping import HINT, NoJournal, open_journal
from eqcctpro.orchestration.model_choice import (
    describe_run,
    expected_windows,
    find_run_weights,
    fit_to_model,
)
from eqcctpro.orchestration.outputs import (
    RunTables,
    draw_run,
    provenance,
    report_run,
    span_text,
    summarise,
    write_summary,
    write_tables,
)
from eqcctpro.orchestration.partitioned import PartitionedRun
from eqcctpro.orchestration.placement import check_machine
from eqcctpro.orchestration.progress import PartitionProgress, PlanningProgress, Progress
from eqcctpro.orchestration.result import RunResult
from eqcctpro.orchestration.runlog import RunLog, gathered_warnings, run_log
from eqcctpro.orchestration.waveform_memory import fit_into_memory, waveform_memory
from eqcctpro.orchestration.worker import BundleResult
from eqcctpro.orchestration.workers import Workers, open_workers
from eqcctpro.picks.annotations import curve_channels
from eqcctpro.picks.table import DETECTION_SCHEMA, PickRows
from eqcctpro.picks.writers import check_writable
from eqcctpro.resources.allocator import return_free_memory
from eqcctpro.resources.sampler import ResourceSampler
from eqcctpro.runtimes.select import load_picker, windows_of_session
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.waveform.decode import NOT_PICKED

__all__ = ["CHANGEABLE", "PickSession"]

# Python's part of it takes some 20 ms, and with less to do there is less to return.
MANY_TASKS = 2000

# Contents of small files that planning read whole and picking takes over: a minute of 500 stations.
HELD_BYTES = 16 * 2**20

#: Settings that may differ between the runs of a session.
CHANGEABLE = frozenset(
    {
        *("input", "output", "layout", "start", "end", "timechunk", "overlap", "window_grid"),
        *("stations", "stations_at_most", "exclude", "channel_priority", "storage", "input_roots"),
        *("concurrent_timechunks", "annotations", "contradictions"),
        *("fill_gaps", "longest_gap", "filters"),
        *("p_threshold", "s_threshold", "detection_threshold"),
        *("formats", "overview", "report", "log_file", "amplitudes", "response"),
        *("journal", "resume", "retry_failed", "item_timeout", "partition"),
    }
)


class _Clock:
    """Timer of the parts of a run, wall-clock seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


class PickSession:
    """Session that picks run after run with the same workers; a context manager.

    The first run loads the model and starts the workers, and later ones find them warm.
    Runs from several threads wait for each other; for runs at the same time take a session each.

    Parameters
    ----------
    config : PickConfig
        What the first run does.

    Examples
    --------
    >>> with PickSession(config) as session:  # doctest: +SKIP
    ...     for minute in minutes:
    ...         session.run(input=minute.folder, output=minute.results)
    """

    def __init__(self, config: PickConfig) -> None:
        self.config = config
        self._weights: WeightFiles | None = None
        self._weights_logged = False
        self._workers: Workers | None = None
        self._waveforms_mb = 0.0
        self._watched: ResourceSampler | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> PickSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, once no run needs them; a later run starts new ones."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        workers, self._workers = self._workers, None
        self._watched = None
        if workers is not None:
            workers.close()

    def run(
        self, *, quiet: bool = True, keep_going: bool = True, last: bool = False, **changes: Any
    ) -> RunResult:
        """Pick, and write the results.

        Parameters
        ----------
        quiet, keep_going : bool
            As in `run_picking`.
        last : bool
            End the workers while the results are written.
        **changes
            Settings of this run and the following ones that differ from those before:
            those in `CHANGEABLE`.  A run that raises leaves the session's as they were.

        Raises
        ------
        SettingsError
            A change needs other workers.
        ReplaceError
            The folder holds the results of a finished run with other settings;
            ``resume="never"`` replaces them.
        EQCCTProError
            As in `run_picking`.
        KeyboardInterrupt
            Ctrl-C or SIGTERM; the same command goes on.
        """
        with termination_interrupts(), self._lock:
            before = self.config
            try:
                return self._logged(changes, quiet=quiet, keep_going=keep_going, last=last)
            except BaseException:
                self.config = before
                raise

    def _logged(
        self, changes: Mapping[str, Any], *, quiet: bool, keep_going: bool, last: bool
    ) -> RunResult:
        self.config = _changed(self.config, changes)
        config, clock = self.config, _Clock()
        check_writable(config.output)
        logs = [config.output / "run.log", *([config.log_file] if config.log_file else [])]
        folder = RunFolder(config.output)
        with OutputLock(config.output) as lock:
            goes_on = config.resume != "never" and folder.unfinished()
            with run_log(logs, append=goes_on) as log:
                try:
                    return self._run(
                        clock, log, folder, lock, quiet=quiet, keep_going=keep_going, last=last
                    )
                except ReplaceError:  # which touches nothing, the log included
                    raise
                except BaseException as error:
                    if isinstance(error, (EQCCTProError, RunInterrupted)):
                        log.logger.error("%s", error)
                    self._close()  # what they still had to do is no longer wanted
                    raise

    def _run(
        self,
        clock: _Clock,
        log: RunLog,
        folder: RunFolder,
        lock: OutputLock,
        *,
        quiet: bool,
        keep_going: bool,
        last: bool,
    ) -> RunResult:
        logger, weights = log.logger, self._find_weights()
        picker, settings = self._described(weights)
        config = self.config
        clock.lap("model")
        inputs = InputSettings.of(
            config,
            context_ns=settings.context_ns,
            hydrophone=has_hydrophone(picker.components),
            hold_bytes=HELD_BYTES if config.mode == "local" else 0,
        )
        if (planner := _planner_of_partitions(config, inputs, folder)) is not None:
            return self._run_partitions(
                clock,
                log,
                folder,
                lock,
                planner,
                settings,
                quiet=quiet,
                keep_going=keep_going,
                last=last,
            )
        plan = make_plan(inputs, PlanningProgress(quiet=quiet))
        if plan.problems and not keep_going:
            raise InputError(plan.problems[0].message)
        if self._workers is None and config.resume != "never" and folder.holds_a_run:
            # With --fresh, which the refusals below advise, the run could not start either.
            check_machine(config, waveforms_mb=0.0)
            fit_into_memory(config, plan, settings, picker)
        if config.resume == "auto" and not log.append:
            keep_finished(config, weights, picker, settings)
        self._log_weights(weights, logger)
        _log_plan(plan, logger)
        if len(plan.tasks) >= MANY_TASKS:
            return_free_memory()  # of what planning needed, before there is more among it
        journal = open_journal(config, folder, plan, picker, weights, settings)
        clock.lap("plan")
        workers = self._ready(
            plan, journal, config, picker=picker, settings=settings, stay=not last
        )
        clock.lap("workers")
        run = Execution(
            plan,
            workers,
            settings,
            journal=journal,
            open_chunks=config.concurrent_timechunks,
            gpus=bool(config.gpu_ids),
            watched=self._watched,
        )
        self._watched = run.sampler
        # Only now, when nothing is in the way of picking any more, earlier results may go.
        lock.check()
        log.begin()
        journal.begin(workers)
        try:
            progress = Progress(len(plan.tasks), quiet=quiet, already=len(run.records))
            with progress:
                asked = self._pick(run, progress, logger, quiet=quiet, keep_going=keep_going)
            clock.lap("pick")
            lock.check()
            journal.settle()  # what cannot be recorded is said before results are written
            name = run_id(config, weights, plan.tasks)
            tables = _tables(run, picker, name)
            if len(plan.tasks) >= MANY_TASKS:
                return_free_memory()  # of waveforms and of picks as they came
            with ThreadPoolExecutor(1, "eqcctpro-end") as beside:
                ended = beside.submit(self._end, run) if last else None
                result = _finish(config, clock, logger, weights, picker, run, name, tables)
                if ended is not None:
                    ended.result()
            # Half of what this does would be worth nothing.
            with Interruption(graceful=True, quiet=True) as late:
                lock.check()
                journal.finish(result.counts["failed"])
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            journal.end("interrupted" if interrupted else f"{type(error).__name__}: {error}")
            if interrupted and run.complete:
                raise RunInterrupted.while_writing(journal=config.journal) from None
            raise
        if asked or late():  # a caller that runs several in turn must not continue
            raise RunInterrupted(f"interrupted; the results in {config.output} are complete")
        return result

    def _pick(
        self,
        run: Execution,
        progress: Progress,
        logger: logging.Logger,
        *,
        quiet: bool,
        keep_going: bool,
    ) -> bool:
        """Pick everything; returns True if a stop came when all tasks had already ended."""
        plan = run.plan
        with Interruption(graceful=run.journal.graceful, quiet=quiet) as interruption:
            for bundle in run.results(interruption):
                _note_failures(bundle, plan, logger, keep_going=keep_going)
                progress.add(
                    done=len(bundle.outcomes),
                    picks=len(bundle.picks),
                    failed=sum(how.status == "failed" for how in bundle.outcomes.values()),
                    data_ns=sum(how.counts.data_ns for how in bundle.outcomes.values()),
                )
        if not run.complete:
            raise RunInterrupted(
                f"interrupted: {len(run.records)} of {len(plan.tasks)} station tasks are recorded",
                hint="the same command goes on from there; "
                f"eqcctpro status {self.config.output} shows how far it is",
            )
        return interruption()

    def _run_partitions(
        self,
        clock: _Clock,
        log: RunLog,
        folder: RunFolder,
        lock: OutputLock,
        planner: PartitionPlanner,
        settings: TaskSettings,
        *,
        quiet: bool,
        keep_going: bool,
        last: bool,
    ) -> RunResult:
        config, logger, weights = self.config, log.logger, self._find_weights()
        picker, progress = load_picker(weights), PartitionProgress(quiet=quiet)
        if config.resume == "auto" and not log.append:
            keep_finished(config, weights, picker, settings)
        self._log_weights(weights, logger)

        def begin() -> None:
            clock.lap("plan")
            lock.check()
            log.begin()

        def pick(execution: Execution, planned: PlannedPartition) -> bool:
            _log_plan(planned.plan, logger)
            return self._pick(execution, progress, logger, quiet=quiet, keep_going=keep_going)

        run = PartitionedRun(
            config,
            planner,
            folder,
            lock,
            picker,
            weights,
            settings,
            run_id(config, weights, None),
            partial(self._ready, picker=picker, settings=settings, stay=True),
            pick,
            begin,
            progress.reach,
            gpus=bool(config.gpu_ids),
        )
        run.take_up()
        with progress:
            asked = run.run()
        clock.lap("pick")
        run.stop_watching()
        try:
            result = _finish_partitions(config, clock, logger, run, picker)
            if last:
                self._close()
            with Interruption(graceful=True, quiet=True) as late:
                lock.check()
                run.end("finished")
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            run.end("interrupted" if interrupted else f"{type(error).__name__}: {error}")
            if interrupted:
                raise RunInterrupted.while_writing(journal=True) from None
            raise
        if asked or late():
            raise RunInterrupted(f"interrupted; the results in {config.output} are complete")
        return result

    def _log_weights(self, weights: WeightFiles, logger: logging.Logger) -> None:
        for part in () if self._weights_logged else weights.single_files:
            logger.info("weights %s from %s (%s)", part.name, part.weight_path, part.sha256)
            if assumed := assumed_text(part):
                logger.info("weights %s", assumed)
        self._weights_logged = True

    def _end(self, run: Execution) -> None:
        """Take the last sample of the workers' resources, then end the workers."""
        _ = run.use
        self._close()

    def open(self) -> Workers:
        """Start the workers now, rather than in the first run.

        Raises
        ------
        EQCCTProError
            As in `run_picking`.
        """
        with self._lock:
            picker, settings = self._described(self._find_weights())
            inputs = InputSettings.of(
                self.config,
                context_ns=settings.context_ns,
                hydrophone=has_hydrophone(picker.components),
            )
            plan = make_plan(inputs)
            journal = NoJournal(plan.tasks)
            return self._ready(
                plan, journal, self.config, picker=picker, settings=settings, stay=True
            )

    def _described(self, weights: WeightFiles) -> tuple[Picker, TaskSettings]:
        """Model and settings, without thresholds of labels that the model does not yield."""
        picker = load_picker(weights)
        with one_warning():
            self.config = fit_to_model(self.config, picker)
        return describe_run(self.config, weights, picker)

    def _find_weights(self) -> WeightFiles:
        if self._weights is None:
            self._weights = find_run_weights(self.config)
        return self._weights

    def _ready(
        self,
        plan: Plan,
        journal: NoJournal,
        config: PickConfig,
        *,
        picker: Picker,
        settings: TaskSettings,
        stay: bool,
    ) -> Workers:
        """Start or reuse workers with memory for this plan's largest station task.

        A run that goes on with an earlier one takes the runtime that was chosen then; workers
        that stay for further runs take what is fastest once it is loaded.
        """
        config = journal.pinned(config)
        each = waveform_memory(plan, settings, picker).needed
        if self._workers is None or each.max() > self._waveforms_mb:
            each, left_out = fit_into_memory(config, plan, settings, picker)
            journal.leave_out(left_out)
        needed = float(each.max())
        if self._workers is not None and (
            needed > self._waveforms_mb
            or config.runtime not in ("auto", self._workers.runtime)
            or config.batch_size not in (None, self._workers.batch_size)
        ):
            self._close()
        on_cluster = plan.files if config.address is not None else []
        files = [(file.path, (file.size, file.mtime_ns)) for file in on_cluster]
        if self._workers is not None:
            self._workers.check_input(files)
        else:
            windows = expected_windows(plan, picker, settings)
            self._workers = open_workers(
                config,
                self._find_weights(),
                settings,
                windows=windows_of_session(windows)
                if stay and config.mode != "ripper"
                else windows,
                waveforms_mb=needed,
                files=files,
            )
            self._waveforms_mb = needed
        return self._workers


def _planner_of_partitions(
    config: PickConfig, inputs: InputSettings, folder: RunFolder
) -> PartitionPlanner | None:
    """Planner of a run in partitions; None for a run that is planned at once.

    Raises
    ------
    SettingsError
        Partitions are asked for, and impossible.
    ResumeError
        They are asked for, and an unfinished run without them is in the folder.
    """
    if config.partition == "off" or config.not_in_partitions is not None:
        return None
    # A record that is discarded is not read: it may be damaged.
    goes_on = config.resume != "never" and folder.unfinished()
    begun = goes_on and bool(partition_facts(folder))
    if goes_on and not begun:
        if config.partition == "auto":
            return None  # it was begun before the archive had grown
        raise ResumeError(
            f"{config.output} holds an unfinished run that is not in partitions",
            hint=f"leave out --partition to go on; {HINT}",
        )
    return partition_planner(inputs, config.partition, begun=begun)


def _changed(config: PickConfig, changes: Mapping[str, Any]) -> PickConfig:
    """The configuration with some settings changed, validated again."""
    if not changes:
        return config
    if fixed := sorted(set(changes) & set(PickConfig.model_fields) - CHANGEABLE):
        raise SettingsError(
            f"{', '.join(fixed)}: the workers of a session are already started",
            hint="start another session",
        )
    given = {name: getattr(config, name) for name in config.model_fields_set}
    return PickConfig.checked(**{**given, **changes})


def _log_plan(plan: Plan, logger: logging.Logger) -> None:
    logger.info(
        "%d station tasks in %d time chunks, %d files, %s",
        len(plan.tasks),
        len(plan.chunks),
        len(plan.files),
        span_text(plan),
    )
    for problem in plan.problems:
        logger.warning("unusable file: %s", problem.message)


def _note_failures(
    bundle: BundleResult, plan: Plan, logger: logging.Logger, *, keep_going: bool
) -> None:
    for index, record in bundle.outcomes.items():
        for note in record.notes:
            if note.startswith(NOT_PICKED):
                logger.warning("%s", note)
        if record.status != "failed":
            continue
        task = plan.tasks[index]
        logger.warning("%s in %s failed: %s", task.name, task.chunk.name, record.reason)
        if not keep_going:
            kind = getattr(errors, record.error, EQCCTProError)
            raise kind(f"{task.name} in {task.chunk.name} failed: {record.reason}")


def _tables(run: Execution, picker: Picker, name: str) -> RunTables:
    """Picks and detections in order: copies, since workers may have sent shared memory."""
    picks, detections = run.take_found()
    tasks = run.plan.tasks
    return RunTables(
        PickRows(picks, tasks, picker, name),
        PickRows(detections, tasks, picker, name, DETECTION_SCHEMA)
        if picker.detection_label is not None
        else None,
    )


def _finish(
    config: PickConfig,
    clock: _Clock,
    logger: logging.Logger,
    weights: WeightFiles,
    picker: Picker,
    run: Execution,
    name: str,
    tables: RunTables,
) -> RunResult:
    with gathered_warnings() as warnings:
        paths = write_tables(config, tables, run.plan.tasks, run.records)
    clock.lap("write")
    if config.overview:
        paths["overview"] = draw_run(
            config, run.plan, tables.picks.table, picker.name, chunks=len(run.plan.chunks)
        )
        clock.lap("overview")
    paths["summary"] = str(config.output / "summary.json")
    paths["log"] = str(config.output / "run.log")
    facts = run_facts(config, clock.seconds, weights, run, name, paths)
    facts["applied"] = run.settings.applied(picker)
    facts["warnings"] = warnings
    if config.annotations:
        facts["curve_letters"] = curve_channels(picker.labels, "")
    summary = summarise(run.plan, run.records, tables, facts)
    write_summary(config.output / "summary.json", summary)
    if config.report and (page := report_run(config, tables.picks.table, logger)) is not None:
        summary["paths"]["report"] = str(Path(page).absolute())
        write_summary(config.output / "summary.json", summary)
    logger.info("done %(done)d, empty %(empty)d, failed %(failed)d", summary["tasks"])
    logger.info("%d picks in %s", len(tables.picks), config.output)
    return RunResult(tables, summary)


def _finish_partitions(
    config: PickConfig, clock: _Clock, logger: logging.Logger, run: PartitionedRun, picker: Picker
) -> RunResult:
    with gathered_warnings() as warnings:
        paths = run.write()
    clock.lap("write")
    total = run.summary()
    if config.overview and (sample := run.sample()) is not None:
        chunks = total["plan"]["timechunks"]
        paths["overview"] = draw_run(config, *sample, picker.name, chunks=chunks)
        clock.lap("overview")
    paths["summary"] = str(config.output / "summary.json")
    paths["log"] = str(config.output / "run.log")
    facts = run_facts(config, clock.seconds, run.weights, run, run.name, paths)
    facts["applied"] = run.settings.applied(picker)
    facts["warnings"] = [*run.unmatched(), *warnings]
    if config.annotations:
        facts["curve_letters"] = curve_channels(picker.labels, "")
    summary = {**facts, **total, **provenance()}
    write_summary(config.output / "summary.json", summary)
    tables = run.tables(summary)
    if config.report and (page := report_run(config, None, logger)) is not None:
        summary["paths"]["report"] = str(Path(page).absolute())
        write_summary(config.output / "summary.json", summary)
    logger.info("done %(done)d, empty %(empty)d, failed %(failed)d", summary["tasks"])
    logger.info("%d picks in %s", len(tables.picks), config.output)
    return RunResult(tables, summary)
