"""Folder with the state that the processes of a service on one machine share."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from eqcctpro import errors
from eqcctpro.errors import EQCCTProError, WorkerError

__all__ = ["VARIABLE", "StateFolder"]

#: Names the folder to the replicas.
VARIABLE = "EQCCTPRO_STATE_OF_SERVICE"

_GLANCE_S = 1.0
# How far the moment that a process began may seem to move when the clock is set.
_CLOCK_S = 5.0


@dataclass
class StateFolder:
    """Replicas that run or have broken, why one did not start, metrics, and the log's socket.

    Parameters
    ----------
    path : Path
    """

    path: Path
    _counted: tuple[float, int] = field(default=(0.0, 0), repr=False)

    @classmethod
    def of_environment(cls) -> StateFolder | None:
        """State folder named by this process's environment."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named)) if named else None

    @property
    def metrics(self) -> Path:
        """Folder in which replicas write their metrics."""
        return self.path / "metrics"

    @property
    def log_socket(self) -> Path:
        """Socket to which replicas send their log."""
        return self.path / "log"

    @property
    def _running(self) -> Path:
        return self.path / "running"

    @property
    def _broken(self) -> Path:
        return self.path / "broken"

    def make(self) -> None:
        """Create the folder's content."""
        for folder in (self.metrics, self._running, self._broken):
            folder.mkdir(parents=True, exist_ok=True)

    def note_start(self) -> None:
        """Record the start of a replica in this process."""
        (self._running / _own_name()).touch()

    def note_end(self) -> None:
        """Record the normal end of this process's replica, such as under less load."""
        (self._running / _own_name()).unlink(missing_ok=True)

    def note_break(self) -> None:
        """Record that this process's replica is broken."""
        self._move(_own_name())

    def restarts(self) -> int:
        """Number of replicas that broke or died, and were replaced."""
        now = time.monotonic()
        if now - self._counted[0] > _GLANCE_S:
            self._counted = now, self._count()
        return self._counted[1]

    def _count(self) -> int:
        try:
            for path in self._running.iterdir():
                if not _runs(path.name):
                    self._move(path.name)
            return sum(1 for _ in self._broken.iterdir())
        except OSError:  # the service has ended
            return 0

    def _move(self, name: str) -> None:
        with suppress(FileNotFoundError):  # another process was faster
            (self._running / name).replace(self._broken / f"{name}-{time.time_ns()}")

    def note_failure(self, error: EQCCTProError) -> None:
        """Record the reason why a replica failed to start."""
        content = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        (self.path / "failure.json").write_text(json.dumps(content), encoding="utf-8")
        self.note_break()

    def failure(self) -> EQCCTProError | None:
        """Reason of the last replica that failed to start."""
        try:
            content = json.loads((self.path / "failure.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        kind = getattr(errors, content["kind"], WorkerError)
        error: EQCCTProError = kind(content["message"], hint=content["hint"])
        return error


def _own_name() -> str:
    """Number of this process, and when it began, for numbers are used again."""
    return f"{os.getpid()}-{psutil.Process().create_time():.2f}"


def _runs(name: str) -> bool:
    pid, _, began = name.partition("-")
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(began)) < _CLOCK_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
