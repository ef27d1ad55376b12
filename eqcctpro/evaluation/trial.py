"""One trial: a subject in a process of its own, warmed up and run several times."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from eqcctpro.errors import EQCCTProError
from eqcctpro.evaluation.grid import TrialSpec
from eqcctpro.evaluation.subject import Outcome, Subject, Workload
from eqcctpro.places import local_paths
from eqcctpro.resources.energy import CpuEnergy
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse

__all__ = ["TrialResult", "open_subject", "run_trial"]

# Seconds that a trial's process may take to end by itself, with Ray.
END_S = 30.0


@dataclass
class TrialResult:
    """What a trial came to.

    Attributes
    ----------
    spec : TrialSpec
    facts : dict
        What the subject said of itself when it was ready.
    warm_ups, repeats : list of Outcome
    total_s : float
        From the start of the process to the end of the last repeat.
    prepare_s : float
        Until the subject was ready.
    use : ResourceUse
        Of the process and its children, loading included.
    cpu_energy_j : float or None
        Of all repeats, where the processor counts it.
    error : str
        Why the trial is not a success; empty text if it is one.
    """

    spec: TrialSpec
    facts: dict[str, Any] = field(default_factory=dict)
    warm_ups: list[Outcome] = field(default_factory=list)
    repeats: list[Outcome] = field(default_factory=list)
    total_s: float = 0.0
    prepare_s: float = 0.0
    use: ResourceUse = field(default_factory=ResourceUse)
    cpu_energy_j: float | None = None
    error: str = ""

    @property
    def success(self) -> bool:
        """Whether all repeats ran and no station failed in any."""
        return not self.error and bool(self.repeats)

    def median(self) -> Outcome:
        """The repeat with the median time; of an even number, the slower middle one."""
        ordered = sorted(self.repeats, key=lambda outcome: outcome.seconds)
        return ordered[len(ordered) // 2]

    def lines(self) -> list[dict[str, Any]]:
        """Every run, for the JSON-lines file."""
        runs = [("warm-up", outcome) for outcome in self.warm_ups]
        runs += [("repeat", outcome) for outcome in self.repeats]
        return [{"kind": kind, **asdict(outcome)} for kind, outcome in runs]


def open_subject(spec: TrialSpec, workload: Workload) -> Subject:
    """What a trial measures: our pipeline, or a baseline."""
    if spec.baseline:
        from eqcctpro.evaluation.baselines import open_baseline

        config = spec.config
        return open_baseline(
            spec.baseline,
            workload,
            threads=config.threads,
            device=config.device,
            batch_size=config.batch_size,
        )
    from eqcctpro.evaluation.ours import SessionSubject

    return SessionSubject(spec.config)


def run_trial(
    spec: TrialSpec,
    folder: Path,
    *,
    repeats: int,
    warm_ups: int = 1,
    timeout_s: float = 3600.0,
    opener: Callable[[TrialSpec, Workload], Subject] = open_subject,
) -> TrialResult:
    """Measure one configuration.

    Parameters
    ----------
    spec : TrialSpec
    folder : Path
        The trial writes below it, and nowhere else.
    repeats, warm_ups : int
        Runs that count, and runs before them that do not.
    timeout_s : float
        After this the trial is ended, and is not a success.
    opener : callable
        Makes the subject, in the trial's process.

    Returns
    -------
    TrialResult
        Also of a trial whose process died: that is its error.
    """
    result = TrialResult(spec)
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, spec, folder, warm_ups, repeats, opener))
    started = time.perf_counter()
    process.start()
    theirs.close()
    energy = CpuEnergy()
    with ResourceSampler(process.pid, gpus=bool(spec.config.gpu_ids)) as sampler:
        try:
            _listen(mine, result, started, started + timeout_s, energy)
        except (EOFError, ConnectionResetError):
            process.join()
            result.error = f"the trial's process died ({_cause(process.exitcode)})"
        except TimeoutError:
            result.error = f"the trial took longer than {timeout_s:.0f} s and was ended"
        finally:
            mine.close()
            if result.error or sys.exc_info()[0] is not None:
                process.kill()
            process.join(timeout=END_S)
            _end(sampler.seen)
    result.use = sampler.use
    result.total_s = result.total_s or time.perf_counter() - started
    if not result.error:
        result.error = next((run.error for run in result.repeats if run.failed or run.error), "")
    return result


def _listen(
    pipe: Connection, result: TrialResult, started: float, until: float, energy: CpuEnergy
) -> None:
    """Take down what the trial's process says until it has said everything."""
    while True:
        if not pipe.poll(max(until - time.perf_counter(), 0.0)):
            raise TimeoutError
        kind, value = pipe.recv()
        if kind == "ready":
            result.facts = value
            result.prepare_s = time.perf_counter() - started
        elif kind == "warm-up":
            result.warm_ups.append(value)
            energy.restart()
        elif kind == "repeat":
            result.repeats.append(value)
            result.cpu_energy_j = energy.joules()
            result.total_s = time.perf_counter() - started
        elif kind == "error":
            result.error = value
            return
        else:
            return


def _serve(
    pipe: Connection,
    spec: TrialSpec,
    folder: Path,
    warm_ups: int,
    repeats: int,
    opener: Callable[[TrialSpec, Workload], Subject],
) -> None:
    """The trial's process."""
    try:
        subject = opener(spec, _workload(spec))
        try:
            pipe.send(("ready", subject.prepare()))
            for kind, times in (("warm-up", warm_ups), ("repeat", repeats)):
                for _ in range(times):
                    pipe.send((kind, subject.run(folder)))
        finally:
            subject.close()
    except Exception as error:  # told to the process that asked, which records it
        name = "" if isinstance(error, EQCCTProError) else f"{type(error).__name__}: "
        pipe.send(("error", f"{name}{error}"))
    else:
        pipe.send(("done", None))


def _workload(spec: TrialSpec) -> Workload:
    from eqcctpro.evaluation.grid import COMPUTED

    config = spec.config
    settings = {name: getattr(config, name) for name in COMPUTED if name != "model"}
    return Workload(
        local_paths(config.input, "an evaluation"),
        config.stations,
        config.model,
        {**settings, "layout": config.layout},
    )


def _cause(exit_code: int | None) -> str:
    if exit_code == -9:
        return "killed, as for want of memory"
    return f"signal {-exit_code}" if exit_code and exit_code < 0 else f"exit code {exit_code}"


def _end(processes: Iterable[psutil.Process]) -> None:
    """End what a trial left running; Ray's own processes outlive a driver that is killed."""
    left = [process for process in processes if process.is_running()]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)
