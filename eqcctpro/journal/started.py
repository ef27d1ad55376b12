"""Marks of the station tasks in flight: a file of one byte per task that outlives the process.

They are only a hint for finding the tasks that killed a process, so they are not synced to disk.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import StationTask
from eqcctpro.journal.writing import remove, writing

__all__ = ["StartedMarks", "WatchedTasks", "under_way"]

UNDER_WAY, ENDED = 1, 2


class StartedMarks:
    """Marks of the station tasks in flight, of one attempt.

    Parameters
    ----------
    path : Path
        The file; an earlier one is replaced.
    plan : str
        Hash of the plan, in hexadecimal digits.
    size : int
        Largest key of a station task, and one more.

    Raises
    ------
    OutputError
        The file cannot be written.
    """

    def __init__(self, path: Path, plan: str, size: int) -> None:
        header = bytes.fromhex(plan)
        self._first = len(header)
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
            remove(path)
            with path.open("w+b") as file:
                # Written, not only extended: a full disk is noticed now, not at a mark.
                file.write(header + bytes(size))
                file.flush()
                # A mark is a store in memory: a system call would release the GIL each time.
                self._marks = mmap.mmap(file.fileno(), self._first + size)

    def begin(self, key: int) -> None:
        """Mark a station task as under way."""
        self._marks[self._first + key] = UNDER_WAY

    def end(self, key: int) -> None:
        """Mark a station task as ended."""
        self._marks[self._first + key] = ENDED

    def close(self) -> None:
        """Close the file."""
        self._marks.close()


def under_way(path: Path, plan: str) -> set[int]:
    """Keys of the station tasks that were in flight when the marks were last written.

    Empty if there are no marks, or if they belong to another plan.
    """
    try:
        content = path.read_bytes()
    except OSError:  # there are none, or the path is not a file
        return set()
    header = bytes.fromhex(plan)
    if not content.startswith(header):
        return set()
    marks = np.frombuffer(content, dtype=np.uint8, offset=len(header))
    return {int(key) for key in np.flatnonzero(marks == UNDER_WAY)}


class WatchedTasks(Sequence[StationTask]):
    """Station tasks that are marked when they are taken; the iteration ends on request.

    Parameters
    ----------
    tasks : sequence of StationTask
    keys : ndarray of int
        Key in the marks of every station task, by its index in the plan.
    marks : StartedMarks, optional
    stop : callable
        Returns True to end the iteration.
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
