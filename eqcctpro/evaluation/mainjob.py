"""The main job, side by side: our modes against SeisBench on one network, warm.

Each contender is prepared in a fresh process: its model is loaded and it picks the
network once.  Then all of them pick it in turn, several times over, from miniSEED files
to a CSV file of picks, so that a change of the machine's speed meets all alike.
"""

from __future__ import annotations

import csv
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from eqcctpro.errors import EQCCTProError
from eqcctpro.resources.sampler import MemorySampler

__all__ = ["Contender", "Measurement", "compare_main_job"]


@dataclass(frozen=True)
class Contender:
    """One way to do the main job.

    Attributes
    ----------
    name : str
    kind : {"local", "modelactor", "seisbench"}
    model : str
        ``Parent/child``.
    workers : int
        For ``"modelactor"``.
    runtime : str
        For our modes.
    """

    name: str
    kind: str
    model: str
    workers: int = 1
    runtime: str = "auto"


@dataclass(frozen=True)
class Measurement:
    """Timings of a contender.

    Attributes
    ----------
    contender : Contender
    seconds : list of float
        Wall-clock of each warm repeat.
    picks : int
    peak_mb : float
        Highest proportional set size of its processes, loading included.
    detail : str
        What really ran.
    """

    contender: Contender
    seconds: list[float]
    picks: int
    peak_mb: float
    detail: str

    @property
    def median(self) -> float:
        """Median of the repeats."""
        return statistics.median(self.seconds)

    def row(self) -> dict[str, Any]:
        """Everything as one flat record."""
        return {**asdict(self.contender), "median_s": self.median, **asdict(self)}


def compare_main_job(
    network: Path, output: Path, contenders: Sequence[Contender], *, repeats: int = 5
) -> list[Measurement]:
    """Measure contenders in turn.

    Parameters
    ----------
    network : Path
        Archive in EQCCTPro's layout.
    output : Path
        Picks are written below it.
    contenders : sequence of Contender
    repeats : int
        Warm runs of each.

    Raises
    ------
    EQCCTProError
        A contender failed; the message holds its error.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[Contender, Any, Connection]] = []
    for contender in contenders:
        mine, theirs = context.Pipe()
        folder = output / contender.name.replace("/", "_").replace(" ", "_")
        process = context.Process(target=_serve, args=(theirs, contender, network, folder))
        process.start()
        workers.append((contender, process, mine))
        _answer(mine, contender)  # loaded, and picked once
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(repeats):
        for contender, _process, pipe in workers:
            pipe.send("run")
            seconds[contender.name].append(_answer(pipe, contender))
    measurements = []
    for contender, process, pipe in workers:
        pipe.send("end")
        picks, peak_mb, detail = _answer(pipe, contender)
        process.join()
        measurements.append(Measurement(contender, seconds[contender.name], picks, peak_mb, detail))
    return measurements


def _answer(pipe: Connection, contender: Contender) -> Any:
    try:
        outcome, value = pipe.recv()
    except EOFError as error:
        raise EQCCTProError(f"{contender.name}: its process died") from error
    if outcome == "error":
        raise EQCCTProError(f"{contender.name}: {value}")
    return value


def _serve(pipe: Connection, contender: Contender, network: Path, output: Path) -> None:
    """Load, pick once, then pick whenever told to."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        with MemorySampler() as memory:
            job, detail, close = _PREPARE[contender.kind](contender, network, output)
            picks = job()
            pipe.send(("ready", None))
            while pipe.recv() == "run":
                started = time.perf_counter()
                picks = job()
                pipe.send(("seconds", time.perf_counter() - started))
        close()
        pipe.send(("result", (picks, memory.peak_mb, detail)))
    except Exception as error:  # sent to the process that asked, which raises it
        pipe.send(("error", f"{type(error).__name__}: {error}"))


Prepared = tuple[Callable[[], int], str, Callable[[], None]]


def _seisbench(contender: Contender, network: Path, output: Path) -> Prepared:
    import obspy
    import seisbench.models as sbm

    parent, child = contender.model.split("/")
    model = getattr(sbm, parent).from_pretrained(child)

    def job() -> int:
        stream = obspy.Stream()
        for path in sorted(network.rglob("*.mseed")):
            stream += obspy.read(str(path))
        picks = model.classify(stream).picks
        with (output / "picks.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for pick in picks:
                writer.writerow([pick.trace_id, pick.phase, pick.peak_time, pick.peak_value])
        return len(picks)

    import torch

    return job, f"classify on the merged network, {torch.get_num_threads()} threads", _nothing


def _local(contender: Contender, network: Path, output: Path) -> Prepared:
    from eqcctpro.orchestration.worker import open_pipeline

    _, spec = _plan_and_spec(contender, network)
    pipeline = open_pipeline(spec)

    def job() -> int:
        plan, _ = _plan_and_spec(contender, network)
        results = list(pipeline.run(plan.tasks))
        return _write(pipeline.picker, plan.tasks, [r.picks for r in results], output)

    runtime = pipeline.runtime
    return job, f"{runtime.kind}, batch {runtime.batch_size}", _nothing


def _modelactor(contender: Contender, network: Path, output: Path) -> Prepared:
    from eqcctpro.config import PickConfig
    from eqcctpro.orchestration.cluster import ray_session
    from eqcctpro.orchestration.modelactor import ActorPool
    from eqcctpro.orchestration.placement import place_workers
    from eqcctpro.runtimes.select import load_picker

    config = PickConfig.checked(
        input=network, output=output, mode="modelactor", workers=contender.workers
    )
    placement = place_workers(config)
    _, spec = _plan_and_spec(contender, network, threads=placement.threads)
    session = ray_session(address=None, cpus=placement.cores, gpu_ids=(), temp_dir=None)
    pool = ActorPool(session.__enter__(), spec, placement)
    picker = load_picker(spec.weights)

    def job() -> int:
        plan, _ = _plan_and_spec(contender, network)
        results = list(pool.pick(plan.tasks, spec.settings))
        return _write(picker, plan.tasks, [r.picks for r in results], output)

    def close() -> None:
        pool.close()
        session.__exit__(None, None, None)

    detail = f"{placement.workers} actors, {placement.threads} threads each"
    return job, detail, close


def _plan_and_spec(contender: Contender, network: Path, threads: int | None = None) -> Any:
    from eqcctpro.archive.plan import InputSettings, make_plan
    from eqcctpro.models.weights import find_weights, split_name
    from eqcctpro.orchestration.worker import WorkerSpec
    from eqcctpro.pipeline.settings import resolve_settings
    from eqcctpro.runtimes.select import load_picker

    weights = find_weights(*split_name(contender.model))
    settings = resolve_settings(load_picker(weights))
    plan = make_plan(InputSettings((network,)))
    return plan, WorkerSpec(weights, settings, runtime=contender.runtime, threads=threads)


def _write(picker: Any, tasks: Any, raw: Any, output: Path) -> int:
    from eqcctpro.picks.borders import settle_borders
    from eqcctpro.picks.raw import RawPicks
    from eqcctpro.picks.table import pick_table
    from eqcctpro.picks.writers import write_csv

    picks = settle_borders(RawPicks.concatenate(raw), tasks)
    table = pick_table(picks, tasks, picker, "benchmark")
    write_csv(table, output / "picks.csv")
    return int(table.num_rows)


def _nothing() -> None:
    pass


_PREPARE: dict[str, Callable[[Contender, Path, Path], Prepared]] = {
    "local": _local,
    "modelactor": _modelactor,
    "seisbench": _seisbench,
}
