"""Stream of picks in the order in which they were found, one log per owner."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence

import msgspec

from eqcctpro.serving.answers import PickRow

__all__ = ["Event", "PickLog", "PickLogs", "missed"]

_GLANCE_S = 0.05
# Picks that are kept of all together, in those that are kept of each: whoever has been silent
# for longest is forgotten first.
_TOGETHER = 10
_MOST_OWNERS = 10_000


class Event(msgspec.Struct, frozen=True):
    """A pick, and its place in the stream."""

    id: str
    pick: PickRow


def missed(last: str, event: Event) -> int:
    """Number of picks between an event's id and the next event that were already dropped."""
    name, _, number = last.rpartition("-")
    found, _, position = event.id.rpartition("-")
    # A client may send any letters, and the id of another log says nothing of this one.
    if name != found or not (number.isascii() and number.isdigit()):
        return 0
    return max(int(position) - int(number) - 1, 0)


class PickLog:
    """Last picks of an owner, numbered so that a client can resume.

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

    def __len__(self) -> int:
        return len(self._picks)

    @property
    def end(self) -> str:
        """Id of the last pick."""
        return f"{self._name}-{self._end}"

    def since(self, event_id: str, most: int = 500) -> list[Event]:
        """Picks after an event, as far as they are kept."""
        name, _, number = event_id.rpartition("-")
        with self._lock:
            first = self._end - len(self._picks)
            known = name == self._name and number.isascii() and number.isdigit()
            place = int(number) if known else -1
            position = max(place, first) if place <= self._end else first
            skip = position - first
            found = [
                self._picks[index] for index in range(skip, min(skip + most, len(self._picks)))
            ]
        return [
            Event(f"{self._name}-{position + offset}", pick)
            for offset, pick in enumerate(found, start=1)
        ]


class PickLogs:
    """Logs of all owners in the stream.

    Parameters
    ----------
    keep : int
        Picks that are kept of each.
    shared : bool
        Whether there is one log for all.
    """

    def __init__(self, keep: int, *, shared: bool = False) -> None:
        self._keep = keep
        self._shared = shared
        self._logs: OrderedDict[str, PickLog] = OrderedDict()
        self._lock = threading.Lock()

    def publish(self, picks: Sequence[PickRow], owner: str) -> None:
        """Add picks of an owner."""
        if not picks:
            return
        log = self.of(owner)
        log.publish(picks)
        with self._lock:
            total = sum(map(len, self._logs.values()))
            for name in list(self._logs):
                if total <= _TOGETHER * self._keep and len(self._logs) <= _MOST_OWNERS:
                    break
                if self._logs[name] is not log:
                    total -= len(self._logs.pop(name))

    def of(self, owner: str) -> PickLog:
        """Log of an owner."""
        name = "" if self._shared else owner
        with self._lock:
            log = self._logs.pop(name, None) or PickLog(self._keep)
            self._logs[name] = log
            while len(self._logs) > _MOST_OWNERS:
                self._logs.popitem(last=False)
        return log

    async def after(self, owner: str, event_id: str, wait_s: float) -> list[Event]:
        """Picks of an owner after an event; waits some seconds for the first if there are none."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        # Looked up each time: a log that was forgotten is another one when it comes back.
        while not (found := self.of(owner).since(event_id)) and loop.time() < until:
            await asyncio.sleep(_GLANCE_S)
        return found
