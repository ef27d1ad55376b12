"""Routes beside picking: sessions, the stream of picks, jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from eqcctpro.serving.bodies import receive_body
from eqcctpro.serving.hub import Hub
from eqcctpro.serving.jobs import JobRequest
from eqcctpro.serving.problems import (
    BusyProblem,
    InvalidProblem,
    MalformedProblem,
    MediaTypeProblem,
)
from eqcctpro.serving.security import COOKIE, Identity
from eqcctpro.serving.service import Service

__all__ = ["STREAM", "job_routes", "session_routes", "stream_routes"]

#: Path of the stream, which has no end.
STREAM = "/v1/picks/stream"

# How long a listener is unheard of when the service ends.
_GLANCE_S = 0.5


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(content), status, headers=headers, media_type="application/json"
    )


def _who(request: Request) -> Identity:
    """Who asks, as the gate has found out."""
    identity: Identity = request.scope["state"]["exchange"].identity
    return identity


def session_routes(service: Service) -> APIRouter:
    """Logging in and out."""
    router = APIRouter(tags=["session"])
    security, secure = service.settings.security, service.settings.http.tls is not None

    @router.post("/v1/session")
    async def log_in(request: Request) -> Response:
        """A token for a name and a password (HTTP Basic); also as a cookie."""
        headers = dict(request.scope["headers"])
        service.count_login(request.scope["state"]["exchange"].address)
        # Checking a password takes long on purpose.
        session = await asyncio.to_thread(service.guard.log_in, headers)
        answer = _json(
            {
                "token": session.token,
                "name": session.name,
                "expires_in_s": session.expires_in_s,
            }
        )
        answer.set_cookie(
            COOKIE,
            session.token,
            max_age=int(session.expires_in_s),
            httponly=True,
            secure=secure,
            samesite=security.same_site,
            path="/",
        )
        return answer

    @router.get("/v1/session")
    async def session(request: Request) -> Response:
        """Who asks, and whether there is anybody to sign in as."""
        headers = dict(request.scope["headers"])
        found = service.guard.identify(headers, request.scope["state"]["exchange"].address)
        return _json({"name": found.name, "kind": found.kind, "sign_in": security.can_authenticate})

    @router.delete("/v1/session", status_code=204)
    async def log_out() -> Response:
        """Forget the cookie; a token that was kept elsewhere is good until it expires."""
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    return router


def stream_routes(service: Service, hub: Hub) -> APIRouter:
    """The stream of picks."""
    router = APIRouter(tags=["stream"])
    settings = service.settings.stream
    listeners = 0

    @router.get(STREAM)
    async def stream(request: Request) -> StreamingResponse:
        """Picks of your requests from now on, or since `Last-Event-ID`, as they are found."""
        if listeners >= settings.subscribers:
            raise BusyProblem(f"{listeners} listen already", headers={"Retry-After": "60"})
        owner = _who(request).owner
        last = request.headers.get("last-event-id", "")[:64] or await hub.end(owner)
        return StreamingResponse(
            events(owner, last), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def events(owner: str, last: str) -> AsyncIterator[bytes]:
        nonlocal listeners
        listeners += 1
        loop = asyncio.get_running_loop()
        said = loop.time()
        try:
            yield b": picks follow\n\n"
            while not service.stopping:
                found = await hub.after(owner, last, _GLANCE_S)
                for event in found:
                    data = msgspec.json.encode(event.pick)
                    yield b"id: %s\nevent: pick\ndata: %s\n\n" % (event.id.encode(), data)
                    last = event.id
                if found:
                    said = loop.time()
                elif loop.time() - said > settings.keep_alive_s:
                    yield b": nothing new\n\n"
                    said = loop.time()
        finally:
            listeners -= 1

    return router


def job_routes(service: Service, hub: Hub) -> APIRouter:
    """Jobs on archives on the server's disk."""
    router = APIRouter(tags=["jobs"])

    @router.post("/v1/jobs", status_code=202)
    async def submit(request: Request) -> Response:
        """Begin a run on an archive in one of the folders that jobs may read."""
        # A page elsewhere can send a form or plain text without being asked, but no JSON.
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != "application/json":
            raise MediaTypeProblem(
                f"a job is not read from {given[:100] or 'a body without a type'!r}",
                hint="send it with Content-Type: application/json",
            )
        body = await receive_body(request, service.settings.limits)
        try:
            job = msgspec.json.decode(body, type=JobRequest)
        except msgspec.ValidationError as error:
            raise InvalidProblem(str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedProblem(f"the body is no JSON: {error}") from error
        found = await hub.ask_jobs("submit", job, _who(request))
        return _json(found, 202, {"Location": f"/v1/jobs/{found['id']}"})

    @router.get("/v1/jobs")
    async def jobs(request: Request) -> Response:
        """Your jobs, the latest first."""
        return _json({"jobs": await hub.ask_jobs("jobs", _who(request))})

    @router.get("/v1/jobs/{job_id}")
    async def job(job_id: str, request: Request) -> Response:
        """How far a job is, and the files that it has written."""
        # Of a run's record, which holds what only JSON of the standard library writes.
        return Response(
            json.dumps(await hub.ask_jobs("job", job_id, _who(request))),
            media_type="application/json",
        )

    @router.delete("/v1/jobs/{job_id}")
    async def cancel(job_id: str, request: Request) -> Response:
        """End a job; what does not end by itself soon is killed."""
        return _json(await hub.ask_jobs("cancel", job_id, _who(request)))

    @router.get(
        "/v1/jobs/{job_id}/result/{name}",
        response_class=FileResponse,
        responses={200: {"content": {"*/*": {}}, "description": "The file"}},
    )
    async def result(job_id: str, name: str, request: Request) -> FileResponse:
        """A file that a job has written, such as ``picks.csv``."""
        path = await hub.ask_jobs("result", job_id, name, _who(request))
        return FileResponse(path, filename=name)

    return router
