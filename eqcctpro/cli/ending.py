"""Signals that end a command that serves until then, and while the process of any command ends."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

__all__ = ["end_at_signals", "end_now", "ignore_signals", "told_by_signals"]

SIGNALS = tuple(
    number for number in signal.Signals if number.name in {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"}
)


@contextmanager
def told_by_signals() -> Iterator[threading.Event]:
    """An event that signals set which would end the process; a second Ctrl-C raises, once.

    Once it is set, what handles signals stays: the process ends in its own way.

    Raises
    ------
    KeyboardInterrupt
        At the second Ctrl-C, wherever the program is.
    """
    told = threading.Event()
    interrupts = 0

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal interrupts
        told.set()
        interrupts += number == signal.SIGINT
        if number == signal.SIGINT and interrupts == 2:
            raise KeyboardInterrupt

    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    _handle(note)
    try:
        yield told
    finally:
        if not told.is_set():
            with suppress(ValueError):  # not the main thread
                for number, handler in earlier.items():
                    if handler is not None:
                        signal.signal(number, handler)


def end_at_signals(code: str | int | None) -> None:
    """Have signals end the process at once, with the exit code of the command.

    Threads that are waited for at the end may hang, as on a file system that does.

    Parameters
    ----------
    code : str, int or None
        As of `SystemExit`.
    """
    status = code if isinstance(code, int) else int(code is not None)

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        os._exit(status)

    with suppress(OSError):  # a pipe that nobody reads any more: Python says so at the end
        sys.stdout.flush()
        sys.stderr.flush()
    _handle(end)


def end_now(code: int) -> NoReturn:
    """End the process after what was registered for its end, without taking the interpreter apart.

    Threads of Ray and of the networks' libraries that were interrupted may be anywhere, and would
    crash in an interpreter of which half is gone.
    """
    with suppress(Exception):
        atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def ignore_signals() -> None:
    """Ignore them: Python gives its handlers up long before the process has ended."""
    _handle(signal.SIG_IGN)


def _handle(handler: object) -> None:
    with suppress(ValueError):  # not the main thread
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)  # type: ignore[arg-type]
