"""Ctrl-C: once to finish what is under way, twice to stop at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interruption", "RunInterrupted"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterrupted(KeyboardInterrupt):
    """A run was interrupted, and what it had got is recorded.

    Parameters
    ----------
    message, hint : str
        How far it came, and how to go on.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


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
        # Python handles signals in the main thread only.
        self._active = graceful and threading.current_thread() is threading.main_thread()
        self._quiet = quiet
        self._asked = False
        self._earlier: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether the first signal has come."""
        return self._asked

    def __enter__(self) -> Interruption:
        if self._active:
            self._earlier = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        if not self._quiet:
            sys.stderr.write("\nfinishing what is under way; once more stops at once\n")
            sys.stderr.flush()
