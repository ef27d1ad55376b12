"""SIGTERM stays the program's own while Ray starts and ends in its process.

Ray puts its own handlers in the place of a program's, which exit with code 15 or kill the process,
and leaves SIGTERM without any when it ends, although Python still shows the one that was there.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["shut_down", "sigterm_kept"]

# More than any system's `struct sigaction` takes.
ACTION_BYTES = 512


def _saved_action(number: int) -> Callable[[], None]:
    """What puts the system's action for a signal back to what it is now, in any thread."""
    call = getattr(ctypes.CDLL(None), "sigaction", None)
    action = ctypes.create_string_buffer(ACTION_BYTES)
    if call is None or call(number, None, action) != 0:
        return lambda: None

    def restore() -> None:
        call(number, action, None)

    return restore


@contextmanager
def sigterm_kept(ray: Any) -> Iterator[None]:
    """Keep the handler of SIGTERM while Ray connects."""
    restore = _saved_action(signal.SIGTERM)
    utils = ray._private.utils
    replaced = getattr(utils, "set_sigterm_handler", None)
    if replaced is not None:
        utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        if replaced is not None:
            utils.set_sigterm_handler = replaced
        restore()


def shut_down(ray: Any) -> None:
    """``ray.shutdown()`` with the handler of SIGTERM kept."""
    restore = _saved_action(signal.SIGTERM)
    node = getattr(ray._private.worker, "_global_node", None)
    end_processes = getattr(node, "kill_all_processes", None)

    def restore_first(*args: Any, **kwargs: Any) -> Any:
        restore()  # what follows takes a second
        return end_processes(*args, **kwargs)  # type: ignore[misc]

    if end_processes is not None:
        node.kill_all_processes = restore_first  # type: ignore[union-attr]
    try:
        ray.shutdown()
    finally:
        restore()
