"""A thread for each sink, which sends it what the outbox holds behind its cursor."""

from __future__ import annotations

import logging
import random
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from eqcctpro.errors import EQCCTProError
from eqcctpro.live.outbox import Entry, Sends
from eqcctpro.live.sinks.base import NotYetError, Place, RejectedError, Sink
from eqcctpro.times import NS_PER_S

__all__ = ["DELAY_BOUNDS_S", "Publisher", "SinkState"]

#: Upper bounds of the classes of delays, in s; one more class holds what is longer.
DELAY_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
# A sink is told of messages at once; this is how often a thread looks whether it is to end.
_LOOK_EVERY_S = 0.5
_NOT_YET_S = 0.2

_log = logging.getLogger("eqcctpro.live")


@dataclass(slots=True)
class SinkState:
    """How a sink is doing; counts are since the start of the run.

    Attributes
    ----------
    name : str
        Its address without secrets.
    kind : str
        Scheme of its URL.
    send : {"first", "final", "all"}
    state : {"starting", "ok", "failing", "stopped"}
    sent : int
        Messages that it took.
    errors : int
        Failures to connect or to send.
    rejected : int
        Messages that it refused for what they hold, and that are not sent again.
    skipped : int
        Messages that the outbox had to remove before the sink took them, ever.
    behind : int
        Messages of the outbox behind its cursor, including those that it is not sent.
    lag_s : float
        Age of the oldest message that waits for it; 0 if none does.
    last_error : str
        Without secrets; empty after the next success.
    delays : list of int
        Messages by the time from their making until the sink had them, by `DELAY_BOUNDS_S`.
    delay_sum_s : float
    """

    name: str
    kind: str
    send: Sends
    state: Literal["starting", "ok", "failing", "stopped"] = "starting"
    sent: int = 0
    errors: int = 0
    rejected: int = 0
    skipped: int = 0
    behind: int = 0
    lag_s: float = 0.0
    last_error: str = ""
    delays: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BOUNDS_S) + 1))
    delay_sum_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Fields by name, for JSON."""
        return asdict(self)


class Publisher:
    """Thread that sends messages to one sink, again and again until it has them.

    Parameters
    ----------
    sink : Sink
    place : Place
    """

    def __init__(self, sink: Sink, place: Place) -> None:
        self.sink = sink
        self.name = sink.target.name
        sink.place = place
        self._outbox = place.outbox
        self._state = SinkState(self.name, sink.target.scheme, sink.sends)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._stop_at = float("inf")
        self._open = False
        self._number = 0
        self._thread = threading.Thread(
            target=self._run, name=f"eqcctpro-sink-{sink.target.scheme}", daemon=True
        )

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def finish(self, deadline: float) -> None:
        """Let it send what waits, until a time of `time.monotonic`; does not wait for it."""
        self._stop_at = deadline
        self._ending.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; True if it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def state(self) -> SinkState:
        """How the sink is doing now."""
        with self._lock:
            state = SinkState(**{**asdict(self._state), "delays": list(self._state.delays)})
        held = self._outbox.cursor(self.name)
        state.skipped = held.skipped
        state.behind = max(self._outbox.last - held.number, 0)
        oldest_ns = self._outbox.oldest_ns(held.number, self.sink.sends)
        if oldest_ns is not None:
            state.lag_s = max(time.time_ns() - oldest_ns, 0) / NS_PER_S
        return state

    # The thread.

    def _run(self) -> None:
        failures = 0
        while not self._is_over():
            try:
                if not self._open:
                    self._number = self._outbox.cursor(self.name).number
                    self.sink.open()
                    self._open = True
                self._send_next()
                failures = 0
            except NotYetError:
                self._pause(_NOT_YET_S)
            except Exception as error:
                failures += 1
                self._failed(error, failures)
                # With a random part, so that not all come back at once.
                longest = min(_FIRST_WAIT_S * 2 ** min(failures - 1, 10), _LONGEST_WAIT_S)
                self._pause(longest * random.uniform(0.5, 1.0))
        self.sink.close()
        with self._lock:
            self._state.state = "stopped"

    def _is_over(self) -> bool:
        if not self._ending.is_set():
            return False
        return time.monotonic() >= self._stop_at or self._number >= self._outbox.last

    def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the time that is left at the end."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < min(until, self._stop_at):
            if self._ending.is_set():
                time.sleep(min(until - now, self._stop_at - now, _LOOK_EVERY_S))
            else:
                self._ending.wait(until - now)

    def _send_next(self) -> None:
        if not self._outbox.wait(self._number, _LOOK_EVERY_S):
            self._succeeded([])
            return
        entries, last = self._outbox.follow(self._number, self.sink.batch, self.sink.sends)
        note = self._sent(entries) if entries else None
        self._outbox.advance(self.name, last, note)
        self._number = last
        self._succeeded(entries)
        if entries and self.sink.pause_s and not self._ending.is_set():
            self._ending.wait(self.sink.pause_s)

    def _sent(self, entries: Sequence[Entry]) -> str | None:
        """Send messages, one by one if one of them is refused."""
        try:
            return self.sink.send(entries)
        except RejectedError as error:
            if len(entries) > 1:
                notes = [self._sent([entry]) for entry in entries]
                return next((note for note in reversed(notes) if note is not None), None)
            with self._lock:
                self._state.rejected += 1
            _log.error(
                "sink %s refuses %s: %s",
                self.name,
                entries[0].message.key,
                self.sink.target.hide(str(error)),
            )
            return None

    def _succeeded(self, entries: Sequence[Entry]) -> None:
        now = time.time_ns()
        with self._lock:
            state = self._state
            if state.state == "failing":
                _log.warning("sink %s takes picks again", self.name)
            state.state, state.last_error = "ok", ""
            state.sent += len(entries)
            for entry in entries:
                delay_s = max(now - entry.message.created_ns, 0) / NS_PER_S
                state.delays[bisect_left(DELAY_BOUNDS_S, delay_s)] += 1
                state.delay_sum_s += delay_s

    def _failed(self, error: Exception, failures: int) -> None:
        said = (
            str(error) if isinstance(error, EQCCTProError) else f"{type(error).__name__}: {error}"
        )
        said = " ".join(self.sink.target.hide(said).split())[:500]
        with self._lock:
            self._state.errors += 1
            is_new = self._state.last_error != said
            self._state.state, self._state.last_error = "failing", said
        if is_new or failures == 1:
            _log.warning("sink %s fails, and is tried again: %s", self.name, said)
        self.sink.close()
        self._open = False
