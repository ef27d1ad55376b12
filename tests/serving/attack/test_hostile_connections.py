"""Clients that send too much before they are known, too slowly, or nothing at all."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from bare_service import Watched, bare_service

from eqcctpro.serving.example import example_miniseed

pytestmark = pytest.mark.slow  # a service is started

BODIES_MB = 64
CONNECTIONS = 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, imported_model: str) -> Iterator[Watched]:
    with bare_service(
        tmp_path_factory.mktemp("bare"),
        fixed={"body_timeout_s": 8},
        models=[{"name": imported_model, "runtime": "openvino"}],
        limits={
            "bodies_mb": BODIES_MB,
            "max_body_mb": 48,
            "connections": CONNECTIONS,
            "capacity": 8,
        },
        security={"api_keys": [{"name": "me", "sha256": "0" * 64}]},
        replicas={"threads": 1},
        batching={"max_batch_size": 16},
        logs={"format": "json"},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def open_service(
    tmp_path_factory: pytest.TempPathFactory, imported_model: str
) -> Iterator[Watched]:
    with bare_service(
        tmp_path_factory.mktemp("open"),
        models=[{"name": imported_model, "runtime": "openvino"}],
        limits={
            "bodies_mb": BODIES_MB,
            "max_body_mb": 48,
            "connections": CONNECTIONS,
        },
        replicas={"threads": 1},
        batching={"max_batch_size": 16},
        logs={"format": "json"},
    ) as running:
        yield running


def connect(service: Watched) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=60)


def said(connection: socket.socket) -> bytes:
    """What comes until the other side closes, or says no more."""
    found = b""
    with suppress(OSError):
        while part := connection.recv(65536):
            found += part
    return found


def send(connection: socket.socket, content: bytes) -> bytes:
    """What is answered, if it is answered before the connection is cut."""
    with suppress(OSError):
        connection.sendall(content)
    return said(connection)


def held(service: Watched) -> None:
    assert service.refused == []
    assert service.patient, service.slowest_s
    assert service.grown_mb < 1.5 * BODIES_MB
    answer = httpx.get(f"{service.url}/health/live", timeout=30.0)
    assert answer.status_code == 200


GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/pick HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
FLOODS = {
    "many headers": GET + b"a: b\r\n" * 200_000,
    "some more than are read": GET + b"a: b\r\n" * 120 + b"\r\n",
    "one header": GET + b"a: " + b"b" * 2_000_000,
    "a header too long": GET + b"a: " + b"b" * 40_000 + b"\r\n\r\n",
    "name of a header": GET + b"a" * 2_000_000,
    "address": b"GET /" + b"a" * 2_000_000,
    "address too long": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "query": b"GET /v1/models?" + b"a=b&" * 500_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "method": b"G" * 1_000_000,
}
AFTER = {
    "headers behind a body": POST + b"\r\n1\r\na\r\n0\r\n" + b"a: b\r\n" * 200_000,
    "one header behind a body": POST + b"\r\n1\r\na\r\n0\r\na: " + b"b" * 2_000_000,
    "length of a chunk": POST + b"\r\n1;" + b"x" * 2_000_000,
    "requests ahead": (GET + b"\r\n") * 20_000,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_headers_have_an_end(service: Watched, kind: str) -> None:
    with service.watch(), connect(service) as connection:
        answer = send(connection, FLOODS[kind])
    # A client that goes on sending may be cut off before it reads why.
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] in (b"431", b"400"), head
        assert b"application/problem+json" in head
        content = json.loads(body)
        assert content["detail"] and content["hint"]
        assert content["request_id"] in service.log.read_text()
    else:
        assert len(FLOODS[kind]) > 100_000
    assert service.grown_mb < 40
    held(service)


@pytest.mark.parametrize("kind", AFTER)
def test_so_have_what_comes_later(service: Watched, kind: str) -> None:
    with service.watch(), connect(service) as connection:
        send(connection, AFTER[kind])
    assert service.grown_mb < 40
    held(service)


def test_headers_from_many(service: Watched) -> None:
    def flood(seed: int) -> None:
        source = random.Random(seed)
        with suppress(OSError), connect(service) as connection:
            connection.sendall(GET)
            for _ in range(3000):
                name = f"x-{source.randrange(10**6)}: {source.randrange(10**6)}\r\n"
                connection.sendall(name.encode() * 10)

    with service.watch(), ThreadPoolExecutor(16) as pool:
        list(pool.map(flood, range(64)))
    held(service)


def test_no_body_is_read_of_who_is_not_known(service: Watched) -> None:
    with service.watch(), ExitStack() as stack:
        for _ in range(12):
            connection = stack.enter_context(connect(service))
            connection.sendall(
                b"POST /v1/pick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000000\r\n\r\n"
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 401")
            with suppress(OSError):
                connection.sendall(b"x" * 1_000_000)
    assert service.grown_mb < 40
    held(service)


def test_what_is_no_http_is_a_problem_like_any_other(service: Watched) -> None:
    with connect(service) as connection:
        answer = send(connection, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["status"] == 400
    assert json.loads(body)["request_id"] in service.log.read_text()


def test_idle_sockets_keep_nobody_out(service: Watched) -> None:
    with ExitStack() as stack:
        for _ in range(CONNECTIONS + 20):
            stack.enter_context(connect(service))
        with service.watch():
            time.sleep(0.5)
            for path, status in (("/health/ready", 200), ("/v1/models", 401)):
                answer = httpx.get(f"{service.url}{path}", timeout=30.0)
                assert answer.status_code == status
    held(service)


def test_probes_have_a_place_when_all_connections_work(open_service: Watched) -> None:
    upload = (
        b"POST /v1/pick HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 4000\r\n\r\n"
    )
    with ExitStack() as stack:
        uploads = [stack.enter_context(connect(open_service)) for _ in range(CONNECTIONS)]
        for connection in uploads:
            connection.sendall(upload)
        for connection in uploads:  # until the service waits for the body of each
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        with open_service.watch():
            time.sleep(0.5)
            answer = httpx.get(f"{open_service.url}/v1/models", timeout=30.0)
            assert answer.status_code == 429
            assert "connections" in answer.json()["detail"]
            assert answer.headers["retry-after"]
    held(open_service)
    time.sleep(0.3)
    assert httpx.get(f"{open_service.url}/v1/models", timeout=30.0).status_code == 200


def test_uploads_that_rest_stop_nobody_and_end(open_service: Watched) -> None:
    announced = (
        b"POST /v1/pick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000000\r\n\r\nbegin"
    )
    with ExitStack() as stack, open_service.watch():
        resting = [stack.enter_context(connect(open_service)) for _ in range(17)]
        started = time.monotonic()
        for at, connection in enumerate(resting):
            connection.sendall(announced if at % 2 else POST + b"\r\n5\r\nbegin\r\n")
        time.sleep(0.2)
        example = example_miniseed()

        def honest(_: int) -> int:
            def chunks() -> Iterator[bytes]:
                for at in range(0, len(example), 4096):
                    yield example[at : at + 4096]

            answer: Any = httpx.post(f"{open_service.url}/v1/pick", content=chunks(), timeout=60.0)
            return int(answer.status_code)

        with ThreadPoolExecutor(12) as pool:
            assert set(pool.map(honest, range(24))) == {200}
        answers = [said(connection) for connection in resting]
        assert time.monotonic() - started < 25  # of the 30 s that a body may take
    assert {answer.split()[1] for answer in answers} == {b"408"}
    assert all(b"application/problem+json" in answer for answer in answers)
    held(open_service)


def test_answers_that_nobody_reads_are_not_kept(open_service: Watched) -> None:
    body = example_miniseed()
    head = (
        b"POST /v1/annotate HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with ExitStack() as stack, open_service.watch():
        for _ in range(12):
            connection = stack.enter_context(connect(open_service))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head + body)
        time.sleep(2.0)
    held(open_service)
