"""Handling of Ctrl-C and SIGTERM: the first finishes work in flight, the second stops at once.

Python handles signals in the main thread only; a run in another thread is left alone by them.
Handlers that a program has installed itself stay, and so do signals that are ignored, as by
``nohup``: a run heeds only signals that would end the process.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn

__all__ = [
    "Interruption",
    "RunInterrupted",
    "raise_interrupt",
    "termination_interrupts",
]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterrupted(KeyboardInterrupt):
    """A run was interrupted, and its results so far are recorded.

    Parameters
    ----------
    message : str
        How far it came.
    hint : str, optional
        How to go on.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @classmethod
    def while_writing(cls, *, journal: bool) -> RunInterrupted:
        """Interruption after picking, before all results were written."""
        return cls(
            "interrupted while the results were written: all station tasks are picked",
            hint="the same command writes them"
            if journal
            else "without a journal the same command picks everything again",
        )


def raise_interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    """Signal handler that raises KeyboardInterrupt, for signals other than Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt inside the block instead of killing the process.

    Files that are being written are then removed, workers ended, and the record closed.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, raise_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Interruption:
    """Notes the first SIGINT or SIGTERM; a context manager.  The second raises.

    Calling it tells whether the first has come.

    Parameters
    ----------
    graceful : bool
        False leaves signals as they are.
    quiet : bool
        Say nothing.
    """

    def __init__(self, *, graceful: bool, quiet: bool) -> None:
        self._active = graceful and _in_main_thread()
        self._quiet = quiet
        self._asked = False
        self._earlier: dict[int, Any] = {}

    def __call__(self) -> bool:
        """True if the first signal has arrived."""
        return self._asked

    def __enter__(self) -> Interruption:
        if self._active:
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler in (signal.SIG_DFL, signal.default_int_handler, raise_interrupt):
                    self._earlier[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        if not self._quiet:
            with suppress(OSError, ValueError, AttributeError):  # there may be none
                sys.stderr.write("\nfinishing what is under way; once more stops at once\n")
                sys.stderr.flush()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
