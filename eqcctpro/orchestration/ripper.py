"""Mode ``ripper``: one Ray task per bundle, which loads the model, picks and exits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
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
    in_pieces,
    last_words,
    never,
    quarantined,
    wait_for_some,
    worker_failure,
)
from eqcctpro.orchestration.nodes import Homes
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.worker import BundleResult, PickWorker, WorkerSpec

__all__ = ["run_ripper"]

# Every bundle starts a process and loads the model, which takes as long as some thousand
# windows: few bundles are enough to even out the end, and with little work they cost more.
BUNDLES_PER_WORKER = 2
WORTH_A_PROCESS = 4000
MOST_TASKS = 1024

logger = logging.getLogger("eqcctpro")


def rip(spec: WorkerSpec, tasks: Sequence[StationTask]) -> BundleResult:
    """Load the model, pick a bundle and release the model: body of a Ray task."""
    worker = PickWorker(spec)
    load_seconds = worker.load()
    result = worker.pick(tasks)
    result.seconds["load"] = load_seconds
    return result


def run_ripper(
    ray: Any,
    tasks: Sequence[StationTask],
    spec: WorkerSpec,
    placement: Placement,
    *,
    homes: Homes | None = None,
    open_chunks: int | None = None,
    stop: Callable[[], bool] = never,
) -> Iterator[BundleResult]:
    """Pick in Ray tasks, at most ``placement.workers`` at a time.

    Parameters
    ----------
    ray : module
        Connected.
    tasks : sequence of StationTask
    spec : WorkerSpec
    placement : Placement
    homes : Homes, optional
        On which nodes the tasks run; by default Ray runs on this machine alone.
    open_chunks : int, optional
        Time chunks that may be worked on at once.
    stop : callable
        Whether nothing new is to be started.

    Yields
    ------
    BundleResult
        As bundles finish.

    Raises
    ------
    EQCCTProError
        What the model raised while it was loaded.
    """
    # max_calls=1 ends the process after a task, and so gives back all of its memory.
    remote = ray.remote(max_calls=1, max_retries=0)(rip)
    share = (spec.expected_windows or 0) / placement.workers
    bundles = make_bundles(
        tasks,
        placement.workers,
        within_chunks=open_chunks is not None,
        per_worker=BUNDLES_PER_WORKER if share > WORTH_A_PROCESS else 1,
        most_tasks=MOST_TASKS,
    )
    queue = BundleQueue(bundles, open_chunks, stop)
    homes = homes or Homes(ray, (), {}, ())
    deaths = MemoryDeaths(ray, here=not placement.homes)
    suspects: Counter[int] = Counter()
    free = list(range(placement.workers))[::-1]
    flying: dict[Any, tuple[int, Bundle]] = {}
    while queue or flying:
        while free and (bundle := queue.take()) is not None:
            slot = free.pop()
            options = placement.ray_options | homes.options(slot)
            send = remote.options(**options).remote
            flying[send(_for_slot(spec, placement, slot), list(bundle))] = slot, bundle
        if not free and not flying:
            raise WorkerError(
                "all nodes with workers are lost",
                hint="start nodes again; the same command goes on where the run stopped",
            )
        sent = [bundle for _, bundle in flying.values()]
        if queue.leaves(sent):
            flying = {ref: given for ref, given in flying.items() if not in_pieces(given[1])}
            continue
        for done in wait_for_some(ray, list(flying), partial(queue.leaves, sent)):
            slot, bundle = flying.pop(done)
            outcome = _collect(ray, done)
            if isinstance(outcome, BundleResult):
                free.append(slot)
                queue.done(bundle)
                yield outcome
            elif homes.is_lost(slot):
                name = homes.name(slot)
                queue.give_back(bundle)
                if homes.move(slot):
                    free.append(slot)
                note = f"node {name} was lost: {len(bundle)} station tasks are picked elsewhere"
                logger.warning("%s", note)
                yield BundleResult.nothing(note)
            elif (free or flying) and deaths.was_one(outcome):
                # The slot stays empty: one task fewer at a time.
                queue.put_back(bundle)
                homes.leave(slot)
                note = f"a task was killed for memory, {len(free) + len(flying)} at a time go on"
                logger.warning("%s: %s", note, first_line(outcome))
                yield BundleResult.nothing(note)
            else:
                free.append(slot)
                yield from _after_death(outcome, bundle, queue, suspects)


def _for_slot(spec: WorkerSpec, placement: Placement, slot: int) -> WorkerSpec:
    return replace(spec, device=placement.device(slot), vram_mb=placement.vram_limit(slot))


def _collect(ray: Any, reference: Any) -> BundleResult | Exception:
    """Result of a Ray task, or the error if its worker died."""
    errors = ray.exceptions
    try:
        result: BundleResult = ray.get(reference)
    except (
        *(errors.WorkerCrashedError, errors.OutOfMemoryError, errors.TaskUnschedulableError),
        *(errors.NodeDiedError, errors.ObjectLostError),
    ) as error:
        died: Exception = error
        return died
    except ray.exceptions.RayTaskError as error:
        raise worker_failure(error) from None
    return result


def _after_death(
    error: Exception, bundle: Bundle, queue: BundleQueue, suspects: Counter[int]
) -> Iterator[BundleResult]:
    logger.warning("a worker died; its stations are picked again one by one: %s", first_line(error))
    suspects.update(task.index for task in bundle)
    deaths = suspects[bundle[0].index]
    if len(bundle) == 1 and deaths >= MOST_DEATHS:
        queue.done(bundle)
        yield quarantined(bundle[0], deaths, last_words(error))
    else:
        queue.put_back(bundle)
