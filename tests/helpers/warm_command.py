"""The command ``eqcctpro`` in forks of one process, which has imported what all commands need.

Documentation has a hundred commands, and starting Python for each would take longer than all else.
A fork has its own arguments, folder, environment, standard streams and exit code, and ends as a
process of its own does.  OpenVINO and ONNX Runtime start threads, which do not survive a fork: the
forks import them.  What needs torch is forked from a second process, since all others are slower
with so much memory.

Run as a program: ``python warm_command.py SOCKET MODULE...`` serves until it is terminated.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMPORTED = (
    "eqcctpro.cli",
    "eqcctpro.orchestration.session",
    "eqcctpro.report.overview",
    "eqcctpro.picks.reading",
    "pandas",
    "pyarrow.csv",
    "pyarrow.parquet",
    "pyarrow.compute",
    "scipy.signal",
    "pymseed",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "plotly.graph_objects",
)
TORCH = ("torch", "seisbench.models")
WITH_TORCH = ("show", "models")

# A client must start in a few milliseconds: no site packages, no imports beyond a socket's.
_CLIENT = """#!{python} -SE
import array, json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({folder!r} + ("/torch" if sys.argv[1:2] and sys.argv[1] in {torch!r} else "/plain"))
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
streams = array.array("i", [0, 1, 2])
link.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
link.sendall(asked)
link.recv(4)  # its number
said = link.recv(4)
code = int.from_bytes(said, "big", signed=True) if len(said) == 4 else 70
sys.exit(code if code >= 0 else 128 - code)
"""


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """A folder with a program ``eqcctpro`` that is served meanwhile."""
    modules = {"plain": IMPORTED, "torch": (*IMPORTED, *TORCH)}
    servers = [
        subprocess.Popen([sys.executable, __file__, str(folder / name), *imported])
        for name, imported in modules.items()
    ]
    try:
        until = time.monotonic() + 60
        while not all((folder / name).exists() for name in modules):
            if any(server.poll() is not None for server in servers) or time.monotonic() > until:
                raise RuntimeError("the warm command did not start")
            time.sleep(0.02)
        programs = folder / "bin"
        programs.mkdir()
        program = programs / "eqcctpro"
        client = _CLIENT.format(python=sys.executable, folder=str(folder), torch=WITH_TORCH)
        program.write_text(client)
        program.chmod(0o755)
        yield programs
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def serve(path: str) -> None:
    """Accept commands for ever; returns in the fork that is to run one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen()
    Path(path + ".new").rename(path)
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
        link.sendall(child.to_bytes(4, "big"))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        link.sendall(code.to_bytes(4, "big", signed=True))
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
    tempfile.tempdir = None


def run() -> None:
    """Run the command, and end without taking down what was imported."""
    from eqcctpro.__main__ import main

    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    for name in sys.argv[2:]:
        __import__(name)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Forks share what is here as long as nothing walks over it.
    gc.collect()
    gc.freeze()
    serve(sys.argv[1])
    run()
