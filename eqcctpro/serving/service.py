"""Request handling of a replica, independent of the transport: HTTP, gRPC or a test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from eqcctpro import __version__
from eqcctpro.serving.answers import Answer
from eqcctpro.serving.bodies import Reader
from eqcctpro.serving.engines import Engine
from eqcctpro.serving.example import example_segments
from eqcctpro.serving.memory import Budget, Share, unlimited
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.model_keeper import ModelKeeper
from eqcctpro.serving.online import Moments
from eqcctpro.serving.problems import (
    BusyProblem,
    NotFoundProblem,
    Problem,
    StoppingProblem,
    UnavailableProblem,
)
from eqcctpro.serving.security import Guard, Identity
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.state import StateFolder
from eqcctpro.serving.stations import (
    StationRequest,
    lay_out,
    longest_resampled,
    require_size,
    thresholds_of,
)
from eqcctpro.serving.tracing import Trace, Tracer, spanned
from eqcctpro.serving.waveforms import Options, Waveforms
from eqcctpro.waveform.decode import DecodedFile

__all__ = ["Service"]

# More is laid out, counted and written in a thread: the event loop belongs to all requests.
_FEW_SAMPLES, _FEW_PIECES = 100_000, 30
_FEW_PICKS = 300
# Memory of a sample on its way: in a block, in curves, as a number of 64 bits while it is filtered;
# and of one that is resampled, with the rest of its segment.
_BYTES_OF_SAMPLE, _BYTES_OF_RESAMPLED = 16, 64

# Of all places, those that batch requests may have together.
_BATCH_SHARE = 0.75

#: Guesses of a password that an address may make, after the first few.
LOGINS_PER_S = 0.5


class Service:
    """State of one replica: engines, limits and metrics.

    Parameters
    ----------
    settings : ServeSettings
    engines : mapping
        By name; the first is the default.
    metrics : Metrics
    guard : Guard
    state : StateFolder, optional
        What is shared with other replicas.
    published : callable, optional
        Called with every answer that may be in the stream, and whose it is.
    """

    def __init__(
        self,
        settings: ServeSettings,
        engines: Mapping[str, Engine],
        metrics: Metrics,
        guard: Guard,
        state: StateFolder | None = None,
        published: Callable[[Answer, str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.engines = dict(engines)
        self.metrics = metrics
        self.guard = guard
        self.state = state
        self.draining = False
        self.stopping = False
        self.in_progress = 0
        self.batch_in_progress = 0
        self.started = time.time()
        self._durations: deque[float] = deque(maxlen=settings.watchdog.over_requests)
        self.n_stations = self.n_picks = 0
        limits = settings.limits
        self._counting = threading.Lock()
        self.memory = Budget(int(limits.bodies_mb * 2**20), limits.retry_after_s)
        self.reader = Reader(limits)
        self._self_tested = time.monotonic()
        self._self_test_problem: str | None = None
        self.keeper: ModelKeeper | None = None
        traces = settings.logs.traces
        self.tracer = Tracer(traces) if traces is not None else None
        self._published = published
        self._prepare = metrics.stage_seconds.labels("prepare")
        metrics.capacity.set(settings.limits.capacity)
        metrics.watch(metrics.in_progress, lambda: self.in_progress)
        metrics.watch(metrics.waiting, lambda: self.waiting)
        metrics.watch(metrics.hung, lambda: sum(e.online.hung for e in self.engines.values()))

    @property
    def waiting(self) -> int:
        """Stations that wait for a batch."""
        return sum(engine.online.waiting for engine in self.engines.values())

    @property
    def ending(self) -> bool:
        """True if shutdown was requested, though requests may still be accepted."""
        return self.draining or self.stopping

    @property
    def broken(self) -> str | None:
        """Reason why this replica should be replaced; None if it should not."""
        watchdog = self.settings.watchdog
        if self._self_test_problem is not None:
            return self._self_test_problem
        for engine in self.engines.values():
            if engine.online.failure is not None:
                return f"{engine.model.name}: {engine.online.failure}"
        mean = self.mean_duration_s
        most = watchdog.mean_request_s
        if most is not None and mean is not None and mean > most:
            return f"requests take {mean:.3g} s in the mean"
        return None

    @property
    def not_ready(self) -> str | None:
        """Reason why this replica is not ready to pick; None if it is."""
        if self.ending:
            return "stopping"
        missing = (engine.missing for engine in self.engines.values())
        return self.broken or next((why for why in missing if why is not None), None)

    def model_facts(self, *, all_reasons: bool) -> dict[str, Any]:
        """Facts of the served models, the default first, and of loads in progress or failed.

        Parameters
        ----------
        all_reasons : bool
            Whether reasons that may name files of the server are told.
        """
        told = self.keeper.told if self.keeper is not None else None
        numbers = {} if told is None else {v.name: v.number for v in told.serves.versions}
        served = []
        for name, engine in self.engines.items():
            facts = {**engine.facts(), "default": name == self.default}
            if engine.behind is not None and not all_reasons:
                facts["reason"] = "this replica could not load the present version"
            if told is not None and name in numbers:
                ready = told.ready.get(numbers[name], 0)
                facts |= {"version": numbers[name], "replicas": [ready, told.replicas]}
            served.append(facts)
        changes = [] if told is None else told.changes
        return {
            "models": served,
            "not_served": [
                {
                    "name": change.name,
                    "version": change.number,
                    "state": change.state,
                    "reason": change.reason
                    if all_reasons or change.reason is None
                    else "it could not be loaded",
                    "since": change.since,
                }
                for change in changes
            ],
        }

    @property
    def default(self) -> str:
        """The model of requests that name none: the same in all replicas."""
        agreed = self.keeper.default if self.keeper is not None else None
        return agreed or next(iter(self.engines))

    def serve(self, engines: Mapping[str, Engine]) -> None:
        """Replace the engines for requests that arrive from now on."""
        self.engines = dict(engines)

    @contextmanager
    def using(self, name: str | None) -> Iterator[Engine]:
        """Use the engine of a model inside the block; it is not unloaded meanwhile.

        Raises
        ------
        NotFoundProblem
            It is not served.
        """
        while not (engine := self.engine(name)).enter():
            pass  # it was let go this moment, and what is served is another one already
        try:
            yield engine
        finally:
            engine.leave()

    async def test_itself(self) -> None:
        """Pick the example, if a self-test is due and the replica is idle."""
        every = self.settings.watchdog.self_test_s
        now = time.monotonic()
        if every is None or self.in_progress or now - self._self_tested < every:
            return
        self._self_tested = now
        self._self_test_problem = None
        for engine in self.engines.values():
            if not engine.enter():
                continue
            try:
                problem = await self._test(engine)
            finally:
                engine.leave()
            if problem is not None:
                self._self_test_problem = f"{engine.model.name} fails the self-test: {problem}"
                return

    async def _test(self, engine: Engine) -> str | None:
        """Pick the example with a model; return the reason if that fails."""
        picker, settings = engine.model.picker, engine.model.settings
        segments = DecodedFile(example_segments(picker))
        laid = lay_out(segments, picker, settings, max_samples=10**9)
        try:
            async with asyncio.timeout(self.settings.limits.forward_timeout_s):
                (result,) = await engine.online.pick(laid.prepared)
        except (Problem, TimeoutError) as error:
            return str(error)
        return None if result.outcome.status == "done" else str(result.outcome.reason)

    @property
    def dead(self) -> str | None:
        """Reason why the whole service counts as broken; None if it does not."""
        restarts = self.state.restarts() if self.state is not None else 0
        if restarts > self.settings.watchdog.restarts:
            return f"{restarts} replicas had to be replaced"
        return self.broken

    def facts(self) -> dict[str, Any]:
        """State of the replica, for people."""
        return {
            "version": __version__,
            "uptime_s": time.time() - self.started,
            "ready": self.not_ready is None,
            "reason": self.not_ready,
            "in_progress": self.in_progress,
            "capacity": self.settings.limits.capacity,
            "waiting": self.waiting,
            "stations": self.n_stations,
            "picks": self.n_picks,
            "restarts": self.state.restarts() if self.state is not None else 0,
            "models": [
                {**engine.facts(), "default": name == self.default}
                for name, engine in self.engines.items()
            ],
        }

    def note_duration(self, seconds: float) -> None:
        """Record the duration of a request."""
        self._durations.append(seconds)

    @property
    def mean_duration_s(self) -> float | None:
        """Rolling mean of the duration of requests; None until there are enough."""
        if len(self._durations) < (self._durations.maxlen or 0):
            return None
        return sum(self._durations) / len(self._durations)

    def engine(self, name: str | None) -> Engine:
        """The engine of a model.

        Raises
        ------
        NotFoundProblem
            It is not served.
        UnavailableProblem
            It is what requests without a name get, and this replica could not load it.
        """
        found = self.engines.get(self.default if name is None else name)
        if found is not None:
            return found
        if name is None:
            raise UnavailableProblem(
                f"{self.default} could not be loaded here",
                hint="ask again, or name another model",
                headers={"Retry-After": "5"},
            )
        raise NotFoundProblem(
            f"the model {name[:100]!r} is not served",
            hint=f"served are {', '.join(self.engines)}",
        )

    def count_login(self, address: str) -> None:
        """Count an attempt to log in.

        Raises
        ------
        BusyProblem
            There were too many from this address.
        """
        self.guard.count(Identity(address, "login", LOGINS_PER_S))

    def require_place(self, *, batch: bool = False) -> None:
        """Refuse a request at full capacity, before its body is received.

        Parameters
        ----------
        batch : bool
            Whether it is one of the batch requests, which leave some places to others.

        Raises
        ------
        BusyProblem
            There is none left.
        StoppingProblem
            The service is ending.
        """
        limits = self.settings.limits
        if self.stopping:
            self.metrics.refused.labels("stopping").inc()
            raise StoppingProblem(
                "the service is ending", hint="ask again", headers={"Retry-After": "1"}
            )
        places = max(1, int(limits.capacity * _BATCH_SHARE))
        if self.in_progress >= limits.capacity:
            full = f"{self.in_progress} requests are being worked on, as many as limits.capacity"
        elif batch and self.batch_in_progress >= places:
            full = (
                f"{self.batch_in_progress} batch requests are being worked on, as many as may be "
                f"of the {limits.capacity} of limits.capacity"
            )
        else:
            return
        self.metrics.refused.labels("busy").inc()
        raise BusyProblem(
            full,
            hint=f"ask again in {limits.retry_after_s} s",
            headers={"Retry-After": str(limits.retry_after_s)},
        )

    @contextmanager
    def place(self, *, batch: bool = False) -> Iterator[None]:
        """Hold a place among the requests in progress, whose bodies have arrived.

        Raises
        ------
        BusyProblem, StoppingProblem
            See `require_place`.
        """
        self.require_place(batch=batch)
        self.in_progress += 1
        self.batch_in_progress += batch
        try:
            yield
        finally:
            self.in_progress -= 1
            self.batch_in_progress -= batch

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Open a share of the memory limit for one request.

        Raises
        ------
        BusyProblem
            Where other requests have all of it.
        """
        with self.memory.share() as share:
            try:
                yield share
            except BusyProblem as problem:
                if problem is share.refused:
                    self.metrics.refused.labels("memory").inc()
                raise

    async def pick(
        self,
        waveforms: Waveforms,
        options: Options | None,
        request_id: str,
        *,
        with_curves: bool = False,
        who: Identity | None = None,
        share: Share | None = None,
        batch: bool = False,
        trace: Trace | None = None,
    ) -> Answer:
        """Pick the stations of a request.

        Parameters
        ----------
        waveforms : Waveforms
        options : Options or None
            In place of those in the body, but for `private`, which either may ask for.
        request_id : str
        with_curves : bool
        who : Identity, optional
            In whose stream the picks are; in none without it.
        share : Share, optional
            Of the memory; by default there is as much as is wanted.
        batch : bool
            Whether others go first.
        trace : Trace, optional
            Is told where the time goes.

        Raises
        ------
        Problem
        """
        private = any(one is not None and one.private for one in (options, waveforms.options))
        share = share or unlimited()
        options = options or waveforms.options
        with self.using(options.model if options is not None else None) as engine:
            if engine.missing is not None:
                raise UnavailableProblem(
                    engine.missing, hint="ask again in 5 s", headers={"Retry-After": "5"}
                )
            with spanned(trace, "prepare"):
                laid = await self._lay_out(waveforms, options, engine, with_curves, share)
            moments = Moments()
            try:
                results = await engine.online.pick(laid.prepared, batch=batch, moments=moments)
            finally:
                if trace is not None and moments.ended:
                    trace.add_moments(moments)
        answer = Answer(
            request_id,
            engine.model.picker,
            laid.stations,
            results,
            laid.timechunk,
            laid.notes,
            with_curves,
            served_name=engine.model.name,
        )
        if trace is not None:
            trace.note(
                model=answer.picker.name,
                weights=answer.picker.weights_sha256,
                stations=len(results),
                picks=answer.n_picks,
                batch=batch,
            )
        if with_curves and options is not None and options.waveforms:
            answer.segments = waveforms.decoded.segments
        if len(results) <= _FEW_PIECES and answer.n_picks <= _FEW_PICKS:
            self._count(laid, answer)
        else:
            await self.reader.in_thread(lambda: self._count(laid, answer), 0, share)
        if self._published is not None and who is not None and not private and answer.n_picks:
            self._published(answer, who.owner)
        return answer

    async def encode(
        self, answer: Answer, write: Callable[[Answer], bytes], *, quick: bool, share: Share
    ) -> bytes:
        """Encode an answer as its body.

        Parameters
        ----------
        answer : Answer
        write : callable
        quick : bool
            Whether it takes no time for a few picks.
        share : Share
        """
        few = len(answer.results) <= _FEW_PIECES and answer.n_picks <= _FEW_PICKS
        if quick and few and not answer.with_curves:
            return write(answer)
        cost = answer.most_bytes
        share.take(cost)
        return await self.reader.in_thread(lambda: write(answer), cost, share)

    async def _lay_out(
        self,
        waveforms: Waveforms,
        options: Options | None,
        engine: Engine,
        with_curves: bool,
        share: Share,
    ) -> StationRequest:
        model, limits = engine.model, self.settings.limits
        started = time.perf_counter()
        thresholds = thresholds_of(options, model.picker, model.settings)
        segments = waveforms.decoded.segments

        def prepared() -> StationRequest:
            at_rate = require_size(segments, model.picker, limits)
            share.take(int(at_rate * _BYTES_OF_SAMPLE))
            with share.for_a_while(_BYTES_OF_RESAMPLED * longest_resampled(segments, model.picker)):
                return lay_out(
                    waveforms.decoded,
                    model.picker,
                    model.settings,
                    max_samples=limits.max_samples,
                    thresholds=thresholds,
                    keep_curves=with_curves,
                )

        few = len(segments) <= _FEW_PIECES
        samples = sum(len(segment.samples) for segment in segments)
        if few and samples <= _FEW_SAMPLES:
            laid = prepared()
        else:
            laid = await self.reader.in_thread(prepared, samples + 10_000 * len(segments), share)
        self._prepare.observe(time.perf_counter() - started)
        self.metrics.samples.inc(samples)
        return laid

    def _count(self, laid: StationRequest, answer: Answer) -> None:
        metrics, results = self.metrics, answer.results
        answer.rows()
        labels = answer.picker.labels
        with self._counting:
            self.n_stations += len(results)
            self.n_picks += answer.n_picks
        statuses: dict[str, int] = {}
        found: dict[int, int] = {}
        for result in results:  # most requests have one
            status = result.outcome.status
            statuses[status] = statuses.get(status, 0) + 1
            for label in result.picks.label.tolist():
                found[label] = found.get(label, 0) + 1
        for label, number in found.items():
            metrics.picks.labels(labels[label]).inc(number)
        for outcome, number in statuses.items():
            metrics.stations.labels(outcome).inc(number)
        if "done" in statuses:
            metrics.data_age_seconds.observe(max(0.0, time.time() - laid.latest_ns / 1e9))
