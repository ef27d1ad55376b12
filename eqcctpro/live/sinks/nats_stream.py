"""NATS JetStream: a message for each version of a pick, kept by the server."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from eqcctpro.errors import SettingsError
from eqcctpro.live.outbox import Entry
from eqcctpro.live.sinks.base import Sink
from eqcctpro.live.sinks.payload import FORMATS_OPTION, payload_of, topic_of

__all__ = ["NatsSink"]

T = TypeVar("T")

#: For so long a server knows ids of messages, and drops those that come again.
_KNOWN_S = 3600.0


class NatsSink(Sink):
    """Messages of ``SUBJECT.NETWORK.STATION.PHASE``, each with its id and version as message id.

    Where no stream takes these subjects, one is made, named after the subject.
    """

    schemes: ClassVar[tuple[str, ...]] = ("nats", "natss")
    options: ClassVar[tuple[str, ...]] = ("timeout", "stream", *FORMATS_OPTION)
    extra: ClassVar[str] = "nats"
    library: ClassVar[str] = "nats"

    def check(self) -> None:
        """Check host, subject and options."""
        self.target.require("host", self.target.host)
        self._subject = self.target.require("subject, as in nats://HOST/picks", self.target.path)
        if not re.fullmatch(r"[^\s.*>]+(\.[^\s.*>]+)*", self._subject):
            raise SettingsError(
                f"sink {self.target.name}: {self._subject!r} is no subject",
                hint="words with dots between them, without blanks, * and >",
            )
        self._timeout_s = self.target.number("timeout", 10, 0.1, 3600)
        self._payload = payload_of(self.target)
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Connect, and make the stream if there is none."""
        self._loop = asyncio.new_event_loop()
        # In a thread of its own, which answers the server's pings while nothing is sent.
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="eqcctpro-sink-nats-loop", daemon=True
        )
        self._thread.start()
        self._connection: Any = None
        self._run(self._connect())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(self._timeout_s * 3)
        except BaseException:
            future.cancel()
            raise

    async def _connect(self) -> None:
        import nats
        from nats.js.errors import NotFoundError

        async def ignore(_: Exception) -> None:
            """What fails is raised where it was called."""

        port = self.target.port or 4222
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        self._connection = await nats.connect(
            f"{'tls' if self.target.scheme == 'natss' else 'nats'}://{host}:{port}",
            user=self.target.user or None,
            password=self.target.password or None,
            connect_timeout=max(int(self._timeout_s), 1),
            allow_reconnect=False,
            error_cb=ignore,
        )
        self._stream = self._connection.jetstream(timeout=self._timeout_s)
        subjects = f"{self._subject}.>"
        try:
            await self._stream.find_stream_name_by_subject(subjects)
        except NotFoundError:
            name = self.target.options.get("stream") or re.sub(r"\W", "_", self._subject)
            await self._stream.add_stream(name=name, subjects=[subjects], duplicate_window=_KNOWN_S)

    def send(self, entries: Sequence[Entry]) -> None:
        """Publish messages, and wait until the server has stored all of them."""
        self._run(self._publish(entries))

    async def _publish(self, entries: Sequence[Entry]) -> None:
        await asyncio.gather(
            *(
                self._stream.publish(
                    ".".join((self._subject, *topic_of(message))),
                    self._payload(message).encode(),
                    headers={"Nats-Msg-Id": message.key},
                )
                for _, message in entries
            )
        )

    def close(self) -> None:
        """Disconnect."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        if self._connection is not None:
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._connection.close(), loop).result(1.0)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(1.0)
        if not self._thread.is_alive():
            loop.close()
