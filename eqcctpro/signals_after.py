"""Deferral of Ctrl-C and SIGTERM during work that must not be broken off, such as imports."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["signals_after"]


@contextmanager
def signals_after() -> Iterator[None]:
    """Defer signals that arrive inside the block until its end.

    An import that is broken off leaves half a module, with which no later import works; and
    libraries in C++ say of it that they cannot be loaded.
    """
    earlier: dict[int, Any] = {}
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        came.append(number)

    if threading.current_thread() is threading.main_thread():
        for held in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(held)):
                earlier[held] = handler
                signal.signal(held, note)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
