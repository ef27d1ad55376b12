"""Persistent workers: they load the model once and pick one plan after another."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eqcctpro.archive.plan import StationTask
from eqcctpro.config import PickConfig
from eqcctpro.errors import WorkerError
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.orchestration.dispatch import first_line, never
from eqcctpro.orchestration.nodes import Homes
from eqcctpro.orchestration.placement import Placement, place_workers
from eqcctpro.orchestration.ray_server import answer_of
from eqcctpro.orchestration.worker import (
    BundleResult,
    TaskPicker,
    WorkerSpec,
    bind_to_cores,
    open_pipeline,
)
from eqcctpro.sources.task_settings import TaskSettings

if TYPE_CHECKING:
    from eqcctpro.orchestration.clusterplan import NodeShare
    from eqcctpro.orchestration.nodecheck import FileStamp, NodeNeeds

__all__ = ["Workers", "open_workers"]


class Workers(ABC):
    """Base class of the workers of one mode, which execute plans.

    Attributes
    ----------
    runtime : str
        What executes the network.
    batch_size : int or None
        Windows that a worker gives to the network at a time; None where workers choose.
    placement : Placement
    nodes : list of NodeShare
        The nodes of a cluster that hold the workers; empty on one machine.
    load_s : float
        Seconds until all workers were ready.
    model_load_s : float or None
        Mean seconds in which a worker loaded the model; None where each task loads it.
    """

    runtime: str
    batch_size: int | None
    placement: Placement
    nodes: Sequence[NodeShare] = ()
    load_s: float = 0.0
    model_load_s: float | None = None

    @abstractmethod
    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: TaskSettings,
        *,
        open_chunks: int | None = None,
        stop: Callable[[], bool] = never,
        held: dict[str, bytes] | None = None,
    ) -> Iterator[BundleResult]:
        """Pick station tasks; yields results as they arrive.

        Once `stop` says so, nothing new is started, and station tasks that are picked in pieces
        are left as they are.  Contents of files that are `held` already
        are taken out where they are of use: in this process.
        """

    def pick_singly(
        self,
        tasks: Sequence[StationTask],
        settings: TaskSettings,
        *,
        stop: Callable[[], bool] = never,
    ) -> Iterator[BundleResult]:
        """Pick station tasks that may kill their process, one at a time."""
        return self.pick(tasks, settings, stop=stop)

    def check_input(self, files: Sequence[FileStamp]) -> None:
        """Check that workers on other machines can read the input files.

        Parameters
        ----------
        files : sequence of (str, (int, int))
            With size and time of the last change.

        Raises
        ------
        InputError
            A node cannot, or has others.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the model and everything else."""


def open_workers(
    config: PickConfig,
    weights: WeightFiles,
    settings: TaskSettings,
    *,
    windows: int,
    waveforms_mb: float,
    files: Sequence[FileStamp] = (),
) -> Workers:
    """Plan memory, then start what the mode needs and load the model.

    Parameters
    ----------
    config : PickConfig
    weights : WeightFiles
    settings : TaskSettings
    windows : int
        Roughly how many windows will be picked, for choosing a runtime.
    waveforms_mb : float
        What the largest station task takes beyond short ones, MB.
    files : sequence of (str, (int, int))
        The input's, with size and time of the last change: the nodes of a cluster must
        have them.

    Raises
    ------
    EQCCTProError
        There is not enough memory, a worker cannot be started, or the model cannot be used.
    """
    spec = WorkerSpec(
        weights,
        settings,
        runtime=config.runtime,
        device=config.device,
        batch_size=config.batch_size,
        threads=config.threads,
        cpu_ids=config.cpu_ids,
        expected_windows=windows,
        inter_threads=config.inter_threads,
        precision=config.precision,
    )
    started = time.perf_counter()
    workers: Workers
    if config.mode == "local":
        workers = _Local(spec, _placed_here(config, waveforms_mb))
    else:
        workers = _OnRay(config, spec, waveforms_mb, files)
    workers.load_s = time.perf_counter() - started
    return workers


def _placed_here(config: PickConfig, waveforms_mb: float) -> Placement:
    placement = place_workers(config, waveforms_mb=waveforms_mb)
    _say_limits(placement)
    return placement


def _say_limits(placement: Placement) -> None:
    for sentence in placement.limits:
        logging.getLogger("eqcctpro").warning("%s", sentence)


class _Local(Workers):
    """One pipeline in this process."""

    def __init__(self, spec: WorkerSpec, placement: Placement) -> None:
        self.placement = placement
        spec = replace(spec, vram_mb=placement.vram_limit(0))
        self._spec = spec
        self._cpu_ids = spec.cpu_ids
        earlier = bind_to_cores(spec.cpu_ids)
        started = time.perf_counter()
        try:
            self._picker = TaskPicker(open_pipeline(spec), spec.settings)
        finally:
            bind_to_cores(earlier)
        self.model_load_s = time.perf_counter() - started
        self.runtime = self._picker.pipeline.runtime.kind
        self.batch_size = self._picker.pipeline.runtime.batch_size

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: TaskSettings,
        *,
        open_chunks: int | None = None,  # noqa: ARG002 (one process works on one at a time)
        stop: Callable[[], bool] = never,
        held: dict[str, bytes] | None = None,
    ) -> Iterator[BundleResult]:
        pipeline = self._picker.pipeline
        before = dict(pipeline.stages.seconds)
        earlier = bind_to_cores(self._cpu_ids)
        try:
            for results in self._picker.pick(tasks, settings, held=held, stop=stop):
                yield BundleResult.gather(results)
        finally:
            bind_to_cores(earlier)
        yield BundleResult.gather([], pipeline.stages.since(before), pipeline.runtime.take_notes())

    def pick_singly(
        self,
        tasks: Sequence[StationTask],
        settings: TaskSettings,
        *,
        stop: Callable[[], bool] = never,
    ) -> Iterator[BundleResult]:
        from eqcctpro.orchestration.isolation import pick_isolated

        spec = replace(
            self._spec, settings=settings, runtime=self.runtime, batch_size=self.batch_size
        )
        return pick_isolated(spec, tasks, stop=stop)

    def close(self) -> None:
        self._picker.pipeline.runtime.close()


class _OnRay(Workers):
    """Workers on Ray, by actors or Ripper tasks, on this machine or the nodes of a cluster."""

    def __init__(
        self,
        config: PickConfig,
        spec: WorkerSpec,
        waveforms_mb: float,
        files: Sequence[FileStamp],
    ) -> None:
        from eqcctpro.orchestration.cluster import ray_session
        from eqcctpro.orchestration.modelactor import ActorPool

        here = _placed_here(config, waveforms_mb) if config.address is None else None
        self._pool: ActorPool | None = None
        self._stack = ExitStack()
        session = ray_session(
            address=config.address,
            cpus=0 if here is None else here.cores,
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
            self.placement = self._fitted(config, here, waveforms_mb, files)
            self._spec = replace(self._spec, threads=self.placement.threads)
            self._homes = Homes(
                self._ray,
                [share.node for share in self.nodes],
                {share.node.id: share.room for share in self.nodes},
                self.placement.homes,
            )
            if config.mode == "modelactor":
                self._pool = ActorPool(self._ray, self._spec, self.placement, self._homes)
                stack.callback(self._pool.close)
                self.model_load_s = self._pool.load_s
            self._stack = stack.pop_all()

    def _fitted(
        self,
        config: PickConfig,
        here: Placement | None,
        waveforms_mb: float,
        files: Sequence[FileStamp],
    ) -> Placement:
        """Reduce workers to the number for which Ray has room."""
        from eqcctpro.orchestration.cluster import is_own_ray
        from eqcctpro.orchestration.foreign_ray import fit_to_ray

        if here is not None and is_own_ray():
            # All of it is for the runs of this process, whose number of workers is already
            # bounded; where several share it, none waits for another one's cores.
            return replace(here, cpus_per_worker=0.0)
        several = sum(node["Alive"] for node in answer_of(self._ray, self._ray.nodes)) > 1
        if here is None or several:
            return self._place(config, waveforms_mb, files)
        return fit_to_ray(self._ray, here, threads=config.threads)

    def _place(
        self, config: PickConfig, waveforms_mb: float, files: Sequence[FileStamp]
    ) -> Placement:
        """Check the cluster's nodes, and distribute the workers over them."""
        from eqcctpro.orchestration.clusterplan import place_on_nodes
        from eqcctpro.orchestration.nodecheck import check_nodes
        from eqcctpro.orchestration.nodes import worker_nodes

        nodes = worker_nodes(self._ray, gpus=bool(config.gpu_ids))
        reports = check_nodes(self._ray, nodes, self._needs(files))
        placement, self.nodes = place_on_nodes(
            config, nodes, reports, batch_size=self.batch_size, waveforms_mb=waveforms_mb
        )
        self._spec = replace(self._spec, folder=str(Path.cwd()))
        _say_limits(placement)
        for share in self.nodes:
            logging.getLogger("eqcctpro").info(
                "node %s: %d workers on %d cores", share.node.name, share.workers, share.node.cores
            )
        return placement

    def _needs(self, files: Sequence[FileStamp]) -> NodeNeeds:
        from eqcctpro.orchestration.nodecheck import file_sample, needs_of

        return needs_of(self._spec.weights, (self.runtime,), file_sample(files))

    def check_input(self, files: Sequence[FileStamp]) -> None:
        from eqcctpro.orchestration.nodecheck import check_nodes
        from eqcctpro.orchestration.nodes import worker_nodes

        if self.nodes:
            gpus = bool(self.placement.gpu_ids)
            check_nodes(self._ray, worker_nodes(self._ray, gpus=gpus), self._needs(files))

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: TaskSettings,
        *,
        open_chunks: int | None = None,
        stop: Callable[[], bool] = never,
        held: dict[str, bytes] | None = None,  # noqa: ARG002 (workers read what they need)
    ) -> Iterator[BundleResult]:
        if self._pool is not None:
            results = self._pool.pick(tasks, settings, open_chunks=open_chunks, stop=stop)
        else:
            from eqcctpro.orchestration.ripper import run_ripper

            results = run_ripper(
                self._ray,
                tasks,
                replace(self._spec, settings=settings),
                self.placement,
                homes=self._homes,
                open_chunks=open_chunks,
                stop=stop,
            )
        try:
            yield from results
        except self._ray.exceptions.RayError as error:  # what no mode has foreseen
            raise WorkerError(
                f"Ray failed: {type(error).__name__}: {first_line(error)}",
                hint="the same command goes on where the run stopped",
            ) from error

    def close(self) -> None:
        self._stack.close()


def _with_one_runtime(config: PickConfig, spec: WorkerSpec) -> WorkerSpec:
    """Specification with the runtime chosen, so that all Ray workers use the same one."""
    if config.runtime == "tensorflow":
        # Asked for by name, so there is nothing to choose, and it takes long to start.
        return spec
    if spec.device != "cpu":
        return replace(spec, runtime="torch")
    # Chosen as mode local chooses, so that the modes give the same picks to the last bit.
    runtime = open_pipeline(replace(spec, threads=config.threads)).runtime
    settled = replace(spec, runtime=runtime.kind, batch_size=runtime.batch_size)
    runtime.close()
    return settled
