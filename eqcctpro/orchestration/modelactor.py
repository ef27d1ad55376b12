"""Mode ``modelactor``: persistent Ray actors, each with one loaded model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import WorkerError
from eqcctpro.orchestration.bundles import make_bundles
from eqcctpro.orchestration.dispatch import (
    Bundle,
    BundleQueue,
    MemoryDeaths,
    first_line,
    lost_bundle,
)
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.worker import BundleResult, PickWorker, WorkerSpec

__all__ = ["ActorPool", "run_modelactor"]

logger = logging.getLogger("eqcctpro")

# One bundle is picked while the next one waits, so that an actor is never idle.
IN_FLIGHT_PER_ACTOR = 2


def run_modelactor(
    ray: Any,
    tasks: Sequence[StationTask],
    spec: WorkerSpec,
    placement: Placement,
    *,
    open_chunks: int | None = None,
) -> Iterator[BundleResult]:
    """Pick on actors that are made once for the whole run.

    Yields
    ------
    BundleResult
        As bundles finish.

    Raises
    ------
    WorkerError
        No actor could be started.
    EQCCTProError
        What the model raised while it was loaded.
    """
    pool = ActorPool(ray, spec, placement)
    queue = BundleQueue(
        make_bundles(tasks, placement.workers, within_chunks=open_chunks is not None), open_chunks
    )
    try:
        yield from pool.run(queue)
    finally:
        pool.close()


class ActorPool:
    """Actors with loaded models, which pick one queue of bundles after another.

    Parameters
    ----------
    ray : module
        Connected.
    spec : WorkerSpec
    placement : Placement
    """

    def __init__(self, ray: Any, spec: WorkerSpec, placement: Placement) -> None:
        self._ray = ray
        self._spec = spec
        self._placement = placement
        self._actors = {slot: self._start(slot) for slot in range(placement.workers)}
        self._deaths = MemoryDeaths(ray)
        self._fatal = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
        self._adaptations: list[str] = []
        self._await_ready()
        self._flying: dict[Any, tuple[int, Bundle]] = {}

    def _start(self, slot: int) -> Any:
        spec = replace(
            self._spec,
            device=self._placement.device(slot),
            vram_mb=self._placement.vram_limit(slot),
        )
        return self._ray.remote(PickWorker).options(**self._placement.ray_options).remote(spec)

    def _await_ready(self) -> None:
        try:
            seconds = self._ray.get([actor.load.remote() for actor in self._actors.values()])
        except self._ray.exceptions.RayTaskError as error:
            self.close()
            raise error.cause from None
        except self._ray.exceptions.RayActorError as error:
            self.close()
            raise WorkerError(
                f"a model actor died while it was loaded: {error}", hint="try --mode local"
            ) from error
        logger.info("%d actors ready, slowest load %.2f s", len(seconds), max(seconds))

    def run(self, queue: BundleQueue) -> Iterator[BundleResult]:
        """Pick all bundles of a queue; yields each as it finishes."""
        while queue or self._flying:
            self._fill(queue)
            done, _ = self._ray.wait(list(self._flying), num_returns=1)
            slot, bundle = self._flying.pop(done[0])
            result = self._collect(done[0], slot, bundle, queue)
            if result is not None:
                queue.done(bundle)
                yield result
            while self._adaptations:
                yield BundleResult.nothing(self._adaptations.pop())

    def _fill(self, queue: BundleQueue) -> None:
        load = dict.fromkeys(self._actors, 0)
        for slot, _ in self._flying.values():
            load[slot] += 1
        while True:
            slot = min(load, key=load.__getitem__)
            if load[slot] >= IN_FLIGHT_PER_ACTOR or (bundle := queue.take()) is None:
                return
            self._flying[self._actors[slot].pick.remote(bundle)] = (slot, bundle)
            load[slot] += 1

    def _collect(
        self, reference: Any, slot: int, bundle: Bundle, queue: BundleQueue
    ) -> BundleResult | None:
        """The result, or None when the bundle has to be picked again."""
        try:
            result: BundleResult = self._ray.get(reference)
        except self._fatal as error:
            for_memory = self._replace(slot, queue, error)
            if len(bundle) == 1 and not for_memory:
                return lost_bundle(bundle, error)
            queue.put_back(bundle)
            return None
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        return result

    def _replace(self, slot: int, queue: BundleQueue, error: Exception) -> bool:
        """Start another actor, or go on without; whether memory killed it and others go on."""
        for reference, (owner, bundle) in list(self._flying.items()):
            if owner == slot:
                del self._flying[reference]
                queue.put_back(bundle)
        if len(self._actors) > 1 and self._deaths.was_one(error):
            del self._actors[slot]
            note = f"an actor was killed for memory, {len(self._actors)} go on"
            self._adaptations.append(note)
            logger.warning("%s: %s", note, first_line(error))
            return True
        logger.warning("actor %d died, a new one takes its place: %s", slot, first_line(error))
        self._actors[slot] = self._start(slot)
        return False

    def close(self) -> None:
        """End all actors."""
        for actor in self._actors.values():
            self._ray.kill(actor)
