"""Redis streams: an entry for each version of a pick."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from eqcctpro.live.outbox import Entry
from eqcctpro.live.sinks.base import Sink
from eqcctpro.live.sinks.payload import FORMATS_OPTION, payload_of

__all__ = ["RedisSink"]


class RedisSink(Sink):
    """Entries of a stream, with the fields ``id``, ``version``, ``status`` and ``pick`` (JSON).

    The number of the last message is kept beside the stream, in the same transaction: an entry is
    there once, whatever happened to the connection or to this process.
    """

    schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss")
    options: ClassVar[tuple[str, ...]] = ("db", "keep", "timeout", *FORMATS_OPTION)
    extra: ClassVar[str] = "redis"
    library: ClassVar[str] = "redis"

    def check(self) -> None:
        """Check host, stream and options."""
        self.target.require("host", self.target.host)
        self._stream = self.target.require("stream, as in redis://HOST/STREAM", self.target.path)
        self._database = int(self.target.number("db", 0, 0, 1e6))
        self._keep = int(self.target.number("keep", 1_000_000, 0, 1e12))
        self._timeout_s = self.target.number("timeout", 10, 0.1, 3600)
        self._payload = payload_of(self.target)
        self._client: Any = None

    def open(self) -> None:
        """Connect, and ask for the number of the last message that is there."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._client = redis.Redis(
            host=self.target.host,
            port=self.target.port or 6379,
            username=self.target.user or None,
            password=self.target.password or None,
            db=self._database,
            ssl=self.target.scheme == "rediss",
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            # A transaction that may have been done is not repeated without a look.
            retry=Retry(NoBackoff(), 0),
        )
        # The braces keep it on the node that has the stream, if there are several.
        self._cursor = f"{{{self._stream}}}:cursor:{self.place.outbox.identity}"
        self._number = int(self._client.get(self._cursor) or 0)

    def send(self, entries: Sequence[Entry]) -> None:
        """Add entries that are not there yet, all or none."""
        new = [entry for entry in entries if entry.number > self._number]
        if not new:
            return
        with self._client.pipeline(transaction=True) as pipe:
            for entry in new:
                one = entry.message
                fields = {
                    "id": one.id,
                    "version": one.version,
                    "status": one.status,
                    "pick": self._payload(one),
                }
                pipe.xadd(self._stream, fields, maxlen=self._keep or None, approximate=True)
            pipe.set(self._cursor, new[-1].number)
            pipe.execute()
        self._number = new[-1].number

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()
