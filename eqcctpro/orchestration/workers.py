"""Workers that stay ready: the model is loaded once and picks one plan after another."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from eqcctpro.archive.plan import StationTask
from eqcctpro.config import PickConfig
from eqcctpro.models.weights import WeightFiles
from eqcctpro.orchestration.dispatch import never
from eqcctpro.orchestration.placement import Placement, place_workers
from eqcctpro.orchestration.worker import BundleResult, WorkerSpec, bind_to_cores, open_pipeline
from eqcctpro.pipeline.settings import PipelineSettings

__all__ = ["Workers", "open_workers"]


class Workers(ABC):
    """What carries out plans in one mode.

    Attributes
    ----------
    runtime : str
        What executes the network.
    batch_size : int or None
        Windows that a worker gives to the network at a time; None where workers choose.
    placement : Placement
    load_s : float
        Seconds until all workers were ready.
    model_load_s : float or None
        Mean seconds in which a worker loaded the model; None where each task loads it.
    """

    runtime: str
    batch_size: int | None
    placement: Placement
    load_s: float = 0.0
    model_load_s: float | None = None

    @abstractmethod
    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: PipelineSettings,
        *,
        open_chunks: int | None = None,
        stop: Callable[[], bool] = never,
    ) -> Iterator[BundleResult]:
        """Pick station tasks; yields results as they come.

        Once `stop` says so, nothing new is started.
        """

    def pick_singly(
        self,
        tasks: Sequence[StationTask],
        settings: PipelineSettings,
        *,
        stop: Callable[[], bool] = never,
    ) -> Iterator[BundleResult]:
        """Pick station tasks that may kill whatever picks them."""
        return self.pick(tasks, settings, stop=stop)

    @abstractmethod
    def close(self) -> None:
        """Release the model and everything else."""


def open_workers(
    config: PickConfig,
    weights: WeightFiles,
    settings: PipelineSettings,
    *,
    windows: int,
    waveforms_mb: float,
) -> Workers:
    """Plan memory, then start what the mode needs and load the model.

    Parameters
    ----------
    config : PickConfig
    weights : WeightFiles
    settings : PipelineSettings
    windows : int
        Roughly how many windows will be picked, for choosing a runtime.
    waveforms_mb : float
        What the largest station task takes beyond short ones, MB.

    Raises
    ------
    EQCCTProError
        There is not enough memory, a worker cannot be started, or the model cannot be used.
    """
    placement = place_workers(config, waveforms_mb=waveforms_mb)
    for sentence in placement.limits:
        logging.getLogger("eqcctpro").warning("%s", sentence)
    spec = WorkerSpec(
        weights,
        settings,
        runtime=config.runtime,
        device=config.device,
        batch_size=config.batch_size,
        threads=config.threads if config.mode == "local" else placement.threads,
        cpu_ids=config.cpu_ids,
        expected_windows=windows,
        inter_threads=config.inter_threads,
        vram_mb=placement.vram_limit(0),
        precision=config.precision,
    )
    started = time.perf_counter()
    workers = _Local(spec, placement) if config.mode == "local" else _OnRay(config, spec, placement)
    workers.load_s = time.perf_counter() - started
    return workers


class _Local(Workers):
    """One pipeline in this process."""

    def __init__(self, spec: WorkerSpec, placement: Placement) -> None:
        self.placement = placement
        self._spec = spec
        self._cpu_ids = spec.cpu_ids
        earlier = bind_to_cores(spec.cpu_ids)
        started = time.perf_counter()
        try:
            self._pipeline = open_pipeline(spec)
        finally:
            bind_to_cores(earlier)
        self.model_load_s = time.perf_counter() - started
        self.runtime = self._pipeline.runtime.kind
        self.batch_size = self._pipeline.runtime.batch_size

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: PipelineSettings,
        *,
        open_chunks: int | None = None,  # noqa: ARG002 (one process works on one at a time)
        stop: Callable[[], bool] = never,  # noqa: ARG002 (the tasks stop coming)
    ) -> Iterator[BundleResult]:
        pipeline = self._pipeline
        pipeline.settings = settings
        before = dict(pipeline.stages.seconds)
        earlier = bind_to_cores(self._cpu_ids)
        try:
            for result in pipeline.run(tasks):
                yield BundleResult([result.record], result.picks, result.detections)
        finally:
            bind_to_cores(earlier)
        seconds = {
            stage: value - before.get(stage, 0.0)
            for stage, value in pipeline.stages.seconds.items()
        }
        yield BundleResult.gather([], seconds, pipeline.runtime.take_notes())

    def pick_singly(
        self,
        tasks: Sequence[StationTask],
        settings: PipelineSettings,
        *,
        stop: Callable[[], bool] = never,
    ) -> Iterator[BundleResult]:
        from eqcctpro.orchestration.isolation import pick_isolated

        spec = replace(
            self._spec, settings=settings, runtime=self.runtime, batch_size=self.batch_size
        )
        return pick_isolated(spec, tasks, stop=stop)

    def close(self) -> None:
        self._pipeline.runtime.close()


class _OnRay(Workers):
    """Ray actors, or the means to start Ripper tasks."""

    def __init__(self, config: PickConfig, spec: WorkerSpec, placement: Placement) -> None:
        from eqcctpro.orchestration.cluster import ray_session
        from eqcctpro.orchestration.modelactor import ActorPool

        self.placement = placement
        self._pool: ActorPool | None = None
        self._stack = ExitStack()
        session = ray_session(
            address=config.address,
            cpus=placement.cores,
            gpu_ids=config.gpu_ids,
            temp_dir=config.ray_temp_dir,
        )
        with ExitStack() as stack:
            # Ray takes seconds to start, most of them in other processes.
            chooser = stack.enter_context(ThreadPoolExecutor(1, "eqcctpro-runtime"))
            chosen = chooser.submit(_with_one_runtime, config, spec)
            self._ray = stack.enter_context(session)
            self._spec = chosen.result()
            self.runtime, self.batch_size = self._spec.runtime, self._spec.batch_size
            if config.mode == "modelactor":
                self._pool = ActorPool(self._ray, self._spec, placement)
                stack.callback(self._pool.close)
                self.model_load_s = self._pool.load_s
            self._stack = stack.pop_all()

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: PipelineSettings,
        *,
        open_chunks: int | None = None,
        stop: Callable[[], bool] = never,
    ) -> Iterator[BundleResult]:
        if self._pool is not None:
            return self._pool.pick(tasks, settings, open_chunks=open_chunks, stop=stop)
        from eqcctpro.orchestration.ripper import run_ripper

        spec = replace(self._spec, settings=settings)
        return run_ripper(
            self._ray, tasks, spec, self.placement, open_chunks=open_chunks, stop=stop
        )

    def close(self) -> None:
        self._stack.close()


def _with_one_runtime(config: PickConfig, spec: WorkerSpec) -> WorkerSpec:
    """The spec of Ray workers with the runtime settled, so that all of them use the same."""
    if config.runtime == "tensorflow":
        # Asked for by name, so there is nothing to choose, and it takes long to start.
        return spec
    if spec.device != "cpu":
        if config.address is None:
            from eqcctpro.runtimes.torch_runtime import check_device

            check_device(f"cuda:{config.gpu_ids[-1]}")
        return replace(spec, runtime="torch")
    # Chosen as mode local chooses, so that the modes give the same picks to the last bit.
    runtime = open_pipeline(replace(spec, threads=config.threads)).runtime
    settled = replace(spec, runtime=runtime.kind, batch_size=runtime.batch_size)
    runtime.close()
    return settled
