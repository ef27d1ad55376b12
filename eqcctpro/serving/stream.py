"""Everything that is picked, in the order in which it was, for those who listen."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Sequence

import msgspec

from eqcctpro.serving.answers import PickRow

__all__ = ["Event", "PickLog"]

_GLANCE_S = 0.05


class Event(msgspec.Struct, frozen=True):
    """A pick, and its place in the stream."""

    id: str
    pick: PickRow


class PickLog:
    """The last picks, with numbers by which a listener finds back.

    Ids begin with what names this log: after the service was started anew, an id of before is
    known to be of another one, and the listener gets everything that is still kept.

    Parameters
    ----------
    keep : int
        Picks that are kept.
    """

    def __init__(self, keep: int) -> None:
        self._picks: deque[PickRow] = deque(maxlen=keep)
        self._end = 0
        self._name = secrets.token_hex(4)
        self._lock = threading.Lock()

    def publish(self, picks: Sequence[PickRow]) -> None:
        """Add picks."""
        with self._lock:
            self._picks.extend(picks)
            self._end += len(picks)

    @property
    def end(self) -> str:
        """Id of the last pick."""
        return f"{self._name}-{self._end}"

    def since(self, event_id: str, most: int = 500) -> list[Event]:
        """The picks after an event, as far as they are kept."""
        name, _, number = event_id.rpartition("-")
        with self._lock:
            first = self._end - len(self._picks)
            known = name == self._name and number.isdigit()
            position = max(int(number), first) if known else first
            skip = position - first
            found = [
                self._picks[index] for index in range(skip, min(skip + most, len(self._picks)))
            ]
        return [
            Event(f"{self._name}-{position + offset}", pick)
            for offset, pick in enumerate(found, start=1)
        ]

    async def after(self, event_id: str, wait_s: float) -> list[Event]:
        """The picks after an event, or what comes within some seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while not (found := self.since(event_id)) and loop.time() < until:
            await asyncio.sleep(_GLANCE_S)
        return found
