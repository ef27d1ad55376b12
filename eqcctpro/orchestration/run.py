"""A picking run from settings to results."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from eqcctpro import errors
from eqcctpro.archive.plan import InputSettings, Plan, StationTask, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, InputError, SettingsError
from eqcctpro.models.locations import COMPOSED_CLASSES
from eqcctpro.models.picker import Picker
from eqcctpro.models.weights import WeightFiles, find_weights, split_name
from eqcctpro.orchestration.execution import Execution
from eqcctpro.orchestration.outputs import (
    RunTables,
    draw_run,
    span_text,
    summarise,
    write_summary,
    write_tables,
)
from eqcctpro.orchestration.progress import Progress
from eqcctpro.orchestration.result import RunResult
from eqcctpro.orchestration.runlog import run_log
from eqcctpro.orchestration.worker import BundleResult
from eqcctpro.picks.table import detection_table, pick_table
from eqcctpro.picks.writers import check_writable
from eqcctpro.pipeline.settings import PipelineSettings, resolve_settings
from eqcctpro.times import NS_PER_S
from eqcctpro.windows.placement import window_step

__all__ = ["describe", "expected_windows", "find_run_weights", "run_picking"]


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
    weights = find_run_weights(config)
    for part in weights.single_files:
        logger.info("weights %s from %s (%s)", part.name, part.weight_path, part.sha256)
    picker, settings = describe(config, weights)
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
            raise InputError(problem.message)
    clock.lap("plan")
    run = Execution(config, weights, settings, plan, expected_windows(plan, picker, settings))
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


def find_run_weights(config: PickConfig) -> WeightFiles:
    """The weight files that a configuration names."""
    parent, child = split_name(config.model)
    if parent not in COMPOSED_CLASSES:
        return find_weights(parent, child)
    from eqcctpro.models.eqcct import find_eqcct

    return find_eqcct(
        child,
        p_model=config.p_model,
        s_model=config.s_model,
        variant=config.model_arguments.get("variant", "eqcctpro"),
    )


def describe(config: PickConfig, weights: WeightFiles) -> tuple[Picker, PipelineSettings]:
    """The model that a configuration names, and the settings of its pipeline."""
    from eqcctpro.runtimes.select import load_picker

    picker = load_picker(weights)
    arguments = dict(config.model_arguments)
    if weights.variant:
        arguments.pop("variant", None)
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


def _note_failures(
    bundle: BundleResult, plan: Plan, logger: logging.Logger, *, keep_going: bool
) -> None:
    for record in bundle.records:
        if record.status != "failed":
            continue
        task = plan.tasks[record.task]
        logger.warning("%s in %s failed: %s", task.name, task.chunk.name, record.reason)
        if not keep_going:
            kind = getattr(errors, record.error, EQCCTProError)
            raise kind(f"{task.name} in {task.chunk.name} failed: {record.reason}")


def _finish(
    config: PickConfig,
    clock: _Clock,
    logger: logging.Logger,
    weights: WeightFiles,
    picker: Picker,
    run: Execution,
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
    run: Execution,
    run_id: str,
    paths: dict[str, str],
) -> dict[str, Any]:
    placement = run.placement
    workers = 1 if config.mode == "local" else placement.workers
    return {
        "run_id": run_id,
        "mode": config.mode,
        "workers": workers,
        "limits": list(placement.limits),
        "adaptations": run.adaptations,
        "memory_plan": None if placement.plan is None else placement.plan.as_dict(),
        "resources": run.use.as_dict(),
        "threads_per_worker": config.threads if config.mode == "local" else placement.threads,
        "runtime": run.runtime,
        "device": config.device,
        "model": weights.name,
        "weights": {
            "file": str(weights.weight_path),
            "files": [str(part.weight_path) for part in weights.single_files],
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
        # The weights' hash stands for the files.
        *("inter_threads", "p_model", "s_model"),
        *("vram_mb", "max_vram_mb", "gpu_vram_safety_cap", "cudnn_headroom"),
    }
    if unknown := where_only - set(PickConfig.model_fields):
        raise SettingsError(f"settings {sorted(unknown)} no longer exist")
    digest = hashlib.sha256(weights.sha256.encode())
    digest.update(config.model_dump_json(exclude=where_only).encode())
    for task in tasks:
        digest.update(f"{task.name}|{task.chunk.name}|{task.n_bytes}\n".encode())
    return digest.hexdigest()[:16]
