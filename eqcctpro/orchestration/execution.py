"""Carries out a plan in the mode that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from eqcctpro.archive.plan import Plan
from eqcctpro.config import PickConfig
from eqcctpro.models.weights import WeightFiles
from eqcctpro.orchestration.placement import place_workers
from eqcctpro.orchestration.worker import BundleResult, WorkerSpec, bind_to_cores, open_pipeline
from eqcctpro.picks.borders import settle_borders
from eqcctpro.picks.raw import RawPicks
from eqcctpro.pipeline.records import StageSeconds, TaskRecord
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse
from eqcctpro.times import NS_PER_S

__all__ = ["Execution", "waveforms_mb"]

# What a sample takes from decoding to curves, with the next station waiting, in bytes, and
# what of it the footprint of a worker covers, in MB (docs/resources.md).
BYTES_A_SAMPLE = 30
COVERED_MB = 5.0
# Records do not say how dense they are before they are read.
USUAL_RATE_HZ = 100.0


class Execution:
    """Runs a plan in the mode that is asked for, and keeps what comes back.

    Parameters
    ----------
    config : PickConfig
    weights : WeightFiles
    settings : PipelineSettings
    plan : Plan
    windows : int
        Roughly how many windows the plan holds.

    Attributes
    ----------
    records : dict of int to TaskRecord
        By the task's index in the plan.
    stages : StageSeconds
    runtime : str
        What executed the network.
    placement : Placement
    adaptations : list of str
        What was changed on the way to go on with less memory.
    use : ResourceUse
        What the run's processes took, once it has ended.
    """

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
        self.adaptations: list[str] = []
        self.use = ResourceUse()
        self.placement = place_workers(config, waveforms_mb=waveforms_mb(plan))
        for sentence in self.placement.limits:
            logging.getLogger("eqcctpro").warning("%s", sentence)
        self._spec = WorkerSpec(
            weights,
            settings,
            runtime=config.runtime,
            device=config.device,
            batch_size=config.batch_size,
            threads=config.threads if config.mode == "local" else self.placement.threads,
            cpu_ids=config.cpu_ids,
            expected_windows=windows,
            inter_threads=config.inter_threads,
            vram_mb=self.placement.vram_limit(0),
        )

    def results(self) -> Iterator[BundleResult]:
        """Every bundle, after its findings have been kept."""
        source = self._local() if self.config.mode == "local" else self._on_ray()
        with ResourceSampler(gpus=bool(self.config.gpu_ids)) as sampler:
            self.use = sampler.use
            for bundle in source:
                self.records.update((record.task, record) for record in bundle.records)
                self._picks.append(bundle.picks)
                self._detections.append(bundle.detections)
                self.stages.add(bundle.seconds)
                self.adaptations += bundle.adaptations
                yield bundle

    def _local(self) -> Iterator[BundleResult]:
        earlier = bind_to_cores(self.config.cpu_ids)
        try:
            pipeline = open_pipeline(self._spec)
            self.runtime = pipeline.runtime.kind  # type: ignore[assignment]
            for result in pipeline.run(self.plan.tasks):
                yield BundleResult([result.record], result.picks, result.detections)
            self.stages.add(pipeline.stages.seconds)
            self.adaptations += pipeline.runtime.take_notes()
            pipeline.runtime.close()
        finally:
            bind_to_cores(earlier)

    def _on_ray(self) -> Iterator[BundleResult]:
        from eqcctpro.orchestration.cluster import ray_session
        from eqcctpro.orchestration.modelactor import run_modelactor
        from eqcctpro.orchestration.ripper import run_ripper

        config = self.config
        spec = self._with_one_runtime()
        session = ray_session(
            address=config.address,
            cpus=self.placement.cores,
            gpu_ids=config.gpu_ids,
            temp_dir=config.ray_temp_dir,
        )
        with session as ray:
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
        if self.config.runtime == "tensorflow":
            # Asked for by name, so there is nothing to choose, and it takes long to start.
            return self._spec
        if self._spec.device != "cpu":
            if self.config.address is None:
                from eqcctpro.runtimes.torch_runtime import check_device

                check_device(f"cuda:{self.config.gpu_ids[-1]}")
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


def waveforms_mb(plan: Plan) -> float:
    """What the largest station task takes beyond short ones, MB, from the records' times."""
    seconds = {
        file.path: sum(extent.end_ns - extent.start_ns for extent in file.channels) / NS_PER_S
        for file in plan.files
    }
    largest = max(sum(seconds.get(path, 0.0) for path in task.files) for task in plan.tasks)
    taken = largest * USUAL_RATE_HZ * BYTES_A_SAMPLE / 2**20
    return max(0.0, taken - COVERED_MB)
