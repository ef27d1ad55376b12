"""Probes of a service's health, and of a bystander: a server that has nothing else to do.

Both run in processes of their own, so that what a test does keeps neither waiting; what the
bystander takes for an answer is what the machine takes.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_GLANCE_S = 0.05
_ASKED = b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass
class Found:
    """What probes found: seconds of each answer, and what was none with 200.

    Attributes
    ----------
    service, bystander : list of float
    refused : list of str
    """

    service: list[float] = field(default_factory=list)
    bystander: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Prober:
    """The process that probes, from `begin` to `end`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def begin(self) -> None:
        """Begin; returns when the first probe was answered."""
        self._ask("begin")

    def end(self) -> Found:
        """What was found since then."""
        return Found(**json.loads(self._ask("end")))


@contextmanager
def probing(port: int) -> Iterator[Prober]:
    """A process that probes the service at a port, when it is told to, until the end."""
    command = [sys.executable, __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen([*command, "bystander"], **pipes) as bystander,  # type: ignore[call-overload]
        subprocess.Popen([*command, str(port), bystander.stdout.readline()], **pipes) as prober,  # type: ignore[call-overload]
    ):
        try:
            yield Prober(prober)
        finally:
            for process in (prober, bystander):
                process.kill()


def _stand_by() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(_ANSWER)


def _probe(port: int) -> tuple[float, str]:
    """Seconds that an answer takes through a new connection, and its first line."""
    started, answer = time.perf_counter(), b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            connection.sendall(_ASKED)
            while part := connection.recv(65536):
                answer += part
    except OSError as error:
        return time.perf_counter() - started, repr(error)
    said = answer.decode(errors="replace")
    return time.perf_counter() - started, "" if said.startswith("HTTP/1.1 200 ") else said


def _work(service: int, bystander: int) -> None:
    found: Found | None = None
    while True:
        readable = select.select([sys.stdin], [], [], None if found is None else _GLANCE_S)[0]
        command = sys.stdin.readline() if readable else ""
        if readable and not command:
            return
        if command == "begin\n":
            found = Found()
        if found is None:
            continue
        for port, seconds in ((bystander, found.bystander), (service, found.service)):
            taken, refusal = _probe(port)
            seconds.append(taken)
            if refusal:
                found.refused.append(refusal)
        if command:
            print(json.dumps(vars(found) if command == "end\n" else {}), flush=True)
        if command == "end\n":
            found = None


if __name__ == "__main__":
    if sys.argv[1] == "bystander":
        _stand_by()
    else:
        _work(int(sys.argv[1]), int(sys.argv[2]))
