"""Dispatch of bundles to workers, with a bounded number in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import EQCCTProError, QuarantinedError, WorkerError
from eqcctpro.orchestration.ray_server import answer_of, require_server
from eqcctpro.orchestration.worker import BundleResult
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.resources.hardware import memory_kills

__all__ = [
    "MOST_DEATHS",
    "BundleQueue",
    "MemoryDeaths",
    "first_line",
    "in_pieces",
    "last_words",
    "never",
    "quarantined",
    "wait_for_some",
    "worker_failure",
]

Bundle = Sequence[StationTask]

#: Workers that a station task may kill before it is not given to another one.
MOST_DEATHS = 2


# How often the cluster is looked at while nothing comes, and when that is said.
GLANCE_SECONDS = 5.0
NOTICE_SECONDS = 60.0


def never() -> bool:
    """Stop condition that never stops."""
    return False


def in_pieces(bundle: Bundle) -> bool:
    """True if a bundle is slow to finish, as one of its station tasks is picked in pieces."""
    return any(task.pieces for task in bundle)


class BundleQueue:
    """Queue of bundles in the order of the plan, with a bound on open time chunks.

    Parameters
    ----------
    bundles : sequence of list of StationTask
    open_chunks : int or None
        Time chunks that may be worked on at once; None does not bound them.
    stop : callable
        Whether no more bundles are to be sent.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        open_chunks: int | None = None,
        stop: Callable[[], bool] = never,
    ) -> None:
        self._stop = stop
        self._waiting = deque(bundles)
        self._limit = open_chunks
        self._open: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting) and not self._stop()

    def leaves(self, bundles: Iterable[Bundle]) -> bool:
        """True if a stop was requested and a sent bundle is too slow to be waited for."""
        return any(map(in_pieces, bundles)) and self._stop()

    def take(self) -> Bundle | None:
        """The next bundle, or None while its chunk has to wait for an earlier one."""
        if not self:
            return None
        chunk = self._waiting[0][0].chunk.index
        if self._limit is not None and chunk not in self._open and len(self._open) >= self._limit:
            return None
        self._open[chunk] = self._open.get(chunk, 0) + 1
        return self._waiting.popleft()

    def done(self, bundle: Bundle) -> None:
        """Mark a bundle as finished; its chunk closes with its last bundle."""
        chunk = bundle[0].chunk.index
        self._open[chunk] -= 1
        follows = bool(self._waiting) and self._waiting[0][0].chunk.index == chunk
        if self._open[chunk] == 0 and not follows:
            del self._open[chunk]

    def untake(self, bundle: Bundle) -> None:
        """Return a bundle that cannot be sent yet; it stays the next one."""
        self.done(bundle)
        self._waiting.appendleft(bundle)

    def give_back(self, bundle: Bundle) -> None:
        """Return a bundle whose worker was lost for a reason unrelated to the bundle."""
        self.untake(bundle)

    def put_back(self, bundle: Bundle) -> None:
        """Return the tasks of a bundle whose worker died, each in a bundle of its own.

        A task that kills its worker then takes no other down with it.
        """
        self.done(bundle)
        self.put_in_front(bundle)

    def put_in_front(self, tasks: Sequence[StationTask]) -> None:
        """Put tasks that were marked as finished first in the queue, each in its own bundle."""
        for task in reversed(tasks):
            self._waiting.appendleft([task])


class MemoryDeaths:
    """Detector of workers that were killed for lack of memory.

    Ray's own monitor says so; the kernel only counts its kills, of whatever process.

    Parameters
    ----------
    ray : module
    here : bool
        Whether workers run on this machine alone.
    """

    def __init__(self, ray: Any, *, here: bool = True) -> None:
        self._ray = ray
        self._here = here
        self._kills = memory_kills()

    def was_one(self, error: Exception) -> bool:
        """True if the worker that ended with this error was killed for lack of memory."""
        before, self._kills = self._kills, memory_kills()
        killed_here = self._here and self._kills > before
        if killed_here or isinstance(error, self._ray.exceptions.OutOfMemoryError):
            return True
        # An actor's death by Ray's monitor is only in its words.
        return "running low on memory" in str(error)


def wait_for_some(
    ray: Any, references: Sequence[Any], leave: Callable[[], bool] = never
) -> list[Any]:
    """Wait until at least one reference is ready; returns the ready ones.

    Raises
    ------
    WorkerError
        Ray has no node left that could make one ready, or its server has died.
    """
    from eqcctpro.orchestration.cluster import is_own_ray
    from eqcctpro.orchestration.foreign_ray import Waiting, free_text

    waiting = Waiting(NOTICE_SECONDS, loudly=False)
    while True:
        require_server(ray)
        ready, _ = ray.wait(list(references), num_returns=1, timeout=GLANCE_SECONDS)
        if ready:
            # Each call looks at all references: with many workers, many results are taken at once.
            ready, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
            return list(ready)
        if leave():
            return []
        if not any(node["Alive"] for node in answer_of(ray, ray.nodes)):
            raise WorkerError(
                "Ray has lost its last node: its raylet died",
                hint="the same command goes on where the run stopped",
            )
        if waiting.is_due():
            waiting.say(
                f"no result for {waiting.seconds:.0f} s, {len(references)} are waited for; "
                f"Ray has {free_text(ray)}",
                normal=is_own_ray(),
            )


def quarantined(task: StationTask, deaths: int, last_words: str) -> BundleResult:
    """Result of a station task that killed its workers."""
    failure = QuarantinedError(
        f"{deaths} workers died while they picked this station, the last with: {last_words}"
    )
    return BundleResult({task.index: PickOutcome.failure(failure)})


def last_words(error: Exception) -> str:
    """Ray's description of how a worker ended, in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    details = [line for line in lines if "exit detail" in line or "exit type" in line]
    return " ".join([first_line(error), *details])[:500]


def first_line(error: Exception) -> str:
    """First informative line of Ray's message about a dead worker."""
    return str(error).strip().partition("\n")[0]


def worker_failure(error: Any, node: str = "") -> EQCCTProError:
    """Convert Ray's ``RayTaskError`` into an error of this package.

    Parameters
    ----------
    error : RayTaskError
    node : str
        Where it happened, if that is worth saying.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, EQCCTProError):
        return type(cause)(f"node {node}: {cause.message}", hint=cause.hint) if node else cause
    return WorkerError(
        f"a worker failed: {type(cause).__name__}: {cause}",
        hint="workers need the same packages as this process; try --mode local",
    )
