"""ASGI application: routes of the service's interface."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eqcctpro import __version__
from eqcctpro.serving.description import describe_interface
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.gate import Gate, answer_problem
from eqcctpro.serving.metrics import CONTENT_TYPE_LATEST
from eqcctpro.serving.problems import PROBLEM_TYPE, InvalidProblem, Problem, problem_body
from eqcctpro.serving.routes import STREAM
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.waveforms import MINISEED
from eqcctpro.serving.work import WORK, Work

__all__ = ["create_app"]


class _Records(Response):
    """miniSEED."""

    media_type = MINISEED


def create_app(service: Service, *routers: Any) -> Callable[..., Awaitable[None]]:
    """The service as an ASGI application.

    Parameters
    ----------
    service : Service
    *routers : fastapi.APIRouter
        More routes.
    """
    settings = service.settings
    app = FastAPI(
        title="EQCCTPro",
        version=__version__,
        # What FastAPI brings for these loads scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        root_path=settings.http.root_path,
    )
    app.state.service = service
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(Exception, _answer_problem)  # which the gate logs
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    _add_state(app, service)
    for router in routers:
        app.include_router(router)
    describe_interface(app, service)
    work = Work(service)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["state"]["exchange"].path in WORK:
            await work(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "HEAD" and not _streams(scope):
            await app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await app(scope, receive, send)

    return Gate(_wrapped(inner, settings), work, _wrapped(answer_problem, settings), service)


def _streams(scope: Scope) -> bool:
    return bool(scope["state"]["exchange"].path == STREAM)


def _without_body(send: Send) -> Send:
    """Answer HEAD requests: the headers of GET without its body."""

    async def pass_on(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return pass_on


def _wrapped(inner: ASGIApp, settings: ServeSettings) -> ASGIApp:
    """Add middleware for compression and CORS."""
    inner = GZipMiddleware(inner, minimum_size=settings.http.compress_from_bytes, compresslevel=5)
    if settings.http.cors_origins:
        inner = CORSMiddleware(
            inner,
            allow_origins=list(settings.http.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=list(settings.http.cors_headers),
            expose_headers=["X-Request-ID", "X-Served-Name", "Retry-After", "traceparent"],
            max_age=settings.http.cors_max_age_s,
        )
    return inner


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        """Return the served models, the default first, and loads in progress or failed."""
        who = request.scope["state"]["exchange"].identity
        return _json(service.model_facts(all_reasons=service.guard.is_administrator(who)))

    @app.get("/v1/status")
    async def status() -> Response:
        """Return the state of this replica, for people."""
        return _json(service.facts())

    @app.get("/v1/example", response_class=_Records)
    async def example() -> Response:
        """A synthetic record with an earthquake, to try the service with."""
        return _Records(example_miniseed())

    @app.get("/health/startup")
    async def startup() -> Response:
        return _json({"status": "started", "since": service.started})

    @app.get("/health/live")
    async def live() -> Response:
        return _probe("alive", "broken", service.dead)

    @app.get("/health/ready")
    async def ready() -> Response:
        return _probe("ready", "not ready", service.not_ready)

    @app.get(service.settings.metrics.path, include_in_schema=False)
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _probe(good: str, bad: str, problem: str | None) -> Response:
    if problem is None:
        return _json({"status": good})
    return _json({"status": bad, "reason": problem}, 503)


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _answer_problem(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, Problem) else Problem("the service failed")
    exchange = request.scope["state"]["exchange"]
    exchange.problem = problem
    return Response(
        problem_body(problem, exchange.request_id),
        problem.status,
        headers=problem.headers,
        media_type=PROBLEM_TYPE,
    )


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return await _answer_problem(request, InvalidProblem(f"{where}: {first['msg']}"))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    problem = Problem(str(error.detail), headers=headers)
    problem.status, problem.title = error.status_code, str(error.detail)
    return await _answer_problem(request, problem)


def _methods(request: Request) -> list[str]:
    """HTTP methods that a path supports; each method is a separate route of the application."""

    def served(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    methods = [method for method in ("DELETE", "GET", "POST") if served(method)]
    heads = "GET" in methods and not _streams(request.scope)
    return sorted([*methods, "HEAD"] if heads else methods)
