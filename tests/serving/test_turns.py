"""Requests with much to do and others take turns, and get the picks they would alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.runtimes.base import Runtime
from eqcctpro.serving.app import create_app
from eqcctpro.serving.engines import ServedModel, find_model
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.network_queue import Asked, NetworkQueue
from eqcctpro.serving.online import OnlinePicker
from eqcctpro.serving.problems import BusyProblem, MalformedProblem
from eqcctpro.serving.security import Guard, is_batch, make_key
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.stations import lay_out
from eqcctpro.synthetic.waveforms import synthetic_waveforms
from eqcctpro.waveform.decode import DecodedFile
from eqcctpro.waveform.segments import ChannelCode, Segment

BATCH = 16


@pytest.fixture(scope="module")
def model(imported_model: str) -> ServedModel:
    return find_model(ServeSettings.checked({"models": [imported_model]}).models[0])


@pytest.fixture(scope="module")
def runtime(model: ServedModel) -> Iterator[Runtime]:
    from eqcctpro.runtimes.select import open_picker

    _, opened = open_picker(
        model.weights, runtime="openvino", batch_size=BATCH, threads=1, slice_windows="adaptive"
    )
    yield opened


def stations(model: ServedModel, *names: str, seconds: float) -> list[Any]:
    """Stations with arrivals; one has a gap in the middle."""
    rows = synthetic_waveforms(stations=len(names), duration_s=seconds).counts
    segments = []
    for name, counts in zip(names, rows, strict=True):
        half = counts.shape[1] // 2
        for channel, row in zip(("HHZ", "HHN", "HHE"), counts, strict=True):
            code = ChannelCode("XX", name, "", channel)
            segments.append(Segment(code, 0, 100.0, row[:half]))
            behind = half + (500 if name == names[-1] else 0)
            segments.append(Segment(code, behind * 10_000_000, 100.0, row[behind:]))
    laid = lay_out(DecodedFile(segments), model.picker, model.settings, max_samples=10**9)
    return laid.prepared


def same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.outcome.status, one.outcome.n_windows) == ("done", other.outcome.n_windows)
        assert one.outcome.highest_p == other.outcome.highest_p
        for name in ("label", "time_ns", "start_ns", "end_ns", "probability"):
            np.testing.assert_array_equal(getattr(one.picks, name), getattr(other.picks, name))
    assert any(len(one.picks) for one in found)


def alone(model: ServedModel, runtime: Runtime, prepared: list[Any]) -> list[Any]:
    pipeline = Pipeline(model.picker, runtime, model.settings)
    return [pipeline.pick_one(one) for one in prepared]


@pytest.mark.slow
def test_slices_of_tasks_in_any_order_yield_the_same(model: ServedModel, runtime: Runtime) -> None:
    names, source = ("A", "B", "C"), np.random.default_rng(3)
    expected = alone(model, runtime, stations(model, *names, seconds=300.0))
    pipeline = Pipeline(model.picker, runtime, model.settings)
    opened = [
        pipeline.open(name, one)
        for name, one in zip(names, stations(model, *names, seconds=300.0), strict=True)
    ]
    while any(windows.left for windows in opened):
        pipeline.pack(opened[source.integers(0, 3)], int(source.integers(1, 7)))
        if not pipeline.room or source.random() < 0.3:
            pipeline.drain()
    pipeline.drain()
    found = sorted(pipeline.finished(), key=lambda result: result.ticket)
    assert sum(result.outcome.n_windows for result in found) > BATCH
    same(found, expected)


@pytest.mark.slow
def test_small_requests_do_not_wait_for_large_ones(model: ServedModel, runtime: Runtime) -> None:
    large_alone = alone(model, runtime, stations(model, "L", "M", seconds=1500.0))
    small_alone = alone(model, runtime, stations(model, "S", seconds=150.0))
    batches: list[int] = []
    online = OnlinePicker(
        lambda: Pipeline(model.picker, runtime, model.settings),
        turn_s=1e-6,
        report=lambda report: batches.extend(report.batches),
    )

    async def ask() -> tuple[list[Any], list[list[Any]], int]:
        large = asyncio.ensure_future(online.pick(stations(model, "L", "M", seconds=1500.0)))
        small = []
        while len(batches) < 2:
            await asyncio.sleep(0.01)
        for _ in range(3):
            small.append(await online.pick(stations(model, "S", seconds=150.0)))
        before = len(batches)
        assert not large.done()
        return await large, small, before

    try:
        large, small, before = asyncio.run(ask())
    finally:
        online.close()
    assert before < len(batches)
    assert online.waiting == 0
    same(large, large_alone)
    for one in small:
        same(one, small_alone)
    # Its first batch was a whole one, for nobody knew how long it would take; the rest are turns.
    assert batches[0] == BATCH
    assert max(batches[2:]) <= BATCH // 8 + small_alone[0].outcome.n_windows


@pytest.mark.slow
def test_a_large_request_that_is_given_up_leaves_nothing_behind(
    model: ServedModel, runtime: Runtime
) -> None:
    online = OnlinePicker(lambda: Pipeline(model.picker, runtime, model.settings), turn_s=1e-6)

    async def leave() -> None:
        large = asyncio.ensure_future(online.pick(stations(model, "L", "M", seconds=1500.0)))
        while online.waiting != 1 and not large.done():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        large.cancel()
        (result,) = await online.pick(stations(model, "S", seconds=150.0))
        assert result.outcome.status == "done"

    try:
        asyncio.run(leave())
        for _ in range(100):
            if online._state.idle and not online.waiting:
                break
            time.sleep(0.05)
        assert online._state.idle
        assert online.waiting == 0
    finally:
        online.close()
    assert not online._thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("aging_s", [1e9, 1e-9])
def test_batch_requests_go_behind_others_until_they_have_waited(
    aging_s: float, model: ServedModel, runtime: Runtime
) -> None:
    seconds = {"first": 150.0, "batch small": 150.0, "batch": 400.0, "large": 600.0, "small": 150.0}
    names = {name: f"S{place}" for place, name in enumerate(seconds)}
    go, reported = threading.Event(), threading.Event()

    def report(_: object) -> None:
        reported.set()
        go.wait(30)

    online = OnlinePicker(
        lambda: Pipeline(model.picker, runtime, model.settings),
        turn_s=1e-6,
        aging_s=aging_s,
        report=report,
    )
    order: list[str] = []

    async def ask(name: str) -> list[Any]:
        prepared = stations(model, names[name], seconds=seconds[name])
        found = await online.pick(prepared, batch=name.startswith("batch"))
        order.append(name)
        return found

    async def ask_all() -> dict[str, list[Any]]:
        asked = {"first": asyncio.ensure_future(ask("first"))}
        await asyncio.to_thread(reported.wait, 30)
        for name in list(seconds)[1:]:
            asked[name] = asyncio.ensure_future(ask(name))
        while online.waiting < 4:
            await asyncio.sleep(0.01)
        go.set()
        return {name: await future for name, future in asked.items()}

    try:
        found = asyncio.run(ask_all())
    finally:
        go.set()
        online.close()
    for name, results in found.items():
        same(results, alone(model, runtime, stations(model, names[name], seconds=seconds[name])))
    if aging_s > 1:
        assert order == ["first", "small", "large", "batch small", "batch"]
    else:
        assert order == ["first", "batch small", "small", "batch", "large"]


def asked_together(aging_s: float, *more: Asked) -> list[tuple[str, ...]]:
    """Callers of what a network executes together, after the first one was held meanwhile."""
    executed: list[tuple[str, ...]] = []
    go = threading.Event()

    def execute(batches: Any) -> Any:
        executed.append(tuple(asked.caller for asked in batches))
        go.wait(30)
        return [asked.windows for asked in batches]

    async def ask_all() -> None:
        queue = NetworkQueue(execute, 4, aging_s)
        answers = []
        for asked in (Asked(1, np.zeros((4, 3, 5), np.float32), False, "first"), *more):
            answers.append(asyncio.ensure_future(queue.predict(asked)))
            await asyncio.sleep(0.01)
        given_up = asyncio.ensure_future(queue.predict(Asked(1, answers_of(9), False, "gone")))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.sleep(0.01)
        go.set()
        for answer, asked in zip((await asyncio.gather(*answers))[1:], more, strict=True):
            assert answer is asked.windows

    asyncio.run(ask_all())
    return executed


def answers_of(n: int) -> Any:
    return np.zeros((n, 3, 5), np.float32)


def test_a_shared_network_executes_what_somebody_waits_for_first() -> None:
    def asked(caller: str, n: int, *, behind: bool) -> Asked:
        return Asked(1, answers_of(n), behind, caller)

    def more() -> list[Asked]:
        return [
            asked("night", 3, behind=True),
            asked("late", 3, behind=True),
            asked("a", 2, behind=False),
            asked("b", 2, behind=False),
        ]

    first = ("first",)
    assert asked_together(1e9, *more()) == [first, ("a", "b"), ("night",), ("late",)]
    # Until they have waited long enough; what is larger than all that is executed goes alone.
    assert asked_together(0.0, *more()) == [first, ("night",), ("late",), ("a", "b")]
    large = asked("large", 9, behind=True)
    assert asked_together(1e9, large, asked("a", 1, behind=False)) == [first, ("a",), ("large",)]
    # Who has something behind, and asks for something that is not, takes the former first.
    own = [*more(), asked("late", 1, behind=False)]
    assert asked_together(1e9, *own) == [first, ("late",), ("a", "b"), ("late", "night")]


@pytest.mark.slow
def test_a_network_is_told_what_may_wait(model: ServedModel, runtime: Runtime) -> None:
    told: list[object] = []
    go = threading.Event()

    class Shared(Runtime):
        kind, device, batch_size, ahead = "remote", "cpu", BATCH, 2

        def predict(self, windows: Any) -> Any:
            return runtime.predict(windows)

        def submit(self, windows: Any) -> Any:
            told.append(self.behind)
            curves = runtime.predict(windows).copy()

            def result() -> Any:
                go.wait(30)
                return curves

            return result

        def hurry(self) -> None:
            told.append("hurry")
            go.set()

    online = OnlinePicker(lambda: Pipeline(model.picker, Shared(), model.settings))

    async def ask_all() -> None:
        asked = [online.pick(stations(model, "A", seconds=150.0), batch=True)]
        waiting = [asyncio.ensure_future(one) for one in asked]
        while not told:
            await asyncio.sleep(0.01)
        # Its own replica would send nothing else before that is executed.
        await online.pick(stations(model, "B", seconds=150.0))
        await asyncio.gather(*waiting)

    try:
        asyncio.run(ask_all())
    finally:
        go.set()
        online.close()
    assert told[:3] == [True, "hurry", False] and not any(told[3:])


def test_the_priority_is_said_by_the_request_and_by_the_key(tmp_path: Path) -> None:
    (alice, alice_hash), (night, night_hash) = make_key(), make_key()
    keys = [
        {"name": "alice", "sha256": alice_hash},
        {"name": "night", "sha256": night_hash, "priority": "batch"},
    ]
    settings = ServeSettings.checked(
        {
            "jobs": {"folder": tmp_path},
            "limits": {"capacity": 4},
            "security": {"api_keys": keys},
        }
    )
    guard = Guard(settings.security, "x" * 32)
    service = Service(settings, {}, Metrics(settings.metrics), guard)
    app = create_app(service)

    def asked(key: str, priority: str | None) -> int:
        headers = {"X-API-Key": key} | ({} if priority is None else {"X-Priority": priority})

        async def ask() -> int:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                answer = await client.post("/v1/pick?model=none", content=b"x", headers=headers)
                return int(answer.status_code)

        return asyncio.run(ask())

    read = 400  # the body is no miniSEED
    for key, priority, status in (
        (alice, None, read),
        (alice, "batch", read),
        (alice, "Interactive", read),
        (alice, "batch ", read),
        (night, " interactive", 403),
        (alice, "urgent", 422),
        (alice, "", 422),
        (night, None, read),
        (night, "batch", read),
        (night, "interactive", 403),
        (night, "urgent", 422),
    ):
        assert asked(key, priority) == status, priority
    for key, batch in ((alice, False), (night, True)):
        who = guard.identify({b"x-api-key": key.encode()}, "")
        assert is_batch([], who) == batch
        with pytest.raises(MalformedProblem, match="given twice"):
            is_batch([(b"x-priority", b"batch"), (b"x-priority", b"batch")], who)


@pytest.mark.parametrize(
    ("others", "batch", "refused"),
    [
        (3, 0, None),
        (1, 2, None),
        (0, 3, "3 batch requests are being worked on, as many as may be of the 4"),
        (4, 0, "4 requests are being worked on, as many as limits.capacity"),
        (1, 3, "4 requests are being worked on"),
    ],
)
def test_batch_requests_are_bounded_together_and_not_by_others(
    tmp_path: Path, others: int, batch: int, refused: str | None
) -> None:
    settings = ServeSettings.checked({"jobs": {"folder": tmp_path}, "limits": {"capacity": 4}})
    service = Service(settings, {}, Metrics(settings.metrics), Guard(settings.security, "x" * 32))
    with ExitStack() as held:
        for number in range(others + batch):
            held.enter_context(service.place(batch=number < batch))
        if refused is None:
            held.enter_context(service.place(batch=True))
        else:
            with pytest.raises(BusyProblem, match=refused):
                held.enter_context(service.place(batch=True))
        # Others find a place where batch requests have all that they may.
        if others + batch < 4 and service.in_progress < 4:
            held.enter_context(service.place())
    assert (service.in_progress, service.batch_in_progress) == (0, 0)


@pytest.mark.slow
def test_many_stations_without_windows_are_answered(model: ServedModel, runtime: Runtime) -> None:
    segments = [
        Segment(ChannelCode("XX", f"S{at}", "", "HHZ"), 0, 100.0, np.ones(3, np.int32))
        for at in range(700)
    ]
    laid = lay_out(DecodedFile(segments), model.picker, model.settings, max_samples=10**9)
    online = OnlinePicker(lambda: Pipeline(model.picker, runtime, model.settings))
    try:
        found = asyncio.run(online.pick(laid.prepared))
    finally:
        online.close()
    assert [result.ticket[1] for result in found] == list(range(700))
    assert {result.outcome.status for result in found} == {"empty"}
