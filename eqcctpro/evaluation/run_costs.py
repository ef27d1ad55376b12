"""What the parts of a run cost on this machine: the driver, a worker, and real runs."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from eqcctpro.archive.plan import InputSettings, StationTask, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.evaluation.dispatch_costs import measure_dispatch, measure_planning
from eqcctpro.evaluation.simulation import RunCosts
from eqcctpro.orchestration.model_choice import describe, find_run_weights
from eqcctpro.orchestration.session import PickSession
from eqcctpro.orchestration.worker import PickWorker, WorkerSpec
from eqcctpro.synthetic.tiling import tile_network

__all__ = ["RealRun", "measure_costs"]

# Stations in the bundles of which the time is taken: what a bundle takes by itself follows.
BUNDLES = (8, 64)


@dataclass(frozen=True)
class RealRun:
    """Runs with a number of workers.

    Attributes
    ----------
    workers : int
    pick_s : float
        Median seconds in which they picked.
    costs : RunCosts
        With what a station takes a worker while as many work on this machine.
    """

    workers: int
    pick_s: float
    costs: RunCosts


def measure_costs(
    records: Path, model: str, *, stations: int, rounds: int = 3, workers: Sequence[int] = (1, 2)
) -> list[RealRun]:
    """Measure what a run costs, and run it.

    Parameters
    ----------
    records : Path
        Real records, of which a network is made.
    model : str
    stations : int
        Of that network.
    rounds : int
        Runs with each number of workers, after one that warms up.
    workers : sequence of int
        Numbers of workers, with one thread each; no more than there are cores.
    """
    with tempfile.TemporaryDirectory(prefix="eqcctpro-scaling-") as folder:
        archive = tile_network(records, Path(folder) / "network", stations=stations)
        size = sum(path.stat().st_size for path in archive.rglob("*.mseed")) / stations
        config = PickConfig.checked(
            input=archive,
            output=Path(folder) / "out",
            model=model,
            overview=False,
            mode="modelactor",
            threads=1,
            ignore_ram_cap=True,
        )
        weights = find_run_weights(config)
        _, settings = describe(config, weights)
        tasks = list(make_plan(InputSettings(config.input, context_ns=settings.context_ns)).tasks)
        dispatch = measure_dispatch(settings, weights)
        plan_task = measure_planning(archive)
        runs = []
        for number in workers:
            changed = config.model_copy(update={"workers": number})
            with PickSession(changed) as session:
                results = [session.run() for _ in range(rounds + 1)]
            first, later = results[0].summary, [result.seconds for result in results[1:]]
            spec = WorkerSpec(
                weights,
                settings,
                runtime=first["runtime"],
                batch_size=first["batch_size"],
                threads=1,
            )
            work = _measure_work(spec, tasks, number)
            medians = {
                name: statistics.median(each[name] for each in later) for name in ("pick", "write")
            }
            costs = RunCosts(
                plan_task=plan_task,
                start=max(
                    first["seconds"]["workers"] - work.load - dispatch.start_actor * number, 0.0
                ),
                start_actor=dispatch.start_actor,
                load=work.load + dispatch.spawn,
                send_bundle=dispatch.send_bundle,
                send_task=dispatch.send_task,
                take_bundle=dispatch.take_bundle,
                take_task=dispatch.take_task,
                latency=dispatch.latency,
                work_bundle=work.bundle,
                work_task=work.task,
                work_spread=work.spread,
                finish=0.0,
                finish_task=medians["write"] / stations,
                task_bytes=size,
            )
            runs.append(RealRun(number, medians["pick"], costs))
    return runs


@dataclass(frozen=True)
class _Work:
    """Seconds that a worker takes: to load, for a bundle, for a station task, and their spread."""

    load: float
    bundle: float
    task: float
    spread: float


def _measure_work(spec: WorkerSpec, tasks: Sequence[StationTask], processes: int) -> _Work:
    """Without Ray, in processes that work at the same time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(_pick_bundles, spec, tasks) for _ in range(processes)]
        found = [future.result() for future in futures]
    few, many = ([seconds for _, bundles in found for seconds in bundles[size]] for size in BUNDLES)
    # Medians and quartiles: other programs may use the machine for a moment.
    task = (statistics.median(many) - statistics.median(few)) / (BUNDLES[1] - BUNDLES[0])
    bundle = max(statistics.median(few) - BUNDLES[0] * task, 0.0)
    low, _, high = statistics.quantiles(many, n=4)
    # Of sums of so many stations, taken to be independent.
    spread = (high - low) / 1.35 / BUNDLES[1] ** 0.5 / task
    return _Work(statistics.mean(load for load, _ in found), bundle, task, spread)


def _pick_bundles(
    spec: WorkerSpec, tasks: Sequence[StationTask]
) -> tuple[float, dict[int, list[float]]]:
    """Seconds of loading, and of bundles by their size."""
    worker = PickWorker(spec)
    load = worker.load()
    worker.pick(tasks[: BUNDLES[1]])
    seconds: dict[int, list[float]] = {size: [] for size in BUNDLES}
    for first in range(0, len(tasks) - sum(BUNDLES) + 1, sum(BUNDLES)):
        for size, begin in zip(BUNDLES, (first, first + BUNDLES[0]), strict=True):
            began = time.perf_counter()
            worker.pick(tasks[begin : begin + size])
            seconds[size].append(time.perf_counter() - began)
    return load, seconds
