"""Programs that sinks send to, started on loopback for tests; a test skips where one is missing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from served import free_port

READY_S = 30.0


class Program:
    """A server that can be stopped, killed and started again with the same data and port.

    Parameters
    ----------
    command : sequence of str
    port : int
        At which it listens once it is ready.
    log : Path
    kill : signal
        That ends it at once, with its children.
    check : sequence of str, optional
        Command that succeeds when it is ready; without it, it is when it takes connections.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        kill: signal.Signals = signal.SIGKILL,
        check: Sequence[str] = (),
    ) -> None:
        self.command, self.port, self.log = list(command), port, log
        self.kill, self.check = kill, list(check)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        deadline = time.monotonic() + READY_S
        self._launch()
        while not self._is_ready():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
            # One that was killed may have left children, which are in the way for a moment.
            if self._process is not None and self._process.poll() is not None:
                self._launch()

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.log.parent
            )

    def _is_ready(self) -> bool:
        if self.check:
            return subprocess.run(self.check, capture_output=True).returncode == 0
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def stop(self, how: signal.Signals | None = None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how or self.kill)
            self._process.wait(30)


def found(program: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    where = shutil.which(program, path=path)
    if where is None:
        pytest.skip(f"{program} is not installed")
    return where


def redis_server(folder: Path) -> Program:
    port = free_port()
    command = [found("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    # What it was told is on its disk before it answers, so that it may be killed.
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    return Program([*command, "--dir", str(folder)], port, folder / "redis.log")


def mosquitto(folder: Path, password: str) -> Program:
    port = free_port()
    (folder / "passwords").touch(mode=0o600)
    subprocess.run(
        [found("mosquitto_passwd"), "-b", str(folder / "passwords"), "picker", password],
        check=True,
        capture_output=True,
    )
    user = "root" if os.getuid() == 0 else ""
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\n"
        f"persistence true\npersistence_location {folder}/\nmax_queued_messages 0\n"
        + (f"user {user}\n" if user else "")
    )
    command = [found("mosquitto"), "-c", str(folder / "mosquitto.conf")]
    return Program(command, port, folder / "mosquitto.log")


def nats_server(folder: Path) -> Program:
    port = free_port()
    command = [found("nats-server"), "-a", "127.0.0.1", "-p", str(port), "--jetstream"]
    command += ["--store_dir", str(folder / "jetstream"), "--user", "picker", "--pass", "s3cret"]
    return Program(command, port, folder / "nats.log")


def postgresql(folder: Path) -> Program:
    """With a database ``postgres`` of the user ``picker``; passwords are not asked for."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: int(one.parent.name))
    place = newest[-1] if newest else Path(found("initdb")).parent
    data, port = folder / "data", free_port()
    before: list[str] = []
    if os.getuid() == 0:  # which it refuses to run as
        before = [found("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        data.mkdir()
        shutil.chown(data, "nobody", "nogroup")
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
    make = [*before, str(place / "initdb"), "-D", str(data), "--no-sync"]
    make += ["-U", "picker", "-A", "trust", "-E", "UTF8"]
    subprocess.run(
        make,
        check=True,
        capture_output=True,
        cwd="/",
    )
    command = [*before, str(place / "postgres"), "-D", str(data), "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    # Its children would outlive it, and keep a new one from starting.
    check = [str(place / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return Program(command, port, folder / "postgresql.log", signal.SIGQUIT, check)
