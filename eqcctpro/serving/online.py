"""Requests that share batches: a thread that keeps a pipeline fed with what arrives."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from eqcctpro.errors import EQCCTProError
from eqcctpro.picks.raw import RawPicks
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.prepare import Prepared
from eqcctpro.pipeline.records import TaskResult
from eqcctpro.serving.problems import LateProblem, Problem, StoppingProblem

__all__ = ["BatchReport", "OnlinePicker"]

# Indices of station tasks are 32-bit numbers, and begin again.
_INDICES = 2**31

_log = logging.getLogger("eqcctpro.serving")


@dataclass(slots=True, eq=False)
class _Ticket:
    """A request whose stations are not all picked."""

    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[TaskResult]]
    results: list[TaskResult | None]
    missing: int
    dropped: bool = False


@dataclass(slots=True, eq=False)
class _Waiting:
    """A station that waits for a batch."""

    ticket: _Ticket
    position: int
    prepared: Prepared
    since: float


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What was done since the last report, for metrics.

    Attributes
    ----------
    batches : sequence of int
        Windows of each batch that was sent to the network.
    stations : int
        That were sent.
    waited_s : float
        The longest that one of them waited.
    infer_s, pick_s : float
        In the network, and from curves to picks.
    """

    batches: Sequence[int]
    stations: int
    waited_s: float
    infer_s: float
    pick_s: float


@dataclass(slots=True)
class _State:
    """What one thread works with."""

    pipeline: Pipeline
    waiting: deque[_Waiting] = field(default_factory=deque)
    open: dict[int, tuple[_Ticket, int]] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    forward_since: float | None = None
    abandoned: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, or waited for and not picked yet."""
        return not self.open


class OnlinePicker:
    """Picks the stations of many requests in batches that they share.

    While a batch is in the network, what arrives is collected for the next one.  Windows are
    counted, not requests; a station with more windows than a batch has takes several.

    Parameters
    ----------
    open_pipeline : callable
        Makes the pipeline; called again when one hangs.
    max_wait_s : float
        How long a batch that is not full waits for more when the network is idle.
    forward_timeout_s : float
        A batch that takes longer is given up, with its requests, and another pipeline takes its
        place.
    report : callable, optional
        Called with a `BatchReport` after every batch, in the picker's thread.
    """

    def __init__(
        self,
        open_pipeline: Callable[[], Pipeline],
        *,
        max_wait_s: float = 0.0,
        forward_timeout_s: float = 60.0,
        report: Callable[[BatchReport], None] | None = None,
    ) -> None:
        self._open_pipeline = open_pipeline
        self._max_wait_s = max_wait_s
        self._forward_timeout_s = forward_timeout_s
        self._report = report
        self._changed = threading.Condition()
        self._stopping = False
        self._indices = count()
        self.hung = 0
        self._failure: Exception | None = None
        self._begin(open_pipeline())
        self._guard = threading.Thread(target=self._watch, name="eqcctpro-guard", daemon=True)
        self._guard.start()

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline in use."""
        return self._state.pipeline

    @property
    def waiting(self) -> int:
        """Stations that wait for a batch."""
        return len(self._state.waiting)

    @property
    def failure(self) -> Exception | None:
        """Why no pipeline is left, if none is."""
        return self._failure

    def _begin(self, pipeline: Pipeline) -> None:
        self._state = state = _State(pipeline, told=dict(pipeline.stages.seconds))
        pipeline.reset()
        self._thread = threading.Thread(
            target=self._work, args=(state,), name="eqcctpro-picker", daemon=True
        )
        self._thread.start()

    async def pick(self, stations: Sequence[Prepared]) -> list[TaskResult]:
        """Pick the stations of a request; when the caller is cancelled, they are dropped.

        Returns
        -------
        list of TaskResult
            In the order of the stations; their picks name stations by position.

        Raises
        ------
        LateProblem
            The batch took too long.
        StoppingProblem
            The picker is ending.
        """
        loop = asyncio.get_running_loop()
        ticket = _Ticket(loop, loop.create_future(), [None] * len(stations), len(stations))
        if not stations:
            return []
        now = time.perf_counter()
        items = [_Waiting(ticket, at, station, now) for at, station in enumerate(stations)]
        with self._changed:
            if self._stopping or self._failure is not None:
                raise StoppingProblem("the picker is ending", hint="try again elsewhere")
            self._state.waiting.extend(items)
            self._changed.notify()
        try:
            return await ticket.answer
        finally:
            ticket.dropped = True

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _work(self, state: _State) -> None:
        """Batch after batch: the next one is sent off before the last one is picked."""
        pipeline = state.pipeline
        while True:
            try:
                state.forward_since = time.monotonic() if pipeline.under_way else None
                if pipeline.under_way:
                    pipeline.wait()
                    if state.abandoned:
                        return
                    state.forward_since = None
                batch = self._take(state)
                if batch is None:
                    return
                # Counted before: the pipeline takes the windows out.
                windows = sum(item.prepared.n_windows for item in batch)
                sent = time.perf_counter()
                self._send(state, batch)
                state.forward_since = None
                pipeline.settle()
                self._deliver(state)
                self._tell(state, batch, windows, sent)
            except Exception as error:  # whatever a runtime raises ends its batch, not the service
                if state.abandoned:
                    return
                _log.exception("a batch failed")
                self.hung += isinstance(error, LateProblem)
                failed = Problem(f"the network failed: {type(error).__name__}")
                self._fail(state, error if isinstance(error, Problem) else failed)
                pipeline.reset()

    def _take(self, state: _State) -> list[_Waiting] | None:
        """Stations for the next batch; none while one is under way, and None at the end."""
        pipeline = state.pipeline
        with self._changed:
            while not state.waiting and state.idle:
                if self._stopping:
                    return None
                self._changed.wait()
            if state.idle and self._max_wait_s:
                self._linger(state)
            batch: list[_Waiting] = []
            room = pipeline.runtime.batch_size
            while state.waiting:
                windows = state.waiting[0].prepared.n_windows
                if batch and windows > room:
                    break
                item = state.waiting.popleft()
                if not item.ticket.dropped:
                    batch.append(item)
                    room -= windows
            return batch

    def _linger(self, state: _State) -> None:
        """Wait for more stations until the batch is full or the first has waited enough."""
        until = state.waiting[0].since + self._max_wait_s
        while not self._stopping:
            left = until - time.perf_counter()
            windows = sum(item.prepared.n_windows for item in state.waiting)
            if left <= 0 or windows >= state.pipeline.runtime.batch_size:
                return
            self._changed.wait(left)

    def _send(self, state: _State, batch: list[_Waiting]) -> None:
        """Feed a batch to the pipeline and send it on its way."""
        if not batch:
            return
        state.forward_since = time.monotonic()
        for item in batch:
            index = next(self._indices) % _INDICES
            prepared = item.prepared
            state.open[index] = (item.ticket, item.position)
            prepared.task = replace(prepared.task, index=index)
            if prepared.record is not None:
                prepared.record = replace(prepared.record, task=index)
            state.pipeline.feed(prepared)
        state.pipeline.flush()

    def _deliver(self, state: _State) -> None:
        """Hand results to the requests that are complete."""
        done: dict[asyncio.AbstractEventLoop, list[_Ticket]] = {}
        for result in state.pipeline.finished():
            ticket, position = state.open.pop(result.record.task)
            ticket.results[position] = _placed(result, position)
            ticket.missing -= 1
            if not ticket.missing:
                done.setdefault(ticket.loop, []).append(ticket)
        for loop, tickets in done.items():
            _call(loop, _resolve, tickets)

    def _tell(self, state: _State, batch: list[_Waiting], windows: int, sent: float) -> None:
        """Report what was sent, and what the network and picking took since the last time."""
        if self._report is None:
            return
        size = state.pipeline.runtime.batch_size
        full, rest = divmod(windows, size)
        waited = max((sent - item.since for item in batch), default=0.0)
        seconds, told = state.pipeline.stages.seconds, state.told
        infer_s, pick_s = (seconds[stage] - told[stage] for stage in ("infer", "pick"))
        told.update(seconds)
        batches = [size] * full + [rest] * bool(rest)
        self._report(BatchReport(batches, len(batch), waited, infer_s, pick_s))

    def _fail(self, state: _State, problem: Problem) -> None:
        """End every request that has a station in the pipeline."""
        tickets = {id(ticket): ticket for ticket, _ in state.open.values()}
        state.open.clear()
        for ticket in tickets.values():
            ticket.dropped = True
            _call(ticket.loop, _reject, ticket, problem)

    def _watch(self) -> None:
        """Give up a batch that hangs, and go on with another pipeline."""
        glance = min(1.0, self._forward_timeout_s / 4)
        progress, progressed = 0.0, 0.0
        while not self._stopping:
            time.sleep(glance)
            state = self._state
            since = state.forward_since
            if (inferred := state.pipeline.stages.seconds["infer"]) != progress:
                # A station of many batches may take long, as long as they get through.
                progress, progressed = inferred, time.monotonic()
            if since is None:
                continue
            if time.monotonic() - max(since, progressed) < self._forward_timeout_s:
                continue
            _log.error("a batch took more than %g s and was given up", self._forward_timeout_s)
            state.abandoned = True
            self.hung += 1
            self._fail(
                state,
                LateProblem(f"the network took more than {self._forward_timeout_s:g} s"),
            )
            try:
                pipeline = self._open_pipeline()
            except (EQCCTProError, RuntimeError, MemoryError) as error:
                _log.exception("no other pipeline could be opened")
                self._failure = error
                return
            with self._changed:
                waiting = state.waiting
                self._begin(pipeline)
                self._state.waiting.extend(waiting)
                self._changed.notify_all()


def _placed(result: TaskResult, position: int) -> TaskResult:
    """A result whose picks name their station by its place in the request."""
    return replace(
        result,
        record=replace(result.record, task=position),
        picks=_renamed(result.picks, position),
        detections=_renamed(result.detections, position),
    )


def _renamed(picks: RawPicks, position: int) -> RawPicks:
    return replace(picks, task=np.full(len(picks), position, np.int32)) if len(picks) else picks


def _call(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object
) -> None:
    with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        loop.call_soon_threadsafe(function, *arguments)


def _resolve(tickets: Sequence[_Ticket]) -> None:
    for ticket in tickets:
        if not ticket.answer.done():
            ticket.answer.set_result([result for result in ticket.results if result is not None])


def _reject(ticket: _Ticket, problem: Problem) -> None:
    if not ticket.answer.done():
        ticket.answer.set_exception(problem)
