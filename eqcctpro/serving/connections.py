"""Limits of connections: their number, idle time, and size of headers."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from eqcctpro.serving.problems import (
    PROBLEM_TYPE,
    HeadersProblem,
    MalformedProblem,
    Problem,
    problem_body,
)
from eqcctpro.serving.settings import LimitSettings

__all__ = ["BoundedProtocol", "bounded_protocol"]

# Beyond the limit, for probes and for answers that say why there is no more.
_RESERVED = 64
# Requests that a client may send before it has the answer to an earlier one.
_MOST_AHEAD = 16
# Bytes that are parsed at once: no header grows by more before it is counted.
_SLICE_BYTES = 16 * 1024
# For a client to read what is left of an answer to a connection that is closed.
_LINGER_S = 5.0

_log = logging.getLogger("eqcctpro.serving")


class _Connections:
    """Connections of a replica; idle ones in the order in which they became idle."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._n = 0
        self._idle: dict[BoundedProtocol, None] = {}

    def open(self, connection: BoundedProtocol) -> bool:
        """Count a connection, and end the longest idle one if that is one too many.

        Returns
        -------
        bool
            Whether there is room for it; if not, it is for probes.
        """
        self._n += 1
        full = self._n > self._most
        if full and self._idle:
            longest = next(iter(self._idle))
            self.has_work(longest)
            longest.transport.abort()
            full = False
        if self._n > self._most + _RESERVED:
            connection.transport.abort()
        self.is_idle(connection)
        return not full

    def closed(self, connection: BoundedProtocol) -> None:
        """Forget a connection."""
        self._n -= 1
        self._idle.pop(connection, None)

    def is_idle(self, connection: BoundedProtocol) -> None:
        """Note that a connection has no request."""
        self._idle[connection] = None

    def has_work(self, connection: BoundedProtocol) -> None:
        """Note that a connection has one."""
        self._idle.pop(connection, None)


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits for connections, idle time and headers.

    uvicorn itself ends connections that are silent between requests, but a client that opens
    one and sends nothing, or a letter a minute, keeps it; and it takes any number of headers.
    """

    limits: LimitSettings
    all_connections: _Connections

    _answered_at: float | None = None
    _watched: Any = None
    _lingers = False
    _problem: Problem | None = None
    # Of a request: bytes of the address and the headers, and their number; and bytes that were
    # parsed since the last one of which anything is known.
    _head_bytes = _n_headers = _pending_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Count the connection, and begin to wait for headers."""
        super().connection_made(transport)
        if not self.all_connections.open(self):
            self.app_state = {**self.app_state, "crowded": True}
        self._watch(self.limits.headers_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._watched is not None:
            self._watched.cancel()  # it would keep what the connection has held
        self.all_connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, a little at a time."""
        most = self.limits.max_header_kb * 1024
        for at in range(0, len(data), _SLICE_BYTES):
            if self.parser is None or self.transport.is_closing():
                return
            piece = data[at : at + _SLICE_BYTES] if len(data) > _SLICE_BYTES else data
            self._pending_bytes += len(piece)
            super().data_received(piece)
            if self._pending_bytes > most and not self.transport.is_closing():
                self._problem = self._too_long()
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._head_bytes = self._n_headers = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, also one behind a body."""
        self._n_headers += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, n_bytes: int) -> None:
        self._head_bytes += n_bytes
        limits = self.limits
        if self._head_bytes > limits.max_header_kb * 1024 or self._n_headers > limits.max_headers:
            self._problem = self._too_long()
            raise self._problem  # the parser stops, and `send_400_response` is called

    def _too_long(self) -> HeadersProblem:
        limits = self.limits
        return HeadersProblem(
            f"the address and the headers have more than {limits.max_header_kb:g} kB, or are more "
            f"than {limits.max_headers}",
            hint="send what is long in the body",
        )

    def on_headers_complete(self) -> None:
        """Begin to work on a request, or to keep it until earlier ones are answered."""
        self._pending_bytes = 0
        self.all_connections.has_work(self)
        super().on_headers_complete()
        if len(self.pipeline) > _MOST_AHEAD:
            self._problem = MalformedProblem(
                f"more than {_MOST_AHEAD} requests were sent ahead", hint="wait for answers"
            )
            raise self._problem

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a body."""
        self._pending_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._answered_at = self.loop.time()
        if not self.pipeline and not self.transport.is_closing():
            self.all_connections.is_idle(self)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or none that is read, and close the connection."""
        del msg  # uvicorn's, which says nothing
        problem = self._problem or MalformedProblem(
            "this is no HTTP request", hint="send HTTP/1.1; with TLS if the service has it"
        )
        request_id = uuid4().hex
        body = problem_body(problem, request_id)
        _log.warning(
            "a connection was refused: %s",
            problem.message,
            extra={"request": {"request_id": request_id, "client": (self.client or ("?",))[0]}},
        )
        answered = self.cycle is not None and self.cycle.response_started
        if not answered or self.cycle.response_complete:
            headers = (
                f"content-type: {PROBLEM_TYPE}\r\ncontent-length: {len(body)}\r\n"
                f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[problem.status] + headers.encode() + body)
        self.transport.close()

    def _watch(self, seconds: float) -> None:
        self._watched = self.loop.call_later(seconds, self._glance)

    def _glance(self) -> None:
        """End a connection that has waited long enough."""
        if self.transport.is_closing():
            # It is closed once everything is sent, which may be never.
            if self._lingers:
                self.transport.abort()
            else:
                self._lingers = True
                self._watch(_LINGER_S)
            return
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        if cycle is None:
            self.transport.close()
            return
        allowed = self.timeout_keep_alive + self.limits.headers_timeout_s
        if not cycle.response_complete or self._answered_at is None:
            self._watch(allowed)
            return
        left = self._answered_at + allowed - self.loop.time()
        if left <= 0:
            self.transport.close()
            self._lingers, left = True, _LINGER_S
        self._watch(left)


def bounded_protocol(limits: LimitSettings) -> type[BoundedProtocol]:
    """A protocol for the connections of one listener.

    Parameters
    ----------
    limits : LimitSettings
    """

    class Protocol(BoundedProtocol):
        pass

    Protocol.limits = limits
    Protocol.all_connections = _Connections(limits.connections)
    return Protocol
