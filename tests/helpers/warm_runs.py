"""Slowed-down runs in forks of one process, which has imported what they need.

Starting Python and importing torch takes longer than a short run.  A fork is like a process of its
own, except that signals cannot come while it imports.

Run as a program: ``python warm_runs.py SOCKET MODULE...`` serves until it is terminated.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from warm_command import IMPORTED, TORCH, run, serve

MORE = (
    *("obspy", "sqlite3", "eqcctpro.runtimes.select", "eqcctpro.runtimes.openvino_runtime"),
    *("eqcctpro.models.seisbench", "eqcctpro.report.run_traces"),
)


class WarmRun:
    """A run in a fork, used as a `subprocess.Popen`.

    Parameters
    ----------
    link : socket
        To its parent, which says how it ended.
    pid : int
    """

    def __init__(self, link: socket.socket, pid: int) -> None:
        self._link = link
        self.pid = pid
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._link.settimeout(timeout)
            try:
                said = self._link.recv(4)
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from error
            self.returncode = int.from_bytes(said, "big", signed=True)
            self._link.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def start_warm(
    server: Path, arguments: Sequence[str], environment: dict[str, str], errors: IO[bytes]
) -> WarmRun:
    """Start ``eqcctpro`` in a fork of a server, in a session of its own."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(server))
    asked = json.dumps([list(arguments), str(Path.cwd()), environment]).encode()
    with Path(os.devnull).open("r+b") as nothing:
        streams = [nothing.fileno(), nothing.fileno(), errors.fileno()]
        socket.send_fds(link, [len(asked).to_bytes(8, "big")], streams)
    link.sendall(asked)
    return WarmRun(link, int.from_bytes(link.recv(4, socket.MSG_WAITALL), "big"))


@contextmanager
def serving_runs(folder: Path) -> Iterator[Path]:
    """The socket of a server, for `start_warm`, that is there meanwhile."""
    socket_path = folder / "runs"
    server = subprocess.Popen([sys.executable, __file__, str(socket_path)])
    try:
        until = time.monotonic() + 120
        while not socket_path.exists():
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the server of runs did not start")
            time.sleep(0.02)
        yield socket_path
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    from faulty import slow_down

    for name in (*IMPORTED, *TORCH, *MORE):
        __import__(name)
    slow_down()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Forks share what is here as long as nothing walks over it.
    gc.collect()
    gc.freeze()
    serve(sys.argv[1])
    os.setsid()
    run()
