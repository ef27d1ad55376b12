"""Shared batches of concurrent requests: a thread that feeds a pipeline as they arrive."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from eqcctpro.errors import EQCCTProError
from eqcctpro.pipeline.engine import Pipeline, Windows
from eqcctpro.pipeline.prepare import Prepared
from eqcctpro.pipeline.records import PickResult
from eqcctpro.serving.problems import LateProblem, Problem, StoppingProblem

__all__ = ["BatchReport", "Moments", "OnlinePicker"]

# Stations of a request that are begun for a batch: some have no windows.
_MOST_STATIONS = 256
# How much of the speed of the network is learnt from a batch.
_LEARNT = 0.3

_log = logging.getLogger("eqcctpro.serving")


@dataclass(slots=True)
class Moments:
    """When a request came into the queue, had its first turn, and was picked; of `perf_counter`.

    Attributes
    ----------
    queued, begun, ended : float
        0 for what has not been.
    """

    queued: float = 0.0
    begun: float = 0.0
    ended: float = 0.0


@dataclass(slots=True, eq=False)
class _Request:
    """A request with stations that are not picked yet.

    Attributes
    ----------
    stations : sequence of Prepared
    following : int
        The first station of which not all windows were sent.
    windows : Windows or None
        Its windows, if some were sent.
    batch : bool
        Whether it stands behind those that somebody waits for.
    turned : float
        When it last had a turn, or came.
    moments : Moments
    """

    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[PickResult]]
    stations: Sequence[Prepared]
    results: list[PickResult | None]
    missing: int
    since: float
    following: int = 0
    windows: Windows | None = None
    dropped: bool = False
    batch: bool = False
    turned: float = 0.0
    moments: Moments = field(default_factory=Moments)

    @property
    def waiting(self) -> int:
        """Stations that are not sent, or not as a whole."""
        return len(self.stations) - self.following


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Work since the last report, for metrics.

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


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch in flight: when it was sent, and its content."""

    since: float
    windows: int
    stations: int
    waited_s: float


@dataclass(slots=True)
class _State:
    """State of one picking thread."""

    pipeline: Pipeline
    waiting: deque[_Request] = field(default_factory=deque)
    windows_per_s: float = 0.0
    open: set[tuple[_Request, int]] = field(default_factory=set)
    sent: deque[_Sent] = field(default_factory=deque)
    told: dict[str, float] = field(default_factory=dict)
    forward_since: float | None = None
    behind: bool = False
    abandoned: bool = False

    @property
    def idle(self) -> bool:
        """True if no request is in flight."""
        return not self.open


class OnlinePicker:
    """Picker of the stations of concurrent requests, in shared batches.

    While a batch is in the network, what arrives is collected for the next one.  Windows are
    counted, not requests; what has more windows than the network sees in `turn_s` takes several
    batches, between which others have their turns.  Batch requests have turns while no other one
    waits, and one when they had none for `aging_s`.

    Parameters
    ----------
    open_pipeline : callable
        Makes the pipeline; called again when one hangs.
    max_wait_s : float
        How long a batch that is not full waits for more when the network is idle.
    turn_s : float
        How long the windows of one request in a batch take at most; others wait no longer for it.
    aging_s : float
        How long batch requests wait for others at most until their next turn.
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
        turn_s: float = 0.05,
        aging_s: float = 2.0,
        forward_timeout_s: float = 60.0,
        report: Callable[[BatchReport], None] | None = None,
    ) -> None:
        self._open_pipeline = open_pipeline
        self._max_wait_s = max_wait_s
        self._turn_s = turn_s
        self._aging_s = aging_s
        self._forward_timeout_s = forward_timeout_s
        self._report = report
        self._changed = threading.Condition()
        self._stopping = False
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
        return sum(request.waiting for request in list(self._state.waiting))

    @property
    def failure(self) -> Exception | None:
        """Reason why no pipeline is left; None if one is."""
        return self._failure

    def _begin(self, pipeline: Pipeline) -> None:
        self._state = state = _State(pipeline, told=dict(pipeline.stages.seconds))
        pipeline.reset()
        self._thread = threading.Thread(
            target=self._work, args=(state,), name="eqcctpro-picker", daemon=True
        )
        self._thread.start()

    async def pick(
        self, stations: Sequence[Prepared], *, batch: bool = False, moments: Moments | None = None
    ) -> list[PickResult]:
        """Pick the stations of a request; when the caller is cancelled, they are dropped.

        Parameters
        ----------
        stations : sequence of Prepared
        batch : bool
            Whether requests that are not go first.
        moments : Moments, optional
            Is told when what was.

        Returns
        -------
        list of PickResult
            In the order of the stations.

        Raises
        ------
        LateProblem
            The batch took too long.
        StoppingProblem
            The picker is ending.
        """
        if not stations:
            return []
        loop = asyncio.get_running_loop()
        n, now = len(stations), time.perf_counter()
        answer: asyncio.Future[list[PickResult]] = loop.create_future()
        request = _Request(loop, answer, stations, [None] * n, n, now, batch=batch, turned=now)
        if moments is not None:
            request.moments = moments
        request.moments.queued = now
        with self._changed:
            if self._stopping or self._failure is not None:
                raise StoppingProblem("the picker is ending", hint="try again elsewhere")
            state = self._state
            state.waiting.append(request)
            hurry, state.behind = state.behind and not batch, state.behind and batch
            self._changed.notify()
        if hurry:  # what is sent next is taken after that
            state.pipeline.runtime.hurry()
        try:
            return await request.answer
        finally:
            request.moments.ended = time.perf_counter()
            request.dropped = True

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _work(self, state: _State) -> None:
        """Picking loop: the next batch is sent before the last one is picked."""
        pipeline = state.pipeline
        while True:
            try:
                state.forward_since = time.monotonic() if pipeline.under_way else None
                if pipeline.under_way:
                    pipeline.wait()
                    if state.abandoned:
                        return
                    state.forward_since = None
                    _learn(state)
                if not self._await(state):
                    return
                sent = self._send(state)
                pipeline.settle()
                self._deliver(state)
                self._tell(state, sent)
            except Exception as error:  # whatever a runtime raises ends its batch, not the service
                if state.abandoned:
                    return
                _log.exception("a batch failed")
                self.hung += isinstance(error, LateProblem)
                failed = Problem(f"the network failed: {type(error).__name__}")
                self._fail(state, error if isinstance(error, Problem) else failed)
                pipeline.reset()

    def _await(self, state: _State) -> bool:
        """Wait for work; returns False at the end."""
        with self._changed:
            while not state.waiting and state.idle:
                if self._stopping:
                    return False
                self._changed.wait()
            if state.idle and self._max_wait_s:
                self._linger(state)
        return True

    def _linger(self, state: _State) -> None:
        """Wait for more stations until the batch is full or the first has waited enough."""
        until = state.waiting[0].since + self._max_wait_s
        while not self._stopping:
            left = until - time.perf_counter()
            room = state.pipeline.runtime.batch_size
            for request in state.waiting:
                following = request.stations[request.following : request.following + max(room, 0)]
                room -= sum(station.n_windows for station in following)
            if left <= 0 or room <= 0:
                return
            self._changed.wait(left)

    def _send(self, state: _State) -> _Sent:
        """Pack a batch, in which each request has a turn, and send it on its way."""
        pipeline, now = state.pipeline, time.perf_counter()
        whole = pipeline.room
        stations, waited = self._have_turns(state, now, first=True)
        behind = pipeline.room == whole
        if not any(not request.batch and not request.dropped for request in list(state.waiting)):
            more, longest = self._have_turns(state, now, first=False)
            stations, waited = stations + more, max(waited, longest)
        sent = _Sent(now, whole - pipeline.room, stations, waited)
        if sent.windows:
            state.sent.append(sent)
            state.forward_since = time.monotonic()
            state.behind = pipeline.runtime.behind = behind
            pipeline.flush()
            state.forward_since = None
        return sent

    def _have_turns(self, state: _State, now: float, *, first: bool) -> tuple[int, float]:
        """Pack a turn of each request that goes first, or of each of the others.

        Returns
        -------
        tuple of (int, float)
            Stations that were begun, and the longest that one of them waited.
        """
        pipeline = state.pipeline
        stations, waited = 0, 0.0
        for _ in range(len(state.waiting)):
            if not pipeline.room:
                break
            # Others only add requests; what hangs later, must be able to find this one.
            request = state.waiting[0]
            overdue = now - request.turned >= self._aging_s
            if not request.dropped and first != (not request.batch or overdue):
                state.waiting.rotate(-1)
                continue
            before = pipeline.room
            begun = 0 if request.dropped else self._pack(state, request)
            if begun:
                request.moments.begun = request.moments.begun or now
                stations, waited = stations + begun, max(waited, now - request.since)
            if request.dropped and request.windows is not None:
                state.open.discard((request, request.following))
            if not request.dropped and request.waiting:
                if not begun and pipeline.room == before:
                    break  # it does not fit, and is the first in the next batch
                request.turned = now
                state.waiting.append(request)
            state.waiting.popleft()
        return stations, waited

    def _pack(self, state: _State, request: _Request) -> int:
        """Pack what a request may have in a batch; returns how many stations were begun."""
        pipeline = state.pipeline
        turn = self._turn(state)
        left, begun = min(turn, pipeline.room), 0
        empty = pipeline.room == pipeline.runtime.batch_size
        while request.waiting and begun < _MOST_STATIONS:
            if request.windows is None:
                n = request.stations[request.following].n_windows
                # What is no longer than a turn is not cut.
                if n and (not left or (left < n <= turn and not empty)):
                    break
                request.windows = self._open(state, request)
                begun += 1
            n = min(left, request.windows.left)
            pipeline.pack(request.windows, n)
            left, empty = left - n, False
            if request.windows.left:
                break
            request.windows = None
            request.following += 1
        return begun

    def _turn(self, state: _State) -> int:
        """Windows that a request may have in a batch."""
        most = state.pipeline.runtime.batch_size
        if not state.windows_per_s:
            return most
        return min(max(round(state.windows_per_s * self._turn_s), most // 8, 1), most)

    def _open(self, state: _State, request: _Request) -> Windows:
        """Begin the next station of a request."""
        station = request, request.following
        state.open.add(station)
        return state.pipeline.open(station, request.stations[request.following])

    def _deliver(self, state: _State) -> None:
        """Return results to the requests that are complete."""
        done: dict[asyncio.AbstractEventLoop, list[tuple[_Request, list[PickResult]]]] = {}
        for result in state.pipeline.finished():
            request, position = result.ticket
            state.open.remove(result.ticket)
            request.results[position] = result
            request.missing -= 1
            if not request.missing:
                results = [one for one in request.results if one is not None]
                done.setdefault(request.loop, []).append((request, results))
        for loop, requests in done.items():
            _call(loop, _resolve, requests)

    def _tell(self, state: _State, sent: _Sent) -> None:
        """Report the batches and times since the last report."""
        if self._report is None:
            return
        seconds, told = state.pipeline.stages.seconds, state.told
        infer_s, pick_s = (seconds[stage] - told[stage] for stage in ("infer", "pick"))
        told.update(seconds)
        batches = [sent.windows] if sent.windows else []
        self._report(BatchReport(batches, sent.stations, sent.waited_s, infer_s, pick_s))

    def _fail(self, state: _State, problem: Problem) -> None:
        """End every request that has a station in the pipeline."""
        requests = {request for request, _ in state.open}
        state.open.clear()
        state.sent.clear()
        for request in requests:
            request.dropped = True
            _call(request.loop, _reject, request, problem)

    def _watch(self) -> None:
        """Abandon a batch that hangs, and continue with another pipeline."""
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


def _learn(state: _State) -> None:
    """Note how fast the network was; small batches say little of that."""
    if not state.sent:
        return
    sent = state.sent.popleft()
    if sent.windows >= state.pipeline.runtime.batch_size // 8:
        rate = sent.windows / (time.perf_counter() - sent.since)
        known = state.windows_per_s
        state.windows_per_s = known + (rate - known) * _LEARNT if known else rate


def _call(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object
) -> None:
    with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        loop.call_soon_threadsafe(function, *arguments)


def _resolve(requests: Sequence[tuple[_Request, list[PickResult]]]) -> None:
    for request, results in requests:
        if not request.answer.done():
            request.answer.set_result(results)


def _reject(request: _Request, problem: Problem) -> None:
    if not request.answer.done():
        request.answer.set_exception(problem)
