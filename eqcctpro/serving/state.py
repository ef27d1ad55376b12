"""What the processes of a service on one machine share: a folder."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from eqcctpro import errors
from eqcctpro.errors import EQCCTProError, WorkerError

__all__ = ["VARIABLE", "StateFolder"]

#: Names the folder to the replicas.
VARIABLE = "EQCCTPRO_SERVE_STATE"

_GLANCE_S = 1.0


@dataclass
class StateFolder:
    """Starts of replicas, why one did not start, metrics, and the socket of the log.

    Parameters
    ----------
    path : Path
    """

    path: Path
    _counted: tuple[float, int] = (0.0, 0)

    @classmethod
    def of_environment(cls) -> StateFolder | None:
        """The folder that this process was told of."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named)) if named else None

    @property
    def metrics(self) -> Path:
        """Where replicas keep their numbers."""
        return self.path / "metrics"

    @property
    def log_socket(self) -> Path:
        """Where replicas send their log."""
        return self.path / "log"

    def make(self) -> None:
        """Make what is inside."""
        for folder in (self.metrics, self.path / "starts"):
            folder.mkdir(parents=True, exist_ok=True)

    def note_start(self, desired: int) -> None:
        """Record that a replica is ready, and how many there should be."""
        (self.path / "starts" / f"{time.time_ns()}-{os.getpid()}").touch()
        (self.path / "desired").write_text(str(desired))

    def restarts(self) -> int:
        """Replicas that were started in place of others."""
        now = time.monotonic()
        if now - self._counted[0] > _GLANCE_S:
            try:
                starts = sum(1 for _ in (self.path / "starts").iterdir())
                desired = int((self.path / "desired").read_text())
            except (OSError, ValueError):
                starts = desired = 0
            self._counted = now, max(0, starts - desired)
        return self._counted[1]

    def note_failure(self, error: EQCCTProError) -> None:
        """Record why a replica did not start."""
        content = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        (self.path / "failure.json").write_text(json.dumps(content), encoding="utf-8")

    def failure(self) -> EQCCTProError | None:
        """Why the last replica that did not start did not."""
        try:
            content = json.loads((self.path / "failure.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        kind = getattr(errors, content["kind"], WorkerError)
        error: EQCCTProError = kind(content["message"], hint=content["hint"])
        return error
