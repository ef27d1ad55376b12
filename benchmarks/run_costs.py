"""Costs of the parts of a run on this machine: the driver, a worker, and real runs."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.dispatch_costs import measure_dispatch, measure_planning
from benchmarks.simulation import RunCosts
from eqcctpro.archive.plan import InputSettings, StationTask, make_plan
from eqcctpro.child import ChildProcess, Parent
from eqcctpro.config import PickConfig
from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
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
        _, settings = describe_run(config, weights)
        dispatch = measure_dispatch(settings, weights)
        plan_task = measure_planning(archive)
        runs = []
        for number in workers:
            changed = config.model_copy(update={"workers": number})
            with PickSession(changed) as session:
                results = [session.run() for _ in range(rounds + 1)]
            first, later = results[0].summary, [result.seconds for result in results[1:]]
            request = _Request(
                input=config.input,
                model=model,
                runtime=first["runtime"],
                batch_size=first["batch_size"],
            )
            work = _measure_work(request, number)
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


class _Request(BaseModel):
    """Input and settings of a timed process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: tuple[Path | str, ...]
    model: str
    runtime: str
    batch_size: int


class _Seconds(BaseModel):
    """Seconds of loading, and of bundles by their size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    load: float
    bundles: dict[int, list[float]]


def _measure_work(request: _Request, processes: int) -> _Work:
    """Without Ray, in processes that work at the same time."""
    children = [ChildProcess(__name__) for _ in range(processes)]
    try:
        for child in children:
            child.send(request.model_dump_json().encode())
        found = [_Seconds.model_validate_json(child.receive()) for child in children]
    finally:
        for child in children:
            child.kill()
    few, many = ([seconds for one in found for seconds in one.bundles[size]] for size in BUNDLES)
    # Medians and quartiles: other programs may use the machine for a moment.
    task = (statistics.median(many) - statistics.median(few)) / (BUNDLES[1] - BUNDLES[0])
    bundle = max(statistics.median(few) - BUNDLES[0] * task, 0.0)
    low, _, high = statistics.quantiles(many, n=4)
    # Of sums of so many stations, taken to be independent.
    spread = (high - low) / 1.35 / BUNDLES[1] ** 0.5 / task
    return _Work(statistics.mean(one.load for one in found), bundle, task, spread)


def _pick_bundles(request: _Request) -> _Seconds:
    config = PickConfig.checked(
        input=request.input, output=Path(tempfile.gettempdir()), model=request.model
    )
    weights = find_run_weights(config)
    _, settings = describe_run(config, weights)
    tasks = list(make_plan(InputSettings(config.input, context_ns=settings.context_ns)).tasks)
    spec = WorkerSpec(
        weights, settings, runtime=request.runtime, batch_size=request.batch_size, threads=1
    )
    return _time_bundles(spec, tasks)


def _time_bundles(spec: WorkerSpec, tasks: Sequence[StationTask]) -> _Seconds:
    worker = PickWorker(spec)
    load = worker.load()
    worker.pick(tasks[: BUNDLES[1]], more=True)
    seconds: dict[int, list[float]] = {size: [] for size in BUNDLES}
    for first in range(0, len(tasks) - sum(BUNDLES) + 1, sum(BUNDLES)):
        for size, begin in zip(BUNDLES, (first, first + BUNDLES[0]), strict=True):
            began = time.perf_counter()
            worker.pick(tasks[begin : begin + size], more=True)
            seconds[size].append(time.perf_counter() - began)
    return _Seconds(load=load, bundles=seconds)


def main() -> None:
    """Main function of a timed process."""
    parent = Parent()
    for message in parent.requests():
        parent.reply(
            _pick_bundles(_Request.model_validate_json(message)).model_dump_json().encode()
        )


if __name__ == "__main__":
    main()
