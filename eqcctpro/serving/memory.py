"""Memory limit for all requests in progress, counted as they allocate it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TypeVar

from eqcctpro.serving.problems import BusyProblem, GoneProblem, Problem, TooLargeProblem

__all__ = ["Budget", "Share", "unlimited"]

T = TypeVar("T")

_MB = 2**20


class Budget:
    """Memory limit, in bytes, for all requests together.

    Nothing is set aside for what a request only announces: its share grows as bytes come, or are
    about to be made of them.

    Parameters
    ----------
    most : int
        Bytes.
    retry_after_s : int
        When those that are refused are told to ask again.
    """

    def __init__(self, most: int, retry_after_s: int = 1) -> None:
        self._most = most
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Open a share for one request, released at the end of it and of its threads."""
        share = Share(self)
        try:
            yield share
        finally:
            share.end()

    def move(self, n_bytes: int, held: int) -> None:
        """Take bytes for a share that holds some; less than none are given back.

        Raises
        ------
        TooLargeProblem
            There are not so many bytes.
        BusyProblem
            Other requests have them.
        """
        with self._lock:
            if n_bytes > 0 and self._used + n_bytes > self._most:
                if held + n_bytes > self._most:
                    raise TooLargeProblem(
                        f"the request takes {(held + n_bytes) / _MB:.0f} MB of memory, and there "
                        f"are {self._most / _MB:.0f}",
                        hint="send fewer stations or less time in a request",
                        headers={"Connection": "close"},
                    )
                raise BusyProblem(
                    f"requests of {(self._used - held) / _MB:.0f} MB are being worked on",
                    hint=f"ask again in {self._retry_after_s} s",
                    headers={"Retry-After": str(self._retry_after_s), "Connection": "close"},
                )
            self._used += n_bytes


class Share:
    """Memory that one request has taken from a budget.

    Parameters
    ----------
    budget : Budget

    Attributes
    ----------
    refused : BusyProblem or None
        With which it was told that others have the memory.
    """

    def __init__(self, budget: Budget) -> None:
        self.refused: BusyProblem | None = None
        self._budget = budget
        self._lock = threading.Lock()
        self._held = self._threads = 0
        self._ended = False

    def take(self, n_bytes: int) -> None:
        """Take more bytes, before they are allocated; a negative number gives some back.

        Raises
        ------
        TooLargeProblem, BusyProblem
            There are none.
        GoneProblem
            The request has ended: what works for it need not go on.
        """
        with self._lock:
            if self._ended and n_bytes >= 0:
                raise GoneProblem("the request has ended")
            try:
                self._budget.move(n_bytes, self._held)
            except BusyProblem as problem:
                self.refused = problem
                raise
            self._held += n_bytes

    @contextmanager
    def for_a_while(self, n_bytes: int) -> Iterator[None]:
        """Take bytes that are released at the end of the block."""
        self.take(n_bytes)
        try:
            yield
        finally:
            self.take(-n_bytes)

    def submit(self, lane: Executor, function: Callable[[], T]) -> Future[T]:
        """Call a function in a thread, which holds the share until it returns."""
        with self._lock:
            self._threads += 1
        future = lane.submit(_without_frames, function)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: object) -> None:
        with self._lock:
            self._threads -= 1
        self._give_back()

    def end(self) -> None:
        """Release everything, as soon as no thread works for the request."""
        with self._lock:
            self._ended = True
        self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            if self._ended and not self._threads:
                self._budget.move(-self._held, self._held)
                self._held = 0


def _without_frames(function: Callable[[], T]) -> T:
    """Call a function whose problems keep nothing of what it had in memory.

    The frames of a traceback hold their variables, such as the body that was refused, until the
    problem is answered, when the share has long been given back.
    """
    try:
        return function()
    except Problem as problem:
        problem.__context__ = problem.__cause__ = None
        raise problem.with_traceback(None) from None


def unlimited() -> Share:
    """A share of as much memory as is wanted."""
    return Share(Budget(2**63))
