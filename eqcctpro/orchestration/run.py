"""A picking run from settings to results."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from eqcctpro.archive.plan import InputSettings, Plan, StationTask, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, SettingsError
from eqcctpro.models.picker import Picker
from eqcctpro.models.weights import WeightFiles, find_weights, split_name
from eqcctpro.orchestration.outputs import (
    RunTables,
    draw_run,
    span_text,
    summarise,
    write_summary,
    write_tables,
)
from eqcctpro.orchestration.placement import Placement, place_workers
from eqcctpro.orchestration.progress import Progress
from eqcctpro.orchestration.runlog import run_log
from eqcctpro.orchestration.worker import (
    BundleResult,
    WorkerSpec,
    bind_to_cores,
    open_pipeline,
)
from eqcctpro.picks.borders import settle_borders
from eqcctpro.picks.raw import RawPicks
from eqcctpro.picks.table import detection_table, pick_table
from eqcctpro.picks.writers import check_writable
from eqcctpro.pipeline.records import StageSeconds, TaskRecord
from eqcctpro.pipeline.settings import PipelineSettings, resolve_settings
from eqcctpro.times import NS_PER_S
from eqcctpro.windows.placement import window_step

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunResult", "run_picking"]

#: Exit code of a run that finished although stations or files failed.
SOME_FAILED = 10


@dataclass(frozen=True)
class RunResult:
    """What a run found and where it is.

    Attributes
    ----------
    table : pyarrow.Table
        The pick table.
    detections : pyarrow.Table or None
    summary : dict
        The content of ``summary.json``: counts, reasons, seconds, versions, paths.
    """

    table: pa.Table
    detections: pa.Table | None
    summary: dict[str, Any] = field(repr=False)

    @property
    def picks(self) -> pd.DataFrame:
        """The pick table as a pandas data frame."""
        return self.table.to_pandas()

    @property
    def counts(self) -> dict[str, int]:
        """Station tasks done, empty and failed, unusable files, and picks."""
        return {
            **self.summary["tasks"],
            "files_failed": self.summary["plan"]["files_unusable"],
            "picks": self.summary["picks"]["total"],
        }

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds per part of the run, and seconds per stage over all workers."""
        return dict(self.summary["seconds"])

    @property
    def paths(self) -> dict[str, str]:
        """Files that were written, by kind."""
        return dict(self.summary["paths"])

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, else 10."""
        counts = self.counts
        return SOME_FAILED if counts["failed"] or counts["files_failed"] else 0


class _Clock:
    """Wall-clock seconds of the parts of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def run_picking(config: PickConfig, *, quiet: bool = True, keep_going: bool = True) -> RunResult:
    """Pick everything that the settings describe, and write the results.

    Parameters
    ----------
    config : PickConfig
    quiet : bool
        Show no progress.
    keep_going : bool
        Pick the other stations when one fails; otherwise the first failure ends the
        run with its error.

    Raises
    ------
    EQCCTProError
        The run cannot start, a worker cannot be kept alive, or results cannot be written.
        A station that fails does not raise: it is in the summary.
    """
    clock = _Clock()
    check_writable(config.output)
    logs = [config.output / "run.log", *([config.log_file] if config.log_file else [])]
    with run_log(logs) as logger:
        try:
            return _run(config, clock, logger, quiet=quiet, keep_going=keep_going)
        except EQCCTProError as error:
            logger.error("%s", error)
            raise


def _run(
    config: PickConfig, clock: _Clock, logger: logging.Logger, *, quiet: bool, keep_going: bool
) -> RunResult:
    weights = find_weights(*split_name(config.model))
    logger.info("weights %s from %s (%s)", weights.name, weights.weight_path, weights.sha256)
    picker, settings = _describe(config, weights)
    clock.lap("model")
    plan = make_plan(_input_settings(config, settings))
    logger.info(
        "%d station tasks in %d time chunks, %d files, %s",
        len(plan.tasks),
        len(plan.chunks),
        len(plan.files),
        span_text(plan),
    )
    for problem in plan.problems:
        logger.warning("unusable file: %s", problem.message)
        if not keep_going:
            raise EQCCTProError(problem.message)
    clock.lap("plan")
    run = _Execution(config, weights, settings, plan, expected_windows(plan, picker, settings))
    with Progress(len(plan.tasks), quiet=quiet) as progress:
        for bundle in run.results():
            _note_failures(bundle, plan, logger, keep_going=keep_going)
            progress.add(
                done=len(bundle.records),
                picks=len(bundle.picks),
                failed=sum(record.status == "failed" for record in bundle.records),
            )
    clock.lap("pick")
    return _finish(config, clock, logger, weights, picker, run)


def _describe(config: PickConfig, weights: WeightFiles) -> tuple[Picker, PipelineSettings]:
    from eqcctpro.runtimes.select import load_picker

    picker = load_picker(weights)
    arguments = dict(config.model_arguments)
    arguments.pop("batch_size", None)
    settings = resolve_settings(
        picker,
        grid=config.window_grid,
        p_threshold=config.p_threshold,
        s_threshold=config.s_threshold,
        detection_threshold=config.detection_threshold,
        bandpass=config.bandpass,
        arguments=arguments,
        start_ns=config.start_ns,
        end_ns=config.end_ns,
    )
    return picker, settings


def expected_windows(plan: Plan, picker: Picker, settings: PipelineSettings) -> int:
    """Roughly how many windows the plan holds, from the times in the records' headers."""
    extents = [extent for file in plan.files for extent in file.channels]
    seconds = sum(extent.end_ns - extent.start_ns for extent in extents) / NS_PER_S
    samples = seconds / len(picker.components) * (picker.sampling_rate or 100.0)
    return max(round(samples / window_step(picker, settings.windows)), len(plan.tasks))


def _input_settings(config: PickConfig, settings: PipelineSettings) -> InputSettings:
    return InputSettings(
        inputs=config.input,
        layout=config.layout,
        start_ns=config.start_ns,
        end_ns=config.end_ns,
        timechunk_min=config.timechunk,
        overlap_min=config.overlap,
        stations=config.stations,
        stations_at_most=config.stations_at_most,
        context_ns=settings.context_ns,
        chunk_major=config.concurrent_timechunks is not None,
    )


class _Execution:
    """Runs a plan in the mode that is asked for, and keeps what comes back."""

    def __init__(
        self,
        config: PickConfig,
        weights: WeightFiles,
        settings: PipelineSettings,
        plan: Plan,
        windows: int,
    ) -> None:
        self.config = config
        self.plan = plan
        self.records: dict[int, TaskRecord] = {}
        self.stages = StageSeconds()
        self.runtime = config.runtime
        self._picks: list[RawPicks] = []
        self._detections: list[RawPicks] = []
        self.placement = place_workers(config)
        for sentence in self.placement.limits:
            logging.getLogger("eqcctpro").warning("%s", sentence)
        batch_size = config.batch_size or config.model_arguments.get("batch_size")
        self._spec = WorkerSpec(
            weights,
            settings,
            runtime=config.runtime,
            device=config.device,
            batch_size=None if batch_size is None else int(batch_size),
            threads=config.threads if config.mode == "local" else self.placement.threads,
            cpu_ids=config.cpu_ids,
            expected_windows=windows,
        )

    def results(self) -> Iterator[BundleResult]:
        """Every bundle, after its findings have been kept."""
        source = self._local() if self.config.mode == "local" else self._on_ray()
        for bundle in source:
            self.records.update((record.task, record) for record in bundle.records)
            self._picks.append(bundle.picks)
            self._detections.append(bundle.detections)
            self.stages.add(bundle.seconds)
            yield bundle

    def _local(self) -> Iterator[BundleResult]:
        earlier = bind_to_cores(self.config.cpu_ids)
        try:
            pipeline = open_pipeline(self._spec)
            self.runtime = pipeline.runtime.kind  # type: ignore[assignment]
            for result in pipeline.run(self.plan.tasks):
                yield BundleResult([result.record], result.picks, result.detections)
            self.stages.add(pipeline.stages.seconds)
            pipeline.runtime.close()
        finally:
            bind_to_cores(earlier)

    def _on_ray(self) -> Iterator[BundleResult]:
        from eqcctpro.orchestration.cluster import ray_session
        from eqcctpro.orchestration.modelactor import run_modelactor
        from eqcctpro.orchestration.ripper import run_ripper

        config = self.config
        spec = self._with_one_runtime()
        with ExitStack() as stack:
            ray = stack.enter_context(
                ray_session(
                    address=config.address,
                    cpus=self.placement.cores,
                    gpu_ids=config.gpu_ids,
                    temp_dir=config.ray_temp_dir,
                )
            )
            pick = run_modelactor if config.mode == "modelactor" else run_ripper
            yield from pick(
                ray,
                self.plan.tasks,
                spec,
                self.placement,
                open_chunks=config.concurrent_timechunks,
            )

    def _with_one_runtime(self) -> WorkerSpec:
        """The workers' spec with the runtime settled, so that all of them use the same."""
        if self._spec.device != "cpu":
            self.runtime = "torch"
            return replace(self._spec, runtime="torch")
        # Chosen as mode local chooses, so that the modes give the same picks to the last bit.
        runtime = open_pipeline(replace(self._spec, threads=self.config.threads)).runtime
        self.runtime = runtime.kind  # type: ignore[assignment]
        runtime.close()
        return replace(self._spec, runtime=runtime.kind, batch_size=runtime.batch_size)

    def raw(self) -> tuple[RawPicks, RawPicks]:
        """Picks and detections, with the borders between chunks settled."""
        picks = settle_borders(RawPicks.concatenate(self._picks), self.plan.tasks)
        detections = settle_borders(RawPicks.concatenate(self._detections), self.plan.tasks)
        return picks, detections


def _note_failures(
    bundle: BundleResult, plan: Plan, logger: logging.Logger, *, keep_going: bool
) -> None:
    for record in bundle.records:
        if record.status != "failed":
            continue
        task = plan.tasks[record.task]
        logger.warning("%s in %s failed: %s", task.name, task.chunk.name, record.reason)
        if not keep_going:
            raise EQCCTProError(f"{task.name} in {task.chunk.name} failed: {record.reason}")


def _finish(
    config: PickConfig,
    clock: _Clock,
    logger: logging.Logger,
    weights: WeightFiles,
    picker: Picker,
    run: _Execution,
) -> RunResult:
    run_id = _run_id(config, weights, run.plan.tasks)
    picks, detections = run.raw()
    tables = RunTables(
        pick_table(picks, run.plan.tasks, picker, run_id),
        detection_table(detections, run.plan.tasks, picker, run_id)
        if picker.detection_label is not None
        else None,
    )
    paths = write_tables(config, tables, run.plan.tasks, run.records)
    clock.lap("write")
    if config.overview:
        paths["overview"] = draw_run(config, run.plan, tables, picker.name)
        clock.lap("overview")
    paths["summary"] = str(config.output / "summary.json")
    paths["log"] = str(config.output / "run.log")
    facts = _facts(config, clock, weights, run, run_id, paths)
    summary = summarise(run.plan, run.records, tables, facts)
    write_summary(config.output / "summary.json", summary)
    logger.info("done %(done)d, empty %(empty)d, failed %(failed)d", summary["tasks"])
    logger.info("%d picks in %s", tables.picks.num_rows, config.output)
    return RunResult(tables.picks, tables.detections, summary)


def _facts(
    config: PickConfig,
    clock: _Clock,
    weights: WeightFiles,
    run: _Execution,
    run_id: str,
    paths: dict[str, str],
) -> dict[str, Any]:
    placement: Placement = run.placement
    workers = 1 if config.mode == "local" else placement.workers
    return {
        "run_id": run_id,
        "mode": config.mode,
        "workers": workers,
        "limits": list(placement.limits),
        "threads_per_worker": config.threads if config.mode == "local" else placement.threads,
        "runtime": run.runtime,
        "device": config.device,
        "model": weights.name,
        "weights": {
            "file": str(weights.weight_path),
            "version": weights.version,
            "sha256": weights.sha256,
            "source": weights.source,
        },
        "seconds": {**clock.seconds, "stages": run.stages.seconds},
        "settings": config.model_dump(mode="json"),
        "paths": paths,
    }


def _run_id(config: PickConfig, weights: WeightFiles, tasks: Sequence[StationTask]) -> str:
    """A name for what was computed: the same plan, weights and settings give the same id."""
    where_only = {
        *("output", "log_file", "formats", "overview"),
        *("mode", "workers", "concurrent_timechunks", "address", "ray_temp_dir"),
        *("device", "gpu_fraction", "threads", "cpu_ids", "ram_safety_cap", "ignore_ram_cap"),
    }
    if unknown := where_only - set(PickConfig.model_fields):
        raise SettingsError(f"settings {sorted(unknown)} no longer exist")
    digest = hashlib.sha256(weights.sha256.encode())
    digest.update(config.model_dump_json(exclude=where_only).encode())
    for task in tasks:
        digest.update(f"{task.name}|{task.chunk.name}|{task.n_bytes}\n".encode())
    return digest.hexdigest()[:16]
