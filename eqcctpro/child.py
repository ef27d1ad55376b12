"""Child processes of our own, which never import the main module of a user's program.

A child runs ``python -m MODULE`` with the interpreter of its parent.  Both ends exchange
messages of bytes over the child's standard input and output.  A child ends with its parent,
however that ends, and takes everything that it has started along.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from eqcctpro.errors import EQCCTProError

__all__ = [
    "ChildDiedError",
    "ChildProcess",
    "Parent",
    "end_family",
    "end_processes",
    "exit_words",
    "module_command",
]

# Frames are a length and so many bytes; an empty one is the last.
_LENGTH = struct.Struct("<Q")
_END = b""

#: Longest text that is kept of what a child wrote before it died.
LAST_WORDS = 300

#: Seconds that an idle child may take to end once it is told to.
_END_S = 30.0

#: How often what a child has started is looked for when it is ended.
_ROUNDS = 5

#: Seconds between two looks at whether the parent is still there.
_WATCH_S = 1.0

#: Variables of the parent's environment that change how a child starts or what it measures:
#: start-up code, profilers, tracing, missing bytecode, and a Ray that the parent belongs to.
_NOT_INHERITED = (
    *("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONDUMPREFS", "PYTHONMALLOCSTATS", "PYTHONDEBUG"),
    *("COVERAGE_PROCESS_START", "COV_CORE_SOURCE", "COV_CORE_CONFIG", "COV_CORE_DATAFILE"),
    *("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_JOB_ID"),
)

# The child finds this very package, wherever the parent has it from, and after everything of
# its own what else the parent can import.  The working directory is not searched: a user's
# file there may be called like a module of the standard library.  It heeds signals that its
# parent has blocked, for these are how it is ended.
_START = """
import json, runpy, signal, sys
if hasattr(signal, "pthread_sigmask"):
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
root, others, module = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
if root not in sys.path:
    sys.path.insert(0, root)
sys.path += [path for path in others if path not in sys.path]
sys.argv[:] = [module, *sys.argv[4:]]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package as ``python -m MODULE`` does.

    Raises
    ------
    EQCCTProError
        The interpreter cannot be started again.
    """
    if not sys.executable:
        raise EQCCTProError(
            "no process can be started: Python does not know its own executable",
            hint="run this from a Python interpreter, not from an embedded one",
        )
    root = str(Path(__file__).parent.parent)
    others = json.dumps([path for path in sys.path if path and path != root])
    return [sys.executable, "-P", "-c", _START, root, others, module, *arguments]


class ChildDiedError(EQCCTProError):
    """A child process has ended without an answer; the message has its last words."""


class ChildProcess:
    """Handle of a child process, in its parent.

    Parameters
    ----------
    module : str
        Module of this package whose ``__main__`` part makes a `Parent` and answers.
    environment : mapping of str, optional
        What it is told beside the parent's environment.

    Attributes
    ----------
    pid : int

    Raises
    ------
    EQCCTProError
        The interpreter cannot be started again.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            module_command(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**inherited, **(environment or {})},
            # Ctrl-C and what else a terminal sends are for the parent, which decides.
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises
        ------
        ChildDiedError
        """
        try:
            self._requests.write(_LENGTH.pack(len(message)))
            self._requests.write(message)
            self._requests.flush()
        except OSError:
            self._died()

    def receive(self, timeout_s: float | None = None) -> bytes:
        """Wait for the next message.

        Parameters
        ----------
        timeout_s : float, optional
            Seconds to wait; None waits as long as the child lives.

        Raises
        ------
        ChildDiedError
        TimeoutError
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        length = _LENGTH.unpack(self._read(_LENGTH.size, until))[0]
        return self._read(length, until)

    @property
    def alive(self) -> bool:
        """True if the process runs; once it has ended, its descendants are ended, too."""
        return not self._ended(0.0)

    def _ended(self, timeout_s: float | None = None) -> bool:
        """Wait for the process to end; then kill the processes that it has left."""
        if self._process.returncode is None:
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
            end_family(self.pid)  # now: the system gives its number to others some day
        return True

    def says(self, timeout_s: float) -> bool:
        """Wait for a message or the end of the process; false at a timeout."""
        return _readable(self._replies.fileno(), timeout_s)

    def _read(self, length: int, until: float | None) -> bytes:
        handle, parts = self._replies.fileno(), bytearray()
        while len(parts) < length:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            if not _readable(handle, left):
                raise TimeoutError
            part = os.read(handle, min(length - len(parts), 2**20))
            if not part:
                self._died()
            parts += part
        return bytes(parts)

    def _died(self) -> NoReturn:
        self._ended()
        raise ChildDiedError(self.last_words())

    def last_words(self) -> str:
        """Describe how the process ended, with its last line of output."""
        how = exit_words(self._process.wait())
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        fatal = [line for line in lines if line.startswith("Fatal")]
        said = " ".join((fatal or lines or [""])[-1].split())
        return (f"{how}: {said}" if said else how)[:LAST_WORDS]

    def end(self, timeout_s: float = _END_S) -> int:
        """Let a child exit after its answer; kill it if it does not.

        Returns
        -------
        int
            Its exit code.
        """
        try:
            with suppress(ChildDiedError):
                self.send(_END)
            self._ended(timeout_s)
        finally:
            self.kill()
        return self._process.wait()

    def kill(self) -> None:
        """Kill the child and all processes that it has started."""
        if self.alive:
            end_processes(_family(self.pid))
            self._process.kill()
            self._ended()
        for stream in (self._requests, self._replies, self._errors):
            with suppress(OSError):  # it died with something unread
                stream.close()


def exit_words(code: int | None) -> str:
    """Exit code as text."""
    if code is None or code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return "killed, as for want of memory"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """Kill processes, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(list(processes), timeout=10)


def end_family(pid: int) -> None:
    """Kill the processes that a child has started, including those started meanwhile."""
    for _ in range(_ROUNDS):
        found = _family(pid)
        if not found:
            return
        end_processes(found)


def _family(pid: int) -> list[psutil.Process]:
    """Descendants of a child process, and orphans of its session."""
    try:
        found = set(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == pid != process.pid:
                found.add(process)
    return [process for process in found if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _readable(handle: int, timeout_s: float | None) -> bool:
    """Wait until a pipe has something to read, or has ended."""
    waiting = select.poll()  # unlike select.select, for any number of open files
    waiting.register(handle, select.POLLIN)
    return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))


class Parent:
    """Handle of the parent, in its child; created once, before anything else.

    Standard output becomes standard error, so that what libraries print is not taken for an
    answer.  When the parent is gone the child finishes nothing: it ends, with all that it has
    started.
    """

    def __init__(self) -> None:
        self._requests = os.dup(0)
        self._replies = os.dup(1)
        os.dup2(2, 1)
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        self._parent = os.getppid()
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def requests(self) -> Iterator[bytes]:
        """Yield the parent's messages until it closes the connection."""
        while True:
            self._busy.clear()
            message = self._messages.get()
            if message is None:
                return
            self._busy.set()
            yield message

    def reply(self, message: bytes) -> None:
        """Send a message; may be called from any thread."""
        with self._lock:
            for part in (_LENGTH.pack(len(message)), message):
                view = memoryview(part)
                while view:
                    view = view[os.write(self._replies, view) :]

    def _listen(self) -> None:
        """Receive messages; exit if the parent dies."""
        while (length := self._take(_LENGTH.size)) is not None:
            message = self._take(_LENGTH.unpack(length)[0])
            if message is None:
                break
            if message == _END:
                self._messages.put(None)
                return  # the parent waits for the end, and kills what takes too long
            self._busy.set()
            self._messages.put(message)
        self._messages.put(None)
        if not self._busy.is_set():
            time.sleep(_END_S)  # what is idle can still release what it holds
        end_family(os.getpid())
        os._exit(1)

    def _take(self, length: int) -> bytes | None:
        """Read exactly `length` bytes; None once the parent is gone."""
        parts = bytearray()
        while len(parts) < length:
            # Other children of the parent may hold its end of the pipe open.
            if not _readable(self._requests, _WATCH_S):
                if os.getppid() != self._parent:
                    return None
                continue
            part = os.read(self._requests, min(length - len(parts), 2**20))
            if not part:
                return None
            parts += part
        return bytes(parts)
