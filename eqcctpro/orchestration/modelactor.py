"""Mode ``modelactor``: persistent Ray actors, each with one loaded model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import WorkerError
from eqcctpro.orchestration.bundles import make_bundles
from eqcctpro.orchestration.dispatch import (
    MOST_DEATHS,
    Bundle,
    BundleQueue,
    MemoryDeaths,
    first_line,
    last_words,
    never,
    quarantined,
    wait_for_one,
    worker_failure,
)
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.worker import BundleResult, PickWorker, WorkerSpec
from eqcctpro.pipeline.settings import PipelineSettings

__all__ = ["ActorPool"]

logger = logging.getLogger("eqcctpro")

# One bundle is picked while the next one waits, so that an actor is never idle.
IN_FLIGHT_PER_ACTOR = 2


class ActorPool:
    """Actors with loaded models, which pick one plan after another.

    Parameters
    ----------
    ray : module
        Connected.
    spec : WorkerSpec
    placement : Placement

    Attributes
    ----------
    load_s : float
        Mean seconds in which an actor loaded its model.

    Raises
    ------
    WorkerError
        No actor could be started.
    EQCCTProError
        What the model raised while it was loaded.
    """

    def __init__(self, ray: Any, spec: WorkerSpec, placement: Placement) -> None:
        self._ray = ray
        self._spec = spec
        self._settings = spec.settings
        self._placement = placement
        self._actors = {slot: self._start(slot) for slot in range(placement.workers)}
        self._deaths = MemoryDeaths(ray)
        self._fatal = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
        self.load_s = self._await_ready()
        self._flying: dict[Any, tuple[int, Bundle]] = {}
        # Tasks that an actor will answer with its next bundle.
        self._held: dict[int, Bundle] = {}
        self._ended: set[int] = set()
        self._suspects: Counter[int] = Counter()

    def _start(self, slot: int) -> Any:
        spec = replace(
            self._spec,
            device=self._placement.device(slot),
            vram_mb=self._placement.vram_limit(slot),
        )
        return self._ray.remote(PickWorker).options(**self._placement.ray_options).remote(spec)

    def _await_ready(self) -> float:
        """Wait until all models are loaded; returns the mean seconds that it took them."""
        try:
            seconds = self._ray.get([actor.load.remote() for actor in self._actors.values()])
        except self._ray.exceptions.RayTaskError as error:
            self.close()
            raise worker_failure(error) from None
        except self._ray.exceptions.RayActorError as error:
            self.close()
            raise WorkerError(
                f"a model actor died while it was loaded: {error}", hint="try --mode local"
            ) from error
        logger.info("%d actors ready, slowest load %.2f s", len(seconds), max(seconds))
        return float(sum(seconds) / len(seconds))

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: PipelineSettings,
        *,
        open_chunks: int | None = None,
        stop: Callable[[], bool] = never,
    ) -> Iterator[BundleResult]:
        """Pick station tasks in bundles; yields each bundle as it finishes.

        Once `stop` says so, no more bundles are started.

        Raises
        ------
        EQCCTProError
            A worker cannot go on.
        """
        bundles = make_bundles(tasks, len(self._actors), within_chunks=open_chunks is not None)
        queue = BundleQueue(bundles, open_chunks, stop)
        self._settings = settings
        for earlier in (self._suspects, self._held, self._ended):
            earlier.clear()
        yield from self._run(queue)

    def _run(self, queue: BundleQueue) -> Iterator[BundleResult]:
        while queue or self._flying or self._held:
            self._fill(queue)
            self._claim_held()
            done = wait_for_one(self._ray, list(self._flying))
            slot, bundle = self._flying[done]
            outcome = self._result(done)
            if isinstance(outcome, BundleResult):
                del self._flying[done]
                self._settle(slot, bundle, outcome, queue)
                yield outcome
            else:
                yield from self._after_death(slot, outcome, queue)

    def _fill(self, queue: BundleQueue) -> None:
        load = dict.fromkeys(self._actors, 0)
        for slot, flying in self._flying.values():
            load[slot] += IN_FLIGHT_PER_ACTOR if self._suspected(flying) else 1
        while True:
            slot = min(load, key=load.__getitem__)
            if load[slot] >= IN_FLIGHT_PER_ACTOR or (bundle := queue.take()) is None:
                return
            alone = self._suspected(bundle)
            if alone and (load[slot] or slot in self._held):
                queue.untake(bundle)  # until an actor is idle
                return
            self._send(slot, bundle, more=bool(queue) and not alone)
            load[slot] += IN_FLIGHT_PER_ACTOR if alone else 1

    def _send(self, slot: int, bundle: Bundle, *, more: bool) -> None:
        reference = self._actors[slot].pick.remote(bundle, self._settings, more=more)
        self._flying[reference] = (slot, bundle)

    def _claim_held(self) -> None:
        """Ask actors that get no further bundle for what they hold back."""
        busy = {slot for slot, _ in self._flying.values()}
        for slot in self._held.keys() - busy:
            self._send(slot, [], more=False)

    def _settle(self, slot: int, bundle: Bundle, outcome: BundleResult, queue: BundleQueue) -> None:
        """Note which tasks of an actor have ended, and which it still holds."""
        if bundle:
            queue.done(bundle)
        self._ended.update(record.task for record in outcome.records)
        held = [t for t in [*self._held.pop(slot, ()), *bundle] if t.index not in self._ended]
        if held:
            self._held[slot] = held

    def _suspected(self, bundle: Bundle) -> bool:
        return bool(bundle) and bundle[0].index in self._suspects

    def _result(self, reference: Any) -> BundleResult | Exception:
        """The result, or the error that says that the actor died."""
        try:
            result: BundleResult = self._ray.get(reference)
        except self._fatal as error:
            died: Exception = error
            return died
        except self._ray.exceptions.RayTaskError as error:
            raise worker_failure(error) from None
        return result

    def _after_death(
        self, slot: int, error: Exception, queue: BundleQueue
    ) -> Iterator[BundleResult]:
        """Replace a dead actor; what it had been given is picked again.

        A result may be lost on its way when its actor dies over the next bundle.  So a
        station is only blamed once it has killed an actor that had nothing else, and not
        the first one that it was given to: after a death, stations are suspected, and
        suspected ones are sent to idle actors singly.
        """
        given = [(ref, bundle) for ref, (owner, bundle) in self._flying.items() if owner == slot]
        for reference, _ in given:
            del self._flying[reference]
        note = self._go_on_without(slot, error)
        lost: list[Bundle] = []
        for reference, bundle in given:
            outcome = self._result(reference)
            if isinstance(outcome, BundleResult):
                self._settle(slot, bundle, outcome, queue)
                yield outcome
            else:
                lost.append(bundle)
        held = self._held.pop(slot, [])
        self._suspects.update(task.index for bundle in [held, *lost] for task in bundle)
        if not held and len(given) == 1 and len(lost) == 1 and len(lost[0]) == 1 and note is None:
            (task,) = lost[0]
            if (deaths := self._suspects[task.index]) >= MOST_DEATHS:
                queue.done(lost[0])
                yield quarantined(task, deaths, last_words(error))
                return
        for bundle in reversed(lost):
            if bundle:
                queue.put_back(bundle)
        queue.put_in_front(held)
        if note is not None:
            yield BundleResult.nothing(note)

    def _go_on_without(self, slot: int, error: Exception) -> str | None:
        """Start another actor, or none if memory killed this one; what to say of the latter."""
        if len(self._actors) > 1 and self._deaths.was_one(error):
            del self._actors[slot]
            note = f"an actor was killed for memory, {len(self._actors)} go on"
            logger.warning("%s: %s", note, first_line(error))
            return note
        logger.warning("actor %d died, a new one takes its place: %s", slot, first_line(error))
        self._actors[slot] = self._start(slot)
        return None

    def close(self) -> None:
        """End all actors."""
        for actor in self._actors.values():
            self._ray.kill(actor)
