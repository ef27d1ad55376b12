"""One trial: a subject in a process of its own, warmed up and run several times."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eqcctpro.child import ChildDiedError, end_processes
from eqcctpro.evaluation.grid import COMPUTED, TrialSpec
from eqcctpro.evaluation.subject import Outcome, Workload
from eqcctpro.evaluation.subject_process import (
    SessionSpec,
    SubjectError,
    SubjectProcess,
    SubjectSpec,
    WorkloadSpec,
)
from eqcctpro.places import local_paths
from eqcctpro.resources.energy import CpuEnergy
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse

__all__ = ["TrialResult", "run_trial", "subject_of"]

logger = logging.getLogger("eqcctpro.evaluation")


@dataclass
class TrialResult:
    """Result of one trial.

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
        """True if all repeats ran, and nothing failed but stations whose data are damaged."""
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


def subject_of(spec: TrialSpec) -> SubjectSpec:
    """Subject of a trial: our pipeline, or a baseline."""
    config = spec.config
    if spec.baseline:
        options = {name: getattr(config, name) for name in ("threads", "device", "batch_size")}
        return WorkloadSpec(who=spec.baseline, workload=_workload(spec), options=options)
    # The log of a sweep is not the log of its trials.
    return SessionSpec(config=config.model_copy(update={"log_file": None}))


def run_trial(
    spec: TrialSpec,
    folder: Path,
    *,
    repeats: int,
    warm_ups: int = 1,
    timeout_s: float = 3600.0,
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

    Returns
    -------
    TrialResult
        Also of a trial whose process died: that is its error.
    """
    result = TrialResult(spec)
    started = time.perf_counter()
    process = SubjectProcess(subject_of(spec), logger=logger)
    with ResourceSampler(process.pid, gpus=bool(spec.config.gpu_ids)) as sampler:
        try:
            _measure(process, result, folder, (warm_ups, repeats), started, timeout_s)
            sampler.look_at_gpus()  # workers still hold their memory
        except ChildDiedError as error:
            result.error = f"the trial's process died: {error}"
        except SubjectError as error:
            result.error = str(error)
        except TimeoutError:
            result.error = f"the trial took longer than {timeout_s:.0f} s and was ended"
        finally:
            if result.error or sys.exc_info()[0] is not None:
                process.kill()
            else:
                process.end()
            # Ray's own processes outlive a driver that is killed.
            end_processes([left for left in sampler.seen if left.is_running()])
    result.use = sampler.use
    result.total_s = result.total_s or time.perf_counter() - started
    if not result.error:
        result.error = next((run.error for run in result.repeats if _spoiled(run)), "")
    if any(run.unreadable for run in result.repeats):
        run = result.median()
        said = f"{run.unreadable} station tasks or files are unreadable: {run.error}"
        _note(result, said)
    for said in result.median().lost if result.repeats else ():
        _note(result, said)
    return result


def _note(result: TrialResult, said: str) -> None:
    result.facts["notes"] = "; ".join(filter(None, (result.facts.get("notes"), said)))


def _spoiled(run: Outcome) -> bool:
    """True if a configuration, and not only damaged data, made something fail."""
    nothing_left = run.failed > 0 and run.done + run.empty == 0
    return run.failed > run.unreadable or nothing_left


def _measure(
    process: SubjectProcess,
    result: TrialResult,
    folder: Path,
    times: tuple[int, int],
    started: float,
    timeout_s: float,
) -> None:
    """Prepare, warm up and run; what is measured is taken down at once."""

    def left() -> float:
        return started + timeout_s - time.perf_counter()

    energy = CpuEnergy()
    result.facts = process.prepare(left())
    result.prepare_s = time.perf_counter() - started
    for _ in range(times[0]):
        result.warm_ups.append(process.run(folder, left()))
        energy.restart()
    for _ in range(times[1]):
        result.repeats.append(process.run(folder, left()))
        result.cpu_energy_j = energy.joules()
        result.total_s = time.perf_counter() - started


def _workload(spec: TrialSpec) -> Workload:
    config = spec.config
    settings = {name: getattr(config, name) for name in COMPUTED if name != "model"}
    return Workload(
        local_paths(config.input, "an evaluation"),
        config.stations,
        config.model,
        {**settings, "layout": config.layout},
    )
