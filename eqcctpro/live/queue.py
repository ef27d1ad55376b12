"""Queue of packets between the thread that receives them and the one that uses them."""

from __future__ import annotations

import threading
from collections import deque

from eqcctpro.live.packets import Packet

__all__ = ["PacketQueue"]


class PacketQueue:
    """Packets in batches, bounded by their bytes.

    A full queue makes `put` wait: the connection is read no further, and the server keeps what
    follows.  A batch is never larger than what was received at once.

    Parameters
    ----------
    most_bytes : int
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._batches: deque[list[Packet]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        """True if nothing more will be put in, and nothing is left."""
        return self._closed and not self._batches

    def put(self, batch: list[Packet]) -> bool:
        """Append packets; False if the queue was closed meanwhile."""
        size = sum(len(packet.record) for packet in batch)
        with self._changed:
            while self._bytes and self._bytes + size > self._most_bytes and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._batches.append(batch)
            self._bytes += size
            self._changed.notify_all()
        return True

    def take(self, timeout_s: float) -> list[Packet]:
        """All packets in it; an empty list after `timeout_s`, or once it is closed and empty."""
        with self._changed:
            if not self._batches and not self._closed:
                self._changed.wait(timeout_s)
            batches = list(self._batches)
            self._batches.clear()
            self._bytes = 0
            self._changed.notify_all()
        return (
            [packet for batch in batches for packet in batch] if len(batches) != 1 else batches[0]
        )

    def close(self) -> None:
        """Take no more; what is in it stays to be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
