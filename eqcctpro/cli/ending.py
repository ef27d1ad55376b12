"""Signals while the process of a finished command ends."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

__all__ = ["end_at_signals", "ignore_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def ignore_signals() -> None:
    """Ignore them: Python gives its handlers up long before the process has ended."""
    _handle(signal.SIG_IGN)


def _handle(handler: object) -> None:
    with suppress(ValueError):  # not the main thread
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)  # type: ignore[arg-type]
