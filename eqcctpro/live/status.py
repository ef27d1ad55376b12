"""Status of a live run, as a file in its folder that others read."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eqcctpro.errors import InputError
from eqcctpro.journal.lock import holder_at_work

__all__ = ["STATUS_FILE", "LiveStatus", "read_status", "write_status"]

STATUS_FILE = "status.json"
# Picks whose delays are kept.
_DELAYS = 1000

State = Literal["starting", "running", "stopping", "ended", "dead"]


@dataclass(slots=True)
class LiveStatus:
    """Numbers of a live run.

    Attributes
    ----------
    state : {"starting", "running", "stopping", "ended", "dead"}
        ``dead``: it ended without a word.
    reason : str
        Why it ended.
    pid, host : int, str
    model, runtime : str
    http : str
        Address at which it answers; empty if it does not.
    started, updated : float
        Seconds since 1970 UTC.
    sources : list of dict
        Address, state, last error, and counts of each.
    sinks : list of dict
    stations : dict of str to int
        By state: ``live``, ``hole``, ``stale`` or ``dead``; each is in the best one that any
        of its channels is in.
    packets, windows : int
    picks : dict of str to int
        Messages by status.
    records : dict of str to int
        See `eqcctpro.live.buffers.BufferCounts`.
    left_out : dict of str to str
        Channels that are not picked, with the reason.
    unread : list of str
        Files of a replay that cannot be read, with the reason.
    given_up : int
        Windows that waited in vain for a component.
    late_samples : int
        That came when their windows had been decided, and were not picked.
    behind_s : float
        How far the run is behind what has arrived, seconds.
    delay_s : dict of str to float
        ``p50`` and ``p99`` of the time from the arrival of the data that decided a pick until it
        was in the outbox.
    alarms : list of str
        What is wrong, in sentences.
    """

    state: State = "starting"
    reason: str = ""
    pid: int = 0
    host: str = ""
    model: str = ""
    runtime: str = ""
    http: str = ""
    started: float = 0.0
    updated: float = 0.0
    sources: list[dict[str, Any]] = field(default_factory=list)
    sinks: list[dict[str, Any]] = field(default_factory=list)
    stations: dict[str, int] = field(default_factory=dict)
    packets: int = 0
    windows: int = 0
    picks: dict[str, int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    given_up: int = 0
    late_samples: int = 0
    behind_s: float = 0.0
    delay_s: dict[str, float] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)

    @classmethod
    def begun(cls, model: str, runtime: str) -> LiveStatus:
        """Status at the start of this process's run."""
        now = time.time()
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            model=model,
            runtime=runtime,
            started=now,
            updated=now,
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, as values of JSON."""
        return asdict(self)


class Delays:
    """Delays of the last picks."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_DELAYS)

    def add(self, delay_s: float) -> None:
        """Note the delay of a pick."""
        self._last.append(delay_s)

    def as_dict(self) -> dict[str, float]:
        """Median and 99th percentile, if there are any picks."""
        if not self._last:
            return {}
        p50, p99 = np.percentile(np.array(self._last), (50, 99)).tolist()
        return {"p50": round(p50, 3), "p99": round(p99, 3)}


def write_status(folder: Path, status: LiveStatus) -> None:
    """Replace the status file of a folder.

    Raises
    ------
    OSError
        It cannot be written.
    """
    path = folder / STATUS_FILE
    part = path.with_name(f"{STATUS_FILE}.part")
    part.write_text(json.dumps(status.as_dict()), encoding="utf-8")
    part.replace(path)


def read_status(folder: Path) -> LiveStatus:
    """Status of the live run in a folder, also if it is dead.

    Raises
    ------
    InputError
        There is none, or it cannot be read.
    """
    path = folder / STATUS_FILE
    try:
        status = LiveStatus(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no live run", hint="name the folder that eqcctpro live wrote to"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if status.state != "ended" and holder_at_work(folder) is None:
        status.state = "dead"
    return status
