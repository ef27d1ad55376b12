"""The application: routes of the service's interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from eqcctpro import __version__
from eqcctpro.serving.answers import ANSWER_TYPES, choose_type
from eqcctpro.serving.bodies import read_options, read_waveforms, receive_body
from eqcctpro.serving.description import describe_interface
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.gate import PROBLEM_TYPE, Gate, problem_body
from eqcctpro.serving.metrics import CONTENT_TYPE_LATEST
from eqcctpro.serving.problems import GoneProblem, InvalidProblem, Problem
from eqcctpro.serving.service import Service
from eqcctpro.serving.waveforms import MINISEED

__all__ = ["create_app"]


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
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    _add_work(app, service)
    _add_state(app, service)
    for router in routers:
        app.include_router(router)
    describe_interface(app, service)
    inner: Any = app
    if settings.http.compression:
        inner = GZipMiddleware(
            inner, minimum_size=settings.http.compress_from_bytes, compresslevel=5
        )
    if settings.http.cors_origins:
        inner = CORSMiddleware(
            inner,
            allow_origins=list(settings.http.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=list(settings.http.cors_headers),
            allow_credentials=settings.http.cors_credentials,
            expose_headers=["X-Request-ID", "Retry-After"],
            max_age=settings.http.cors_max_age_s,
        )
    return Gate(inner, service)


def _add_work(app: FastAPI, service: Service) -> None:
    @app.post("/v1/pick")
    async def pick(request: Request) -> Response:
        return await _work(request, service, with_curves=False)

    @app.post("/v1/annotate")
    async def annotate(request: Request) -> Response:
        return await _work(request, service, with_curves=True)


async def _work(request: Request, service: Service, *, with_curves: bool) -> Response:
    """Read a request, pick it, and write the answer."""
    media_type = choose_type(request.headers.get("accept", ""), curves=with_curves)
    options = read_options(request)
    body = await receive_body(request, service.settings.limits)
    exchange = request.scope["state"]["exchange"]
    exchange.received = len(body)
    stages = service.metrics.stage_seconds
    started = time.perf_counter()
    waveforms = await read_waveforms(request, body)
    del body
    stages.labels("decode").observe(time.perf_counter() - started)
    async with _Present(request):
        answer = await service.pick(
            waveforms, options, exchange.request_id, with_curves=with_curves
        )
    started = time.perf_counter()
    write = ANSWER_TYPES[media_type]
    plain = media_type in ("application/json", "application/msgpack", "application/x-msgpack")
    content = write(answer) if plain and not with_curves else await asyncio.to_thread(write, answer)
    stages.labels("encode").observe(time.perf_counter() - started)
    return Response(content, media_type=media_type)


class _Present:
    """Cancels what is done inside when the client leaves."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._gone = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._watch = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError:
            if self._task is not None:
                self._task.uncancel()
            raise GoneProblem("the client left")


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> Response:
        return _json({"models": [engine.facts() for engine in service.engines.values()]})

    @app.get("/v1/status")
    async def status() -> Response:
        """How this replica is, for people."""
        return _json(service.facts())

    @app.get("/v1/example")
    async def example() -> Response:
        """A made-up record with an earthquake, to try the service with."""
        return Response(example_miniseed(), media_type=MINISEED)

    @app.get("/health/startup")
    async def startup() -> Response:
        return _json({"status": "started", "since": service.started})

    @app.get("/health/live")
    async def live() -> Response:
        return _probe("alive", "broken", service.dead)

    @app.get("/health/ready")
    async def ready() -> Response:
        return _probe("ready", "not ready", "stopping" if service.stopping else service.broken)

    if service.settings.metrics.enabled:

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
    problem = Problem(str(error.detail), headers=dict(error.headers or {}))
    problem.status, problem.title = error.status_code, str(error.detail)
    return await _answer_problem(request, problem)
