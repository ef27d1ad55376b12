"""Words to the service manager (systemd) that a run is ready, alive, or ending."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["notify"]


def notify(*words: str) -> bool:
    """Tell the service manager something, if there is one that wants to know.

    Parameters
    ----------
    *words : str
        Such as ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1`` or ``STATUS=text``; see
        ``sd_notify(3)``.

    Returns
    -------
    bool
        It was told.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # a name that is no file
        address = f"\0{address[1:]}"
    lines = (" ".join(word.split()) for word in words)
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
    ):
        manager.settimeout(1.0)
        manager.connect(address)
        manager.send("\n".join(lines).encode())
        return True
    return False
