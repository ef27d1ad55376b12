"""All sinks of a live run: made from URLs, started and ended together."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from eqcctpro.errors import SettingsError
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.sinks.base import Place, Sink
from eqcctpro.live.sinks.jsonl import JsonLinesSink
from eqcctpro.live.sinks.kafka import KafkaSink
from eqcctpro.live.sinks.mqtt import MqttSink
from eqcctpro.live.sinks.nats_stream import NatsSink
from eqcctpro.live.sinks.postgresql import PostgresqlSink
from eqcctpro.live.sinks.publisher import Publisher, SinkState
from eqcctpro.live.sinks.redis_stream import RedisSink
from eqcctpro.live.sinks.spool import SpoolSink
from eqcctpro.live.sinks.tables import ParquetSink, SqliteSink
from eqcctpro.live.sinks.target import read_target
from eqcctpro.live.sinks.webhook import WebhookSink

__all__ = ["KINDS", "Sinks", "check_sinks", "open_sinks"]

KINDS: tuple[type[Sink], ...] = (
    *(JsonLinesSink, ParquetSink, SqliteSink),
    *(RedisSink, MqttSink, NatsSink, KafkaSink, PostgresqlSink, WebhookSink),
    SpoolSink,
)
"""All kinds of sinks."""

#: Sinks that every run has.
_ALWAYS = ("jsonl", "sqlite", "parquet")

_log = logging.getLogger("eqcctpro.live")


class Sinks:
    """Sinks of a run, each with a thread of its own; a context manager.

    Parameters
    ----------
    sinks : iterable of Sink
    place : Place
    """

    def __init__(self, sinks: Iterable[Sink], place: Place) -> None:
        self._publishers = [Publisher(sink, place) for sink in sinks]
        self._behind: list[str] | None = None
        place.outbox.open_cursors({one.name: one.sink.sends for one in self._publishers})

    def start(self) -> Sinks:
        """Begin to send."""
        for publisher in self._publishers:
            publisher.start()
        return self

    def state(self) -> list[SinkState]:
        """How each sink is doing."""
        return [publisher.state() for publisher in self._publishers]

    def close(self, timeout_s: float = 10.0) -> list[str]:
        """Let sinks take what waits for them, and end; a second call does nothing.

        Parameters
        ----------
        timeout_s : float
            Longest wait; what is left stays in the outbox for the next run.

        Returns
        -------
        list of str
            Names of sinks that have not taken everything.
        """
        if self._behind is not None:
            return self._behind
        deadline = time.monotonic() + timeout_s
        for publisher in self._publishers:
            publisher.finish(deadline)
        behind = []
        for publisher in self._publishers:
            # A call that hangs is left to the end of the process.
            ended = publisher.join(max(deadline - time.monotonic(), 0.0) + 0.5)
            if not ended or publisher.state().behind:
                behind.append(publisher.name)
        for name in behind:
            _log.warning("sink %s has not taken all picks; they wait for the next run", name)
        self._behind = behind
        return behind

    def __enter__(self) -> Sinks:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_sinks(urls: Sequence[str] = ()) -> list[Sink]:
    """Make the sinks of URLs, and those that every run has, without a connection.

    Raises
    ------
    SettingsError
        A URL is wrong, or given twice, or needs a library that is not installed.
    """
    kinds = {scheme: kind for kind in KINDS for scheme in kind.schemes}
    schemes = tuple(kinds)
    given = {read_target(url, None, schemes=schemes).name for url in urls}
    wanted = [*(name for name in _ALWAYS if name not in given), *urls]
    sinks: dict[str, Sink] = {}
    for url in wanted:
        target = read_target(url, None, schemes=schemes)
        if target.scheme not in kinds:
            raise SettingsError(
                f"sink {target.name}: {target.scheme!r} is no kind of sink",
                hint=f"one of {', '.join(schemes)}",
            )
        kind = kinds[target.scheme]
        sink = kind(read_target(url, kind.options))
        if sink.target.name in sinks:
            raise SettingsError(
                f"sink {sink.target.name} is given twice",
                hint="give one of them a name: ?name=SOMETHING",
            )
        sinks[sink.target.name] = sink
    return list(sinks.values())


def open_sinks(urls: Sequence[str], output: Path, outbox: Outbox) -> Sinks:
    """Sinks of a run, ready to be started.

    Parameters
    ----------
    urls : sequence of str
        As of ``--sink``; JSON lines, SQLite and Parquet are there without being named.
    output : Path
        Folder of the run.
    outbox : Outbox

    Raises
    ------
    SettingsError
        As in `check_sinks`.
    """
    return Sinks(check_sinks(urls), Place(output, outbox))
