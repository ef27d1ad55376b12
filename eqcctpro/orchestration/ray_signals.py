"""Protection of the program's SIGTERM handler while Ray starts and ends in its process.

Ray puts its own handlers in the place of a program's, which exit with code 15, or print where
all threads are and kill the process, and leaves SIGTERM without any when it ends, although Python
still shows the one that was there.
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
# ray::RayLog::InstallFailureSignalHandler(char const*, bool)
CRASH_HANDLERS = "_ZN3ray6RayLog27InstallFailureSignalHandlerEPKcb"


def _saved_action(number: int) -> Callable[[], None]:
    """Save the system's action for a signal; return a function that restores it in any thread."""
    call = getattr(ctypes.CDLL(None), "sigaction", None)
    action = ctypes.create_string_buffer(ACTION_BYTES)
    if call is None or call(number, None, action) != 0:
        return lambda: None

    def restore() -> None:
        call(number, action, None)

    return restore


def _install_crash_handlers(ray: Any, restore: Callable[[], None]) -> None:
    """Let Ray install its crash handlers now, and remove the one of SIGTERM at once.

    It does so only once, by itself in the middle of a start, and a SIGTERM that came between that
    and the end of the start would print traces of the stack.
    """
    try:
        library = ctypes.CDLL(ray._raylet.__file__)
        install = getattr(library, CRASH_HANDLERS)
    except (AttributeError, OSError):  # a Ray that is built otherwise
        return
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        install(None, ctypes.c_bool(True))
        restore()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextmanager
def sigterm_kept(ray: Any) -> Iterator[None]:
    """Keep the handler of SIGTERM while Ray connects."""
    restore = _saved_action(signal.SIGTERM)
    _install_crash_handlers(ray, restore)
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
