"""The command ``eqcctpro`` in forks of one process, which has imported what all commands need.

Documentation has a hundred commands, and starting Python for each would take longer than all else.
A fork has its own arguments, folder, environment, standard streams and exit code, and ends as a
process of its own does.  What starts threads is imported by the forks.

Run as a program: ``python warm_command.py SOCKET`` serves until it is terminated.
"""

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
from pathlib import Path

IMPORTED = (
    "eqcctpro.cli",
    "eqcctpro.orchestration.session",
    "eqcctpro.analysis.overview",
    "eqcctpro.picks.reading",
    "pandas",
    "pyarrow.csv",
    "pyarrow.parquet",
    "pyarrow.compute",
    "scipy.signal",
    "pymseed",
    "matplotlib.figure",
    "plotly.graph_objects",
)

# A client must start in a few milliseconds: no site packages, no imports beyond a socket's.
_CLIENT = """#!{python} -SE
import array, json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({path!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
streams = array.array("i", [0, 1, 2])
link.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
link.sendall(asked)
said = link.recv(4)
sys.exit(int.from_bytes(said, "big") if len(said) == 4 else 70)
"""


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """A folder with a program ``eqcctpro`` that is served meanwhile."""
    path = folder / "socket"
    server = subprocess.Popen([sys.executable, __file__, str(path)])
    try:
        until = time.monotonic() + 60
        while not path.exists():
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the warm command did not start")
            time.sleep(0.02)
        programs = folder / "bin"
        programs.mkdir()
        program = programs / "eqcctpro"
        program.write_text(_CLIENT.format(python=sys.executable, path=str(path)))
        program.chmod(0o755)
        yield programs
    finally:
        server.terminate()
        server.wait()


def _serve(path: str) -> None:
    """Accept commands for ever; returns in the fork that is to run one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen()
    os.rename(path + ".new", path)
    while True:
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _take_over(link)
            return
        link.close()
        _reap()


def _take_over(link: socket.socket) -> None:
    """In a fork: become the process that was asked for.  Its parent reports how it ended."""
    head, streams, _, _ = socket.recv_fds(link, 8, 3)
    asked = b""
    length = int.from_bytes(head, "big")
    while len(asked) < length:
        asked += link.recv(length - len(asked))
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        link.sendall((code if code >= 0 else 128 - code).to_bytes(4, "big"))
        os._exit(0)
    link.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    arguments, folder, environment = json.loads(asked)
    sys.argv = ["eqcctpro", *arguments]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    for name in IMPORTED:
        __import__(name)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _serve(sys.argv[1])
    from eqcctpro.cli import main

    main()
