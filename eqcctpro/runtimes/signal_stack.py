"""Keeps the alternate signal stack of a thread from being replaced by a library."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["own_signal_stack"]

_DISABLED = 2  # SS_DISABLE of Linux


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux, see ``sigaltstack(2)``."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """Put the alternate signal stack of this thread back to what it was before.

    OpenVINO gives one to the thread that loads its CPU plugin, and frees it when the plugin is
    released.  If another thread releases the plugin, the first one keeps a stack that is not
    there any more, and the next signal that Python handles, such as Ctrl-C, kills the process
    with SIGSEGV.
    """
    call = _sigaltstack()
    before = _Stack()
    known = call is not None and call(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known and call(ctypes.byref(before), None) != 0:
            # The system wants a larger one by now; without one, signals are handled on the
            # thread's own stack.
            call(ctypes.byref(_Stack(None, _DISABLED, 0)), None)


def _sigaltstack() -> Any:
    """The C library's function; None on systems where OpenVINO sets no stack."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "sigaltstack", None)
