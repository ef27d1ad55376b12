"""A live run: sources, picker, outbox and sinks, from the start to a clean end."""

from __future__ import annotations

import json
import logging
import logging.handlers
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eqcctpro.codes import Code
from eqcctpro.errors import OutboxFullError, OutputError, SettingsError
from eqcctpro.journal.lock import OutputLock
from eqcctpro.live.client import ServerAddress
from eqcctpro.live.http import LiveServer, address_of
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.packets import Checkpoint, Source, StationChoice
from eqcctpro.live.picker import LivePicker
from eqcctpro.live.service_manager import notify
from eqcctpro.live.settings import REPLAY, LiveConfig
from eqcctpro.live.sinks.opening import Sinks, check_sinks, open_sinks
from eqcctpro.live.sinks.target import fill_variables
from eqcctpro.live.sources import open_source
from eqcctpro.live.status import Delays, LiveStatus, write_status
from eqcctpro.orchestration.model_choice import describe, find_run_weights, fit_to_model
from eqcctpro.runtimes.select import load_picker, open_picker
from eqcctpro.times import NS_PER_S

__all__ = ["LiveRun", "live_picks", "run_live"]

_log = logging.getLogger("eqcctpro.live")

#: The outbox and the log of a run, in its folder.
OUTBOX, LOG = "state.sqlite", "live.log"
# Seconds between two looks at what has come, between checkpoints, and between writings of the
# status.
_TICK_S, _CHECKPOINT_S, _STATUS_S = 0.2, 5.0, 2.0
# Packets between two steps of the picker; with more, a step would take too long.
_PACKETS = 4096
# A step that takes longer delays arrivals that come meanwhile; patience does not count that time.
_SLOW_S = 1.0
# So far behind, the log says so.
_BEHIND_S = 5.0
# A checkpoint may take this share of the time.
_SHARE = 0.05
_LOG_BYTES, _LOGS = 10_000_000, 3
# A checkpoint that takes less is kept with every pick.
_CHEAP_S = 0.02
# Messages that wait while the disk is full.
_MOST_WAITING = 1_000_000


class _ArrivalClock:
    """Clock of arrivals, which stands still while the program is behind."""

    def __init__(self) -> None:
        self._last = time.time()
        self._slow_at = 0.0
        self.behind_s = 0.0

    def now(self, calm_s: float) -> float:
        """Time up to which all that arrived was read, seconds since 1970 UTC.

        Parameters
        ----------
        calm_s : float
            Seconds without delays after which earlier ones are forgotten.
        """
        now = time.time()
        late_s = now - self._last - _SLOW_S
        self._last = now
        if late_s > 0:
            self.behind_s += late_s
            self._slow_at = now
        elif now - self._slow_at > calm_s:
            self.behind_s = 0.0
        return now - self.behind_s


class LiveRun:
    """A run of the picker of real-time data; a context manager.

    Parameters
    ----------
    config : LiveConfig
    told : callable, optional
        Called with the status every two seconds, and at the end.

    Attributes
    ----------
    config : LiveConfig
    stop : threading.Event
        Ends the run when it is set, from any thread.
    status : LiveStatus

    Raises
    ------
    EQCCTProError
        Settings, the model, a source or the folder cannot be used.
    """

    def __init__(
        self, config: LiveConfig, told: Callable[[LiveStatus], None] | None = None
    ) -> None:
        self.config = config
        self.stop = threading.Event()
        self.status = LiveStatus()
        self._told = told
        self._streams: list[tuple[str, Source]] = []
        self._clock = _ArrivalClock()
        self._delays = Delays()
        self._counts: Counter[str] = Counter()
        # Messages that are not in the outbox.
        self._waiting: list[PickMessage] = []
        self._positions: dict[str, Any] = {}
        self._next_checkpoint = self._next_status = self._took_s = 0.0
        self._full = ""
        self._is_over = self._slow = False
        self._named: set[Code] = set()

    def __enter__(self) -> LiveRun:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        config = self.config
        check_sinks(config.sinks)
        key = fill_variables(config.http_key, "http_key")
        if config.http:
            address_of(config.http, key)
        weights = find_run_weights(config)
        described = load_picker(weights)
        config = self.config = fit_to_model(config, described)
        picker, settings = describe(config, weights, described)
        output = config.output
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {output}: {error.strerror or error}",
                hint="choose another folder with -o",
            ) from error
        stack.enter_context(OutputLock(output, "eqcctpro live"))
        stack.enter_context(_logged(output / LOG))
        limit_bytes = config.disk_limit * 1_000_000
        self._outbox = Outbox(output / OUTBOX, limit_bytes=limit_bytes)
        stack.callback(self._outbox.close)
        kept = self._kept(picker.name)
        _, runtime = open_picker(
            weights,
            runtime=config.runtime,
            device=config.device,
            batch_size=config.batch_size,
            threads=config.threads,
        )
        stack.callback(runtime.close)
        self.picker = LivePicker(picker, runtime, settings, patience_s=config.patience)
        self.picker.restore(kept.get("instruments", ()), time.time())
        self.status = LiveStatus.begun(picker.name, runtime.kind)
        self._positions = dict(kept.get("sources", {}))
        for url, source in self._sources():
            self._streams.append((url, source))
            stack.callback(source.close)
        self._sinks: Sinks = stack.enter_context(open_sinks(config.sinks, output, self._outbox))
        if config.http:
            server = LiveServer(config.http, self.status.as_dict, self._outbox, key=key)
            self.status.http = stack.enter_context(server).address
            _log.info("status, metrics and picks at %s", self.status.http)
        _log.info("picking with %s from %s", picker.name, ", ".join(map(_address, config.sources)))

    def _kept(self, model: str) -> dict[str, Any]:
        """Facts that the run before has kept, if there was one."""
        content = self._outbox.checkpoint()
        if content is None:
            return {}
        kept: dict[str, Any] = json.loads(content)
        if kept.get("model") != model:
            raise SettingsError(
                f"{self.config.output} holds a run with {kept.get('model')}, not with {model}",
                hint="choose another folder with -o, one for each model",
            )
        return kept

    def _sources(self) -> Iterator[tuple[str, Source]]:
        config = self.config
        choice = StationChoice(config.stations, config.exclude)
        start_ns = None
        if config.backfill is not None:
            start_ns = time.time_ns() - round(config.backfill * 60 * NS_PER_S)
        for url in config.sources:
            kept = self._positions.get(_address(url))
            checkpoint = None if kept is None else Checkpoint.from_json(kept)
            yield url, open_source(url, choice, (), checkpoint, start_ns)

    def batches(self) -> Iterator[list[PickMessage]]:
        """Messages about picks, as they are made; each is in the outbox when it is handed over.

        It ends when the run ends: at the time that was set, when `stop` is set, or when all
        sources have ended.  Leaving it early ends the run as well.
        """
        self.status.state = "running"
        notify("READY=1")
        ends_at = self._ends_at()
        self._clock = _ArrivalClock()
        self._report()
        try:
            while True:
                began = time.monotonic()
                over = self.stop.is_set() or (ends_at is not None and time.time() >= ends_at)
                if over:
                    break
                packets = self._read()
                self._waiting += self.picker.step(self._clock.now(self.config.patience))
                if committed := self._commit():
                    yield committed
                self._report()
                if not packets and all(source.ended for _, source in self._streams):
                    break
                if packets < _PACKETS:
                    self.stop.wait(max(began + _TICK_S - time.monotonic(), 0.0))
            if last := self._finish(ended=not over):
                yield last
        finally:
            if not self._is_over:  # an error, or nobody wants more
                self._ended("left early")

    def _ends_at(self) -> float | None:
        config = self.config
        if config.until_ns is not None:
            return config.until_ns / NS_PER_S
        return None if config.run_for is None else time.time() + config.run_for

    def _read(self) -> int:
        """Put what has come into the picker; return the number of packets."""
        count = 0
        for number, (_, source) in enumerate(self._streams):
            batch = source.read(0.0)
            count += len(batch)
            for at in range(0, len(batch), _PACKETS):
                if at:  # what is ripe frees memory
                    self._waiting += self.picker.step(self._clock.now(self.config.patience))
                self.picker.take(batch[at : at + _PACKETS], number)
        self.status.packets += count
        return count

    def _finish(self, *, ended: bool) -> list[PickMessage]:
        """Report the picks that are there at the end.

        Unless the data have ended, a restart goes on from before that: windows at the end of what
        has come are not those of the whole record.
        """
        self.status.state = "stopping"
        notify("STOPPING=1")
        if not ended:
            self._locate()
        self._waiting += self.picker.finish(ended=ended)
        if ended:
            self._locate()
        committed = self._commit(last=True)
        if self._waiting:
            raise OutputError(self._full, hint="make room, and start again")
        reason = "all data were picked" if ended else "the time is over"
        self._ended("stopped" if self.stop.is_set() else reason)
        return committed

    def _ended(self, reason: str) -> None:
        self._is_over = True
        self.status.state, self.status.reason = "ended", reason
        late = self._sinks.close()
        if late:
            _log.warning("picks wait in the outbox for %s", ", ".join(late))
        self._report(last=True)
        _log.info("ended: %s", reason)

    def _locate(self) -> None:
        """Note from where the sources are to send again after a restart."""
        for number, (url, source) in enumerate(self._streams):
            found = self.picker.positions(number, source.checkpoint())
            self._positions[_address(url)] = found.as_json()

    def _commit(self, *, last: bool = False) -> list[PickMessage]:
        """Put messages and the checkpoint into the outbox; return the messages."""
        began = time.monotonic()
        due = last or began >= self._next_checkpoint
        if not due and not self._waiting:
            return []
        checkpoint = None
        # Without it, a restart finds the picks once more, and the outbox knows them.
        if due or self._took_s < _CHEAP_S:
            if due and not last:
                self._locate()
            checkpoint = json.dumps(
                {
                    "model": self.picker.picker.name,
                    "sources": self._positions,
                    "instruments": self.picker.state(),
                },
                separators=(",", ":"),
            ).encode()
            self._took_s = time.monotonic() - began
        try:
            self._outbox.commit(self._waiting, checkpoint)
        except OutboxFullError as error:
            if not self._full:
                _log.error("%s", error)
            self._full = error.message
            if len(self._waiting) > _MOST_WAITING:
                raise
            return []
        self._full = ""
        if due:
            self._next_checkpoint = began + max(_CHECKPOINT_S, self._took_s / _SHARE)
        committed, self._waiting = self._waiting, []
        now = time.time()
        for message in committed:
            self._counts[message.status] += 1
            self._delays.add(now - message.received_ns / NS_PER_S)
        return committed

    def _report(self, *, last: bool = False) -> None:
        """Write the status, and name channels that are not picked."""
        now = time.monotonic()
        if not last and now < self._next_status:
            return
        self._next_status = now + _STATUS_S
        picker, status = self.picker, self.status
        for code in picker.left_out.keys() - self._named:
            self._named.add(code)
            _log.warning("not picked: %s: %s", ".".join(code), picker.left_out[code])
        unread = [text for _, one in self._streams for text in getattr(one, "problems", ())]
        for text in unread[len(status.unread) :]:
            _log.warning("not picked: %s", text)
        status.unread = unread
        outbox = self._outbox.state()
        status.updated = time.time()
        status.sources = [
            {
                "address": _address(url),
                "state": getattr(source, "state", "ended" if source.ended else "streaming"),
                "last_error": getattr(source, "last_error", ""),
                **source.counts.as_dict(),
            }
            for url, source in self._streams
        ]
        status.sinks = [asdict(one) for one in self._sinks.state()]
        status.stations = picker.station_states(status.updated)
        status.windows = picker.pipeline.windows
        status.picks = dict(self._counts)
        status.records = picker.buffers.counts.as_dict()
        status.left_out = {".".join(code): why for code, why in picker.left_out.items()}
        status.given_up = sum(one.given_up for one in picker.instruments.values())
        status.late_samples = sum(one.late for one in picker.instruments.values())
        status.behind_s = round(self._clock.behind_s, 1)
        status.delay_s = self._delays.as_dict()
        slow = status.behind_s > _BEHIND_S
        if slow != self._slow:
            self._slow = slow
            _log.warning("the run is %s", "behind what arrives" if slow else "no longer behind")
        behind = f"the run is {status.behind_s:.0f} s behind what arrives" if slow else ""
        status.alarms = [text for text in (self._full, outbox.alarm, behind) if text]
        with suppress(OSError):  # a full disk, which is told elsewhere
            write_status(self.config.output, status)
        notify("WATCHDOG=1", f"STATUS={status.state}, {status.picks.get('final', 0)} picks")
        if self._told is not None:
            self._told(status)


def _address(url: str) -> str:
    """An address without a password."""
    return url if url.startswith(REPLAY) else str(ServerAddress.parse(url))


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write the log of the package to a file as well, which begins anew at 10 MB."""
    logger = logging.getLogger("eqcctpro")
    try:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=_LOGS, encoding="utf-8", delay=False
        )
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    earlier = logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(earlier)
        logger.removeHandler(handler)
        handler.close()


def run_live(
    config: LiveConfig,
    *,
    stop: threading.Event | None = None,
    on_picks: Callable[[list[PickMessage]], None] | None = None,
    told: Callable[[LiveStatus], None] | None = None,
) -> LiveStatus:
    """Pick real-time data until the run ends; return its last status.

    Parameters
    ----------
    config : LiveConfig
    stop : threading.Event, optional
        Ends the run when it is set.
    on_picks : callable, optional
        Called with messages about picks, in the thread of the run, once they are in the outbox.
    told : callable, optional
        Called with the status every two seconds, and at the end.

    Raises
    ------
    EQCCTProError
        Settings, the model, a source or the folder cannot be used.
    """
    with LiveRun(config, told) as run:
        if stop is not None:
            run.stop = stop
        for messages in run.batches():
            if on_picks is not None:
                on_picks(messages)
        return run.status


def live_picks(config: LiveConfig, *, stop: threading.Event | None = None) -> Iterator[PickMessage]:
    """Iterate over messages about picks of real-time data, as they are made.

    They are in the outbox when they are handed over, and are sent to the sinks.  Nothing is picked
    while the caller is at work on one: use a thread for what takes long.  The run ends with the
    iteration, also when the caller leaves it early.

    Parameters
    ----------
    config : LiveConfig
    stop : threading.Event, optional
        Ends the iteration when it is set.

    Raises
    ------
    EQCCTProError
        As in `run_live`.
    """
    with LiveRun(config) as run:
        if stop is not None:
            run.stop = stop
        for messages in run.batches():
            yield from messages
