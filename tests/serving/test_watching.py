"""What operators see of a service under load: every panel of the dashboard, with one replica and
with several, staged and behind the proxy; and what happens when the network's process is lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from repository import ROOT
from served import Served, free_port, served

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
msgspec = pytest.importorskip("msgspec", reason="the extra `serve` is not installed")
grpc = pytest.importorskip("grpc", reason="the extra `serve` is not installed")
pytest.importorskip("ray.serve", reason="the extra `serve` is not installed")

from prometheus_client.parser import text_string_to_metric_families

from eqcctpro.serving.client import PickClient, ServiceError
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.hub import LocalHub
from eqcctpro.serving.jobs import JobBoard, JobRequest
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.routes import stream_routes
from eqcctpro.serving.security import Guard, Identity
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import JobSettings, ServeSettings
from eqcctpro.serving.stream import Event, missed

BOARD = ROOT / "deploy/grafana/dashboards/eqcctpro.json"
SECONDS = 120.0

CONFIGURATIONS = {
    "one": (),
    "two": ("replicas.count=2", "metrics.port={metrics}"),
    "staged": ("mode=staged", "replicas.count=2-2"),
}


def until(what: Callable[[], Any], why: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.1)
    return found


def panel_series() -> list[str]:
    """Names of all series that panels of the dashboard show."""
    board = json.loads(BOARD.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return sorted({name for text in expressions for name in re.findall(r"eqcctpro_\w+", text)})


@dataclass
class Numbers:
    """What Prometheus reads, and the most that each series has been."""

    url: str
    most: dict[str, float] = field(default_factory=dict)

    def read(self) -> dict[str, float]:
        """Sums of the series, and of those of gRPC by themselves."""
        answer = httpx.get(self.url, timeout=30)
        assert answer.status_code == 200, answer.text
        text = answer.text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                names = [sample.name]
                if str(sample.labels.get("endpoint", "")).startswith("grpc/"):
                    names.append(f"grpc:{sample.name}")
                for name in names:
                    found[name] = found.get(name, 0.0) + sample.value
        for name, value in found.items():
            self.most[name] = max(value, self.most.get(name, 0.0))
        return found


@contextmanager
def load(service: Served, body: bytes) -> Iterator[None]:
    """Clients that ask for more than the capacity at once, and some that leave."""
    ended = threading.Event()

    def ask(timeout_s: float) -> None:
        while not ended.is_set():
            with suppress(httpx.TransportError):
                httpx.post(f"{service.url}/v1/pick", content=body, timeout=timeout_s)

    threads = [threading.Thread(target=ask, args=(t,)) for t in (60, 60, 60, 60, 60, 0.3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(90)


@contextmanager
def listening(service: Served) -> Iterator[None]:
    """A client of the stream."""
    ended = threading.Event()

    def listen() -> None:
        # It hears no more once the service has ended.
        with suppress(ServiceError), PickClient(service.url) as client:
            for _ in client.stream():
                if ended.is_set():
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def pick_by_grpc(port: int, **metadata: str) -> tuple[Any, Any]:
    from eqcctpro.serving.grpc_messages import SERVICE, message

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/Pick",
            request_serializer=message("PickRequest").SerializeToString,
            response_deserializer=message("PickReply").FromString,
        )
        given = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        return ask.with_call(
            message("PickRequest")(body=example_miniseed()), metadata=given, timeout=60
        )


def many_stations(copies: int) -> bytes:
    """The example under many names."""
    from eqcctpro.waveform.decode import decode_records
    from eqcctpro.waveform.encode import encode

    segments = decode_records(example_miniseed(), "example").segments
    return b"".join(
        encode(
            [
                type(s)(s.code._replace(station=f"L{index:03d}"), s.start_ns, 100.0, s.samples)
                for s in segments
            ]
        )
        for index in range(copies)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "configuration",
    [
        name if name == "one" else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in CONFIGURATIONS
    ],
)
def test_every_panel_moves_under_load(
    configuration: str, imported_model: str, tmp_path: Path
) -> None:
    port, grpc_port = free_port(), free_port()
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "XX.DEM01.mseed").write_bytes(example_miniseed())
    jobs = (f"jobs.roots=[{archive}]", f"jobs.folder={tmp_path / 'jobs'}")
    settings = [text.format(metrics=port) for text in CONFIGURATIONS[configuration]]
    with served(
        tmp_path,
        *(f"models=[{imported_model}]", "replicas.threads=1", f"grpc.port={grpc_port}", *jobs),
        *("limits.capacity=2", "limits.request_timeout_s=5", *settings),
    ) as service:
        own_port = configuration == "two"
        numbers = Numbers(f"http://127.0.0.1:{port}" if own_port else f"{service.url}/metrics")
        before = numbers.read()
        never = ("eqcctpro_hung_batches", "eqcctpro_stream_dropped_total")
        wanted = [name for name in panel_series() if name not in never]
        wanted += ["grpc:eqcctpro_request_duration_seconds_count", "eqcctpro_replicas_ready"]
        wanted += ["process_cpu_seconds_total", "process_resident_memory_bytes"]

        def still() -> list[str]:
            now = numbers.read()
            # Gauges are seen at their highest, whatever they are now.
            gauges = {name for name in wanted if not re.search("_(total|sum|count|bucket)$", name)}
            moved = {name for name in gauges if numbers.most.get(name, 0) > 0}
            moved |= {n for n in wanted if n not in gauges and now.get(n, 0) > before.get(n, 0)}
            return sorted(set(wanted) - moved)

        until(lambda: _answers(grpc_port), "gRPC does not answer")
        with PickClient(service.url, retries=0) as client:
            client.submit(input=".", formats=["csv"])
        with load(service, many_stations(40)), listening(service):
            deadline = time.monotonic() + SECONDS
            while left := still():
                assert time.monotonic() < deadline, left
        assert numbers.most["eqcctpro_requests_in_progress"] <= numbers.most["eqcctpro_capacity"]
        until(lambda: numbers.read()["eqcctpro_requests_in_progress"] == 0, "nothing is asked")
        if configuration == "staged":
            check_lost_network(service, numbers)
        check_listeners(service)
        assert service.stop(120) == 0


def numbers_of(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if re.search("_(job|jobs|stream)(_|$)", sample.name) and "bucket" not in sample.name
    }


@pytest.mark.slow
def test_jobs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [sys.executable, "-S", "-c", "import time; time.sleep(0.5); raise SystemExit(3)"]
    monkeypatch.setattr("eqcctpro.serving.job_process.module_command", lambda *_: fails)
    settings = ServeSettings.checked({"jobs": {"folder": tmp_path / "jobs"}})
    metrics = Metrics(settings.metrics)
    (tmp_path / "archive").mkdir()
    given = JobSettings(roots=(tmp_path / "archive",), folder=tmp_path / "jobs")
    board, alice = JobBoard(given, ["PhaseNet/original"], metrics), Identity("alice", "key")

    def number(*names: str) -> float:
        return numbers_of(metrics).get((f"eqcctpro_{names[0]}", *names[1:]), 0.0)

    try:
        first = board.submit(JobRequest(input="."), alice)["id"]
        second = board.submit(JobRequest(input="."), alice)["id"]
        until(lambda: number("jobs", "running") == 1, "no job runs")
        assert number("jobs", "waiting") == 1
        board.cancel(second, alice)
        assert number("jobs", "waiting") == 0
        assert number("job_duration_seconds_count", "cancelled") == 1
        until(lambda: number("jobs", "running") == 0, "the job does not end")
        assert board.job(first, alice)["status"] == "failed"
        until(lambda: number("job_duration_seconds_count", "failed") == 1, "it is not counted")
        assert number("job_duration_seconds_sum", "failed") > 0
    finally:
        board.close()


def test_the_stream_counts_what_is_sent_and_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eqcctpro.serving.settings.StreamSettings.keep", 5)
    from eqcctpro.serving.answers import PickRow

    settings = ServeSettings.checked(
        {"jobs": {"folder": tmp_path / "jobs"}, "stream": {"shared": True}}
    )
    metrics, hub = Metrics(settings.metrics), LocalHub(settings)
    service = Service(settings, {}, metrics, Guard(settings.security, "x" * 32))
    fields = dict.fromkeys(PickRow.__struct_fields__, "") | {"probability": 0.5}
    row = msgspec.convert(fields, PickRow)
    (route,) = stream_routes(service, hub).routes
    hub.logs.publish([row] * 2, "")

    async def listen() -> list[str]:
        who = SimpleNamespace(identity=Identity("alice", "key"))
        first = (await hub.end("")).rpartition("-")[0]
        request = SimpleNamespace(
            scope={"state": {"exchange": who}}, headers={"last-event-id": f"{first}-1"}
        )
        response = await route.endpoint(request)
        heard = []
        async for part in response.body_iterator:
            if b"id: " in part:
                heard.append(part.decode().split("\n")[0])
                assert numbers_of(metrics)["eqcctpro_stream_clients",] == 1
            if len(heard) == 1:
                # While the client reads that, more are found than are kept.
                hub.logs.publish([row] * 9, "")
            service.stopping = len(heard) == 6
        return heard

    heard = asyncio.run(listen())
    assert len(heard) == 6
    found = numbers_of(metrics)
    assert found["eqcctpro_stream_events_total",] == 6
    assert found["eqcctpro_stream_dropped_total", "slow"] == 4
    assert found["eqcctpro_stream_dropped_total", "unreachable"] == 0
    assert found["eqcctpro_stream_clients",] == 0
    for last in ("other-1", "a-x", "", "-", "a-²"):
        assert missed(last, Event("a-7", row)) == 0


def _answers(port: int) -> bool:
    with suppress(grpc.RpcError):
        reply, call = pick_by_grpc(port, x_request_id="mine-1")
        assert reply.picks and reply.request_id == "mine-1"
        assert dict(call.trailing_metadata())["x-request-id"] == "mine-1"
        return True
    return False


def check_listeners(service: Served) -> None:
    """Nothing of it is open to a network."""
    for process in psutil.Process(service.process.pid).children(recursive=True):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                address = connection.laddr.ip.removeprefix("::ffff:")
                assert address in ("127.0.0.1", "::1"), (process.cmdline(), connection.laddr)


def network_process(service: Served) -> psutil.Process | None:
    for process in psutil.Process(service.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "network-" in " ".join(process.cmdline()):
                return process
    return None


def check_lost_network(service: Served, numbers: Numbers) -> None:
    """One that hangs is given up on, one that is killed makes nobody wait, and it comes back."""
    body = example_miniseed()
    network = network_process(service)
    assert network is not None
    network.suspend()
    try:
        hanging = httpx.post(f"{service.url}/v1/pick", content=body, timeout=60)
    finally:
        network.resume()
    assert hanging.status_code == 408
    until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 200, "not ready again")
    until(lambda: numbers.read().get("eqcctpro_hung_batches", 0) > 0, "no batch hung")
    (failed, *_) = [line for line in service.lines() if line["message"] == "a batch failed"]
    assert failed["error"].startswith("Traceback") and "\n  File " in failed["error"]

    os.kill(network.pid, signal.SIGKILL)
    asked = until(
        lambda: (a := httpx.get(f"{service.url}/health/ready")).status_code == 503 and a,
        "ready though nothing is picked",
    )
    assert "does not answer" in asked.json()["reason"]
    refused = httpx.post(f"{service.url}/v1/pick", content=body, timeout=10)
    if refused.status_code != 200:  # it may be back by now
        assert refused.status_code == 503 and refused.headers["retry-after"]
    assert httpx.get(f"{service.url}/health/live").status_code == 200
    until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 200, "not ready again")
    again = until(
        lambda: (
            (a := httpx.post(f"{service.url}/v1/pick", content=body, timeout=60)).status_code == 200
            and a
        ),
        "it does not pick again",
    )
    assert again.json()["picks"]
    assert httpx.get(f"{service.url}/v1/status").json()["restarts"] == 1
