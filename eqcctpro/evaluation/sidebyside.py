"""Benchmark subjects side by side: each in a process of its own, all of them in turns.

Each is prepared in a fresh process and picks the workload once, which fills caches.
Then they pick it in turn, several times over, from miniSEED files to a file of picks, so
that a change of the machine's speed meets all alike.  Whoever does not have its turn waits
without using the processor.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from eqcctpro.errors import EQCCTProError
from eqcctpro.evaluation.subject import Outcome, Subject
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse

__all__ = ["Contender", "Measurement", "compare", "ratio_table"]


@dataclass(frozen=True)
class Contender:
    """One way to pick a workload.

    Attributes
    ----------
    name : str
    open : callable
        Makes the subject, in the process that will run it: something that can be pickled.
    temperature : {"warm", "cold"}
        Whether a run finds everything loaded, or is a command that loads it first.
    repeats : int or None
        At most so many repeats, for what is slow.
    """

    name: str
    open: Callable[[], Subject]
    temperature: Literal["warm", "cold"] = "warm"
    repeats: int | None = None


@dataclass
class Measurement:
    """What came of a contender.

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
    problem : str
        Why it was not measured; empty text if it was.
    """

    contender: Contender
    facts: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    peak_mb: float = 0.0
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
        """What failed first in any repeat, or why there is none; empty text if all is well."""
        return self.problem or next((one.error for one in self.outcomes if one.error), "")

    def row(self) -> dict[str, Any]:
        """Everything as one record."""
        return {
            "name": self.contender.name,
            "temperature": self.contender.temperature,
            "median_s": self.median if self.outcomes else None,
            "seconds": self.seconds,
            "peak_mb": round(self.peak_mb, 1),
            "typical": None if self.typical is None else asdict(self.typical),
            "failure": self.failure,
            "facts": self.facts,
        }


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
    # Kept bytecode is what users of installed packages have; without it each command compiles.
    no_bytecode = os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
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
        if no_bytecode is not None:
            os.environ["PYTHONDONTWRITEBYTECODE"] = no_bytecode
    return [host.measurement for host in hosts]


class _Host:
    """The process of a contender, seen from here."""

    def __init__(self, contender: Contender, output: Path) -> None:
        self.measurement = Measurement(contender)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender, output))
        self._process.start()
        theirs.close()

    def ask(self, what: str) -> None:
        """Let it prepare or run; does nothing once it has failed."""
        measurement = self.measurement
        if measurement.problem:
            return
        try:
            self._pipe.send(what)
            kind, value, use = self._pipe.recv()
        except (EOFError, OSError):
            measurement.problem = f"its process died in {what}"
            return
        if kind == "error":
            measurement.problem = value
        elif kind == "facts":
            measurement.facts = value
        else:
            measurement.outcomes.append(value)
        measurement.peak_mb = max(measurement.peak_mb, self._peak_mb(use))

    def _peak_mb(self, use: ResourceUse) -> float:
        cold = self.measurement.contender.temperature == "cold"
        return use.peak_pss_mb - (use.start_pss_mb if cold else 0.0)

    def end(self) -> None:
        """Let it release everything and end."""
        with suppress(OSError):  # if it has died, its measurement says so
            self._pipe.send("end")
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, contender: Contender, output: Path) -> None:
    """Prepare, then run whenever told to; watched only while doing so."""
    output.mkdir(parents=True, exist_ok=True)
    subject: Subject | None = None
    try:
        for asked in iter(pipe.recv, "end"):
            kind: str = "outcome"
            value: Any = None
            with ResourceSampler() as watched:
                try:
                    if subject is None:
                        subject = contender.open()
                    if asked == "prepare":
                        kind, value = "facts", subject.prepare()
                    else:
                        value = subject.run(output)
                except EQCCTProError as error:
                    kind, value = "error", str(error)
                except Exception as error:  # told to the process that asked, by name
                    kind, value = "error", f"{type(error).__name__}: {error}"
            pipe.send((kind, value, watched.use))
    finally:
        if subject is not None:
            subject.close()


def ratio_table(measurements: Sequence[Measurement], references: dict[str, str]) -> list[str]:
    """Lines of a table: every contender's median, and how many times the reference's it is.

    Parameters
    ----------
    measurements : sequence of Measurement
    references : dict of str to str
        Name of the contender that others of a temperature are compared with.
    """
    medians = {one.contender.name: one.median for one in measurements}
    return list(_lines(measurements, references, medians))


def _lines(
    measurements: Sequence[Measurement], references: dict[str, str], medians: dict[str, float]
) -> Iterator[str]:
    yield (
        f"{'':38s} {'median':>9s} {'from - to':>17s} {'ratio':>8s} {'peak MB':>8s} "
        f"{'done':>6s} {'failed':>6s}  picks"
    )
    for one in measurements:
        label = f"{one.contender.name} ({one.contender.temperature})"
        outcome = one.typical
        if outcome is None:
            yield f"{label:38s} not measured: {one.failure}"
            continue
        reference = medians.get(references.get(one.contender.temperature, ""), float("nan"))
        picks = ", ".join(f"{phase} {count}" for phase, count in sorted(outcome.picks.items()))
        span = f"{min(one.seconds):.2f} - {max(one.seconds):.2f}"
        # What failed is not fast.
        ratio = "failed" if one.failure else f"{one.median / reference:.2f} x"
        yield (
            f"{label:38s} {one.median:7.2f} s {span:>17s} {ratio:>8s} "
            f"{one.peak_mb:8.0f} {outcome.done:6d} {outcome.failed:6d}  {picks}"
        )
        if one.failure:
            yield f"{'':38s}   {one.failure}"
