"""Bundles of station tasks: the unit of work that is sent to a worker."""

from __future__ import annotations

from collections.abc import Sequence

from eqcctpro.archive.plan import StationTask

__all__ = ["make_bundles"]

# Several bundles per worker even out stations of different length.
BUNDLES_PER_WORKER = 3
MOST_TASKS = 256


def make_bundles(
    tasks: Sequence[StationTask],
    workers: int,
    *,
    within_chunks: bool = False,
    per_worker: int = BUNDLES_PER_WORKER,
    most_tasks: int = MOST_TASKS,
) -> list[Sequence[StationTask]]:
    """Cut the plan into bundles of about equal size, without changing its order.

    Parameters
    ----------
    tasks : sequence of StationTask
    workers : int
    within_chunks : bool
        Never join stations of different time chunks.
    per_worker : int
        Bundles for each worker, if that leaves no more than `most_tasks` in each.
    most_tasks : int

    Returns
    -------
    list of sequence of StationTask
        Slices of `tasks`.  Neighbouring tasks that read the same file stay together where
        that leaves enough bundles for all workers.
    """
    total = sum(task.n_bytes for task in tasks)
    target = max(total / (workers * per_worker), 1.0)
    most = max(min(-(-len(tasks) // workers), most_tasks), 1)
    bundles: list[Sequence[StationTask]] = []
    begin = size = number = 0
    last: StationTask | None = None
    for task in tasks:
        if last is not None and _must_split(number, size, last, task, target, most, within_chunks):
            bundles.append(tasks[begin : begin + number])
            begin, size, number = begin + number, 0, 0
        last = task
        size += task.n_bytes
        number += 1
    if number:
        bundles.append(tasks[begin : begin + number])
    return bundles


def _must_split(
    number: int,
    size: int,
    last: StationTask,
    task: StationTask,
    target: float,
    most: int,
    within_chunks: bool,
) -> bool:
    if within_chunks and last.chunk.index != task.chunk.index:
        return True
    full = size + task.n_bytes > target or number >= most
    shares_files = bool(set(last.files) & set(task.files))
    return full and not (shares_files and number < most)
