"""Webhook: picks posted to an HTTP address as a JSON list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from eqcctpro.errors import SinkError
from eqcctpro.live.outbox import Entry
from eqcctpro.live.sinks.base import RejectedError, Sink

__all__ = ["WebhookSink"]

_REFUSALS = frozenset({400, 413, 415, 422})
_TIMEOUT_S = 10.0


class WebhookSink(Sink):
    """Requests with up to 100 picks; any answer of success takes them.

    The header ``Idempotency-Key`` is the same whenever the same picks are sent again.
    """

    schemes: ClassVar[tuple[str, ...]] = ("https", "http")
    options: ClassVar[tuple[str, ...] | None] = None
    extra: ClassVar[str] = "webhook"
    library: ClassVar[str] = "httpx"
    batch = 100

    def check(self) -> None:
        """Check that there is a host."""
        self.target.require("host", self.target.host)
        self._client: Any = None

    def open(self) -> None:
        """Make a client; it connects when there is something to send."""
        import httpx

        self._client = httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False)

    def send(self, entries: Sequence[Entry]) -> None:
        """Post picks."""
        body = "[" + ",".join(entry.message.as_json() for entry in entries) + "]"
        keys = "\n".join(entry.message.key for entry in entries)
        answer = self._client.post(
            self.target.url,
            content=body.encode(),
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": hashlib.sha256(keys.encode()).hexdigest(),
            },
        )
        if answer.is_success:
            return
        said = f"the server answered {answer.status_code} {answer.reason_phrase}"
        raise RejectedError(said) if answer.status_code in _REFUSALS else SinkError(said)

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()
