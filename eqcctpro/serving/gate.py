"""Middleware of all requests: request id, authentication, admission, time limit."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eqcctpro.serving.callers import Callers
from eqcctpro.serving.pages import PAGES
from eqcctpro.serving.problems import (
    PROBLEM_TYPE,
    BusyProblem,
    GoneProblem,
    LateProblem,
    Problem,
    problem_body,
)
from eqcctpro.serving.security import Identity, is_batch, require_one_of_each
from eqcctpro.serving.service import Service
from eqcctpro.serving.tracing import Trace
from eqcctpro.serving.work import WORK

__all__ = ["Gate", "answer_problem", "request_facts", "request_id_of"]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_OPEN = frozenset({"/health/startup", "/health/live", "/health/ready", "/v1/session"})
_PAGES = frozenset({*PAGES, "/openapi.json"})
# What metrics tell apart; anything else that clients think of is one name.
_ENDPOINTS = frozenset(
    {*WORK, *_OPEN, *_PAGES, "/v1/models", "/v1/jobs", "/v1/picks/stream", "/v1/status"}
)

_log = logging.getLogger("eqcctpro.serving.access")


@dataclass(slots=True)
class _Exchange:
    """One request and its answer."""

    send: Send
    path: str
    received_headers: dict[bytes, bytes]
    request_id: str
    headers: list[tuple[bytes, bytes]]
    status: int = 0
    size: int = 0
    received: int = 0
    address: str = ""
    identity: Identity | None = None
    batch: bool = False
    problem: Problem | None = None
    trace: Trace | None = None
    complete: bool = False
    started: float = field(default_factory=time.perf_counter)

    async def pass_on(self, message: Message) -> None:
        """Send a message of the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.headers]
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self.send(message)


async def answer_problem(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    """ASGI application that answers with the problem of the exchange."""
    exchange: _Exchange = scope["state"]["exchange"]
    problem = exchange.problem or Problem("the service failed")
    body = problem_body(problem, exchange.request_id)
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Gate:
    """Middleware that admits requests to the application, or answers with an error.

    Parameters
    ----------
    app : ASGI application
        For all paths, with what compresses answers and heeds origins.
    work : ASGI application
        The same for the paths of `WORK`, without these.
    refusal : ASGI application
        `answer_problem`, with what heeds origins: pages elsewhere may read it, too.
    service : Service
    """

    def __init__(self, app: ASGIApp, work: ASGIApp, refusal: ASGIApp, service: Service) -> None:
        self._app = app
        self._work = work
        self._refusal = refusal
        self._service = service
        self._origins = bool(service.settings.http.cors_origins)
        self._callers = Callers(service.settings.http, behind_proxy=service.settings.behind_proxy)
        self._metrics_path = service.settings.metrics.path
        self._answer_headers = _answer_headers(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers)
        own = [(b"x-request-id", request_id.encode()), *self._answer_headers]
        if self._service.ending:
            own.append((b"connection", b"close"))  # the next request goes elsewhere
        exchange = _Exchange(send, _path(scope), headers, request_id, own)
        scope.setdefault("state", {})["exchange"] = exchange
        tracer = self._service.tracer
        if tracer is not None and not self._is_probe(exchange.path):
            endpoint = _endpoint(exchange.path)
            exchange.trace = trace = tracer.begin(f"{scope['method']} {endpoint}", headers)
            own.append((b"traceparent", trace.traceparent.encode()))

        async def refuse(problem: Problem) -> None:
            exchange.problem = problem
            if not exchange.status:  # no answer has begun
                await self._refusal(scope, receive, exchange.pass_on)

        try:
            await self._handle(scope, receive, exchange)
        except Problem as problem:
            await refuse(problem)
        except TimeoutError:
            await refuse(self._late())
        except asyncio.CancelledError:
            # Ray Serve's proxy cancels the request of a client that has left.
            exchange.problem = GoneProblem("the client left")
            raise
        except Exception:  # whatever it is, the log has all of it and the client an answer
            _log.exception("request %s failed", request_id)
            await refuse(Problem("the service failed", hint="its log says more"))
        finally:
            self._note(scope, exchange)

    async def _handle(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        path, service, headers = exchange.path, self._service, exchange.received_headers
        exchange.address = self._callers.address(scope)
        if not path.startswith("/health/"):  # what watches over it may know its address only
            self._callers.check(scope)
            require_one_of_each(scope["headers"])
        if scope["state"].get("crowded") and not path.startswith("/health/"):
            seconds = str(service.settings.limits.retry_after_s)
            raise BusyProblem(
                f"{service.settings.limits.connections} connections are open",
                hint=f"ask again in {seconds} s, and close connections after use",
                headers={"Retry-After": seconds, "Connection": "close"},
            )
        if not self._is_open(path) and scope["method"] != "OPTIONS":
            identity = service.guard.identify(headers, exchange.address)
            service.guard.count(identity)
            exchange.identity = identity
        if path not in WORK:
            await self._app(scope, receive, exchange.pass_on)
            return
        if exchange.identity is not None:
            exchange.batch = is_batch(scope["headers"], exchange.identity)
        # A place is for what is worked on; it is taken when the body has come.
        service.require_place(batch=exchange.batch)
        async with asyncio.timeout(service.settings.limits.request_timeout_s):
            app = self._app if self._needs_more(headers) else self._work
            await app(scope, receive, exchange.pass_on)

    def _needs_more(self, headers: dict[bytes, bytes]) -> bool:
        """True if the answer may have to be compressed, or CORS headers depend on the origin."""
        return b"gzip" in headers.get(b"accept-encoding", b"") or (
            self._origins and b"origin" in headers
        )

    def _is_open(self, path: str) -> bool:
        security = self._service.settings.security
        if path in _OPEN:
            return True
        if path == self._metrics_path:
            return security.open_metrics
        return path in _PAGES and security.open_page

    def _is_probe(self, path: str) -> bool:
        return path == self._metrics_path or path.startswith("/health/")

    def _late(self) -> LateProblem:
        limit = self._service.settings.limits.request_timeout_s
        return LateProblem(
            f"there was no answer in {limit:g} s", hint="send less in a request, or ask later"
        )

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        """Count the request in the metrics and log it."""
        seconds = time.perf_counter() - exchange.started
        path = exchange.path
        endpoint = _endpoint(path)
        status = exchange.status
        if isinstance(exchange.problem, GoneProblem):
            status = GoneProblem.status
            self._service.metrics.abandoned.inc()
        probe = self._is_probe(path)
        if not probe:
            metrics = self._service.metrics
            metrics.request_seconds.labels(endpoint, str(status)).observe(seconds)
            metrics.response_bytes.labels(endpoint).observe(exchange.size)
            if exchange.received:
                metrics.request_bytes.labels(endpoint).observe(exchange.received)
            if path in WORK and status == 200:
                self._service.note_duration(seconds)
        if exchange.trace is not None:
            problem = exchange.problem
            exchange.trace.end(
                status,
                None if problem is None else problem.message,
                {
                    "http.request.method": scope["method"],
                    "http.route": endpoint,
                    "eqcctpro.request_id": exchange.request_id,
                },
            )
        logs = self._service.settings.logs
        if logs.access and (logs.probes or not probe or status >= 400):
            _log.info(
                "%s %s %d",
                scope["method"],
                path,
                status,
                extra={
                    "request": request_facts(
                        exchange.request_id,
                        seconds,
                        (exchange.received, exchange.size),
                        exchange.identity,
                        exchange.problem,
                        exchange.trace,
                    )
                },
            )


def request_facts(
    request_id: str,
    seconds: float,
    sizes: tuple[int, int],
    identity: Identity | None,
    problem: Problem | None,
    trace: Trace | None = None,
) -> dict[str, Any]:
    """Facts of a request for the access log, by HTTP or gRPC.

    Parameters
    ----------
    request_id : str
    seconds : float
    sizes : tuple of int
        Bytes that were received and sent.
    identity : Identity or None
    problem : Problem or None
    trace : Trace, optional
    """
    received, sent = sizes
    facts: dict[str, Any] = {
        "request_id": request_id,
        "ms": round(seconds * 1000, 2),
        "bytes_in": received,
        "bytes_out": sent,
    }
    if identity is not None:
        facts["who"] = identity.name
    if problem is not None:
        facts["problem"] = problem.message
    if trace is not None:
        facts["trace_id"] = trace.trace_id
    return facts


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Request id that a client gave, or a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else _new_id()


_unused_ids: deque[str] = deque()


def _new_id() -> str:
    """128 random bits in hexadecimal; the kernel is asked for many at once.

    Each call of the kernel gives Python's lock away, which others take.
    """
    while True:
        try:
            return _unused_ids.pop()
        except IndexError:
            many = os.urandom(16 * 256).hex()
            _unused_ids.extend(many[at : at + 32] for at in range(0, len(many), 32))


def _endpoint(path: str) -> str:
    return path if path in _ENDPOINTS else "other"


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path


def _answer_headers(service: Service) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
        (
            b"content-security-policy",
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ]
    if service.settings.http.tls is not None:
        headers.append((b"strict-transport-security", b"max-age=31536000"))
    return headers
