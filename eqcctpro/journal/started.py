"""Which station tasks are under way: one byte for each, which outlives the process.

Only a hint for finding what a process died over, so it is not waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import StationTask

__all__ = ["StartedMarks", "WatchedTasks", "under_way"]

UNDER_WAY, ENDED = b"\x01", b"\x02"


class StartedMarks:
    """The marks of one attempt.

    Parameters
    ----------
    path : Path
        The file; an earlier one is replaced.
    size : int
        Largest key of a station task, and one more.

    Raises
    ------
    OSError
        The file cannot be written.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        os.write(self._descriptor, bytes(size))

    def begin(self, key: int) -> None:
        """Mark a station task as under way."""
        os.pwrite(self._descriptor, UNDER_WAY, key)

    def end(self, key: int) -> None:
        """Mark a station task as ended."""
        os.pwrite(self._descriptor, ENDED, key)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def under_way(path: Path) -> list[int]:
    """Keys of the station tasks that were under way when the marks were last written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    marks = np.frombuffer(content, dtype=np.uint8)
    return [int(key) for key in np.flatnonzero(marks == UNDER_WAY[0])]


class WatchedTasks(Sequence[StationTask]):
    """Station tasks that are marked as they are taken, and that stop coming when asked.

    Parameters
    ----------
    tasks : sequence of StationTask
    keys : ndarray of int
        Key in the marks of every station task, by its index in the plan.
    marks : StartedMarks, optional
    stop : callable
        Whether no more tasks are to be taken.
    """

    def __init__(
        self,
        tasks: Sequence[StationTask],
        keys: NDArray[Any],
        marks: StartedMarks | None,
        stop: Callable[[], bool],
    ) -> None:
        self._tasks = tasks
        self._keys = keys
        self._marks = marks
        self._stop = stop

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> StationTask: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StationTask]: ...
    def __getitem__(self, index: int | slice) -> StationTask | Sequence[StationTask]:
        return self._tasks[index]

    def __iter__(self) -> Iterator[StationTask]:
        for task in self._tasks:
            if self._stop():
                return
            if self._marks is not None:
                self._marks.begin(int(self._keys[task.index]))
            yield task
