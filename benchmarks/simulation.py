"""Simulation of runs with more workers than this machine has, from measured costs.

One process plans, sends bundles, takes results and writes; workers pick.  What a worker does
takes its own time, what the driver does is done one after the other.  Time is simulated event
by event: a worker ends a bundle, the driver takes the result and sends another bundle.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

from eqcctpro.orchestration.bundles import BUNDLES_PER_WORKER, MOST_TASKS
from eqcctpro.orchestration.modelactor import IN_FLIGHT_PER_ACTOR

__all__ = ["RunCosts", "SimulatedRun", "simulate_run"]


@dataclass(frozen=True)
class RunCosts:
    """Time that each part of a run takes, in s.

    Attributes
    ----------
    plan_task : float
        Driver: find and plan a station task.
    start : float
        Driver: until Ray has been joined and the first actor asked for.
    start_actor : float
        Driver and Ray: for each actor, one after the other.
    load : float
        Worker: start a process and load the model, all of them at the same time.
    send_bundle, send_task : float
        Driver: for each bundle, and for each station task in it.
    take_bundle, take_task : float
        Driver: for each result, the record of the run included.
    latency : float
        From the driver to a worker or back.
    work_bundle, work_task : float
        Worker: for each bundle, and to read and pick a station task.
    work_spread : float
        Standard deviation of that, as a share of it.
    finish, finish_task : float
        Driver: put results in order and write them.
    task_bytes : float
        What is read for a station task.
    """

    plan_task: float
    start: float
    start_actor: float
    load: float
    send_bundle: float
    send_task: float
    take_bundle: float
    take_task: float
    latency: float
    work_bundle: float
    work_task: float
    work_spread: float
    finish: float
    finish_task: float
    task_bytes: float


@dataclass(frozen=True)
class SimulatedRun:
    """Result of a simulated run.

    Attributes
    ----------
    workers, tasks, bundles : int
    plan_s, start_s, pick_s, finish_s : float
        Wall-clock seconds of its parts.
    lost_s : dict of str to float
        Mean seconds in which a worker did not work, by the reason.
    driver_busy : float
        Share of the time of picking in which the driver was busy.
    efficiency : float
        Share of the workers' time in which they picked, over the whole run.
    read_mb_s : float
        What the file system has to deliver while stations are picked, MB of 10**6 bytes a second.
    """

    workers: int
    tasks: int
    bundles: int
    plan_s: float
    start_s: float
    pick_s: float
    finish_s: float
    lost_s: dict[str, float]
    driver_busy: float
    efficiency: float
    read_mb_s: float

    @property
    def total_s(self) -> float:
        """Seconds from the command to the results."""
        return self.plan_s + self.start_s + self.pick_s + self.finish_s

    @property
    def bottleneck(self) -> str:
        """Main reason why workers are idle."""
        return max(self.lost_s, key=self.lost_s.__getitem__)


def simulate_run(costs: RunCosts, tasks: int, workers: int, *, seed: int = 0) -> SimulatedRun:
    """Simulate a run in mode modelactor.

    Parameters
    ----------
    costs : RunCosts
    tasks : int
        Station tasks of equal expected size.
    workers : int
    seed : int
        Of the times that bundles take.

    Returns
    -------
    SimulatedRun
    """
    sizes = _bundle_sizes(tasks, workers)
    durations = _durations(costs, sizes, np.random.default_rng(seed))
    picking = _Picking(costs, sizes, durations, workers)
    pick_s = picking.run()
    plan_s = costs.plan_task * tasks
    start_s = costs.start + workers * costs.start_actor + costs.load
    finish_s = costs.finish + costs.finish_task * tasks
    useful = tasks * costs.work_task / workers
    total = plan_s + start_s + pick_s + finish_s
    lost = {
        "planning": plan_s,
        "starting workers": start_s,
        "small bundles": len(sizes) * costs.work_bundle / workers,
        "the driver": picking.waited_s / workers,
        "the last bundles": picking.ended_early_s / workers,
        "writing results": finish_s,
    }
    return SimulatedRun(
        workers,
        tasks,
        len(sizes),
        plan_s,
        start_s,
        pick_s,
        finish_s,
        lost,
        picking.driver_s / pick_s,
        useful / total,
        tasks * costs.task_bytes / pick_s / 1e6,
    )


def _bundle_sizes(tasks: int, workers: int) -> list[int]:
    """As `eqcctpro.orchestration.bundles.make_bundles` cuts tasks of equal size."""
    most = min(-(-tasks // workers), MOST_TASKS)
    size = max(1, min(int(tasks / (workers * BUNDLES_PER_WORKER)), most))
    whole, rest = divmod(tasks, size)
    return [size] * whole + ([rest] if rest else [])


def _durations(
    costs: RunCosts, sizes: list[int], generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Random durations of bundles: sums of independent station tasks, at least a tenth each."""
    number = np.asarray(sizes, dtype=float)
    spread = costs.work_spread * np.sqrt(number) * generator.standard_normal(len(sizes))
    return costs.work_bundle + costs.work_task * np.maximum(number + spread, 0.1 * number)


class _Picking:
    """The part of a run in which workers pick.

    Attributes
    ----------
    waited_s : float
        What all workers together waited for the driver, until it had the last result.
    ended_early_s : float
        What they were idle for at the end, with nothing left to send.
    driver_s : float
        How long the driver was busy.
    """

    def __init__(
        self,
        costs: RunCosts,
        sizes: list[int],
        durations: np.ndarray[tuple[int], np.dtype[np.float64]],
        workers: int,
    ) -> None:
        self._costs = costs
        self._sizes = sizes
        self._durations = durations.tolist()
        self._following = 0
        self._driver_free = 0.0
        self._free = [0.0] * workers
        self._queued: list[deque[tuple[float, int]]] = [deque() for _ in range(workers)]
        self._busy = [False] * workers
        self._events: list[tuple[float, int, int]] = []
        self.waited_s = self.ended_early_s = self.driver_s = 0.0

    def run(self) -> float:
        """Simulate; returns the seconds until the driver has taken the last result."""
        workers = range(len(self._free))
        for _ in range(IN_FLIGHT_PER_ACTOR):
            for worker in workers:
                self._send(worker)
        while self._events:
            ended, worker, bundle = heapq.heappop(self._events)
            self._free[worker], self._busy[worker] = ended, False
            self._begin(worker)
            self._take(ended, bundle)
            self._send(worker)
        last = max(self._free)
        self.ended_early_s = sum(last - free for free in self._free)
        self.waited_s += (self._driver_free - last) * len(self._free)
        return self._driver_free

    def _drive(self, since: float, seconds: float) -> float:
        """Keep the driver busy; returns when it has done."""
        self._driver_free = max(self._driver_free, since) + seconds
        self.driver_s += seconds
        return self._driver_free

    def _send(self, worker: int) -> None:
        bundle = self._following
        if bundle >= len(self._sizes):
            return
        self._following += 1
        costs = self._costs
        sent = self._drive(0.0, costs.send_bundle + costs.send_task * self._sizes[bundle])
        self._queued[worker].append((sent + costs.latency, bundle))
        self._begin(worker)

    def _begin(self, worker: int) -> None:
        """Have an idle worker begin with what it was sent."""
        if self._busy[worker] or not self._queued[worker]:
            return
        arrived, bundle = self._queued[worker].popleft()
        begun = max(arrived, self._free[worker])
        self.waited_s += begun - self._free[worker]
        self._busy[worker] = True
        heapq.heappush(self._events, (begun + self._durations[bundle], worker, bundle))

    def _take(self, ended: float, bundle: int) -> None:
        costs = self._costs
        self._drive(
            ended + costs.latency, costs.take_bundle + costs.take_task * self._sizes[bundle]
        )
