"""Cost of the driver for each bundle and station task, measured with idle workers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from eqcctpro.archive.plan import InputSettings, StationTask, make_plan
from eqcctpro.archive.timechunks import Timechunk
from eqcctpro.journal.identity import item_ids
from eqcctpro.journal.recorder import Recorder
from eqcctpro.journal.store import Item
from eqcctpro.orchestration.actors import Actors
from eqcctpro.orchestration.cluster import ray_session
from eqcctpro.orchestration.dispatch import wait_for_some
from eqcctpro.orchestration.nodes import Homes
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.worker import BundleResult, WorkerSpec
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.sources.task_settings import TaskSettings

__all__ = ["DispatchCosts", "measure_dispatch", "measure_planning"]

PICKS_A_TASK = 4
#: Bundles of each size that are measured.
BUNDLES = 300
#: Sizes of bundles from which the costs of a bundle and of a task are told apart.
SIZES = (1, 64)


@dataclass(frozen=True)
class DispatchCosts:
    """Seconds that the driver takes.

    Attributes
    ----------
    send_bundle, send_task, take_bundle, take_task : float
    latency : float
        From sending a bundle of one task to having its result, halved.
    start_actor : float
        For each actor, of the driver and of Ray's directory of actors, one after the other.
    spawn : float
        Until an actor's process answers, which nodes do at the same time.
    record_task : float
        Of `take_task`, what the record of the run takes.
    """

    send_bundle: float
    send_task: float
    take_bundle: float
    take_task: float
    latency: float
    start_actor: float
    spawn: float
    record_task: float


class IdleWorker:
    """A worker that returns picks at once, without any work."""

    def __init__(self, spec: object) -> None:
        self._spec = spec

    def load(self) -> float:
        """Load nothing."""
        return 0.0

    def pick(
        self,
        tasks: Sequence[StationTask],
        settings: object = None,  # noqa: ARG002 (as PickWorker's)
        *,
        more: bool = False,  # noqa: ARG002
    ) -> BundleResult:
        """Find the same picks on every station."""
        found = _found([task.index for task in tasks])
        outcomes = {task.index: PickOutcome("done", n_windows=3, n_samples=9000) for task in tasks}
        return BundleResult(outcomes, found, seconds={"infer": 0.1})


def _found(indices: Sequence[int]) -> TaskPicks:
    number = len(indices) * PICKS_A_TASK
    times = np.arange(number, dtype=np.int64) * 10**9
    return TaskPicks(
        np.zeros(number, dtype=np.int16),
        *(times, times, times + 10**8),
        np.full(number, 0.5, dtype=np.float32),
        np.repeat(np.asarray(indices, dtype=np.int32), PICKS_A_TASK),
    )


def made_up_tasks(number: int) -> list[StationTask]:
    """Station tasks with names of the usual length, whose files do not exist."""
    chunk = Timechunk(0, "20241215T120000Z_20241215T121000Z", None, None, -(2**62), 2**62)
    tasks = []
    for index in range(number):
        station = f"S{index:05d}"
        name = f"/archive/network/{chunk.name}/XX.{station}/XX.{station}.00.HH"
        files = tuple(f"{name}{letter}__{chunk.name}.mseed" for letter in "ENZ")
        stamps = tuple((20_000 + index, 1_700_000_000_000_000_000 + index) for _ in files)
        tasks.append(
            StationTask(
                *(index, "XX", station, "00", "HH", f"XX.{station}"),
                *(chunk, files, 60_000, stamps),
            )
        )
    return tasks


def measure_dispatch(settings: TaskSettings, weights: Any, *, actors: int = 2) -> DispatchCosts:
    """Send bundles to idle actors through Ray, take and record their results.

    Parameters
    ----------
    settings : TaskSettings
        Sent with every bundle.
    weights : WeightFiles
        Sent to every actor.
    actors : int

    Returns
    -------
    DispatchCosts
    """
    tasks = made_up_tasks(max(SIZES) * BUNDLES)
    placement = Placement(actors, 1, actors, (), 0.0, 0.01)
    with ray_session(address=None, cpus=actors, gpu_ids=(), temp_dir=None) as ray:
        spec = WorkerSpec(weights, settings)
        homes = Homes(ray, (), {}, ())
        pool = Actors(ray, spec, placement, homes, worker=IdleWorker)
        pool.await_ready()
        start_actor, spawn = _start_more(ray, spec, placement, homes)
        rows = []
        for size in (SIZES[0], *SIZES):  # the first time warms up
            bundles = [tasks[i * size : (i + 1) * size] for i in range(BUNDLES)]
            rows.append(_send_and_take(ray, pool, bundles, settings))
        latency = _latency(ray, pool, tasks[:1], settings)
        pool.close()
    (send_one, take_one), (send_many, take_many) = rows[1:]
    span = SIZES[1] - SIZES[0]
    send_task = max(send_many - send_one, 0.0) / span
    take_task = max(take_many - take_one, 0.0) / span
    record_task = measure_recording(tasks)
    return DispatchCosts(
        send_one - send_task,
        send_task,
        take_one - take_task,
        take_task + record_task,
        latency,
        start_actor,
        spawn,
        record_task,
    )


def _start_more(
    ray: Any, spec: WorkerSpec, placement: Placement, homes: Homes
) -> tuple[float, float]:
    """Processor seconds of the driver and Ray's directory for an actor; seconds of its start."""
    directory = [p for p in psutil.Process().children(recursive=True) if "gcs" in p.name()]

    def used() -> float:
        times = [process.cpu_times() for process in directory]
        return time.process_time() + sum(each.user + each.system for each in times)

    before, began = used(), time.perf_counter()
    more = Actors(ray, spec, placement, homes, worker=IdleWorker)
    more.await_ready()
    spawn, after = time.perf_counter() - began, used()
    more.close()
    return (after - before) / placement.workers, spawn


def _send_and_take(
    ray: Any, pool: Actors, bundles: Sequence[list[StationTask]], settings: TaskSettings
) -> tuple[float, float]:
    """Processor seconds of this process for a bundle: to send it, and to take its result."""
    slots = list(pool.ready)
    began = time.process_time()
    flying = {
        pool.send(slots[i % len(slots)], bundle, settings): slots[i % len(slots)]
        for i, bundle in enumerate(bundles)
    }
    sent = time.process_time()
    outcomes: dict[int, PickOutcome] = {}
    while flying:
        for reference in wait_for_some(ray, list(flying)):
            result = pool.outcome(flying.pop(reference), reference)
            outcomes.update(result.outcomes)
    taken = time.process_time()
    return (sent - began) / len(bundles), (taken - sent) / len(bundles)


def _latency(
    ray: Any, pool: Actors, bundle: list[StationTask], settings: TaskSettings, times: int = 50
) -> float:
    slot = next(iter(pool.ready))
    began = time.perf_counter()
    for _ in range(times):
        ray.get(pool.send(slot, bundle, settings))
    return (time.perf_counter() - began) / times / 2


def measure_recording(tasks: Sequence[StationTask]) -> float:
    """Processor seconds that the record of a run takes for a station task."""
    keys = np.arange(len(tasks), dtype=np.int32)

    def prepare(store: Any) -> None:
        store.set_facts({"state": "running"})
        store.add_items(
            Item(task.index, bytes(16), task.name, task.chunk.name, task.folder) for task in tasks
        )

    with tempfile.TemporaryDirectory(prefix="eqcctpro-costs-") as folder:
        path = Path(folder) / "record"
        recorder = Recorder(path / "journal.sqlite", path / "parts", keys, prepare, 1)
        began = time.process_time()
        recorder.open()
        for first in range(0, len(tasks), 64):
            part = slice(first, first + 64)
            outcomes = {
                task.index: PickOutcome("done", n_windows=3, n_samples=9000) for task in tasks[part]
            }
            recorder.add(outcomes, _found(list(outcomes)), TaskPicks.empty())
        recorder.close("finished")
        return (time.process_time() - began) / len(tasks)


def measure_planning(archive: Path) -> float:
    """Processor seconds that planning takes for a station task whose files were read before."""
    settings = InputSettings((archive,))
    make_plan(settings)
    began = time.process_time()
    tasks = make_plan(settings).tasks
    item_ids(tasks, (archive,), {})
    return (time.process_time() - began) / len(tasks)
