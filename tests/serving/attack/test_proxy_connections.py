"""Ray Serve's proxy has the same bounds of what a client may send before it is known."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from served import served

pytestmark = pytest.mark.slow  # a service is started


def test_headers_have_an_end_at_the_proxy(tmp_path: Path, imported_model: str) -> None:
    settings = (
        f"models=[{{name: {imported_model}, runtime: openvino}}]",
        "replicas.count=1-1",
        "replicas.threads=1",
    )
    with served(tmp_path, *settings) as service:
        assert httpx.get(f"{service.url}/health/ready", timeout=60.0).status_code == 200
        for flood in (b"a: " + b"b" * 33_000 + b"\r\n\r\n", b"a: b\r\n" * 120 + b"\r\n"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
                connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + flood)
                answer = b""
                with suppress(OSError):
                    while part := connection.recv(65536):
                        answer += part
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 431"), head
            assert json.loads(body)["status"] == 431
        assert httpx.get(f"{service.url}/health/ready", timeout=60.0).status_code == 200
