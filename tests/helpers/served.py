"""A real service in a process of its own, for tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 240.0


@dataclass
class Served:
    """A running ``eqcctpro serve``."""

    url: str
    port: int
    process: subprocess.Popen[str]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
        return found

    def stop(self, timeout: float = 40.0) -> int:
        """End it as a service manager does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "eqcctpro", *map(str, arguments)]


@contextmanager
def served(folder: Path, *settings: str, **environment: str) -> Iterator[Served]:
    """Run the command until the end of the block; it is ready when the block begins."""
    port = free_port()
    log = folder / f"serve-{port}.log"
    given = [part for text in ("logs.format=json", *settings) for part in ("--set", text)]
    with log.open("w") as file:
        process = subprocess.Popen(
            command("serve", "--port", port, *given),
            stderr=file,
            stdout=file,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    service = Served(f"http://127.0.0.1:{port}", port, process, log)
    try:
        _wait(service)
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _wait(service: Served) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if service.process.poll() is not None:
            raise AssertionError(f"it ended: {service.log.read_text()}")
        if f" at {service.url}" in service.log.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"not ready: {service.log.read_text()}")


def replica_pids(service: Served) -> list[int]:
    """Processes of the service's replicas."""
    import psutil

    found = []
    for child in psutil.Process(service.process.pid).children(recursive=True):
        try:
            title = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "ServeReplica" in title and "pick" in title:
            found.append(child.pid)
    return found
