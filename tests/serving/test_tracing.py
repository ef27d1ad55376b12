"""Traces: what a request's spans say, and that collectors get them and never hold anybody up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
grpc = pytest.importorskip("grpc", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra `tracing` is not installed"
)

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from own_networks import save_networks
from served import free_port

from eqcctpro.errors import SettingsError
from eqcctpro.serving.app import create_app
from eqcctpro.serving.client import PickClient
from eqcctpro.serving.engines import Engine, find_model, open_engine
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.grpc_messages import SERVICE, message
from eqcctpro.serving.grpc_service import GrpcServer
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.security import Guard
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.tracing import Tracer, require_tracing

EXAMPLE = example_miniseed()
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{PARENT}-01"
PARTS = ["receive", "read", "prepare", "wait", "inference", "answer"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("weights")
    save_networks(folder, "one")
    model = {"name": f"PhaseNetLight/{folder}/one.pt", "runtime": "torch"}
    settings = ServeSettings.checked({"models": [model], "replicas": {"threads": 1}})
    opened = open_engine(find_model(settings.models[0]), settings)
    yield opened
    opened.close()


class Inside:
    """A service in this process whose spans are kept."""

    def __init__(self, engine: Engine, folder: Path, **given: Any) -> None:
        settings = ServeSettings.checked({"jobs": {"folder": folder}, **given})
        guard = Guard(settings.security, "x" * 32)
        self.service = Service(
            settings, {engine.model.name: engine}, Metrics(settings.metrics), guard
        )
        self.kept = InMemorySpanExporter()
        self.app = create_app(self.service)

    def trace(self) -> None:
        self.service.tracer = Tracer("", self.kept)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        async def run() -> Any:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, **more)

        return asyncio.run(run())

    def spans(self) -> tuple[Any, dict[str, Any]]:
        """The span of the last request, and those inside by their names."""
        found = self.kept.get_finished_spans()
        self.kept.clear()
        *parts, root = found
        assert all(part.parent.span_id == root.context.span_id for part in parts)
        assert all(part.context.trace_id == root.context.trace_id for part in parts)
        assert root.parent is None or root.parent.is_remote
        ordered = sorted(parts, key=lambda part: part.start_time)
        for part, following in pairwise(ordered):
            assert root.start_time <= part.start_time <= part.end_time
            # Times of the queue come from another clock.
            assert part.end_time <= following.start_time + 1_000_000
        return root, {part.name: part for part in ordered}


@pytest.fixture
def inside(engine: Engine, tmp_path: Path) -> Inside:
    return Inside(engine, tmp_path / "jobs")


def test_the_spans_of_a_request_are_in_the_trace_of_whoever_asks(inside: Inside) -> None:
    assert "traceparent" not in inside.ask("POST", "/v1/pick", content=EXAMPLE).headers
    assert not inside.kept.get_finished_spans()
    inside.trace()
    answer = inside.ask(
        "POST", "/v1/pick", content=EXAMPLE, headers={"traceparent": GIVEN, "x-request-id": "me"}
    )
    assert answer.status_code == 200
    root, parts = inside.spans()
    assert list(parts) == [*PARTS, "send"]
    assert (root.name, root.kind.name) == ("POST /v1/pick", "SERVER")
    assert f"{root.context.trace_id:032x}" == TRACE and f"{root.parent.span_id:016x}" == PARENT
    assert answer.headers["traceparent"] == f"00-{TRACE}-{root.context.span_id:016x}-01"
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["eqcctpro.request_id"] == "me"
    assert root.attributes["eqcctpro.stations"] == len(answer.json()["stations"])
    assert root.attributes["eqcctpro.picks"] == len(answer.json()["picks"])
    assert root.status.status_code != StatusCode.ERROR


@pytest.mark.parametrize(
    "wrong", ["", "00-0-0-00", GIVEN.upper(), "ff" + GIVEN[2:], "a" * 3000, GIVEN.replace("b", "ü")]
)
def test_a_wrong_context_begins_a_trace(inside: Inside, wrong: str) -> None:
    inside.trace()
    headers = {"traceparent": wrong.encode(), "tracestate": b"a=b," * 5000}
    answer = inside.ask("GET", "/v1/models", headers=headers)
    root, parts = inside.spans()
    assert answer.status_code == 200 and root.parent is None and not parts
    assert f"{root.context.trace_id:032x}" in answer.headers["traceparent"]


def test_what_goes_wrong_is_in_the_trace(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.trace()
    assert inside.ask("POST", "/v1/pick", content=b"nothing").status_code == 400
    root, parts = inside.spans()
    assert list(parts) == ["receive", "read"]
    assert root.attributes["error.type"] == "400"
    assert root.status.status_code != StatusCode.ERROR
    monkeypatch.setattr(inside.service, "encode", None)
    assert inside.ask("POST", "/v1/pick", content=EXAMPLE).status_code == 500
    root, parts = inside.spans()
    assert list(parts) == PARTS
    assert root.status.status_code == StatusCode.ERROR
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert "traceparent" not in inside.ask("GET", path).headers
    assert not inside.kept.get_finished_spans()
    assert inside.ask("GET", "/no/such/path").status_code == 404
    assert inside.spans()[0].name == "GET other"


def test_requests_through_grpc_have_the_same_spans(engine: Engine, tmp_path: Path) -> None:
    one = Inside(engine, tmp_path, grpc={"port": free_port()})
    one.trace()

    async def ask() -> dict[str, str]:
        server = GrpcServer(one.service)
        await server.start()
        where = f"127.0.0.1:{one.service.settings.grpc.port}"
        async with grpc.aio.insecure_channel(where) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/Pick",
                request_serializer=message("PickRequest").SerializeToString,
                response_deserializer=message("PickReply").FromString,
            )(message("PickRequest")(body=EXAMPLE), metadata=(("traceparent", GIVEN),))
            assert (await call).stations
            trailing = dict(await call.trailing_metadata())
        await server.stop(1.0)
        return trailing

    trailing = asyncio.run(ask())
    root, parts = one.spans()
    assert list(parts) == PARTS
    assert root.name == f"{SERVICE}/Pick" and root.attributes["rpc.method"] == "Pick"
    assert trailing["traceparent"] == f"00-{TRACE}-{root.context.span_id:016x}-01"


@contextmanager
def collector(delay_s: float = 0.0) -> Iterator[tuple[str, list[Any]]]:
    """An OTLP collector; its address, and what it got."""
    got: list[Any] = []
    go = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            go.wait(delay_s)
            if self.path == "/v1/traces":
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        go.set()
        server.shutdown()
        server.server_close()


def test_a_collector_gets_the_spans(engine: Engine, tmp_path: Path) -> None:
    with collector() as (address, got):
        one = Inside(engine, tmp_path, logs={"traces": address})
        headers = {"traceparent": GIVEN}
        assert one.ask("POST", "/v1/pick", content=EXAMPLE, headers=headers).status_code == 200
        assert one.service.tracer is not None
        one.service.tracer.close()
    spans = [
        span
        for request in got
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == sorted(["POST /v1/pick", *PARTS, "send"])
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    names = {
        (attribute.key, attribute.value.string_value)
        for attribute in got[0].resource_spans[0].resource.attributes
    }
    assert ("service.name", "eqcctpro") in names


@pytest.mark.slow
@pytest.mark.parametrize("away", [True, False])
def test_nobody_waits_for_a_collector(away: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eqcctpro.serving.tracing._END_S", 0.3)
    with collector(30.0) as (address, _):
        where = f"http://127.0.0.1:{free_port()}" if away else address
        tracer = Tracer(where)
        started = time.monotonic()
        for _ in range(5000):  # more than are kept
            tracer.begin("GET x", {}).end(200, None, {})
        tracer.close()
        # Far less than the collector takes.
        assert time.monotonic() - started < 20


def test_settings_of_traces_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (
        "127.0.0.1:4318",
        "ftp://x",
        "http://",
        "http://a:b@c/",
        "http://a b",
        "http://a?b",
    ):
        with pytest.raises(SettingsError, match="traces"):
            ServeSettings.checked({"logs": {"traces": wrong}})
    require_tracing("http://127.0.0.1:4318")
    monkeypatch.setattr("eqcctpro.serving.tracing.find_spec", lambda _: None)
    require_tracing(None)
    with pytest.raises(SettingsError, match="packages are missing"):
        require_tracing("http://127.0.0.1:4318")


def test_the_client_goes_on_with_the_trace_of_its_program() -> None:
    seen: list[str | None] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers.get("traceparent"))
        return httpx.Response(200, json={"models": []})

    with PickClient("http://127.0.0.1:1") as client:
        client._http = httpx.Client(
            base_url="http://127.0.0.1:1", transport=httpx.MockTransport(answer)
        )
        client.models()
        tracer = TracerProvider().get_tracer("mine")
        with tracer.start_as_current_span("outer") as span:
            client.models()
    assert seen[0] is None
    assert f"{span.get_span_context().trace_id:032x}" in str(seen[1])
