"""Process of a job, with limits of memory and time; it never outlives its parent."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from eqcctpro.child import end_processes, module_command

__all__ = ["JobLimits", "JobProcess"]

_GLANCE_S = 0.2
_WATCH_S = 1.0


@dataclass(frozen=True)
class JobLimits:
    """Limits of a job's memory and time.

    Attributes
    ----------
    memory_mb : float
        Resident memory of its processes together, MB of 2**20 bytes.
    time_s : float
    end_s : float
        How long it may take to end by itself once it is told to.
    """

    memory_mb: float
    time_s: float
    end_s: float


class JobProcess:
    """Run of the command line in a session of its own.

    Parameters
    ----------
    arguments : list of str
        Of ``eqcctpro``.
    log : Path
        Gets what it says.
    limits : JobLimits
    """

    def __init__(self, arguments: list[str], log: Path, limits: JobLimits) -> None:
        self._limits = limits
        self._ended = threading.Event()
        command = module_command("eqcctpro.serving.job_process", str(os.getpid()), *arguments)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=_environment(),
                start_new_session=True,
            )

    def end(self) -> None:
        """Ask the process to end; `wait` kills it if it does not."""
        self._ended.set()

    def wait(self) -> tuple[int, str]:
        """Wait until the process has ended, by itself or at a limit.

        Returns
        -------
        tuple of (int, str)
            Exit code, and which limit ended it, if one did.
        """
        began = time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(_GLANCE_S), ""
            if self._ended.is_set():
                return self._stop(self._limits.end_s), ""
            if self._memory_mb() > self._limits.memory_mb:
                # What fills the memory that fast is not asked first.
                return self._stop(0.0), _over(self._limits.memory_mb, "MB", "jobs.memory_mb")
            if time.monotonic() - began > self._limits.time_s:
                limit = _over(self._limits.time_s, "s", "jobs.time_limit_s")
                return self._stop(self._limits.end_s), limit

    def _memory_mb(self) -> float:
        total = 0
        for process in self._family():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total / 2**20

    def _family(self) -> list[psutil.Process]:
        return _with_descendants(self._process.pid)

    def _stop(self, patience_s: float) -> int:
        """Ask the process group to end, then kill it with everything that it has started."""
        if patience_s:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        children = self._family()[1:]
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        end_processes(children)
        return code


def _over(most: float, unit: str, setting: str) -> str:
    return f"it took more than the {most:,g} {unit} that the service's setting {setting} allows"


def _with_descendants(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _environment() -> dict[str, str]:
    """Environment of a run that is independent of this service's Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def _end_with(parent: int) -> None:
    """End this process and all its children when its parent has ended."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    end_processes(_with_descendants(os.getpid())[1:])
    os._exit(1)


def main() -> None:
    """Run the command line, as long as the parent lives."""
    parent = int(sys.argv.pop(1))
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    runpy.run_module("eqcctpro", run_name="__main__")


if __name__ == "__main__":
    main()
