"""Mode ``modelactor``: persistent Ray actors, each with one loaded model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import WorkerError
from eqcctpro.orchestration.actors import Actors, Died
from eqcctpro.orchestration.bundles import make_bundles
from eqcctpro.orchestration.dispatch import (
    MOST_DEATHS,
    Bundle,
    BundleQueue,
    MemoryDeaths,
    first_line,
    in_pieces,
    last_words,
    never,
    quarantined,
    wait_for_some,
)
from eqcctpro.orchestration.nodes import Homes
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.worker import BundleResult, WorkerSpec
from eqcctpro.sources.task_settings import TaskSettings

__all__ = ["ActorPool"]

logger = logging.getLogger("eqcctpro")

# One bundle is picked while the next one waits, so that an actor is never idle.
IN_FLIGHT_PER_ACTOR = 2


class ActorPool:
    """Pool of actors with loaded models, which pick one plan after another.

    Parameters
    ----------
    ray : module
        Connected.
    spec : WorkerSpec
    placement : Placement
    homes : Homes, optional
        On which node each actor lives; by default Ray runs on this machine alone.

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

    def __init__(
        self, ray: Any, spec: WorkerSpec, placement: Placement, homes: Homes | None = None
    ) -> None:
        self._ray = ray
        self._settings = spec.settings
        self._homes = homes or Homes(ray, (), {}, ())
        self._actors = Actors(ray, spec, placement, self._homes)
        self._deaths = MemoryDeaths(ray, here=not placement.homes)
        self.load_s = self._actors.await_ready()
        self._flying: dict[Any, tuple[int, Bundle]] = {}
        # Tasks that an actor will answer with its next bundle.
        self._held: dict[int, list[StationTask]] = {}
        # Tasks that ended in an answer that was read before that of their own bundle.
        self._ended_early: set[int] = set()
        self._suspects: Counter[int] = Counter()

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: TaskSettings,
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
        for earlier in (self._suspects, self._held, self._ended_early):
            earlier.clear()
        yield from self._run(queue)

    def _run(self, queue: BundleQueue) -> Iterator[BundleResult]:
        while queue or self._flying or self._held:
            self._fill(queue)
            self._claim_held()
            if self._leave(queue):
                continue
            if not len(self._actors):
                raise WorkerError(
                    "all workers are lost",
                    hint="start nodes again; the same command goes on where the run stopped",
                )
            waited_for = [*self._flying, *self._actors.loading]
            sent = [bundle for _, bundle in self._flying.values()]
            for done in wait_for_some(self._ray, waited_for, partial(queue.leaves, sent)):
                if done in self._flying:  # unless its actor was found dead meanwhile
                    yield from self._collect(done, queue)
                elif done in self._actors.loading:
                    yield from self._loaded(done)

    def _leave(self, queue: BundleQueue) -> bool:
        """Abandon actors that are too slow to stop; return True if there are any.

        What they were given is neither waited for nor recorded.
        """
        if not queue.leaves(bundle for _, bundle in self._flying.values()):
            return False
        left = {slot for slot, bundle in self._flying.values() if in_pieces(bundle)}
        for reference in [ref for ref, (slot, _) in self._flying.items() if slot in left]:
            del self._flying[reference]
        for slot in left:
            self._held.pop(slot, None)
        return True

    def _collect(self, done: Any, queue: BundleQueue) -> Iterator[BundleResult]:
        slot, bundle = self._flying[done]
        outcome = self._actors.outcome(slot, done)
        if isinstance(outcome, Died):
            yield from self._after_death(slot, outcome.error, queue)
        else:
            del self._flying[done]
            self._settle(slot, bundle, outcome, queue)
            yield outcome
            self._fill(queue)

    def _fill(self, queue: BundleQueue) -> None:
        load = dict.fromkeys(self._actors.ready, 0)
        for slot, flying in self._flying.values():
            load[slot] += IN_FLIGHT_PER_ACTOR if self._suspected(flying) else 1
        while load:
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
        reference = self._actors.send(slot, bundle, self._settings, more=more)
        self._flying[reference] = (slot, bundle)

    def _claim_held(self) -> None:
        """Flush the unreturned results of actors that get no further bundle."""
        busy = {slot for slot, _ in self._flying.values()}
        for slot in self._held.keys() - busy:
            self._send(slot, (), more=False)

    def _settle(self, slot: int, bundle: Bundle, outcome: BundleResult, queue: BundleQueue) -> None:
        """Record which tasks of an actor have finished, and which are still in flight."""
        if bundle:
            queue.done(bundle)
        given = {task.index: task for task in (*self._held.pop(slot, ()), *bundle)}
        self._ended_early.update(outcome.outcomes)
        if held := [task for index, task in given.items() if index not in self._ended_early]:
            self._held[slot] = held
        self._ended_early.difference_update(given)

    def _suspected(self, bundle: Bundle) -> bool:
        return bool(bundle) and bundle[0].index in self._suspects

    def _loaded(self, done: Any) -> Iterator[BundleResult]:
        """Handle a replacement actor that has loaded its model or died while loading."""
        slot, died = self._actors.loaded(done)
        if died is None:
            return
        note = self._actors.start_again(slot, died.error)
        if note is not None:
            logger.warning("%s: %s", note, first_line(died.error))
            yield BundleResult.nothing(note)

    def _after_death(
        self, slot: int, error: Exception, queue: BundleQueue
    ) -> Iterator[BundleResult]:
        """Replace a dead actor, and queue its bundles again.

        A result may be lost on its way when its actor dies over the next bundle.  So a
        station is only blamed once it has killed an actor that had nothing else, and not
        the first one that it was given to: after a death, stations are suspected, and
        suspected ones are sent to idle actors singly.  With a node, whatever was on it
        dies, and nothing is suspected.
        """
        given = [(ref, bundle) for ref, (owner, bundle) in self._flying.items() if owner == slot]
        for reference, _ in given:
            del self._flying[reference]
        with_node = self._homes.is_lost(slot)
        lost: list[Bundle] = []
        for reference, bundle in given:
            outcome = self._actors.outcome(slot, reference)
            if isinstance(outcome, Died):
                lost.append(bundle)
            else:
                self._settle(slot, bundle, outcome, queue)
                yield outcome
        held = self._held.pop(slot, [])
        lost = [bundle for bundle in lost if bundle]
        if with_node:
            for bundle in reversed(lost):
                queue.give_back(bundle)
            queue.put_in_front(held)
            given_up = len(held) + sum(map(len, lost))
            yield BundleResult.nothing(self._after_node(slot, given_up))
            return
        note = self._go_on_without(slot, error)
        self._suspects.update(task.index for bundle in [held, *lost] for task in bundle)
        if not held and len(given) == 1 and len(lost) == 1 and len(lost[0]) == 1 and note is None:
            (task,) = lost[0]
            if (deaths := self._suspects[task.index]) >= MOST_DEATHS:
                queue.done(lost[0])
                yield quarantined(task, deaths, last_words(error))
                return
        for bundle in reversed(lost):
            queue.put_back(bundle)
        queue.put_in_front(held)
        if note is not None:
            yield BundleResult.nothing(note)

    def _after_node(self, slot: int, given: int) -> str:
        """Reschedule the worker of a lost node, if there is room; returns the log text."""
        node = self._homes.name(slot)
        moved = self._actors.move(slot)
        then = "a worker on another node takes its place" if moved else self._actors.sentence()
        note = (
            f"node {node} was lost: {given} station tasks of a worker are picked elsewhere, {then}"
        )
        logger.warning("%s", note)
        return note

    def _go_on_without(self, slot: int, error: Exception) -> str | None:
        """Replace an actor, unless memory killed this one; returns the log text."""
        if len(self._actors) > 1 and self._deaths.was_one(error):
            self._actors.leave(slot)
            note = f"an actor was killed for memory, {self._actors.sentence()}"
            logger.warning("%s: %s", note, first_line(error))
            return note
        logger.warning("actor %d died, a new one takes its place: %s", slot, first_line(error))
        self._actors.replace(slot)
        return None

    def close(self) -> None:
        """End all actors."""
        self._actors.close()
