"""Pool of reusable background threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["BackgroundTask"]


class BackgroundTask:
    """Work in a background thread; nothing at the process's end waits for it.

    A thread that has done its work waits for the next task, whoever starts it, and does it on
    the cores of whoever does.  New threads would be given memory by the C library from one of
    its arenas after the other, in a process with many threads, and what each had of waveforms
    would stay with the arena.

    Parameters
    ----------
    work : callable
        Given this task.  It must not raise.
    """

    def __init__(self, work: Callable[[BackgroundTask], None]) -> None:
        self._work: Callable[[BackgroundTask], None] | None = work
        self._done = threading.Event()
        self._cores: set[int] = set()

    def start(self) -> None:
        """Start the work in a thread."""
        self._cores = _own_cores()
        try:
            thread = _idle.pop()
        except IndexError:
            thread = _Thread()
            thread.start()
        thread.tasks.put(self)

    def wait(self, seconds: float) -> bool:
        """Wait until it is done, at most so long; returns whether it is."""
        return self._done.wait(seconds)

    def carry_out(self) -> threading.Event:
        """Do the work in the calling thread; returns the event that marks its end."""
        if self._cores != _own_cores():
            os.sched_setaffinity(0, self._cores)
        # The work refers to this task, too: the cycle would keep both in memory.
        work, self._work = self._work, None
        if work is not None:
            work(self)
        return self._done


class _Thread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="eqcctpro-background", daemon=True)
        self.tasks: SimpleQueue[BackgroundTask] = SimpleQueue()

    def run(self) -> None:
        while True:
            done = self.tasks.get().carry_out()
            _idle.append(self)  # before anybody knows that it is
            done.set()


def _own_cores() -> set[int]:
    """Cores of the thread that calls, where the system tells."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


_idle: deque[_Thread] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a fork has none of these threads
