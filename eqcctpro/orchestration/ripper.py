"""Mode ``ripper``: one Ray task per bundle, which loads the model, picks and ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from eqcctpro.archive.plan import StationTask
from eqcctpro.orchestration.bundles import make_bundles
from eqcctpro.orchestration.dispatch import Bundle, BundleQueue, first_line, lost_bundle
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.worker import BundleResult, PickWorker, WorkerSpec

__all__ = ["run_ripper"]

# Every bundle starts a process and loads the model: few are enough to even out the end.
BUNDLES_PER_WORKER = 2

logger = logging.getLogger("eqcctpro")


def rip(spec: WorkerSpec, tasks: Sequence[StationTask]) -> BundleResult:
    """Load, pick, release: the body of one Ray task."""
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
    open_chunks: int | None = None,
) -> Iterator[BundleResult]:
    """Pick in Ray tasks, at most ``placement.workers`` at a time.

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
    remote = ray.remote(max_calls=1, max_retries=0)(rip).options(**placement.ray_options)
    worker_spec = replace(spec, device=placement.device)
    queue = BundleQueue(
        make_bundles(
            tasks,
            placement.workers,
            within_chunks=open_chunks is not None,
            per_worker=BUNDLES_PER_WORKER,
        ),
        open_chunks,
    )
    flying: dict[Any, Bundle] = {}
    while queue or flying:
        while len(flying) < placement.workers and (bundle := queue.take()) is not None:
            flying[remote.remote(worker_spec, bundle)] = bundle
        done, _ = ray.wait(list(flying), num_returns=1)
        bundle = flying.pop(done[0])
        result = _collect(ray, done[0], bundle, queue)
        if result is not None:
            queue.done(bundle)
            yield result


def _collect(ray: Any, reference: Any, bundle: Bundle, queue: BundleQueue) -> BundleResult | None:
    try:
        result: BundleResult = ray.get(reference)
    except ray.exceptions.WorkerCrashedError as error:
        logger.warning(
            "a worker died; its stations are picked again one by one: %s", first_line(error)
        )
        if len(bundle) == 1:
            return lost_bundle(bundle, error)
        queue.put_back(bundle)
        return None
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return result
