"""Ports of a service: its replicas share them, and nobody else does."""

from __future__ import annotations

import multiprocessing
import socket
import sys
from typing import Any

import pytest
from served import free_port

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from eqcctpro.errors import SettingsError
from eqcctpro.serving.listener import claim_port


def shared(port: int) -> socket.socket:
    """A socket as replicas listen with."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    return listening


def claim(port: int, together: Any, tried: Any, results: Any) -> None:
    together.wait()
    try:
        with claim_port("127.0.0.1", port, "http.port"):
            results.put(True)
            tried.wait()
    except SettingsError:
        results.put(False)
        tried.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ports are only tried elsewhere")
def test_of_processes_that_claim_a_port_at_once_one_gets_it() -> None:
    context, claimants = multiprocessing.get_context("spawn"), 4
    for _ in range(3):
        port = free_port()
        together, tried = context.Barrier(claimants), context.Barrier(claimants)
        results = context.Queue()
        processes = [
            context.Process(target=claim, args=(port, together, tried, results), daemon=True)
            for _ in range(claimants)
        ]
        for process in processes:
            process.start()
        outcomes = [results.get(timeout=60) for _ in processes]
        for process in processes:
            process.join(30)
        assert sum(outcomes) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="ports are only tried elsewhere")
def test_replicas_share_a_port_that_is_claimed() -> None:
    port = free_port()
    with claim_port("127.0.0.1", port, "grpc.port"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        replicas = [shared(port) for _ in range(2)]
        for _ in range(8):
            socket.create_connection(("127.0.0.1", port)).close()
        for replica in replicas:
            replica.close()
        for host in ("127.0.0.1", "0.0.0.0"):
            with (
                pytest.raises(SettingsError, match=r"grpc.port: cannot listen"),
                claim_port(host, port, "grpc.port"),
            ):
                pass
        shared(port).close()
    with claim_port("127.0.0.1", port, "http.port"):
        pass
