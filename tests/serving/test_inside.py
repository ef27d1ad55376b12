"""The service's inside, without Ray: limits, keys, hanging networks, TLS."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import platform
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from served import free_port

from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.runtimes.base import Runtime
from eqcctpro.serving.app import create_app
from eqcctpro.serving.engines import Engine, ServedModel, find_model
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.hub import LocalHub
from eqcctpro.serving.jobs import JobBoard
from eqcctpro.serving.logs import set_up_logs
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.online import OnlinePicker
from eqcctpro.serving.pages import PAGES, page_routes
from eqcctpro.serving.routes import job_routes, session_routes, stream_routes
from eqcctpro.serving.security import Guard, Identity, hash_password, make_key
from eqcctpro.serving.security_settings import SecuritySettings
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import (
    HttpSettings,
    JobSettings,
    LimitSettings,
    LogSettings,
    ServeSettings,
    WatchdogSettings,
)
from eqcctpro.serving.stations import lay_out
from eqcctpro.serving.stream import PickLog
from eqcctpro.serving.waveforms import read_body

EXAMPLE = example_miniseed()


class HeldRuntime(Runtime):
    """A real runtime that can be held up before it executes a batch."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner
        self.kind, self.device = inner.kind, inner.device
        self.batch_size, self.ahead = inner.batch_size, inner.ahead
        self.go = threading.Event()
        self.go.set()
        self.batches: list[int] = []

    def predict(self, windows: Any) -> Any:
        return self.submit(windows)()

    def submit(self, windows: Any) -> Any:
        self.batches.append(len(windows))
        result = self._inner.submit(windows)

        def wait() -> Any:
            self.go.wait(30)
            return result()

        return wait

    def arena(self, components: int, in_samples: int) -> Any:
        return self._inner.arena(components, in_samples)


@pytest.fixture(scope="module")
def model(imported_model: str) -> ServedModel:
    settings = ServeSettings.checked({"models": [imported_model]})
    return find_model(settings.models[0])


@pytest.fixture(scope="module")
def runtime(model: ServedModel) -> Runtime:
    from eqcctpro.runtimes.select import open_picker

    return open_picker(
        model.weights, runtime="openvino", batch_size=16, threads=1, slice_windows="adaptive"
    )[1]


class Inside:
    """A service in this process."""

    def __init__(self, model: ServedModel, runtime: Runtime, folder: Path, **given: Any) -> None:
        self.settings = ServeSettings.checked(
            {"models": [model.name], "jobs": {"folder": folder}, **given}
        )
        self.runtime = HeldRuntime(runtime)
        self.opened = 0
        metrics = Metrics(self.settings.metrics)
        self.online = OnlinePicker(
            lambda: self._pipeline(model),
            forward_timeout_s=self.settings.limits.forward_timeout_s,
            report=metrics.batch,
        )
        self.service = Service(
            self.settings,
            {model.name: Engine(model, self.online)},
            metrics,
            Guard(self.settings.security, "x" * 32),
        )
        self.hub = hub = LocalHub(self.settings)
        routes = (
            *(page_routes(), session_routes(self.service), job_routes(self.service, hub)),
            stream_routes(self.service, hub),
        )
        self.app = create_app(self.service, *routes)

    def _pipeline(self, model: ServedModel) -> Pipeline:
        self.opened += 1
        if self.opened > 1:
            self.runtime.go.set()
        return Pipeline(model.picker, self.runtime, model.settings)

    def ask(self, method: str, path: str, **arguments: Any) -> Any:
        return self.ask_all([(method, path, arguments)])[0]

    def ask_all(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[Any]:
        """Ask all at once."""

        async def run() -> list[Any]:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://x", timeout=60.0
            ) as client:
                return list(
                    await asyncio.gather(
                        *(client.request(method, path, **more) for method, path, more in requests)
                    )
                )

        return asyncio.run(run())


@pytest.fixture
def inside(model: ServedModel, runtime: Runtime, tmp_path: Path) -> Iterator[Callable[..., Inside]]:
    made: list[Inside] = []

    def make(**given: Any) -> Inside:
        made.append(Inside(model, runtime, tmp_path / "jobs", **given))
        return made[-1]

    yield make
    for one in made:
        one.runtime.go.set()
        one.online.close(5.0)


def pick(**more: Any) -> tuple[str, str, dict[str, Any]]:
    return ("POST", "/v1/pick", {"content": EXAMPLE, **more})


def release_later(held: Inside, seconds: float) -> None:
    held.runtime.go.clear()
    threading.Timer(seconds, held.runtime.go.set).start()


@pytest.mark.slow
def test_more_than_the_capacity_is_refused_at_once(inside: Callable[..., Inside]) -> None:
    one = inside(limits={"capacity": 2})
    release_later(one, 0.5)
    answers = one.ask_all([pick()] * 5)
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 200, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert one.ask(*pick()[:2], content=EXAMPLE).status_code == 200


@pytest.mark.slow
def test_bodies_have_room_together(inside: Callable[..., Inside]) -> None:
    one = inside(limits={"bodies_mb": 0.6})
    release_later(one, 0.5)
    answers = one.ask_all([pick()] * 3)
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
    assert one.ask("POST", "/v1/pick", content=EXAMPLE).status_code == 200


@pytest.mark.slow
def test_a_late_answer_is_408_and_its_place_is_free_again(inside: Callable[..., Inside]) -> None:
    one = inside(limits={"capacity": 1, "request_timeout_s": 0.2})
    release_later(one, 0.6)
    assert one.ask("POST", "/v1/pick", content=EXAMPLE).status_code == 408
    one.runtime.go.wait(5)
    assert one.service.in_progress == 0
    assert one.ask("POST", "/v1/pick", content=EXAMPLE).status_code == 200


def test_a_network_that_hangs_is_given_up(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitSettings, "forward_timeout_s", 0.3)
    one = inside()
    one.runtime.go.clear()
    answer = one.ask("POST", "/v1/pick", content=EXAMPLE)
    assert answer.status_code == 408
    assert "network" in answer.json()["detail"]
    assert one.online.hung == 1
    assert one.ask("POST", "/v1/pick", content=EXAMPLE).json()["picks"]
    assert one.opened == 2


def test_a_network_that_fails_fails_its_batch_alone(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = inside()

    def broken(windows: Any) -> Any:
        raise RuntimeError("secret inside")

    with monkeypatch.context() as patch:
        patch.setattr(one.runtime, "submit", broken)
        answer = one.ask("POST", "/v1/pick", content=EXAMPLE)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert one.ask("POST", "/v1/pick", content=EXAMPLE).json()["picks"]


def test_stations_that_come_while_a_batch_is_under_way_share_the_next(
    inside: Callable[..., Inside],
) -> None:
    one = inside()
    windows = one.ask("POST", "/v1/pick", content=EXAMPLE).json()["stations"][0]["windows"]
    one.runtime.batches.clear()
    release_later(one, 0.4)
    answers = one.ask_all([pick()] * 6)
    assert all(answer.json()["picks"] for answer in answers)
    assert sum(one.runtime.batches) == 6 * windows
    assert len(one.runtime.batches) < 6


def number(inside: Inside, name: str) -> float:
    """A number that Prometheus would read."""
    text = inside.ask("GET", "/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_metrics_say_what_the_network_did(
    inside: Callable[..., Inside], model: ServedModel
) -> None:
    held = inside()
    segments = read_body(EXAMPLE, "").decoded
    laid = lay_out(segments, model.picker, model.settings, max_samples=10**9)
    windows = sum(station.n_windows for station in laid.prepared)
    held.ask_all([pick() for _ in range(5)])
    until = time.monotonic() + 5  # reports come after answers
    while number(held, "eqcctpro_windows_total") < 5 * windows and time.monotonic() < until:
        time.sleep(0.01)
    assert number(held, "eqcctpro_windows_total") == 5 * windows == sum(held.runtime.batches)
    assert number(held, "eqcctpro_batch_windows_sum") == 5 * windows
    assert number(held, "eqcctpro_batch_windows_count") == len(held.runtime.batches)
    assert number(held, "eqcctpro_batch_stations_sum") == 5
    assert number(held, "eqcctpro_batch_wait_seconds_sum") > 0
    text = held.ask("GET", "/metrics").text
    memory = re.search(r'process_resident_memory_bytes{pid="(\d+)"} (\S+)', text)
    assert memory is not None and int(memory[1]) == os.getpid() and float(memory[2]) > 1e7
    assert f'eqcctpro_build_info{{python="{platform.python_version()}",version=' in text
    for stage in ("decode", "prepare", "infer", "pick", "encode"):
        assert number(held, f'eqcctpro_stage_seconds_sum{{stage="{stage}"}}') > 0
    assert held.online.pipeline.stages.seconds["infer"] == pytest.approx(
        number(held, 'eqcctpro_stage_seconds_sum{stage="infer"}')
    )


def test_a_client_that_leaves_before_its_batch_costs_no_window(
    inside: Callable[..., Inside], model: ServedModel
) -> None:
    one = inside()
    stations = lay_out(
        read_body(EXAMPLE, "").decoded, model.picker, model.settings, max_samples=10**9
    ).prepared

    async def leave() -> None:
        first = asyncio.ensure_future(one.online.pick(stations))
        await asyncio.sleep(0.1)
        gone = asyncio.ensure_future(one.online.pick(list(stations)))
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.sleep(0.05)
        one.runtime.go.set()
        await first

    one.runtime.go.clear()
    asyncio.run(leave())
    assert len(one.runtime.batches) == 1


@pytest.mark.slow
def test_a_long_station_takes_several_batches(
    inside: Callable[..., Inside], model: ServedModel
) -> None:
    from eqcctpro.synthetic.waveforms import synthetic_waveforms
    from eqcctpro.waveform.encode import encode
    from eqcctpro.waveform.segments import ChannelCode, Segment

    long = synthetic_waveforms(stations=1, duration_s=1200.0).counts[0]
    codes = [ChannelCode("XX", "LONG", "00", name) for name in ("HHZ", "HHN", "HHE")]
    content = encode([Segment(code, 0, 100.0, row) for code, row in zip(codes, long, strict=True)])
    one = inside()
    answer = one.ask("POST", "/v1/pick", content=content).json()
    assert answer["stations"][0]["windows"] > one.runtime.batch_size
    assert max(one.runtime.batches) == one.runtime.batch_size
    assert len(answer["picks"]) > 20


def test_an_ending_service_refuses_and_finishes(inside: Callable[..., Inside]) -> None:
    one = inside()
    one.service.stopping = True
    answer = one.ask("POST", "/v1/pick", content=EXAMPLE)
    assert answer.status_code == 503
    assert one.ask("GET", "/health/ready").status_code == 503
    assert one.ask("GET", "/health/live").status_code == 200


def test_too_slow_requests_break_a_replica(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WatchdogSettings, "over_requests", 3)
    one = inside(watchdog={"mean_request_s": 1e-6})
    for _ in range(2):
        one.ask("POST", "/v1/pick", content=EXAMPLE)
    assert one.ask("GET", "/health/ready").status_code == 200
    one.ask("POST", "/v1/pick", content=EXAMPLE)
    answer = one.ask("GET", "/health/ready")
    assert answer.status_code == 503
    assert "in the mean" in answer.json()["reason"]


def test_a_replica_that_fails_its_self_test_is_broken(inside: Callable[..., Inside]) -> None:
    one = inside(watchdog={"self_test_s": 1e-6})
    asyncio.run(one.service.test_itself())
    assert one.service.broken is None
    assert one.runtime.batches
    one.runtime.submit = None  # type: ignore[assignment, method-assign]
    asyncio.run(one.service.test_itself())
    assert "self-test" in (one.service.broken or "")
    del one.runtime.submit
    asyncio.run(one.service.test_itself())
    assert one.service.broken is None


def test_keys_open_a_closed_service(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SecuritySettings, "least_burst", 2.0)
    (alice, alice_hash), (bob, bob_hash) = make_key(), make_key()
    one = inside(
        security={
            "api_keys": [
                {"name": "alice", "sha256": alice_hash},
                {"name": "bob", "sha256": bob_hash, "requests_per_s": 0.001},
            ],
            "open_metrics": False,
        }
    )
    refused = one.ask("POST", "/v1/pick", content=EXAMPLE)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "X-API-Key" in refused.json()["hint"]
    for headers in ({"X-API-Key": alice}, {"Authorization": f"Bearer {alice}"}):
        assert one.ask("POST", "/v1/pick", content=EXAMPLE, headers=headers).status_code == 200
    for wrong in (alice[:-1], alice_hash, "", "é"):
        headers = {"X-API-Key": wrong.encode("latin-1")}
        assert one.ask("GET", "/v1/models", headers=headers).status_code == 401
    assert one.ask("GET", "/v1/models", params={"key": alice}).status_code == 401
    assert one.ask("GET", "/health/ready").status_code == 200
    assert one.ask("GET", "/").status_code == 200
    assert one.ask("GET", "/metrics").status_code == 401
    codes = [one.ask("GET", "/v1/models", headers={"X-API-Key": bob}).status_code for _ in "abc"]
    assert codes == [200, 200, 429]
    schema = one.ask("GET", "/openapi.json").json()
    assert schema["paths"]["/v1/pick"]["post"]["security"]


def test_the_interface_says_what_it_answers(inside: Callable[..., Inside]) -> None:
    one = inside()
    paths = one.ask("GET", "/openapi.json").json()["paths"]
    for method, path, problem in (
        ("post", "/v1/session", "401"),
        ("get", "/v1/jobs/{job_id}", "404"),
        ("post", "/v1/pick", "404"),
    ):
        described = paths[path][method]["responses"][problem]["content"]
        assert list(described) == ["application/problem+json"]
    example = one.ask("GET", "/v1/example").headers["content-type"]
    assert list(paths["/v1/example"]["get"]["responses"]["200"]["content"]) == [example]
    refused = one.ask("OPTIONS", "/v1/session")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")


def test_a_path_forges_no_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("eqcctpro")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        set_up_logs(LogSettings())
        try:
            raise ValueError("a\n2026-01-01T00:00:00.000Z INFO forged")
        except ValueError:
            logger.exception("GET /v1/jobs/%s", "b\n2026-01-01T00:00:00.000Z INFO \x1b[2J\x85")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    written = capsys.readouterr().err
    first, *below = written.splitlines()
    assert first.endswith("b\\x0a2026-01-01T00:00:00.000Z INFO \\x1b[2J\\x85")
    assert below
    assert all(line.startswith("    ") for line in below)


def test_heads_are_answered(inside: Callable[..., Inside]) -> None:
    held = inside()
    for path in (
        "/",
        "/docs",
        "/page.js",
        "/openapi.json",
        "/v1/models",
        "/metrics",
        "/v1/example",
    ):
        got, head = held.ask("GET", path), held.ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    for probe in ("startup", "live", "ready"):
        assert held.ask("HEAD", f"/health/{probe}").status_code == 200
    assert held.ask("HEAD", "/v1/unknown").status_code == 404
    assert held.ask("HEAD", "/v1/pick").headers["allow"] == "POST"
    refused = held.ask("DELETE", "/v1/models")
    assert refused.status_code == 405 and refused.headers["allow"] == "GET, HEAD"


def test_pages_elsewhere_may_read_problems(inside: Callable[..., Inside]) -> None:
    held = inside(
        http={"cors_origins": ["https://example.org"]},
        security={"api_keys": [{"name": "one", "sha256": make_key()[1]}]},
    )
    for origin, heard in (("https://example.org", True), ("https://evil.example", False)):
        for method, path in (("POST", "/v1/pick"), ("GET", "/v1/models"), ("GET", "/v1/unknown")):
            answer = held.ask(method, path, headers={"origin": origin})
            assert answer.status_code in (401, 403)
            assert (answer.headers.get("access-control-allow-origin") == origin) == heard


def test_a_fault_of_ours_is_a_problem_and_in_the_log(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    held = inside()

    def broken() -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(held.hub.board, "jobs", broken)
    monkeypatch.setattr(held.service.engines["EQTransformer/original"], "facts", broken)
    logging.getLogger("eqcctpro").addHandler(caplog.handler)
    for path in ("/v1/jobs", "/v1/models"):
        answer = held.ask("GET", path)
        assert answer.status_code == 500, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert "secret" not in answer.text
        failed = [record for record in caplog.records if record.exc_info]
        assert answer.json()["request_id"] in failed[-1].getMessage()


@pytest.mark.parametrize(
    "last", ["{name}-\u00b2", "{name}-99999999999999999999", "{name}--1", "{name}-", "-", "x" * 999]
)
def test_any_id_of_an_event_is_a_place_in_the_stream(last: str) -> None:
    log = PickLog(4)
    log.publish([object()] * 6)  # type: ignore[list-item]
    name = log.end.partition("-")[0]
    found = log.since(last.format(name=name))
    assert [event.id for event in found] == [f"{name}-{place}" for place in (3, 4, 5, 6)]


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.mark.slow
def test_a_name_and_a_password_give_a_token(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SecuritySettings, "least_burst", 20.0)
    users = [{"name": "carol", "password_hash": hash_password("right")}]
    one = inside(security={"users": users, "session_s": 1})
    assert one.ask("POST", "/v1/session").headers["www-authenticate"].startswith("Basic")
    for name, password in (("carol", "wrong"), ("dave", "right"), ("carol", "")):
        assert one.ask("POST", "/v1/session", headers=basic(name, password)).status_code == 401
    answer = one.ask("POST", "/v1/session", headers=basic("carol", "right"))
    token = answer.json()["token"]
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    bearer = {"Authorization": f"Bearer {token}"}
    assert one.ask("GET", "/v1/session", headers=bearer).json() == {
        **{"name": "carol", "kind": "user"},
        "sign_in": True,
    }
    # A page asks for passwords itself: the browser must not do so as well.
    quiet = {**basic("carol", "wrong"), "X-Requested-With": "page"}
    refused = one.ask("POST", "/v1/session", headers=quiet)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    by_cookie = {"Cookie": cookie.partition(";")[0]}
    assert one.ask("GET", "/v1/models", headers=by_cookie).status_code == 200
    forged = {"Authorization": f"Bearer {token[:-2]}AA"}
    assert one.ask("GET", "/v1/models", headers=forged).status_code == 401
    time.sleep(2.1)
    assert one.ask("GET", "/v1/models", headers=bearer).status_code == 401


def test_another_authenticator_may_decide(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = tmp_path / "own_authenticator.py"
    module.write_text("def only_friends(name, password):\n    return name == 'friend'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    one = inside(security={"authenticator": "own_authenticator:only_friends"})
    assert one.ask("POST", "/v1/session", headers=basic("enemy", "x")).status_code == 401
    assert one.ask("POST", "/v1/session", headers=basic("friend", "x")).status_code == 200


def test_guessing_passwords_is_slowed_down(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SecuritySettings, "least_burst", 3.0)
    users = [{"name": "carol", "password_hash": hash_password("right")}]
    one = inside(security={"users": users})
    codes = [
        one.ask("POST", "/v1/session", headers=basic("carol", str(guess))).status_code
        for guess in range(5)
    ]
    assert codes == [401, 401, 401, 429, 429]


def test_pages_hold_nothing_from_elsewhere(inside: Callable[..., Inside]) -> None:
    one = inside()
    for path in PAGES:
        answer = one.ask("GET", path)
        assert answer.status_code == 200
        assert "http://" not in answer.text and "https://" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_stream_finds_back_after_an_event() -> None:
    log = PickLog(3)
    picks: list[Any] = list("abcde")
    log.publish(picks[:2])
    first = log.since("")
    assert [event.pick for event in first] == ["a", "b"]
    log.publish(picks[2:])
    assert [event.pick for event in log.since(first[1].id)] == ["c", "d", "e"]
    assert [event.pick for event in log.since(first[0].id)] == ["c", "d", "e"]
    assert log.since(log.end) == []
    assert [event.pick for event in log.since("other-4")] == ["c", "d", "e"]


def test_links_do_not_lead_jobs_out_of_their_folders(tmp_path: Path) -> None:
    from eqcctpro.serving.jobs import JobRequest
    from eqcctpro.serving.problems import ForbiddenProblem

    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    (root / "out").symlink_to(other)
    board = JobBoard(JobSettings(roots=(root,), folder=tmp_path / "jobs"), ["PhaseNet/original"])
    for text in ("out", str(other), "../other", "nothing", "\0", "~"):
        with pytest.raises(ForbiddenProblem):
            board.submit(JobRequest(input=text), Identity("me", "key"))
    board.close()
    with pytest.raises(ForbiddenProblem, match="takes no jobs"):
        nobody = JobBoard(JobSettings(folder=tmp_path / "none"), ["A/b"])
        nobody.submit(JobRequest(input="."), Identity("me", "key"))


@pytest.mark.slow
def test_slow_headers_and_bodies_are_cut_off(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch
) -> None:
    from eqcctpro.serving.listener import Listener

    monkeypatch.setattr(HttpSettings, "keep_alive_s", 1)
    monkeypatch.setattr(LimitSettings, "headers_timeout_s", 0.5)
    monkeypatch.setattr(LimitSettings, "body_timeout_s", 0.5)
    one = inside(http={"port": free_port()})
    listener = Listener(one.app, one.settings)
    listener.start()
    address = ("127.0.0.1", one.settings.http.port)
    request = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        for begun in (b"", b"GET /v1/mod"):
            with socket.create_connection(address, timeout=20) as slow:
                slow.sendall(begun)
                assert slow.recv(100) == b""
        with socket.create_connection(address, timeout=20) as slow:
            slow.sendall(b"POST /v1/pick HTTP/1.1\r\nHost: localhost\r\n")
            slow.sendall(b"Content-Length: 100000\r\n\r\nabc")
            assert slow.recv(65536).startswith(b"HTTP/1.1 408")
        with socket.create_connection(address, timeout=20) as again:
            for _ in range(2):  # one that is in time may ask again
                again.sendall(request)
                assert again.recv(65536).startswith(b"HTTP/1.1 200")
            again.sendall(request[:20])
            assert again.recv(100) == b""
    finally:
        listener.close(5.0)


def certificate_of(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.mark.slow
def test_tls(
    inside: Callable[..., Inside], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eqcctpro.serving.listener import Listener
    from eqcctpro.serving.settings import LimitSettings

    monkeypatch.setattr(LimitSettings, "headers_timeout_s", 2.0)
    certificate, key = certificate_of(tmp_path)
    port = free_port()
    tls = {"certificate": str(certificate), "key": str(key)}
    one = inside(http={"port": port, "tls": tls})
    listener = Listener(one.app, one.settings)
    listener.start()
    try:
        url = f"https://localhost:{one.settings.http.port}/v1/models"
        answer = httpx.get(url, verify=ssl.create_default_context(cafile=str(certificate)))
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        # Who never says hello does not keep a connection for a minute.
        with socket.create_connection(("127.0.0.1", port), timeout=30) as silent:
            assert silent.recv(1) == b""
    finally:
        listener.close(5.0)


@contextmanager
def grpc_server(held: Inside) -> Iterator[int]:
    """The service's own server for gRPC, in this process; its port."""
    from eqcctpro.serving.grpc_service import GrpcServer

    started, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = GrpcServer(held.service)
        await server.start()
        started.set()
        await ended.wait()
        await server.stop(1.0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(30)
    port = held.settings.grpc.port
    assert port is not None
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)


def ask_grpc(channel: Any, **metadata: str) -> Any:
    from eqcctpro.serving.grpc_messages import SERVICE, message

    ask = channel.unary_unary(
        f"/{SERVICE}/Pick",
        request_serializer=message("PickRequest").SerializeToString,
        response_deserializer=message("PickReply").FromString,
    )
    given = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    return ask.with_call(message("PickRequest")(body=EXAMPLE), metadata=given, timeout=30)


def test_grpc_asks_for_keys_and_hides_what_is_inside(
    inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    grpc = pytest.importorskip("grpc")
    key, digest = make_key()
    held = inside(
        grpc={"port": free_port()}, security={"api_keys": [{"name": "one", "sha256": digest}]}
    )
    logging.getLogger("eqcctpro").addHandler(caplog.handler)
    logging.getLogger("eqcctpro").setLevel("INFO")
    with grpc_server(held) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply, call = ask_grpc(channel, x_api_key=key, x_request_id="mine-1")
        assert reply.picks and reply.request_id == "mine-1"
        assert dict(call.trailing_metadata())["x-request-id"] == "mine-1"

        async def broken(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(held.service, "pick", broken)
        for metadata, code in (
            ({}, grpc.StatusCode.UNAUTHENTICATED),
            ({"x_api_key": "wrong"}, grpc.StatusCode.UNAUTHENTICATED),
            ({"authorization": f"Bearer {key}"}, grpc.StatusCode.INTERNAL),
        ):
            with pytest.raises(grpc.RpcError) as error:
                ask_grpc(channel, **metadata)
            assert error.value.code() == code
            assert "secret" not in error.value.details()
            given = dict(error.value.trailing_metadata())["x-request-id"]
            assert any(
                given in (getattr(record, "request", {}).get("request_id"), record.args[0])
                for record in caplog.records
                if record.args
            )
        assert any(record.exc_info for record in caplog.records)
    text = held.ask("GET", "/metrics").text
    assert 'request_duration_seconds_count{code="200",endpoint="grpc/Pick"} 1.0' in text
    assert 'request_duration_seconds_count{code="401",endpoint="grpc/Pick"} 2.0' in text


def test_grpc_through_tls_is_for_clients_with_certificates(
    inside: Callable[..., Inside], tmp_path: Path
) -> None:
    grpc = pytest.importorskip("grpc")
    certificate, key = certificate_of(tmp_path)
    held = inside(
        grpc={"port": free_port()},
        http={"tls": {"certificate": certificate, "key": key, "client_authority": certificate}},
    )
    root, private = certificate.read_bytes(), key.read_bytes()
    with grpc_server(held) as port:
        where = f"localhost:{port}"
        known = grpc.ssl_channel_credentials(root, private, root)
        with grpc.secure_channel(where, known) as channel:
            assert ask_grpc(channel)[0].picks
        for credentials in (None, grpc.ssl_channel_credentials(root)):
            opened = (
                grpc.insecure_channel(where)
                if credentials is None
                else grpc.secure_channel(where, credentials)
            )
            with opened as channel, pytest.raises(grpc.RpcError) as error:
                ask_grpc(channel)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
