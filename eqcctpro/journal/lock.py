"""Lock of an output folder: only one run or command writes to it at a time.

The lock is a file in the folder that names its holder.  Where possible, the operating system locks
the file, and releases it when the process ends in any way.  Where it cannot, as on some network
file systems, or where its locks do not reach other machines, the holder counts as alive if its
process runs or if it has touched the file recently.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from eqcctpro.errors import OutputError, ResumeError
from eqcctpro.journal.folder import RunFolder
from eqcctpro.journal.writing import writing

__all__ = ["LOCK_FILE", "Holder", "OutputLock", "holder_at_work", "results_held"]

LOCK_FILE = ".eqcctpro.lock"

#: Interval at which a holder touches its lock, and the age at which a lock counts as stale.
HEARTBEAT_S = 10.0
SILENCE_S = 60.0

# `status` holds a lock for a moment.
_PATIENCE_S = 0.3
# For the heartbeat to end, which a file system that hangs may keep.
_PARTING_S = 1.0
# Time in which all processes that compete for a stale lock have written their names into it.
_SETTLING_S = 0.2


@dataclass(frozen=True)
class Holder:
    """Process that holds a lock.

    Attributes
    ----------
    token : str
        Random; no two locks have the same.
    pid, host : int, str
    machine : str
        Boot of the operating system and process namespace, within which process numbers mean
        something.
    started : str
        When the process began, in the units of its operating system.
    doing : str
        The command that it executes, if it is not a run.
    """

    token: str
    pid: int
    host: str
    machine: str
    started: str
    doing: str = ""

    @classmethod
    def me(cls, doing: str = "") -> Holder:
        """Holder for the calling process, with a new token."""
        pid, host = os.getpid(), socket.gethostname()
        return cls(secrets.token_hex(8), pid, host, _machine(), _started(pid), doing)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        """True if the process is on this machine, in the process namespace of this one."""
        return self.machine == _machine()

    @property
    def lives(self) -> bool:
        """True if the process runs; only meaningful for a holder on this machine."""
        return self.started != "" and _started(self.pid) == self.started


class OutputLock:
    """Lock of one output folder; a context manager.

    Parameters
    ----------
    output : Path
        An existing folder.
    doing : str
        The command that takes the lock, if it is not a run.
    """

    def __init__(self, output: Path, doing: str = "") -> None:
        self.output = output
        self._doing = doing
        self.path = output / LOCK_FILE
        self._descriptor = -1
        self._holder: Holder | None = None
        self._released = threading.Event()
        self._beats: threading.Thread | None = None

    def __enter__(self) -> OutputLock:
        """Take the lock.

        Raises
        ------
        ResumeError
            Another run is at work in the folder.
        OutputError
            The folder cannot be written.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while (other := self._take()) is not None:
            if time.monotonic() >= deadline:
                holder = _holder_in(self.path)
                if holder is not None and holder.doing:
                    raise ResumeError(
                        f"{holder.doing} is writing to {self.output} ({other})",
                        hint="give the command again when that has ended",
                    )
                raise ResumeError(
                    f"another run is writing to {self.output} ({other})",
                    hint=f"eqcctpro status {self.output} shows how far it is; "
                    "wait for it, or choose another output folder",
                )
            time.sleep(0.02)
        self._beats = threading.Thread(target=self._beat, name="eqcctpro-lock", daemon=True)
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        if self._beats is not None:
            self._beats.join(_PARTING_S)
        with suppress(OSError):
            if self._is_mine():
                self.path.unlink(missing_ok=True)
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):  # a child that was forked may have the descriptor, too
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def check(self) -> None:
        """Check that this run still holds the lock.

        Raises
        ------
        OutputError
            The lock was removed, or another run took it.
        """
        if self._is_mine():
            return
        other = _holder_in(self.path)
        happened = "was removed" if other is None else f"was taken by another run ({other})"
        raise OutputError(
            f"{self.output} {happened} while this run was at work: its results are not written",
            hint="give the command again, with an output folder of its own",
        )

    def _take(self) -> str | None:
        """Try to take the lock; return the description of its holder, or None if it was taken."""
        with writing(self.output):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            locked = _lock(descriptor, fcntl.LOCK_EX)
            other = _holder_in(self.path)
            if locked is False:
                return str(other) if other is not None else "it has just begun"
            if not _same_file(descriptor, self.path):
                return "which has just ended"  # and removed the file that was opened
            if other is not None:
                if other.is_here:
                    at_work = locked is None and other.lives
                else:
                    at_work = _silence_s(self.path) < SILENCE_S
                if at_work:
                    return _described(other, self.path)
            elif locked is None and os.fstat(descriptor).st_size and _silence_s(self.path) < 1:
                return "it has just begun"
            holder = Holder.me(self._doing)
            with writing(self.output):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
            if locked is None:
                time.sleep(_SETTLING_S)
                if (now := _holder_in(self.path)) != holder:
                    return str(now)
            self._descriptor, self._holder = descriptor, holder
            return None
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)

    def _is_mine(self) -> bool:
        return (
            self._descriptor >= 0
            and _same_file(self._descriptor, self.path)
            and _holder_in(self.path) == self._holder
        )

    def _beat(self) -> None:
        """Touch the lock periodically, so that other machines see that its holder is alive."""
        while not self._released.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(self._descriptor)


@contextmanager
def results_held(folder: Path, doing: str) -> Iterator[None]:
    """Lock a folder of results against runs and other commands while it is written to.

    Parameters
    ----------
    folder : Path
        Folder to write to; it is not locked if it contains no run.
    doing : str
        The command that takes the lock, such as ``"eqcctpro associate"``.

    Raises
    ------
    ResumeError
        A run or another command is at work there.
    """
    if RunFolder(folder).holds_a_run or (folder / LOCK_FILE).exists():
        with OutputLock(folder, doing):
            yield
    else:
        yield


def holder_at_work(output: Path) -> Holder | None:
    """The holder of a folder's lock; None if there is none that is known to be alive."""
    path = output / LOCK_FILE
    holder = _holder_in(path)
    if holder is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        locked = _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
    if locked is False:
        return holder
    if holder.is_here:
        return holder if locked is None and holder.lives else None
    return holder if _silence_s(path) < SILENCE_S else None


def _described(holder: Holder, path: Path) -> str:
    if holder.is_here:
        return str(holder)
    wait = max(SILENCE_S - _silence_s(path), 1)
    return f"{holder}; if that one is dead, its lock ends in {wait:.0f} s"


def _lock(descriptor: int, kind: int) -> bool | None:
    """Lock a file without waiting; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _holder_in(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _silence_s(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        last = path.stat().st_mtime
        probe.touch()
        now = probe.stat().st_mtime
    except OSError:
        return 0.0
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return max(now - last, 0.0)


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{sys.platform} {socket.gethostname()}"


def _started(pid: int) -> str:
    """Start time of a process; empty if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""
