"""Memory that was freed, back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import cache

__all__ = ["return_free_memory"]


def return_free_memory() -> None:
    """Have Python and the C library return what they hold of memory that is not used any more.

    Python keeps some thousand small objects for the next ones of their kind, each of which may
    be the last in a megabyte.  glibc keeps freed memory by thread, so that what one thread has
    used for waveforms is of no use to another that writes tables; other C libraries are left
    alone.
    """
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim
