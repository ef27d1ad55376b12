"""Connections that do not wait for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["timed_protocol"]


def timed_protocol(headers_timeout_s: float) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, with a limit of the time in which a request's headers must come.

    uvicorn itself ends connections that are silent between requests, but a client that opens
    one and sends nothing, or a letter a minute, keeps it.

    Parameters
    ----------
    headers_timeout_s : float
        From the connection, or from the end of keep-alive after an answer.
    """

    class TimedProtocol(HttpToolsProtocol):
        _answered_at: float | None = None
        _watched: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch(headers_timeout_s)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._watched is not None:
                self._watched.cancel()  # it would keep what the connection has held
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._answered_at = self.loop.time()
            super().on_response_complete()

        def _watch(self, seconds: float) -> None:
            self._watched = self.loop.call_later(seconds, self._glance)

        def _glance(self) -> None:
            if self.transport.is_closing():
                return
            cycle: Any = self.cycle  # None before the first request, whatever its type says
            if cycle is None:
                self.transport.close()
                return
            allowed = self.timeout_keep_alive + headers_timeout_s
            if not cycle.response_complete or self._answered_at is None:
                self._watch(allowed)
                return
            left = self._answered_at + allowed - self.loop.time()
            if left > 0:
                self._watch(left)
            else:
                self.transport.close()

    return TimedProtocol
