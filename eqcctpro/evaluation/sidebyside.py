"""Benchmark subjects side by side: each in a process of its own, all of them in turns.

Each is prepared in a fresh process and picks the workload once, which fills caches.
Then they pick it in turn, several times over, from miniSEED files to a file of picks, so
that a change of the machine's speed meets all alike.  Whoever does not have its turn waits
without using the processor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eqcctpro.child import ChildDiedError
from eqcctpro.evaluation.subject import Outcome
from eqcctpro.evaluation.subject_process import SubjectError, SubjectProcess, SubjectSpec
from eqcctpro.resources.sampler import ResourceUse

__all__ = ["Contender", "Measurement", "compare"]


@dataclass(frozen=True)
class Contender:
    """One way to pick a workload.

    Attributes
    ----------
    name : str
    subject : SubjectSpec
        What the process that runs it opens.
    temperature : {"warm", "cold"}
        Whether a run finds everything loaded, or is a command that loads it first.
    repeats : int or None
        At most so many repeats, for what is slow.
    """

    name: str
    subject: SubjectSpec
    temperature: Literal["warm", "cold"] = "warm"
    repeats: int | None = None


@dataclass
class Measurement:
    """Measurements of one contender.

    Attributes
    ----------
    contender : Contender
    facts : dict
        What really ran, as its `Subject.prepare` says.
    outcomes : list of Outcome
        Of the repeats, without the first run.
    peak_mb : float
        Highest proportional set size of its processes in MB of 2**20 bytes; loading
        included, and for a command without the process that starts it.  Pages of libraries
        that other contenders have loaded too count in part.
    prepare_s : float
        Until it was ready.
    use : ResourceUse
        Of its process and the children of that, while they were at work.
    problem : str
        Why it was not measured; empty text if it was.
    """

    contender: Contender
    facts: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    peak_mb: float = 0.0
    prepare_s: float = 0.0
    use: ResourceUse = field(default_factory=ResourceUse)
    problem: str = ""

    @property
    def seconds(self) -> list[float]:
        """Wall clock of each repeat."""
        return [outcome.seconds for outcome in self.outcomes]

    @property
    def median(self) -> float:
        """Median of the repeats, seconds; NaN if there are none."""
        return statistics.median(self.seconds) if self.outcomes else float("nan")

    @property
    def typical(self) -> Outcome | None:
        """The repeat that is next to the median."""
        return min(self.outcomes, key=lambda one: abs(one.seconds - self.median), default=None)

    @property
    def failure(self) -> str:
        """First failure in any repeat, or why there is no repeat; empty if all is well."""
        return self.problem or next((one.error for one in self.outcomes if one.error), "")


def compare(
    contenders: Sequence[Contender],
    output: Path,
    *,
    repeats: int = 5,
    report: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """Measure contenders in turns.

    Parameters
    ----------
    contenders : sequence of Contender
    output : Path
        Picks are written below it.
    repeats : int
        Runs of each, after a first one that does not count.
    report : callable
        Told what is going on, a line at a time.

    Returns
    -------
    list of Measurement
        In the order of the contenders; those that failed say why.
    """
    hosts = []
    try:
        for contender in contenders:
            host = _Host(contender, output / contender.name.replace("/", "_").replace(" ", "_"))
            hosts.append(host)
            host.ask("prepare")
            host.ask("run")
            host.measurement.outcomes.clear()
            report(f"{contender.name}: {host.measurement.problem or 'ready'}")
        for number in range(repeats):
            report(f"repeat {number + 1} of {repeats}")
            first = number % max(1, len(hosts))
            for host in hosts[first:] + hosts[:first]:
                if number < (host.measurement.contender.repeats or repeats):
                    host.ask("run")
    finally:
        for host in hosts:
            host.end()
    return [host.measurement for host in hosts]


class _Host:
    """The process of a contender, seen from here."""

    def __init__(self, contender: Contender, output: Path) -> None:
        self.measurement = Measurement(contender)
        self._output = output
        self._process = SubjectProcess(contender.subject, watch=True)

    def ask(self, what: Literal["prepare", "run"]) -> None:
        """Let it prepare or run; does nothing once it has failed."""
        measurement = self.measurement
        if measurement.problem:
            return
        try:
            if what == "prepare":
                started = time.perf_counter()
                measurement.facts = self._process.prepare()
                measurement.prepare_s = time.perf_counter() - started
            else:
                measurement.outcomes.append(self._process.run(self._output))
        except ChildDiedError as error:
            measurement.problem = f"its process died in {what}: {error}"
            return
        except SubjectError as error:
            measurement.problem = str(error)
        if self._process.use is not None:
            measurement.peak_mb = max(measurement.peak_mb, self._peak_mb(self._process.use))
            measurement.use = measurement.use.and_then(self._process.use)

    def _peak_mb(self, use: ResourceUse) -> float:
        cold = self.measurement.contender.temperature == "cold"
        return use.peak_pss_mb - (use.start_pss_mb if cold else 0.0)

    def end(self) -> None:
        """Let it release everything and end."""
        self._process.end()
